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

// callers has who asks, and which of the clients below each may touch.
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

// administered are clients from none to many of the issuer's own scopes.
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

// expectForbidden checks that err is, or is not, about a scope of the client's that is beyond the caller.
func expectForbidden(t *testing.T, err error, want bool, of registry.Client) {
	t.Helper()
	forbidden, ok := errors.AsType[*registry.ForbiddenError](err)
	switch {
	case !want:
		if err != nil {
			t.Errorf("got %v", err)
		}
	case !ok || forbidden.ID != of.ID || !of.Scopes.Has(forbidden.Scope) || !strings.HasPrefix(forbidden.Scope.String(), "grantor:"):
		t.Errorf("got %v, want a scope of %s that is forbidden", err, of.ID)
	case !strings.Contains(err.Error(), forbidden.Scope.String()):
		t.Errorf("%q does not name the scope", err)
	}
}

// deed is something that is done with a client: to the one of its id, or to get one like it.
type deed func(*testing.T, *registry.Editor, registry.Client) error

// apply is applying a manifest of the clients that wanted gives.
func apply(set func(*applier), wanted func(registry.Client) []registry.ClientSpec) deed {
	return func(t *testing.T, r *registry.Editor, c registry.Client) error {
		a := &applier{Editor: r}
		set(a)
		_, err := a.Apply(t.Context(), registry.Manifest{
			Resources: []registry.Resource{{ID: resourceID("urn:a"), Name: "A", Scopes: scopes("a b")}}, Clients: wanted(c),
		})
		return err
	}
}

// deeds are all ways to do something to a client that is there, to make one, and to make more of one that has no scope
// of the issuer's own.
func deeds(t *testing.T) (toOne, making, growing map[string]deed) {
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
	create := func(without bool) deed {
		return func(t *testing.T, r *registry.Editor, c registry.Client) error {
			_, err := r.CreateClient(t.Context(), c, "", without)
			return err
		}
	}
	toOne = map[string]deed{
		"apply as it is": apply(as, same), "apply with a secret": apply(as, given), "apply with a hash": apply(as, hashed),
		"apply less": apply(as, less), "apply, dry": apply(dry, given), "prune": apply(prune, none),
	}
	for name := range operations(t, nil) {
		toOne[name] = func(t *testing.T, r *registry.Editor, c registry.Client) error {
			return operations(t, r)[name](registry.Target{ID: c.ID})
		}
	}
	making = map[string]deed{
		"create": create(false), "create without secret": create(true), "apply": apply(as, given), "apply, dry": apply(dry, same),
	}
	growing = map[string]deed{
		"update": func(t *testing.T, r *registry.Editor, c registry.Client) error {
			_, err := r.UpdateClient(t.Context(), registry.Target{ID: c.ID}, func(next *registry.Client) error {
				next.Scopes, next.DefaultScopes, next.Disabled = c.Scopes, c.DefaultScopes, c.Disabled
				return nil
			})
			return err
		},
		"apply": apply(as, same),
	}
	return toOne, making, growing
}

// TestEscalation has each caller do everything with each client: nobody gets hold of a scope of the issuer's own which
// they have not, and nobody keeps one from who has it.
func TestEscalation(t *testing.T) {
	toOne, making, growing := deeds(t)
	for caller, by := range callers {
		for target, c := range administered() {
			forbidden := !slices.Contains(strings.Fields(by.may), target)
			run := func(situation string, before *registry.Client, ways map[string]deed) {
				for way, do := range ways {
					t.Run(fmt.Sprintf("%s/%s %s/%s", caller, situation, target, way), func(t *testing.T) {
						store, r := newRegistry()
						if before != nil {
							before = store.put(t, *before)
						}
						r = r.As(by.authority)
						writes := store.writes
						expectForbidden(t, do(t, r, c), forbidden, c)
						if forbidden && (store.writes != writes || store.clients[c.ID] != before) {
							t.Errorf("%d writes, and the client is %+v", store.writes-writes, store.clients[c.ID])
						}
					})
				}
			}
			run("the", &c, toOne)
			run("making", nil, making)
			run("growing to", &registry.Client{ID: c.ID, Scopes: scopes("a")}, growing)
		}
	}
}

// Scopes that a client gets when it asks for none count as much as the others, even if a record has them alone.
func TestAuthority(t *testing.T) {
	c := registry.Client{ID: clientID("x"), DefaultScopes: scopes("a " + keysWrite)}
	expect := func(err error, want bool) {
		t.Helper()
		if _, ok := errors.AsType[*registry.ForbiddenError](err); ok != want || (err != nil) != want {
			t.Errorf("got %v, want it forbidden: %v", err, want)
		}
	}
	expect(registry.AuthorityOf(scopes(clientsWrite)).Check(&c), true)
	expect(registry.AuthorityOf(nil).Check(&c), true)
	expect(registry.AuthorityOf(scopes(keysWrite)).Check(&c), false)
	expect(registry.Unlimited().Check(&c), false)
	expect(registry.Authority{}.Check(&registry.Client{Scopes: scopes("Grantor:x grantor a")}), false)
	// One that this release does not know is nobody's either.
	expect(registry.AuthorityOf(scopes(both)).Check(&registry.Client{Scopes: scopes("grantor:later")}), true)
}

// A client that becomes stronger between reading and writing is out of reach from then on.
func TestStrongerMeanwhile(t *testing.T) {
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
		store, r := newRegistry()
		store.put(t, weak)
		r = r.As(registry.AuthorityOf(scopes(clientsWrite)))
		store.meanwhile = []func(){strengthen(store)}
		err := operations(t, r)[name](registry.Target{ID: weak.ID})
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
		store.meanwhile = []func(){strengthen(store)}
		_, err := a.Apply(t.Context(), m)
		if _, ok := errors.AsType[*registry.ForbiddenError](err); !ok || store.writes != want {
			t.Errorf("%s: got %v after %d writes, want %d", name, err, store.writes, want)
		}
	}
}

// What is forbidden is told before anything else of the manifest is written.
func TestApplyForbiddenFirst(t *testing.T) {
	for name, test := range map[string]struct {
		m     registry.Manifest
		prune bool
	}{
		"a client to be made": {registry.Manifest{
			Resources: []registry.Resource{{ID: resourceID("urn:new")}},
			Clients:   []registry.ClientSpec{{Client: registry.Client{ID: clientID("a")}}, {Client: registry.Client{ID: clientID("b"), Scopes: scopes(keysWrite)}}},
		}, false},
		"a client that is there": {registry.Manifest{
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
		// Resources alone can be pruned all the same.
		a.Prune, a.PruneResources = false, true
		changes, err = a.Apply(t.Context(), registry.Manifest{Resources: test.m.Resources})
		want := []string{"created resource urn:new", "removed resource urn:a", "removed resource urn:c"}
		if got := account(changes); err != nil || !reflect.DeepEqual(got, want) || len(store.clients) != 2 {
			t.Errorf("%s: got %q, %v and %d clients, want %q", name, got, err, len(store.clients), want)
		}
	}
}

// The issuer tells nobody else about the tokens that administer it, however the client comes to be.
func TestNobodyServesTheIssuer(t *testing.T) {
	store, r := newRegistry()
	server := registry.Client{ID: clientID("x"), Resources: []oauth.Resource{resourceID(registry.AdminResource)}}
	_, err := r.CreateClient(t.Context(), server, "", false)
	expectField(t, err, "resources")
	_, err = newApplier(store).Apply(t.Context(), registry.Manifest{Clients: []registry.ClientSpec{{Client: server}}})
	expectField(t, err, "resources")
	_, err = newApplier(store).Apply(t.Context(), registry.Manifest{Resources: []registry.Resource{{ID: resourceID(registry.AdminResource)}}})
	if expectField(t, err, "resource"); !strings.Contains(err.Error(), "the issuer's own") {
		t.Errorf("%q does not say whose it is", err)
	}
	// One that a record has is at least not kept.
	store.put(t, server)
	_, err = r.UpdateClient(t.Context(), registry.Target{ID: server.ID}, func(c *registry.Client) error { c.CreatedAt = time.Time{}; return nil })
	expectField(t, err, "resources")
}
