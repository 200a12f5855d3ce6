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

// TestApplySecrets holds what becomes of the secrets that a client has. S is the one of the manifest, written as
// secretsOf does.
func TestApplySecrets(t *testing.T) {
	const left = "(left)"
	for name, test := range map[string]struct{ has, want string }{
		"none there":                         {"", "new:f"},
		"the file's":                         {"S:f", left},
		"the file's, ended":                  {"S:-1f", left},
		"the file's, ending":                 {"S:1f a", left},
		"one that was made otherwise":        {"a S b", left},
		"one that was made otherwise, ended": {"a S:-1 b", left},
		"another of a file":                  {"a:f", "new:f"},
		"others of a file":                   {"a:f b:-1f c:1f", "new:f"},
		"others that were made otherwise":    {"a b:-1 c:1", "a b:-1 c:1 new:f"},
		"both":                               {"a b:f c", "a c new:f"},
		"both and the same":                  {"a b:f c S:-5", left},
		"ten":                                {"a b c d e f g h i j", "!secrets"},
		"ten, one of a file":                 {"a b c d e f g h i j:f", "a b c d e f g h i new:f"},
		"ten, one ended":                     {"a b c:-1 d e f g h i j", "a b d e f g h i j new:f"},
		"ten and the same":                   {"a b c d e f g h i S:f", left},
	} {
		t.Run(name, func(t *testing.T) {
			store := newMemory()
			a := newApplier(store)
			has := secretsOf(t, test.has)
			for i := range has {
				if has[i].ID == "S" {
					has[i].Hash = a.Hasher.Hash(secret)
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
			if test.want == left {
				expectApplied(t, a, m, "unchanged client x")
				store.expectStored(t, stored)
				return
			}
			expectApplied(t, a, m, "changed client x(client_secret)")
			got := store.clients[stored.ID]
			fresh := got.Secrets[len(got.Secrets)-1]
			if text := textOf(got.Secrets, fresh.ID); text != test.want || !a.Hasher.Matches(fresh.Hash, secret) || fresh.CreatedAt != start {
				t.Errorf("got %q with %+v, want %q", text, fresh, test.want)
			}
			if textOf(stored.Secrets, "") != test.has {
				t.Errorf("the client that the store gave has %q", textOf(stored.Secrets, ""))
			}
			expectApplied(t, a, m, "unchanged client x")
		})
	}
}

// A secret that was rotated away is not given back by the file that still names it, however often both are done.
func TestApplyAfterRotation(t *testing.T) {
	store := newMemory()
	a, r := newApplier(store), newEditor(store)
	m := registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("x")}, Secret: secret}}}
	expectApplied(t, a, m, "created client x")
	now := start
	r.Now = func() time.Time { return now }
	a.Now = r.Now
	for range 3 * registry.MaxSecrets {
		made, err := r.RotateSecret(t.Context(), registry.Target{ID: clientID("x")}, 0, time.Time{})
		must.Succeed(t, err)
		now = now.Add(day)
		expectApplied(t, a, m, "unchanged client x")
		if c := store.clients[clientID("x")]; matching(r, c, secret, now) != 0 || matching(r, c, made.Secret, now) != 1 {
			t.Fatalf("got %+v", c.Secrets)
		}
	}
	// A file that was changed since is another matter.
	next := clientsecret.New()
	m.Clients[0].Secret = next
	expectApplied(t, a, m, "changed client x(client_secret)")
	if c := store.clients[clientID("x")]; matching(r, c, next, now) != 1 || matching(r, c, secret, now) != 0 {
		t.Errorf("got %+v", c.Secrets)
	}
}

// TestApplyHashes imports secrets of another server.
func TestApplyHashes(t *testing.T) {
	hash := func(n int) clientsecret.Hash {
		encode := func(size int) string { return base64.RawStdEncoding.EncodeToString(make([]byte, size)) }
		return clientsecret.Hash("$argon2id$v=19$m=8,t=1,p=1$" + encode(8+n) + "$" + encode(32))
	}
	wanted := func(hashes ...clientsecret.Hash) registry.Manifest {
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
	expectApplied(t, a, wanted(hash(1), hash(2), hash(1)), "created client x")
	expectHashes(hash(1), hash(2))
	expectApplied(t, a, wanted(hash(2), hash(1)), "unchanged client x")
	expectApplied(t, a, wanted(), "unchanged client x")
	expectApplied(t, a, wanted(hash(3)), "changed client x(client_secret)")
	expectHashes(hash(1), hash(2), hash(3))

	// One that has been given a hash of ours by its first use, and one that has ended, are known all the same.
	c := *store.clients[clientID("x")]
	c.Secrets = append([]clientsecret.Secret{}, c.Secrets...)
	c.Secrets[0].Hash, c.Secrets[1].ExpiresAt = hash(9), start
	c.Secrets = append(c.Secrets, clientsecret.Secret{ID: "made", Hash: "$hmac-sha256$"})
	store.put(t, c)
	expectApplied(t, a, wanted(hash(1), hash(2), hash(3)), "unchanged client x")
	expectHashes(hash(9), hash(2), hash(3), "$hmac-sha256$")

	// A secret in the clear takes the place of those that are not wanted any more.
	m := wanted(hash(3), hash(4))
	m.Clients[0].Secret = "twelve bytes"
	expectApplied(t, a, m, "changed client x(client_secret)")
	secrets := store.clients[clientID("x")].Secrets
	if len(secrets) != 4 || !a.Hasher.Matches(secrets[2].Hash, "twelve bytes") {
		t.Fatalf("got %+v", secrets)
	}
	expectHashes(hash(3), "$hmac-sha256$", secrets[2].Hash, hash(4))
	expectApplied(t, a, m, "unchanged client x")

	// No more than there is room for, be it wanted at once or one by one.
	var many []clientsecret.Hash
	for n := range registry.MaxSecrets + 1 {
		many = append(many, hash(20+n))
	}
	for name, m := range map[string]registry.Manifest{
		"eleven":              wanted(many...),
		"ten and a secret":    {Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("new")}, Secret: secret, Hashes: many[1:]}}},
		"after a fine client": {Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("new")}}, {Client: registry.Client{ID: clientID("y")}, Hashes: many}}},
	} {
		writes := store.writes
		_, err := a.Apply(t.Context(), m)
		if expectField(t, err, "client_secret"); store.writes != writes {
			t.Errorf("%s: %d writes", name, store.writes-writes)
		}
	}
	_, err := a.Apply(t.Context(), wanted(many[:7]...))
	expectField(t, err, "secrets")
	expectApplied(t, a, wanted(many[:6]...), "changed client x(client_secret)")
	// The client that the store gave stays as it was where one that has ended makes room.
	ten := store.put(t, registry.Client{ID: clientID("ten"), Secrets: secretsOf(t, "a b:-1 c d e f g h i j")})
	expectApplied(t, a, registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: ten.ID}, Hashes: many[:1]}}},
		"changed client ten(client_secret)")
	if got := textOf(ten.Secrets, ""); got != "a b:-1 c d e f g h i j" {
		t.Errorf("it has %q", got)
	}
	expectApplied(t, a, registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("new")}, Hashes: many[1:]}}}, "created client new")
}

func TestApplyChosenSecret(t *testing.T) {
	store := newMemory()
	m := registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("a")}, Secret: "service-secret-here"}}}
	expectApplied(t, newApplier(store), m, "created client a")
	expectApplied(t, newApplier(store), m, "unchanged client a")
}

// What is the store's to say is not looked at in a manifest.
func TestApplyIgnores(t *testing.T) {
	store := newMemory()
	a := newApplier(store)
	a.Now = func() time.Time { return start.Add(999 * time.Millisecond) } // times are stored in whole seconds
	c := registry.Client{
		ID: clientID("x"), Secrets: secretsOf(t, "a"), Version: 7, CreatedAt: start.Add(-day), ChangedAt: start.Add(-day),
	}
	m := registry.Manifest{Clients: []registry.ClientSpec{{Client: c}}}
	expectApplied(t, a, m, "created client x")
	store.expectStored(t, &registry.Client{ID: c.ID, CreatedAt: start, ChangedAt: start, Version: store.version})
	expectApplied(t, a, m, "unchanged client x")
}
