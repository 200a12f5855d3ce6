package manifest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
)

func TestManifest(t *testing.T) {
	m, err := manifest.Read(t.Context(), servetest.WriteFile(t, "clients.yaml", servetest.Manifest), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Resources) != 1 || len(m.Clients) != 2 {
		t.Fatalf("got %d resources and %d clients, want 1 and 2", len(m.Resources), len(m.Clients))
	}
	r, c := m.Resources[0], m.Clients[0]
	for _, field := range []struct{ name, got, want string }{
		{"resource", r.ID.String(), "https://orders.internal"},
		{"name", r.Name, "Orders API"},
		{"scopes of the resource", r.Scopes.String(), "api1 orders.read"},
		{"access_token_lifetime", r.AccessTokenLifetime.String(), "1h0m0s"},
		{"signing_alg", string(r.SigningAlg), "ES256"},
		{"client_id", c.ID.String(), "background-service"},
		{"client_name", c.Name, "Background Service"},
		{"client_secret", c.Secret, "service-secret-here"},
		{"scopes of the client", c.Scopes.String(), "api1"},
		{"grant_types", strings.Join(c.GrantTypes, " "), "client_credentials"},
		{"resources", m.Clients[1].Resources[0].String(), "https://orders.internal"},
	} {
		if field.got != field.want {
			t.Errorf("%s: got %q, want %q", field.name, field.got, field.want)
		}
	}
}

// TestManifestSecrets reads a secret from each possible source.
func TestManifestSecrets(t *testing.T) {
	t.Setenv("MANIFEST_TEST_SECRET", "from-environment")
	path := servetest.WriteFile(t, "secret", "from-file\n")
	for _, c := range []struct{ field, want string }{
		{"client_secret: in-place", "in-place"},
		{"client_secret_env: MANIFEST_TEST_SECRET", "from-environment"},
		{"client_secret_file: " + path, "from-file"},
		{"client_secret_url: vault://present", "from-present"},
	} {
		m, err := manifest.Read(t.Context(), servetest.WriteFile(t, "clients.yaml", "clients:\n  - client_id: a\n    "+c.field+"\n"), fetch)
		if err != nil || m.Clients[0].Secret != c.want {
			t.Errorf("%s: got %v, want %q", c.field, err, c.want)
		}
	}
}

// fetch stands in for a secret manager.
func fetch(_ context.Context, url string) (string, error) {
	switch name := strings.TrimPrefix(url, "vault://"); name {
	case "empty":
		return "", nil
	case "long":
		return strings.Repeat("plain", 200), nil
	case "zero":
		return "plain\x00", nil
	case "present":
		return "from-present", nil
	default:
		return "", errors.New("vault: permission denied")
	}
}

// TestManifestURLs reads many secrets by URL, a few at a time, and assigns each to its client.
func TestManifestURLs(t *testing.T) {
	var content strings.Builder
	content.WriteString("clients:\n")
	const clients = 100
	for i := range clients {
		fmt.Fprintf(&content, "  - client_id: a%d\n    client_secret_url: vault://%d\n  - client_id: b%[1]d\n", i, i)
	}
	path := servetest.WriteFile(t, "clients.yaml", content.String())
	const atOnce = 8
	var running atomic.Int64
	var once sync.Once
	full := make(chan struct{})
	m, err := manifest.Read(t.Context(), path, func(_ context.Context, url string) (string, error) {
		defer running.Add(-1)
		switch n := running.Add(1); {
		case n == atOnce:
			once.Do(func() { close(full) })
		case n > atOnce:
			t.Errorf("%d reads at once", n)
		}
		<-full
		return "of " + url, nil
	})
	if err != nil || len(m.Clients) != 2*clients {
		t.Fatalf("got %v and %d clients", err, len(m.Clients))
	}
	for i := range clients {
		if got, want := m.Clients[2*i].Secret, fmt.Sprintf("of vault://%d", i); got != want || m.Clients[2*i+1].Secret != "" {
			t.Errorf("client %d: got %q, want %q, and none for the next", i, got, want)
		}
	}
	parsed, err := manifest.Parse("clients.yaml", []byte(content.String()))
	if err != nil || parsed.Clients[0].Secret != "" {
		t.Errorf("parsed: got %v, %q, want no secret", err, parsed.Clients[0].Secret)
	}
	// The first error ends the others.
	var reads atomic.Int64
	_, err = manifest.Read(t.Context(), path, func(ctx context.Context, url string) (string, error) {
		if reads.Add(1); url == "vault://0" {
			return "", errors.New("permission denied")
		}
		<-ctx.Done()
		return "", ctx.Err()
	})
	if err == nil || !strings.Contains(err.Error(), "clients.yaml:3: permission denied") {
		t.Errorf("got %v after %d reads, want the first error", err, reads.Load())
	}
}

// someHash is a PBKDF2 hash in the format of OpenIddict.
const someHash = "AQAAAAEAACcQAAAAEAzBdbnA8baoMcOZ4ml3JmEWtgaLylFK2so9jus+oFxB6gTy9bHbLPhCd1oE9F6EDA=="

// TestManifestHashes reads hashes that other servers stored, and a secret beside them.
func TestManifestHashes(t *testing.T) {
	const bcrypt = "$2a$10$lAPDeJTgZPKpm7kToI6CAe8I5zEgdUHQGh6keZAQhtpaGIk2aCbf."
	m, err := manifest.Read(t.Context(), servetest.WriteFile(t, "clients.yaml", "clients:\n  - client_id: a\n    client_secret: s\n    client_secret_hashes: ["+someHash+", "+bcrypt+"]\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := m.Clients[0]; c.Secret != "s" || len(c.Hashes) != 2 || c.Hashes[1] != bcrypt {
		t.Errorf("got %d hashes beside %q, want both", len(c.Hashes), c.Secret)
	}
}

// TestManifestErrors expects each error to have file and line.
func TestManifestErrors(t *testing.T) {
	for _, c := range []struct{ name, yaml, want string }{
		{"misspelt section", "client:\n  - client_id: a\n", `clients.yaml:2: there is no field "client"`},
		{"misspelt field of a client", "clients:\n  - client_id: a\n    sopes: [x]\n", `clients.yaml:3: a client has no field "sopes"`},
		{"misspelt field of a resource", "resources:\n  - resource: https://a\n    scope: [x]\n", `clients.yaml:3: a resource has no field "scope"`},
		{"client without id", "clients:\n  - client_name: a\n", "clients.yaml:2: a client needs its client_id"},
		{"resource without identifier", "resources:\n  - name: a\n", "clients.yaml:2: a resource needs its identifier"},
		{"client twice", "clients:\n  - client_id: a\n  - client_id: b\n  - client_id: a\n", "clients.yaml:4: duplicate client a, first at line 2"},
		{"resource twice", "resources:\n  - resource: https://a\n  - resource: https://a\n", "clients.yaml:3: duplicate resource https://a"},
		{"field twice", "clients:\n  - client_id: a\n    scopes: [x]\n    scopes: [y]\n", "clients.yaml:4: "},
		{"scope of two resources", "resources:\n  - resource: https://a\n    scopes: [x]\n  - resource: https://b\n    scopes:\n      - x\n", `clients.yaml:6: resource https://b: scopes: "x" belongs to https://a already`},
		{"unknown scope", "clients:\n  - client_id: a\n    scopes: [x]\n", `clients.yaml:3: client a: scopes: "x" belongs to no resource`},
		{"default scope it may not have", "clients:\n  - client_id: a\n    default_scopes: [x]\n", "clients.yaml:3: client a: default_scopes: "},
		{"unknown resource", "clients:\n  - client_id: a\n    resources: [https://a]\n", "clients.yaml:3: client a: resources: "},
		{"unknown grant", "clients:\n  - client_id: a\n    grant_types: [password]\n", "clients.yaml:3: client a: grant_types: "},
		{"unknown method", "clients:\n  - client_id: a\n    auth_methods: [none]\n", "clients.yaml:3: client a: auth_methods: "},
		{"unknown algorithm", "resources:\n  - resource: https://a\n    signing_alg: HS256\n", "clients.yaml:3: resource https://a: signing_alg: "},
		{"network without a length", "clients:\n  - client_id: a\n    allowed_networks: [10.0.0.0]\n", `clients.yaml:3: "10.0.0.0" is no network`},
		{"network with bits beyond", "clients:\n  - client_id: a\n    allowed_networks: [10.0.0.1/8]\n", "clients.yaml:3: 10.0.0.1/8 has bits"},
		{"no network", "clients:\n  - client_id: a\n    allowed_networks: []\n", "clients.yaml:3: allowed_networks is empty"},
		{"no method", "clients:\n  - client_id: a\n    auth_methods: []\n", "clients.yaml:3: auth_methods is empty; leave it out to allow all"},
		{"network twice", "clients:\n  - client_id: a\n    allowed_networks: [10.0.0.0/8, 10.0.0.0/8]\n", `clients.yaml:3: duplicate "10.0.0.0/8"`},
		{"long lifetime", "resources:\n  - resource: https://a\n    access_token_lifetime: 25h\n", "clients.yaml:3: resource https://a: access_token_lifetime: "},
		{"lifetime of no unit", "resources:\n  - resource: https://a\n    access_token_lifetime: 25\n", "clients.yaml:3: "},
		{"reserved scope", "resources:\n  - resource: https://a\n    scopes: [openid]\n", "clients.yaml:3: "},
		{"malformed scope", "resources:\n  - resource: https://a\n    scopes: ['a b']\n", "clients.yaml:3: "},
		{"scope twice", "resources:\n  - resource: https://a\n    scopes: [a, a]\n", "clients.yaml:3: "},
		{"too many scopes", "resources:\n  - resource: https://a\n    scopes:\n" + manyScopes(65), "clients.yaml:68: more than 64 scopes"},
		{"endless networks", "clients:\n  - client_id: a\n    allowed_networks: [" + strings.Repeat("10.0.0.0/8, ", 1001) + "]\n", "clients.yaml:3: the list has more than 1000 entries"},
		{"endless hashes", "clients:\n  - client_id: a\n    client_secret_hashes: [" + strings.Repeat("a, ", 1001) + "]\n", "clients.yaml:3: the list has more than 1000 entries"},
		{"resource served twice", "clients:\n  - client_id: a\n    resources:\n      - https://a\n      - https://a\n", `clients.yaml:5: duplicate "https://a"`},
		{"malformed resource", "resources:\n  - resource: orders\n", "clients.yaml:2: "},
		{"malformed id", "clients:\n  - client_id: 'a b'\n", "clients.yaml:2: "},
		{"a hash that is none", "clients:\n  - client_id: a\n    client_secret_hashes:\n      - " + someHash + "\n      - a-plain-secret\n", "clients.yaml:5: not a hash"},
		{"a hash twice", "clients:\n  - client_id: a\n    client_secret_hashes: [" + someHash + ", " + someHash + "]\n", "clients.yaml:3: duplicate hash"},
		{"hashes of no list", "clients:\n  - client_id: a\n    client_secret_hashes: " + someHash + "\n", "clients.yaml:3: expected a list"},
		{"two secrets", "clients:\n  - client_id: a\n    client_secret: s\n    client_secret_env: s\n", "clients.yaml:4: give one of"},
		{"two places", "clients:\n  - client_id: a\n    client_secret_url: vault://present\n    client_secret_file: /nonexistent\n", "clients.yaml:4: give one of client_secret, client_secret_env, client_secret_file, client_secret_url"},
		{"a secret and a URL", "clients:\n  - client_id: a\n    client_secret: a-plain-secret\n    client_secret_url: vault://present\n", "clients.yaml:4: give one of"},
		{"no secret at the URL", "clients:\n  - client_id: a\n  - client_id: b\n    client_secret_url: vault://plain?absent\n", "clients.yaml:4: vault: permission denied"},
		{"empty secret at the URL", "clients:\n  - client_id: a\n    client_secret_url: vault://empty\n", "clients.yaml:3: the secret of client_secret_url is empty"},
		{"long secret at the URL", "clients:\n  - client_id: a\n    client_secret_url: vault://long\n", "clients.yaml:3: the secret of client_secret_url has more than 512 bytes"},
		{"NUL in the secret at the URL", "clients:\n  - client_id: a\n    client_secret_url: vault://zero\n", "clients.yaml:3: the secret of client_secret_url contains a NUL byte"},
		{"empty URL", "clients:\n  - client_id: a\n    client_secret_url: ''\n", "clients.yaml:3: client_secret_url is empty"},
		{"no URL", "clients:\n  - client_id: a\n    client_secret_url:\n", "clients.yaml:3: expected a value"},
		{"an error behind a URL", "clients:\n  - client_id: a\n    client_secret_url: vault://unread\n  - client_id: b\n    sopes: [x]\n", "clients.yaml:5: a client has no field"},
		{"empty secret", "clients:\n  - client_id: a\n    client_secret: ''\n", "clients.yaml:3: client_secret is empty"},
		{"unset variable", "clients:\n  - client_id: a\n    client_secret_env: MANIFEST_TEST_UNSET\n", "clients.yaml:3: the environment variable MANIFEST_TEST_UNSET is empty"},
		{"no such secret file", "clients:\n  - client_id: a\n    client_secret_file: /nonexistent\n", "clients.yaml:3: "},
		{"long secret", "clients:\n  - client_id: a\n    client_secret: " + strings.Repeat("s", 513) + "\n", "clients.yaml:3: "},
		{"disabled of no kind", "clients:\n  - client_id: a\n    disabled: perhaps\n", "clients.yaml:3: disabled is true or false"},
		{"an alias", "clients:\n  - client_id: &a a\n  - client_id: *a\n", "clients.yaml:3: the alias *a "},
		{"a list where a value belongs", "clients:\n  - client_id: [a]\n", "clients.yaml:2: expected a value"},
		{"a value where a list belongs", "clients:\n  - client_id: a\n    scopes: x\n", "clients.yaml:3: expected a list"},
		{"no mapping", "- a\n", "clients.yaml:1: expected names and values"},
		{"empty", "", "clients.yaml: the file is empty"},
		{"no YAML", "clients: [\n", "clients.yaml:2: "},
		{"a second document", "clients: []\n---\nclients: []\n", "clients.yaml: there is more than one document"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := servetest.WriteFile(t, "clients.yaml", c.yaml)
			m, err := manifest.Read(t.Context(), path, fetch)
			if err == nil {
				err = m.Check()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), someHash) || strings.Contains(err.Error(), "plain") {
				t.Errorf("the error quotes a secret: %v", err)
			}
		})
	}
}

// TestReadIsBounded reads a device, which has no end and says that it is empty.
func TestReadIsBounded(t *testing.T) {
	if _, err := manifest.Read(t.Context(), "/dev/zero", nil); err == nil || !strings.Contains(err.Error(), "/dev/zero has more than 67108864 bytes") {
		t.Errorf("got %v", err)
	}
	path := servetest.WriteFile(t, "clients.yaml", "clients:\n  - client_id: a\n    client_secret_file: /dev/zero\n")
	if _, err := manifest.Read(t.Context(), path, nil); err == nil || !strings.Contains(err.Error(), "clients.yaml:3: /dev/zero has more than") {
		t.Errorf("a secret: got %v", err)
	}
}

// manyScopes returns the items of a list of n scopes, one a line.
func manyScopes(n int) string {
	var items strings.Builder
	for i := range n {
		fmt.Fprintf(&items, "      - s%d\n", i)
	}
	return items.String()
}

// FuzzManifest checks that no file makes the parser panic, and that an accepted file lists each client once.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(servetest.Manifest))
	f.Add([]byte("clients:\n  - client_id: &a a\n    <<: *a\n"))
	f.Add(must.Get(os.ReadFile("../serve/dev.yaml")))
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "_file") || strings.Contains(string(data), "_env") {
			return // a fuzzed path could name a device
		}
		m, err := manifest.Parse("clients.yaml", data)
		if err != nil {
			return
		}
		seen := make(map[string]bool)
		for _, c := range m.Clients {
			if id := c.ID.String(); id == "" || seen[id] {
				t.Errorf("accepted the client %q twice, or without an id", id)
			}
			seen[c.ID.String()] = true
		}
	})
}
