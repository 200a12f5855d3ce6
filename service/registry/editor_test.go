package registry_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// newRegistry returns a store with two resources, and an editor with authority over every client.
func newRegistry() (*memory, *registry.Editor) {
	store := newMemory()
	store.resources = must.Get(registry.NewResources(1, []registry.Resource{
		{ID: resourceID("urn:a"), Name: "A", Scopes: scopes("a b")}, {ID: resourceID("urn:c"), Scopes: scopes("c")},
	}))
	store.version = 1
	return store, newEditor(store, jwks.ES256)
}

// newEditor returns an editor with authority over every client.
func newEditor(store *memory, algorithms ...jwks.Algorithm) *registry.Editor {
	return registry.NewEditor(registry.Config{
		Clients: store, Resources: store, Trust: store, Hasher: must.Get(clientsecret.NewHasher(pepper)), Now: func() time.Time { return start },
		Algorithms: algorithms,
	}).As(registry.Unlimited())
}

// put stores the client without validation, and returns it as stored.
func (m *memory) put(t *testing.T, c registry.Client) *registry.Client {
	t.Helper()
	c.Version = m.versionOf(c.ID)
	if err := m.SaveClient(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	return m.clients[c.ID]
}

func expectError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// expectStored checks that the store has the client.
func (m *memory) expectStored(t *testing.T, want *registry.Client) {
	t.Helper()
	if got := m.clients[want.ID]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v stored, want %+v", got, want)
	}
}

// matching returns how many of the secrets of the client match the value and have not expired at the time.
func matching(e *registry.Editor, c *registry.Client, value string, at time.Time) int {
	n := 0
	for i := range c.Secrets {
		if e.Config().Hasher.Matches(c.Secrets[i].Hash, value) && !c.Secrets[i].Expired(at) {
			n++
		}
	}
	return n
}

func TestCreateClient(t *testing.T) {
	store, e := newRegistry()
	e.Config().Now = func() time.Time { return start.Add(999 * time.Millisecond) } // times are stored in whole seconds
	c := full()
	c.Version, c.CreatedAt, c.Secrets = 7, start.Add(-time.Hour), []clientsecret.Secret{{ID: "x", Hash: "x"}}
	issued, err := e.CreateClient(t.Context(), c, "", false)
	must.Succeed(t, err)
	if !clientsecret.Generated(issued.Secret) || len(issued.Client.Secrets) != 1 {
		t.Fatalf("got %+v, want a generated secret", issued)
	}
	want := full()
	want.CreatedAt, want.ChangedAt, want.Version = start, start, store.versionOf(c.ID)
	want.Secrets = []clientsecret.Secret{{ID: issued.SecretID, Hash: e.Config().Hasher.Hash(issued.Secret), CreatedAt: start}}
	store.expectStored(t, &want)
	if !reflect.DeepEqual(issued.Client, &want) || issued.SecretID == "" || want.Version == 0 {
		t.Errorf("got %+v, want %+v", issued.Client, &want)
	}
	writes := store.writes
	_, err = e.CreateClient(t.Context(), c, "", false)
	expectError(t, err, registry.ErrExists)
	if store.expectStored(t, &want); store.writes != writes {
		t.Error("creating the client again: got a write")
	}

	issued, err = e.CreateClient(t.Context(), registry.Client{ID: clientID("bare"), Secrets: c.Secrets}, "", true)
	if err != nil || issued.Secret != "" || issued.SecretID != "" || len(issued.Client.Secrets) != 0 {
		t.Errorf("without a secret: got %+v, %v", issued, err)
	}
	const chosen = "twelve bytes"
	issued, err = e.CreateClient(t.Context(), registry.Client{ID: clientID("chosen")}, chosen, false)
	if err != nil || issued.Secret != "" || issued.SecretID == "" || matching(e, issued.Client, chosen, start) != 1 {
		t.Errorf("with a chosen secret: got %+v, %v", issued, err)
	}
}

// TestSecretsChosen checks which secrets a person may choose, and that no error quotes one.
func TestSecretsChosen(t *testing.T) {
	for name, test := range map[string]struct {
		secret string
		ok     bool
	}{
		"twelve bytes":    {"abcdefghijkl", true},
		"eleven bytes":    {"abcdefghijk", false},
		"twelve in UTF-8": {"éééééé", true},
		"a blank":         {"abcdefghijk l", true},
		"a tab":           {"abcdefghijk\tl", false},
		"a line end":      {"abcdefghijkl\n", false},
		"a NUL":           {"abcdefghijkl\x00", false},
		"a DEL":           {"abcdefghijkl\x7f", false},
		"a C1":            {"abcdefghijkl\u0085", false},
		"512 bytes":       {strings.Repeat("a", 512), true},
		"513 bytes":       {strings.Repeat("a", 513), false},
		"generated":       {secret, true},
	} {
		want := "client_secret"
		if test.ok {
			want = ""
		}
		t.Run(name, func(t *testing.T) {
			expectField(t, registry.CheckSecret(test.secret), want)
			if test.ok {
				return
			}
			store, e := newRegistry()
			bare := *store.put(t, registry.Client{ID: clientID("bare")})
			_, created := e.CreateClient(t.Context(), registry.Client{ID: clientID("new")}, test.secret, false)
			_, added := e.AddSecret(t.Context(), registry.Target{ID: bare.ID}, test.secret, time.Time{})
			for _, err := range []error{created, added} {
				if expectField(t, err, want); strings.Contains(fmt.Sprintf("%v %#v", err, err), test.secret[:11]) {
					t.Errorf("the error quotes the secret: %v", err)
				}
			}
			if store.expectStored(t, &bare); len(store.clients) != 1 {
				t.Errorf("stored: %v", store.clients)
			}
		})
	}
}

func TestCreateClientRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(*registry.Client)
		secret  string
		without bool
		want    string
	}{
		"an unowned scope":   {func(c *registry.Client) { c.Scopes = scopes("x") }, "", false, "scopes"},
		"a default only":     {func(c *registry.Client) { c.DefaultScopes = scopes("a") }, "", false, "default_scopes"},
		"a secret and none":  {func(*registry.Client) {}, secret, true, "without_secret"},
		"serving the issuer": {func(c *registry.Client) { c.Resources = []oauth.Resource{resourceID(registry.AdminResource)} }, "", false, "resources"},
		"an unknown grant":   {func(c *registry.Client) { c.GrantTypes = []string{"password"} }, "", true, "grant_types"},
		"valid":              {func(*registry.Client) {}, secret, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			store, e := newRegistry()
			c := registry.Client{ID: clientID("new")}
			test.change(&c)
			_, err := e.CreateClient(t.Context(), c, test.secret, test.without)
			if expectField(t, err, test.want); (store.writes > 0) != (test.want == "") {
				t.Errorf("got %d writes", store.writes)
			}
		})
	}
}

func TestUpdateClient(t *testing.T) {
	store, e := newRegistry()
	old := func() registry.Client {
		c := full()
		c.CreatedAt, c.ChangedAt = start.Add(-time.Hour), start.Add(-time.Hour)
		c.Secrets = []clientsecret.Secret{{ID: "x", Hash: "x"}}
		return c
	}
	stored, before := store.put(t, old()), old()
	before.Version = stored.Version
	// The function gets a copy, and cannot change the ID, secrets and times.
	got, err := e.UpdateClient(t.Context(), registry.Target{ID: before.ID}, func(c *registry.Client) error {
		c.ID, c.Version, c.CreatedAt, c.ChangedAt = clientID("other"), 0, start, start.Add(time.Hour)
		c.Secrets[0].Hash = "y"
		c.Secrets = append(c.Secrets, clientsecret.Secret{ID: "y"})
		c.Name, c.Scopes[1], c.DefaultScopes[0], c.Disabled = "renamed", scopes("c")[0], scopes("c")[0], true
		c.GrantTypes[0], c.AuthMethods[0], c.AuthMethods[1] = oauth.GrantClientCredentials, oauth.ClientSecretPost, oauth.ClientSecretBasic
		c.Resources[0] = resourceID("urn:c")
		return nil
	})
	must.Succeed(t, err)
	if !reflect.DeepEqual(stored, &before) {
		t.Errorf("the client that the store returned has changed to %+v, want %+v", stored, &before)
	}
	want := before
	want.Name, want.Scopes, want.DefaultScopes, want.Disabled = "renamed", scopes("a c"), scopes("c"), true
	want.AuthMethods = []string{oauth.ClientSecretPost, oauth.ClientSecretBasic}
	want.Resources = []oauth.Resource{resourceID("urn:c")}
	want.ChangedAt, want.Version = start, store.versionOf(before.ID)
	if store.expectStored(t, &want); !reflect.DeepEqual(got, &want) || want.Version == before.Version {
		t.Errorf("got %+v, want %+v", got, &want)
	}

	refused := errors.New("refused")
	for name, test := range map[string]struct {
		target registry.Target
		change func(*registry.Client) error
		check  func(error)
	}{
		"an error of the function": {
			registry.Target{ID: want.ID}, func(*registry.Client) error { return refused },
			func(err error) { expectError(t, err, refused) },
		},
		"an unowned scope": {
			registry.Target{ID: want.ID}, func(c *registry.Client) error { c.Scopes = scopes("c x"); return nil },
			func(err error) { expectField(t, err, "scopes") },
		},
		"serving the issuer": {
			registry.Target{ID: want.ID},
			func(c *registry.Client) error {
				c.Resources = append(c.Resources, resourceID(registry.AdminResource))
				return nil
			},
			func(err error) { expectField(t, err, "resources") },
		},
		"no client": {
			registry.Target{ID: clientID("none")}, func(*registry.Client) error { return nil },
			func(err error) { expectError(t, err, registry.ErrNotFound) },
		},
		"no client, with a version": {
			registry.Target{ID: clientID("none"), Version: 1}, func(*registry.Client) error { return nil },
			func(err error) { expectError(t, err, registry.ErrNotFound) },
		},
		"another version": {
			registry.Target{ID: want.ID, Version: before.Version}, func(*registry.Client) error { return nil },
			func(err error) { expectError(t, err, registry.ErrConflict) },
		},
	} {
		c, err := e.UpdateClient(t.Context(), test.target, test.change)
		if test.check(err); c != nil {
			t.Errorf("%s: got %+v", name, c)
		}
		store.expectStored(t, &want)
	}
}

// TestDisableAgain checks that disabling a disabled client stores it again, which is how its tokens are revoked.
func TestDisableAgain(t *testing.T) {
	store, e := newRegistry()
	disabled := registry.Client{ID: clientID("a"), Disabled: true}
	store.put(t, disabled)
	disable := func(c *registry.Client) error { c.Disabled = true; return nil }
	store.fail = errors.New("not replicated")
	_, err := e.UpdateClient(t.Context(), registry.Target{ID: disabled.ID}, disable)
	expectError(t, err, store.fail)
	store.fail = nil
	writes := store.writes
	_, err = e.UpdateClient(t.Context(), registry.Target{ID: disabled.ID}, disable)
	if must.Succeed(t, err); store.writes != writes+1 {
		t.Errorf("got %d writes, want 1", store.writes-writes)
	}
}

// TestUpdateAfterResourceIsGone checks that scopes and resources which a client lost with a deleted resource do not prevent
// changes of other fields, and cannot be added again.
func TestUpdateAfterResourceIsGone(t *testing.T) {
	store, e := newRegistry()
	stale := full()
	stale.Scopes, stale.Resources = scopes("a b gone"), []oauth.Resource{resourceID("urn:gone")}
	store.put(t, stale)
	update := func(id oauth.ClientID, change func(*registry.Client)) error {
		_, err := e.UpdateClient(t.Context(), registry.Target{ID: id}, func(c *registry.Client) error { change(c); return nil })
		return err
	}
	must.Succeed(t, update(stale.ID, func(c *registry.Client) { c.Disabled = true }))
	expectField(t, update(stale.ID, func(c *registry.Client) { c.Scopes = scopes("a b gone too") }), "scopes")
	expectField(t, update(stale.ID, func(c *registry.Client) { c.Resources = append(c.Resources, resourceID("urn:too")) }), "resources")
	must.Succeed(t, update(stale.ID, func(c *registry.Client) { c.Scopes, c.Resources = scopes("a b"), nil }))
	expectField(t, update(stale.ID, func(c *registry.Client) { c.Scopes = scopes("a b gone") }), "scopes")
	expectField(t, update(stale.ID, func(c *registry.Client) { c.Resources = []oauth.Resource{resourceID("urn:gone")} }), "resources")
}

func TestDeleteClient(t *testing.T) {
	store, e := newRegistry()
	stored := store.put(t, full())
	expectError(t, e.DeleteClient(t.Context(), registry.Target{ID: stored.ID, Version: stored.Version + 1}), registry.ErrConflict)
	store.expectStored(t, stored)
	must.Succeed(t, e.DeleteClient(t.Context(), registry.Target{ID: stored.ID, Version: stored.Version}))
	expectError(t, e.DeleteClient(t.Context(), registry.Target{ID: stored.ID}), registry.ErrNotFound)
	store.put(t, full())
	must.Succeed(t, e.DeleteClient(t.Context(), registry.Target{ID: stored.ID}))
	if len(store.clients) != 0 {
		t.Errorf("got %v, want no clients", store.clients)
	}
}

// TestUnchanged makes changes that change nothing. None is written, except that of a disabled client, which revokes its tokens.
func TestUnchanged(t *testing.T) {
	ctx := t.Context()
	store, e := newRegistry()
	id := clientID("a")
	stored := store.put(t, registry.Client{ID: id, Name: "A", Scopes: scopes("a"), Secrets: []clientsecret.Secret{{ID: "x", Hash: "x", ExpiresAt: start.Add(time.Hour)}}})
	must.Succeed(t, e.CreateResource(ctx, registry.Resource{ID: resourceID("urn:unchanged"), Name: "R", Scopes: scopes("unchanged")}))
	writes, table := store.writes, store.resources.Version()
	for name, change := range map[string]func() (*registry.Client, error){
		"nothing": func() (*registry.Client, error) {
			return e.UpdateClient(ctx, registry.Target{ID: id}, func(*registry.Client) error { return nil })
		},
		"same name": func() (*registry.Client, error) {
			return e.UpdateClient(ctx, registry.Target{ID: id}, func(c *registry.Client) error { c.Name = "A"; return nil })
		},
		"same expiry": func() (*registry.Client, error) {
			return e.ExpireSecret(ctx, registry.Target{ID: id}, "x", start.Add(time.Hour))
		},
	} {
		c, err := change()
		if err != nil || store.writes != writes || c.Version != stored.Version || !c.ChangedAt.Equal(stored.ChangedAt) {
			t.Errorf("%s: got %+v, %v, after %d writes", name, c, err, store.writes-writes)
		}
	}
	r, err := e.UpdateResource(ctx, resourceID("urn:unchanged"), "", func(r *registry.Resource) error { r.Name = "R"; return nil })
	if err != nil || r.Name != "R" || store.resources.Version() != table {
		t.Errorf("the resource: got %+v, %v", r, err)
	}
	store.put(t, registry.Client{ID: id, Version: stored.Version, Disabled: true})
	writes = store.writes
	if _, err := e.UpdateClient(ctx, registry.Target{ID: id}, func(*registry.Client) error { return nil }); err != nil || store.writes != writes+1 {
		t.Errorf("disabled: got %v after %d writes, want 1", err, store.writes-writes)
	}
}
