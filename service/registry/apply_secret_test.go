package registry_test

import (
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
)

// TestApplySecrets checks what becomes of the stored secrets, in the notation of secretsOf. S is the secret of the manifest.
func TestApplySecrets(t *testing.T) {
	const unchanged = "(unchanged)"
	for name, test := range map[string]struct{ has, want string }{
		"none stored":                              {"", "new:f"},
		"the file's":                               {"S:f", unchanged},
		"the file's, expired":                      {"S:-1f", unchanged},
		"the file's, expiring":                     {"S:1f a", unchanged},
		"one that was added individually":          {"a S b", unchanged},
		"one that was added individually, expired": {"a S:-1 b", unchanged},
		"another of a file":                        {"a:f", "new:f"},
		"others of a file":                         {"a:f b:-1f c:1f", "new:f"},
		"others that were added individually":      {"a b:-1 c:1", "a b:-1 c:1 new:f"},
		"both":                                     {"a b:f c", "a c new:f"},
		"both and the same":                        {"a b:f c S:-5", unchanged},
		"ten":                                      {"a b c d e f g h i j", "!secrets"},
		"ten, one of a file":                       {"a b c d e f g h i j:f", "a b c d e f g h i new:f"},
		"ten, one expired":                         {"a b c:-1 d e f g h i j", "a b d e f g h i j new:f"},
		"ten and the same":                         {"a b c d e f g h i S:f", unchanged},
	} {
		t.Run(name, func(t *testing.T) {
			store := newMemory()
			a := newApplier(store)
			has := secretsOf(t, test.has)
			for i := range has {
				if has[i].ID == "S" {
					has[i].Hash = a.Config().Hasher.Hash(secret)
				}
			}
			stored := store.put(t, registry.Client{ID: clientID("x"), Secrets: has})
			m := registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: stored.ID}, Secret: secret}}}
			if field, refused := strings.CutPrefix(test.want, "!"); refused {
				_, err := a.Apply(t.Context(), m)
				expectField(t, err, field)
				if of, ok := errors.AsType[*registry.ManifestError](err); !ok || of.ID != stored.ID {
					t.Errorf("%v does not name the client", err)
				}
				store.expectStored(t, stored)
				return
			}
			if test.want == unchanged {
				expectApplied(t, a, m, "unchanged client x")
				store.expectStored(t, stored)
				return
			}
			expectApplied(t, a, m, "changed client x(client_secret)")
			got := store.clients[stored.ID]
			fresh := got.Secrets[len(got.Secrets)-1]
			if text := textOf(got.Secrets, fresh.ID); text != test.want || !a.Config().Hasher.Matches(fresh.Hash, secret) || fresh.CreatedAt != start {
				t.Errorf("got %q with %+v, want %q", text, fresh, test.want)
			}
			if textOf(stored.Secrets, "") != test.has {
				t.Errorf("the client that the store returned has changed to %q", textOf(stored.Secrets, ""))
			}
			expectApplied(t, a, m, "unchanged client x")
		})
	}
}

// TestApplyAfterRotation checks that a manifest does not restore a secret that was rotated away, however often both happen.
func TestApplyAfterRotation(t *testing.T) {
	store := newMemory()
	a, e := newApplier(store), newEditor(store)
	m := registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("x")}, Secret: secret}}}
	expectApplied(t, a, m, "created client x")
	now := start
	e.Config().Now = func() time.Time { return now }
	a.Config().Now = e.Config().Now
	for range 3 * registry.MaxSecrets {
		issued, err := e.RotateSecret(t.Context(), registry.Target{ID: clientID("x")}, 0, time.Time{})
		must.Succeed(t, err)
		now = now.Add(day)
		expectApplied(t, a, m, "unchanged client x")
		if c := store.clients[clientID("x")]; matching(e, c, secret, now) != 0 || matching(e, c, issued.Secret, now) != 1 {
			t.Fatalf("got %+v", c.Secrets)
		}
	}
	// A new secret in the manifest is added.
	next := clientsecret.New()
	m.Clients[0].Secret = next
	expectApplied(t, a, m, "changed client x(client_secret)")
	if c := store.clients[clientID("x")]; matching(e, c, next, now) != 1 || matching(e, c, secret, now) != 0 {
		t.Errorf("got %+v", c.Secrets)
	}
}

// TestApplyHashes imports the hashes of another server.
func TestApplyHashes(t *testing.T) {
	hash := func(n int) clientsecret.Hash {
		encode := func(size int) string { return base64.RawStdEncoding.EncodeToString(make([]byte, size)) }
		return clientsecret.Hash("$argon2id$v=19$m=8,t=1,p=1$" + encode(8+n) + "$" + encode(32))
	}
	spec := func(hashes ...clientsecret.Hash) registry.Manifest {
		return registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("x")}, Hashes: hashes}}}
	}
	store := newMemory()
	a := newApplier(store)
	expectHashes := func(want ...clientsecret.Hash) {
		t.Helper()
		var got []clientsecret.Hash
		ids := make(map[string]bool)
		for _, s := range store.clients[clientID("x")].Secrets {
			got = append(got, s.Hash)
			if ids[s.ID] = true; s.FromFile != strings.HasPrefix(string(s.Hash), "$argon2id$") {
				t.Errorf("got %+v", s)
			}
		}
		if !reflect.DeepEqual(got, want) || len(ids) != len(want) {
			t.Errorf("got %q with ids %v, want %q", got, ids, want)
		}
	}
	expectApplied(t, a, spec(hash(1), hash(2), hash(1)), "created client x")
	expectHashes(hash(1), hash(2))
	expectApplied(t, a, spec(hash(2), hash(1)), "unchanged client x")
	expectApplied(t, a, spec(), "unchanged client x")
	expectApplied(t, a, spec(hash(3)), "changed client x(client_secret)")
	expectHashes(hash(1), hash(2), hash(3))

	// A secret whose hash its first use has replaced, and an expired one, are recognized.
	c := *store.clients[clientID("x")]
	c.Secrets = append([]clientsecret.Secret{}, c.Secrets...)
	c.Secrets[0].Hash, c.Secrets[1].ExpiresAt = hash(9), start
	c.Secrets = append(c.Secrets, clientsecret.Secret{ID: "made", Hash: "$hmac-sha256$"})
	store.put(t, c)
	expectApplied(t, a, spec(hash(1), hash(2), hash(3)), "unchanged client x")
	expectHashes(hash(9), hash(2), hash(3), "$hmac-sha256$")

	// A secret in the clear replaces those that the manifest no longer contains.
	m := spec(hash(3), hash(4))
	m.Clients[0].Secret = "twelve bytes"
	expectApplied(t, a, m, "changed client x(client_secret)")
	secrets := store.clients[clientID("x")].Secrets
	if len(secrets) != 4 || !a.Config().Hasher.Matches(secrets[2].Hash, "twelve bytes") {
		t.Fatalf("got %+v", secrets)
	}
	expectHashes(hash(3), "$hmac-sha256$", secrets[2].Hash, hash(4))
	expectApplied(t, a, m, "unchanged client x")

	// There is room for no more than MaxSecrets, in one manifest or in several.
	var many []clientsecret.Hash
	for n := range registry.MaxSecrets + 1 {
		many = append(many, hash(20+n))
	}
	for name, m := range map[string]registry.Manifest{
		"eleven":               spec(many...),
		"ten and a secret":     {Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("new")}, Secret: secret, Hashes: many[1:]}}},
		"after a valid client": {Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("new")}}, {Client: registry.Client{ID: clientID("y")}, Hashes: many}}},
	} {
		writes := store.writes
		_, err := a.Apply(t.Context(), m)
		if expectField(t, err, "client_secret"); store.writes != writes {
			t.Errorf("%s: %d writes", name, store.writes-writes)
		}
	}
	_, err := a.Apply(t.Context(), spec(many[:7]...))
	expectField(t, err, "secrets")
	expectApplied(t, a, spec(many[:6]...), "changed client x(client_secret)")
	// Removing an expired secret to make room does not change the client that the store returned.
	ten := store.put(t, registry.Client{ID: clientID("ten"), Secrets: secretsOf(t, "a b:-1 c d e f g h i j")})
	expectApplied(t, a, registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: ten.ID}, Hashes: many[:1]}}},
		"changed client ten(client_secret)")
	if got := textOf(ten.Secrets, ""); got != "a b:-1 c d e f g h i j" {
		t.Errorf("the client that the store returned has changed to %q", got)
	}
	expectApplied(t, a, registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("new")}, Hashes: many[1:]}}}, "created client new")
}

func TestApplyChosenSecret(t *testing.T) {
	store := newMemory()
	m := registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("a")}, Secret: "service-secret-here"}}}
	expectApplied(t, newApplier(store), m, "created client a")
	expectApplied(t, newApplier(store), m, "unchanged client a")
}

// TestApplyIgnores checks that the fields which only the store sets are ignored in a manifest.
func TestApplyIgnores(t *testing.T) {
	store := newMemory()
	a := newApplier(store)
	a.Config().Now = func() time.Time { return start.Add(999 * time.Millisecond) } // times are stored in whole seconds
	c := registry.Client{
		ID: clientID("x"), Secrets: secretsOf(t, "a"), Version: 7, CreatedAt: start.Add(-day), ChangedAt: start.Add(-day),
	}
	m := registry.Manifest{Clients: []registry.ClientSpec{{Client: c}}}
	expectApplied(t, a, m, "created client x")
	store.expectStored(t, &registry.Client{ID: c.ID, CreatedAt: start, ChangedAt: start, Version: store.version})
	expectApplied(t, a, m, "unchanged client x")
}
