package registry_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

const clientsWrite, keysWrite, both = registry.ScopeClientsWrite, registry.ScopeKeysWrite, registry.ScopeClientsWrite + " " + registry.ScopeKeysWrite

// callers are the authorities of callers, and the administered clients that each may touch.
var callers = map[string]struct {
	authority registry.Authority
	may       string
}{
	"nobody":           {registry.Authority{}, "plain"},
	"no admin":         {registry.AuthorityOf(scopes("a b c")), "plain"},
	"a reader":         {registry.AuthorityOf(scopes("grantor:clients.read grantor:keys.read")), "plain"},
	"of clients":       {registry.AuthorityOf(scopes(clientsWrite)), "plain clients"},
	"of clients and a": {registry.AuthorityOf(scopes("a " + clientsWrite)), "plain clients"},
	"of keys":          {registry.AuthorityOf(scopes(keysWrite)), "plain keys disabled"},
	"of both":          {registry.AuthorityOf(scopes(both)), "plain clients keys both disabled"},
	"with the store":   {registry.Unlimited(), "plain clients keys both disabled"},
}

// administered returns clients with none to many of the administrative scopes.
func administered() map[string]registry.Client {
	secrets := []clientsecret.Secret{{ID: "x", Hash: "x"}}
	return map[string]registry.Client{
		"plain":    {ID: clientID("plain"), Scopes: scopes("a"), Secrets: secrets},
		"clients":  {ID: clientID("clients"), Scopes: scopes(clientsWrite), Secrets: secrets},
		"keys":     {ID: clientID("keys"), Scopes: scopes("a " + keysWrite), DefaultScopes: scopes("a"), Secrets: secrets},
		"both":     {ID: clientID("both"), Scopes: scopes(both), DefaultScopes: scopes(keysWrite), Secrets: secrets},
		"disabled": {ID: clientID("disabled"), Scopes: scopes(keysWrite), Disabled: true, Secrets: secrets},
	}
}

// expectForbidden checks whether err reports a scope of the client that exceeds the caller's authority.
func expectForbidden(t *testing.T, err error, want bool, of registry.Client) {
	t.Helper()
	forbidden, ok := errors.AsType[*registry.ForbiddenError](err)
	switch {
	case !want:
		if err != nil {
			t.Errorf("got %v", err)
		}
	case !ok || forbidden.ID != of.ID.String() || !of.Scopes.Has(forbidden.Scope) || !strings.HasPrefix(forbidden.Scope.String(), "grantor:"):
		t.Errorf("got %v, want a forbidden scope of %s", err, of.ID)
	case !strings.Contains(err.Error(), forbidden.Scope.String()):
		t.Errorf("%q does not name the scope", err)
	}
}

// operation is something that is done to the client with the id of c, or to obtain a client like c.
type operation func(*testing.T, *registry.Editor, registry.Client) error

// apply returns the operation of applying a manifest of the clients that specs returns.
func apply(set func(*applier), specs func(registry.Client) []registry.ClientSpec) operation {
	return func(t *testing.T, e *registry.Editor, c registry.Client) error {
		a := &applier{Editor: e}
		set(a)
		_, err := a.Apply(t.Context(), registry.Manifest{
			Resources: []registry.Resource{{ID: resourceID("urn:a"), Name: "A", Scopes: scopes("a b")}}, Clients: specs(c),
		})
		return err
	}
}

// allOperations returns all ways to do something to an existing client, to create one, and to give one more scopes that has
// no administrative scope.
func allOperations(t *testing.T) (existing, creating, growing map[string]operation) {
	as := func(*applier) {}
	dry := func(a *applier) { a.DryRun = true }
	prune := func(a *applier) { a.Prune = true }
	none := func(registry.Client) []registry.ClientSpec { return nil }
	same := func(c registry.Client) []registry.ClientSpec { return []registry.ClientSpec{{Client: c}} }
	given := func(c registry.Client) []registry.ClientSpec {
		return []registry.ClientSpec{{Client: c, Secret: secret}}
	}
	hashed := func(c registry.Client) []registry.ClientSpec {
		return []registry.ClientSpec{{Client: c, Hashes: []clientsecret.Hash{"x"}}}
	}
	less := func(c registry.Client) []registry.ClientSpec {
		return []registry.ClientSpec{{Client: registry.Client{ID: c.ID}}}
	}
	create := func(without bool) operation {
		return func(t *testing.T, e *registry.Editor, c registry.Client) error {
			_, err := e.CreateClient(t.Context(), c, "", without)
			return err
		}
	}
	existing = map[string]operation{
		"apply as it is": apply(as, same), "apply with a secret": apply(as, given), "apply with a hash": apply(as, hashed),
		"apply less": apply(as, less), "apply, dry": apply(dry, given), "prune": apply(prune, none),
	}
	for name := range operations(t, nil) {
		existing[name] = func(t *testing.T, e *registry.Editor, c registry.Client) error {
			return operations(t, e)[name](registry.Target{ID: c.ID})
		}
	}
	creating = map[string]operation{
		"create": create(false), "create without secret": create(true), "apply": apply(as, given), "apply, dry": apply(dry, same),
	}
	growing = map[string]operation{
		"update": func(t *testing.T, e *registry.Editor, c registry.Client) error {
			_, err := e.UpdateClient(t.Context(), registry.Target{ID: c.ID}, func(next *registry.Client) error {
				next.Scopes, next.DefaultScopes, next.Disabled = c.Scopes, c.DefaultScopes, c.Disabled
				return nil
			})
			return err
		},
		"apply": apply(as, same),
	}
	return existing, creating, growing
}

// TestEscalation performs every operation as each caller on each client: no caller may obtain an administrative scope that
// it lacks, or take one from a client that has it.
func TestEscalation(t *testing.T) {
	existing, creating, growing := allOperations(t)
	for caller, by := range callers {
		for target, c := range administered() {
			forbidden := !slices.Contains(strings.Fields(by.may), target)
			run := func(situation string, before *registry.Client, ways map[string]operation) {
				for way, do := range ways {
					t.Run(fmt.Sprintf("%s/%s %s/%s", caller, situation, target, way), func(t *testing.T) {
						store, e := newRegistry()
						if before != nil {
							before = store.put(t, *before)
						}
						e = e.As(by.authority)
						writes := store.writes
						expectForbidden(t, do(t, e, c), forbidden, c)
						if forbidden && (store.writes != writes || store.clients[c.ID] != before) {
							t.Errorf("got %d writes and the client %+v, want no change", store.writes-writes, store.clients[c.ID])
						}
					})
				}
			}
			run("the", &c, existing)
			run("creating", nil, creating)
			run("growing to", &registry.Client{ID: c.ID, Scopes: scopes("a")}, growing)
		}
	}
}

// TestAuthority checks that default scopes count as much as the others, even if a record has only those.
func TestAuthority(t *testing.T) {
	c := registry.Client{ID: clientID("x"), DefaultScopes: scopes("a " + keysWrite)}
	expect := func(err error, want bool) {
		t.Helper()
		if _, ok := errors.AsType[*registry.ForbiddenError](err); ok != want || (err != nil) != want {
			t.Errorf("got %v, want forbidden %v", err, want)
		}
	}
	expect(registry.AuthorityOf(scopes(clientsWrite)).Check(&c), true)
	expect(registry.AuthorityOf(nil).Check(&c), true)
	expect(registry.AuthorityOf(scopes(keysWrite)).Check(&c), false)
	expect(registry.Unlimited().Check(&c), false)
	expect(registry.Authority{}.Check(&registry.Client{Scopes: scopes("Grantor:x grantor a")}), false)
	// A caller cannot have an administrative scope that this release does not know.
	expect(registry.AuthorityOf(scopes(both)).Check(&registry.Client{Scopes: scopes("grantor:later")}), true)
}

// TestStrongerConcurrently checks that a client which gains an administrative scope between reading and writing is protected.
func TestStrongerConcurrently(t *testing.T) {
	strengthen := func(store *memory) func() {
		return func() {
			c := registry.Client{ID: clientID("x"), Scopes: scopes(keysWrite), Secrets: []clientsecret.Secret{{ID: "x", Hash: "x"}}}
			if stored, ok := store.clients[c.ID]; ok {
				c.Version = stored.Version
			}
			must.Succeed(t, store.SaveClient(t.Context(), &c))
		}
	}
	weak := registry.Client{ID: clientID("x"), Scopes: scopes("a"), Secrets: []clientsecret.Secret{{ID: "x", Hash: "x"}}}
	for name := range operations(t, nil) {
		store, e := newRegistry()
		weak.Disabled = name == "enable"
		store.put(t, weak)
		e = e.As(registry.AuthorityOf(scopes(clientsWrite)))
		store.concurrent = []func(){strengthen(store)}
		err := operations(t, e)[name](registry.Target{ID: weak.ID})
		if _, ok := errors.AsType[*registry.ForbiddenError](err); !ok || store.writes != 2 {
			t.Errorf("%s: got %v after %d writes", name, err, store.writes)
		}
	}
	for name, set := range map[string]func(*applier, *registry.Manifest){
		"apply": func(_ *applier, m *registry.Manifest) {
			m.Clients = []registry.ClientSpec{{Client: weak, Secret: secret}}
		},
		"apply to a new": func(_ *applier, m *registry.Manifest) { m.Clients = []registry.ClientSpec{{Client: weak}} },
		"prune": func(a *applier, m *registry.Manifest) {
			a.Prune, m.Resources = true, []registry.Resource{{ID: resourceID("urn:a"), Name: "A", Scopes: scopes("a b")}, {ID: resourceID("urn:c"), Scopes: scopes("c")}}
		},
	} {
		store, _ := newRegistry()
		want := 2
		if name == "apply to a new" {
			want = 1
		} else {
			store.put(t, weak)
		}
		a := newApplier(store)
		a.Editor = a.As(registry.AuthorityOf(scopes(clientsWrite)))
		var m registry.Manifest
		set(a, &m)
		store.concurrent = []func(){strengthen(store)}
		_, err := a.Apply(t.Context(), m)
		if _, ok := errors.AsType[*registry.ForbiddenError](err); !ok || store.writes != want {
			t.Errorf("%s: got %v after %d writes, want %d", name, err, store.writes, want)
		}
	}
}

// TestApplyForbiddenFirst checks that nothing of a manifest is written if any of it is forbidden.
func TestApplyForbiddenFirst(t *testing.T) {
	for name, test := range map[string]struct {
		m     registry.Manifest
		prune bool
	}{
		"a client to be created": {registry.Manifest{
			Resources: []registry.Resource{{ID: resourceID("urn:new")}},
			Clients:   []registry.ClientSpec{{Client: registry.Client{ID: clientID("a")}}, {Client: registry.Client{ID: clientID("b"), Scopes: scopes(keysWrite)}}},
		}, false},
		"an existing client": {registry.Manifest{
			Resources: []registry.Resource{{ID: resourceID("urn:new")}},
			Clients:   []registry.ClientSpec{{Client: registry.Client{ID: clientID("a")}}, {Client: registry.Client{ID: clientID("strong")}}},
		}, false},
		"a client to be pruned": {registry.Manifest{Resources: []registry.Resource{{ID: resourceID("urn:new")}}}, true},
	} {
		store, _ := newRegistry()
		store.put(t, registry.Client{ID: clientID("plain")})
		store.put(t, registry.Client{ID: clientID("strong"), Scopes: scopes(keysWrite)})
		a := newApplier(store)
		a.Editor, a.Prune = a.As(registry.AuthorityOf(scopes(clientsWrite))), test.prune
		changes, err := a.Apply(t.Context(), test.m)
		if _, ok := errors.AsType[*registry.ForbiddenError](err); !ok || len(changes) > 0 || store.writes != 2 {
			t.Errorf("%s: got %v, %v after %d writes", name, account(changes), err, store.writes)
		}
		// Pruning resources only is permitted.
		a.Prune, a.PruneResources = false, true
		changes, err = a.Apply(t.Context(), registry.Manifest{Resources: test.m.Resources})
		want := []string{"created resource urn:new", "removed resource urn:a", "removed resource urn:c"}
		if got := account(changes); err != nil || !reflect.DeepEqual(got, want) || len(store.clients) != 2 {
			t.Errorf("%s: got %q, %v and %d clients, want %q", name, got, err, len(store.clients), want)
		}
	}
}

// TestAdminResourceNotServed checks that no client can serve the administrative resource: it could introspect the tokens of
// administrators.
func TestAdminResourceNotServed(t *testing.T) {
	store, e := newRegistry()
	server := registry.Client{ID: clientID("x"), Resources: []oauth.Resource{resourceID(registry.AdminResource)}}
	_, err := e.CreateClient(t.Context(), server, "", false)
	expectField(t, err, "resources")
	_, err = newApplier(store).Apply(t.Context(), registry.Manifest{Clients: []registry.ClientSpec{{Client: server}}})
	expectField(t, err, "resources")
	_, err = newApplier(store).Apply(t.Context(), registry.Manifest{Resources: []registry.Resource{{ID: resourceID(registry.AdminResource)}}})
	if expectField(t, err, "resource"); !strings.Contains(err.Error(), "the issuer's own") {
		t.Errorf("%q does not say that the resource is the issuer's", err)
	}
	// A stored client that serves it cannot be changed without removing it.
	store.put(t, server)
	_, err = e.UpdateClient(t.Context(), registry.Target{ID: server.ID}, func(c *registry.Client) error { c.CreatedAt = time.Time{}; return nil })
	expectField(t, err, "resources")
}
