package manifest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/service/must"
)

const (
	publicX = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	// keyMapping is a JWK Set as a YAML mapping.
	keyMapping = `
clients:
  - client_id: a
    untyped_assertions_until: 2030-01-31
    older_audiences_until: 2030-01-31T12:00:00+01:00
    jwks:
      keys:
        - kty: OKP
          crv: Ed25519
          kid: 2030-01-31
          x: ` + publicX + `
`
)

// TestManifestKeys reads the keys of clients as a mapping and as JSON, and their dates.
func TestManifestKeys(t *testing.T) {
	c := must.Get(manifest.Parse("clients.yaml", []byte(keyMapping))).Clients[0]
	const want = `{"keys":[{"crv":"Ed25519","kid":"2030-01-31","kty":"OKP","x":"` + publicX + `"}]}`
	if got := c.Keys.String(); got != want {
		t.Errorf("got the keys %s, want %s", got, want)
	}
	if got, want := c.UntypedAssertionsUntil, time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("untyped_assertions_until: got %s, want %s", got, want)
	}
	if got, want := c.OlderAudiencesUntil, time.Date(2030, 1, 31, 11, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("older_audiences_until: got %s, want %s", got, want)
	}
	for name, field := range map[string]string{
		"JSON": `jwks: ` + want, "a text": `jwks: '` + want + `'`, "without a kid": `jwks: {keys: [{kty: OKP, crv: Ed25519, x: ` + publicX + `}]}`,
	} {
		m, err := manifest.Parse("clients.yaml", []byte("clients:\n  - client_id: a\n    "+field+"\n"))
		if err != nil || !strings.Contains(m.Clients[0].Keys.String(), publicX) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	m := must.Get(manifest.Parse("clients.yaml", []byte("clients:\n  - client_id: a\n    jwks_uri: https://a.example/jwks\n")))
	if got, want := m.Clients[0].KeysURI, "https://a.example/jwks"; got != want || m.Check() != nil {
		t.Errorf("got %q, %v, want %q", got, m.Check(), want)
	}
}

func TestManifestKeyErrors(t *testing.T) {
	client := func(fields ...string) string {
		return "clients:\n  - client_id: a\n    " + strings.Join(fields, "\n    ") + "\n"
	}
	for _, c := range []struct{ name, yaml, want string }{
		{"a private key", client("jwks:", "  keys:", "    - {kty: OKP, crv: Ed25519, x: "+publicX+", d: hush-hush}"), `clients.yaml:4: key 1 has the member "d" of a private key`},
		{"a symmetric key", client("jwks:", "  keys:", "    - {kty: oct, k: hush-hush}"), `clients.yaml:4: key 1 has the member "k"`},
		{"no set", client("jwks: hush-hush"), `clients.yaml:3: is not a JWK Set such as {"keys": [...]}`},
		{"a list", client("jwks: [hush-hush]"), "clients.yaml:3: is not a JWK Set"},
		{"no key", client("jwks: {keys: []}"), "clients.yaml:3: has 0 keys, want 1 to 8"},
		{"a key for encryption", client("jwks: {keys: [{kty: OKP, crv: Ed25519, use: enc, x: " + publicX + "}]}"), "clients.yaml:3: key 1 verifies no signature"},
		{"a kid that is a number", client("jwks: {keys: [{kty: OKP, crv: Ed25519, kid: 7, x: " + publicX + "}]}"), "clients.yaml:3: key 1 is not a JWK"},
		{"a member twice", client("jwks:", "  keys:", "    - kty: OKP", "      kty: OKP"), `clients.yaml:6: duplicate "kty"`},
		{"an alias", client("jwks:", "  keys: *k"), "clients.yaml:4: "},
		{"a time that is none", client("client_name: A", "untyped_assertions_until: soon"), `clients.yaml:4: "soon" is not a time such as 2030-01-31`},
		{"a time that was forgotten", client("older_audiences_until:"), "clients.yaml:3: expected a value"},
		{"a URI in plaintext", client("jwks_uri: http://a.example/jwks"), "clients.yaml:3: client a: jwks_uri: is not an https URL"},
		{"a URI and keys", client("client_name: A", "jwks_uri: https://a.example/jwks", "jwks: {keys: [{kty: OKP, crv: Ed25519, x: "+publicX+"}]}"), "clients.yaml:4: client a: jwks_uri: cannot be set beside jwks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := manifest.Parse("clients.yaml", []byte(c.yaml))
			if err == nil {
				err = m.Check()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
