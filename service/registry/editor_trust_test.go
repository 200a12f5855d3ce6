package registry_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/trust"
)

const cluster = "https://cluster.example"

func pattern(text string) trust.Pattern { return must.Get(trust.ParsePattern(text)) }

// workload returns a workload of the cluster whose clients have IDs that begin with the prefix.
func workload(prefix, namespace string, allowed string) trust.Workload {
	return trust.Workload{
		ClientID: pattern(prefix + ":{name}"), Scopes: scopes(allowed),
		Rule: trust.Rule{Issuer: cluster, Subject: pattern("system:serviceaccount:" + namespace + ":{name}")},
	}
}

// newTrusting returns a registry with the cluster and a workload of the namespace shop.
func newTrusting(t *testing.T) (*memory, *registry.Editor) {
	t.Helper()
	store, e := newRegistry()
	must.Succeed(t, e.CreateIssuer(t.Context(), trust.Issuer{Issuer: cluster}))
	must.Succeed(t, e.CreateWorkload(t.Context(), workload("shop", "shop", "a b")))
	store.writes = 0
	return store, e
}

// trusts formats the stored table.
func (m *memory) trusts() []string {
	var got []string
	for _, i := range m.trust.Issuers() {
		got = append(got, i.ID())
	}
	for _, w := range m.trust.Workloads() {
		got = append(got, fmt.Sprintf("%s=%s", w.ClientID, w.Scopes))
	}
	return got
}

func (m *memory) expectTrust(t *testing.T, want ...string) {
	t.Helper()
	if got := m.trusts(); !slices.Equal(got, want) {
		t.Errorf("stored is %q, want %q", got, want)
	}
}

func TestTrustLife(t *testing.T) {
	store, e := newTrusting(t)
	e, observed := observe(e)
	ctx := t.Context()
	store.expectTrust(t, cluster, "shop:{name}=a b")
	must.Succeed(t, e.CreateIssuer(ctx, trust.Issuer{TrustDomain: "prod.example.com", BundleFile: "/run/bundle.json"}))
	expectObserved(t, observed, registry.FieldChange{Field: "bundle_file", To: "/run/bundle.json"})
	expectError(t, e.CreateIssuer(ctx, trust.Issuer{Issuer: cluster}), registry.ErrExists)
	before := must.Get(store.trust, nil).Issuers()[0]
	got, err := e.UpdateIssuer(ctx, cluster, before.ETag(), func(i *trust.Issuer) error {
		i.Issuer, i.SingleUse, i.Audience = "https://other.example", true, []string{"x"}
		return nil
	})
	must.Succeed(t, err)
	if want := (&trust.Issuer{Issuer: cluster, SingleUse: true, Audience: []string{"x"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	expectObserved(t, observed, registry.FieldChange{Field: "audience", To: "x"}, registry.FieldChange{Field: "single_use", To: "true"})
	expectError(t, e.DeleteIssuer(ctx, cluster, before.ETag()), registry.ErrConflict)
	_, err = e.UpdateWorkload(ctx, "shop:{name}", "", func(w *trust.Workload) error {
		w.ClientID, w.DefaultScopes, w.Rule.Claims = pattern("other:{name}"), scopes("a"), map[string]trust.Pattern{"x": pattern("y/*")}
		return nil
	})
	must.Succeed(t, err)
	expectObserved(t, observed, registry.FieldChange{Field: "claims", To: "x=y/*"}, registry.FieldChange{Field: "default_scopes", To: "a"})
	writes := store.writes
	_, err = e.UpdateWorkload(ctx, "shop:{name}", "", func(*trust.Workload) error { return nil })
	must.Succeed(t, err)
	if store.writes != writes {
		t.Error("a workload that did not change was stored")
	}
	store.expectTrust(t, "spiffe://prod.example.com", cluster, "shop:{name}=a b")
	must.Succeed(t, e.DeleteWorkload(ctx, "shop:{name}", ""))
	must.Succeed(t, e.DeleteIssuer(ctx, cluster, ""))
	must.Succeed(t, e.DeleteIssuer(ctx, "spiffe://prod.example.com", ""))
	store.expectTrust(t)
	expectError(t, e.DeleteIssuer(ctx, cluster, ""), registry.ErrNotFound)
	expectError(t, e.DeleteWorkload(ctx, "shop:{name}", ""), registry.ErrNotFound)
}

func TestTrustRefused(t *testing.T) {
	change := func(change func(*trust.Workload)) func(context.Context, *registry.Editor) error {
		return func(ctx context.Context, e *registry.Editor) error {
			w := workload("x", "x", "a")
			change(&w)
			return e.CreateWorkload(ctx, w)
		}
	}
	for name, test := range map[string]struct {
		field string
		try   func(context.Context, *registry.Editor) error
	}{
		"issuer without TLS": {"issuer", func(ctx context.Context, e *registry.Editor) error {
			return e.CreateIssuer(ctx, trust.Issuer{Issuer: "http://a.example"})
		}},
		"issuer in use":   {"issuer", func(ctx context.Context, e *registry.Editor) error { return e.DeleteIssuer(ctx, cluster, "") }},
		"same identities": {"subject", change(func(w *trust.Workload) { w.Rule.Subject = pattern("system:serviceaccount:{name}:*") })},
		"same clients": {"client_id", change(func(w *trust.Workload) {
			w.ClientID, w.Rule.Subject = pattern("{kind}:{name}"), pattern("{kind}:{name}")
		})},
		"another issuer":   {"subject", change(func(w *trust.Workload) { w.Rule.Issuer = "https://b.example" })},
		"unowned scope":    {"scopes", change(func(w *trust.Workload) { w.Scopes = scopes("a zzz") })},
		"default beyond":   {"default_scopes", change(func(w *trust.Workload) { w.DefaultScopes = scopes("b") })},
		"lifetime":         {"access_token_lifetime", change(func(w *trust.Workload) { w.AccessTokenLifetime = 25 * time.Hour })},
		"no such capture":  {"client_id", change(func(w *trust.Workload) { w.ClientID = pattern("x:{other}") })},
		"no rule":          {"issuer", change(func(w *trust.Workload) { w.Rule = trust.Rule{} })},
		"where of nothing": {"where", change(func(w *trust.Workload) { w.Where = trust.Captures{"other": "x"} })},
	} {
		store, e := newTrusting(t)
		err := test.try(t.Context(), e)
		expectField(t, err, test.field)
		if entry, ok := errors.AsType[*trust.EntryError](err); !ok || entry.ID == "" {
			t.Errorf("%s: %v does not say of which entry", name, err)
		}
		if store.writes != 0 {
			t.Errorf("%s: it was stored", name)
		}
	}
}

// TestTrustAuthority checks that no caller gets, by what it trusts, a scope that it could not give a client.
func TestTrustAuthority(t *testing.T) {
	every := registry.ScopeClientsRead + " " + registry.ScopeClientsWrite + " " + registry.ScopeResourcesRead + " " + registry.ScopeResourcesWrite + " " +
		registry.ScopeKeysRead + " " + registry.ScopeKeysWrite + " " + registry.ScopeTrustRead + " " + registry.ScopeTrustWrite
	apply := func(m registry.Manifest, o registry.ApplyOptions) func(context.Context, *registry.Editor) error {
		return func(ctx context.Context, e *registry.Editor) error { _, err := e.Apply(ctx, m, o); return err }
	}
	noIssuerChange := func(i *trust.Issuer) error { i.SingleUse = true; return nil }
	issuerOperations := map[string]func(context.Context, *registry.Editor) error{
		"create": func(ctx context.Context, e *registry.Editor) error {
			return e.CreateIssuer(ctx, trust.Issuer{Issuer: "https://b.example"})
		},
		"update": func(ctx context.Context, e *registry.Editor) error {
			_, err := e.UpdateIssuer(ctx, cluster, "", noIssuerChange)
			return err
		},
		"delete": func(ctx context.Context, e *registry.Editor) error {
			return e.DeleteIssuer(ctx, "https://unused.example", "")
		},
		"apply":          apply(registry.Manifest{Issuers: []trust.Issuer{{Issuer: "https://b.example"}}}, registry.ApplyOptions{}),
		"apply a change": apply(registry.Manifest{Issuers: []trust.Issuer{{Issuer: cluster, SingleUse: true}}}, registry.ApplyOptions{}),
	}
	powerful := func(w trust.Workload) trust.Workload { w.Scopes = scopes("a " + registry.ScopeKeysWrite); return w }
	workloadOperations := map[string]func(context.Context, *registry.Editor) error{
		"create": func(ctx context.Context, e *registry.Editor) error {
			return e.CreateWorkload(ctx, powerful(workload("new", "new", "a")))
		},
		"grow": func(ctx context.Context, e *registry.Editor) error {
			_, err := e.UpdateWorkload(ctx, "shop:{name}", "", func(w *trust.Workload) error { *w = powerful(*w); return nil })
			return err
		},
		"widen": func(ctx context.Context, e *registry.Editor) error {
			_, err := e.UpdateWorkload(ctx, "ops:{name}", "", func(w *trust.Workload) error {
				w.Rule.Subject = pattern("system:serviceaccount:evil:{name}")
				return nil
			})
			return err
		},
		"shrink": func(ctx context.Context, e *registry.Editor) error {
			_, err := e.UpdateWorkload(ctx, "ops:{name}", "", func(w *trust.Workload) error { w.Scopes = scopes("a"); return nil })
			return err
		},
		"delete":         func(ctx context.Context, e *registry.Editor) error { return e.DeleteWorkload(ctx, "ops:{name}", "") },
		"apply":          apply(registry.Manifest{Workloads: []trust.Workload{powerful(workload("new", "new", "a"))}}, registry.ApplyOptions{}),
		"apply a change": apply(registry.Manifest{Workloads: []trust.Workload{workload("ops", "evil", "a")}}, registry.ApplyOptions{}),
		"disable": func(ctx context.Context, e *registry.Editor) error {
			_, err := e.UpdateClient(ctx, registry.Target{ID: clientID("ops:x")}, func(c *registry.Client) error { c.Disabled = true; return nil })
			return err
		},
		"take over": func(ctx context.Context, e *registry.Editor) error {
			_, err := e.CreateClient(ctx, registry.Client{ID: clientID("ops:y"), Workload: true}, "", true)
			return err
		},
		"shut out": func(ctx context.Context, e *registry.Editor) error {
			_, err := e.CreateClient(ctx, registry.Client{ID: clientID("ops:y")}, "", true)
			return err
		},
		"shut out by a manifest": apply(registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: clientID("ops:y")}}}}, registry.ApplyOptions{}),
		"enable": func(ctx context.Context, e *registry.Editor) error {
			return e.DeleteClient(ctx, registry.Target{ID: clientID("ops:z")})
		},
	}
	for caller, test := range map[string]struct {
		authority         registry.Authority
		issuers, workload bool
	}{
		"of nothing":     {registry.Authority{}, false, false},
		"of trust":       {registry.AuthorityOf(scopes(registry.ScopeTrustRead + " " + registry.ScopeTrustWrite)), false, false},
		"of keys":        {registry.AuthorityOf(scopes(registry.ScopeTrustWrite + " " + registry.ScopeKeysWrite)), false, true},
		"of all":         {registry.AuthorityOf(scopes(every)), true, true},
		"with the store": {registry.Unlimited(), true, true},
	} {
		for kind, operations := range map[string]map[string]func(context.Context, *registry.Editor) error{"issuer": issuerOperations, "workload": workloadOperations} {
			for name, try := range operations {
				store, e := newTrusting(t)
				must.Succeed(t, e.CreateIssuer(t.Context(), trust.Issuer{Issuer: "https://unused.example"}))
				must.Succeed(t, e.CreateWorkload(t.Context(), powerful(workload("ops", "ops", "a"))))
				store.put(t, registry.Client{ID: clientID("ops:z"), Workload: true, Disabled: true})
				store.writes = 0
				err := try(t.Context(), e.As(test.authority))
				may := kind == "issuer" && test.issuers || kind == "workload" && test.workload
				if _, forbidden := errors.AsType[*registry.ForbiddenError](err); forbidden == may || err != nil && !forbidden {
					t.Errorf("%s, %s: %s: got %v", caller, kind, name, err)
				}
				if (store.writes > 0) != may {
					t.Errorf("%s, %s: %s: %d writes", caller, kind, name, store.writes)
				}
			}
		}
		// What gives no administrative scope needs none.
		_, e := newTrusting(t)
		must.Succeed(t, e.As(test.authority).CreateWorkload(t.Context(), workload("new", "new", "a")))
		must.Succeed(t, e.As(test.authority).DeleteWorkload(t.Context(), "shop:{name}", ""))
	}
}

// TestApplyTrust applies manifests with and without the sections.
func TestApplyTrust(t *testing.T) {
	store, e := newTrusting(t)
	a := &applier{Editor: e}
	m := registry.Manifest{
		Resources: []registry.Resource{{ID: resourceID("urn:n"), Scopes: scopes("n")}},
		Issuers:   []trust.Issuer{{Issuer: cluster, SingleUse: true}, {Issuer: "https://b.example"}},
		Workloads: []trust.Workload{workload("shop", "shop", "a b"), workload("new", "new", "n")},
	}
	expect := func(what string, m registry.Manifest, want ...string) {
		t.Helper()
		changes, err := a.Apply(t.Context(), m)
		must.Succeed(t, err)
		if got := account(changes); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	want := []string{
		"created resource urn:n", "changed trusted_issuer " + cluster + "(single_use)", "created trusted_issuer https://b.example",
		"unchanged workload shop:{name}", "created workload new:{name}",
	}
	a.DryRun = true
	expect("a dry run", m, want...)
	store.expectTrust(t, cluster, "shop:{name}=a b")
	a.DryRun = false
	expect("applied", m, want...)
	store.expectTrust(t, cluster, "https://b.example", "shop:{name}=a b", "new:{name}=n")
	store.writes = 0
	expect("again", m, "unchanged resource urn:n", "unchanged trusted_issuer "+cluster, "unchanged trusted_issuer https://b.example", "unchanged workload shop:{name}", "unchanged workload new:{name}")
	expect("without the sections", registry.Manifest{})
	if store.writes != 0 {
		t.Errorf("%d writes, want none", store.writes)
	}
	store.put(t, registry.Client{ID: clientID("shop:orders"), Workload: true, Disabled: true})
	a.Prune = true
	expect("pruned", registry.Manifest{
		Resources: store.resources.List(), Issuers: m.Issuers[:1], Workloads: m.Workloads[:1],
	}, "unchanged resource urn:a", "unchanged resource urn:c", "unchanged resource urn:n", "unchanged trusted_issuer "+cluster, "removed trusted_issuer https://b.example", "unchanged workload shop:{name}", "removed workload new:{name}")
	store.expectTrust(t, cluster, "shop:{name}=a b")
	if c := must.Get(e.Client(t.Context(), clientID("shop:orders"))); !c.Disabled {
		t.Error("pruning has enabled a client that a workload makes")
	}
	// An error is found before anything is written.
	store.writes = 0
	for name, m := range map[string]registry.Manifest{
		"a conflict":    {Resources: []registry.Resource{{ID: resourceID("urn:x"), Scopes: scopes("x")}}, Issuers: m.Issuers[:1], Workloads: []trust.Workload{workload("x", "y", "a"), workload("y", "y", "a")}},
		"twice":         {Issuers: []trust.Issuer{{Issuer: cluster}, {Issuer: cluster}}},
		"unowned scope": {Resources: []registry.Resource{{ID: resourceID("urn:x"), Scopes: scopes("x")}}, Issuers: m.Issuers[:1], Workloads: []trust.Workload{workload("x", "y", "zzz")}},
	} {
		_, err := a.Apply(t.Context(), m)
		if _, ok := errors.AsType[*trust.EntryError](err); !ok || store.writes != 0 {
			t.Errorf("%s: got %v after %d writes", name, err, store.writes)
		}
	}
}

// TestWorkloadClients checks what the editor makes of clients that a workload makes.
func TestWorkloadClients(t *testing.T) {
	store, e := newTrusting(t)
	ctx, id := t.Context(), clientID("shop:orders")
	target := registry.Target{ID: id}
	whole := must.Get(e.Client(ctx, id))
	if !whole.Workload || whole.Scopes.String() != "a b" || whole.ETag() != "" {
		t.Errorf("got %+v", whole)
	}
	for _, other := range []string{"shop:a:b", "other:orders", "shop:"} {
		_, err := e.Client(ctx, clientID(other))
		expectError(t, err, registry.ErrNotFound)
	}
	expectError(t, e.DeleteClient(ctx, target), registry.ErrNotFound)
	_, err := e.AddSecret(ctx, target, "", time.Time{})
	expectError(t, err, registry.ErrNotFound)
	// Sending all of what is shown changes what is different alone.
	got, err := e.UpdateClient(ctx, target, func(c *registry.Client) error {
		*c = *whole
		c.Disabled, c.AccessTokenLifetime, c.AllowedNetworks = true, time.Minute, remoteaddr.Networks{must.Get(remoteaddr.ParseNetwork("10.0.0.0/8"))}
		return nil
	})
	must.Succeed(t, err)
	if !got.Disabled || got.Scopes.String() != "a b" || got.ETag() == "" {
		t.Errorf("got %+v", got)
	}
	if stored := store.clients[id]; stored.Scopes != nil || stored.GrantTypes != nil || !stored.Workload || stored.AccessTokenLifetime != time.Minute {
		t.Errorf("stored %+v", stored)
	}
	for field, change := range map[string]func(*registry.Client){
		"scopes":                func(c *registry.Client) { c.Scopes = scopes("a") },
		"resources":             func(c *registry.Client) { c.Resources = []oauth.Resource{resourceID("urn:a")} },
		"default_scopes":        func(c *registry.Client) { c.DefaultScopes = scopes("a") },
		"older_audiences_until": func(c *registry.Client) { c.OlderAudiencesUntil = start },
		"auth_methods":          func(c *registry.Client) { c.AuthMethods = []string{"client_secret_basic"} },
		"federation":            func(c *registry.Client) { c.Federation = []trust.Rule{{Issuer: cluster, Subject: pattern("x")}} },
		"jwks_uri":              func(c *registry.Client) { c.KeysURI = "https://a.example/jwks" },
	} {
		_, err := e.UpdateClient(ctx, target, func(c *registry.Client) error { change(c); return nil })
		expectField(t, err, field)
	}
	_, err = e.AddSecret(ctx, target, "", time.Time{})
	expectField(t, err, "workload")
	_, err = e.CreateClient(ctx, registry.Client{ID: clientID("shop:x"), Workload: true}, "", false)
	expectField(t, err, "without_secret")
	// A registered client with the ID is itself.
	_, err = e.CreateClient(ctx, registry.Client{ID: clientID("shop:own"), Scopes: scopes("c")}, "", true)
	must.Succeed(t, err)
	if c := must.Get(e.Client(ctx, clientID("shop:own"))); c.Workload || c.Scopes.String() != "c" {
		t.Errorf("got %+v", c)
	}
	// The list has what is stored, with what the workload gives.
	listed := must.Get(e.Clients(ctx, clientID("shop:"), 10))
	if len(listed) != 2 || listed[0].ID != id || listed[0].Scopes.String() != "a b" || !listed[0].Disabled {
		t.Errorf("listed %+v", listed)
	}
	must.Succeed(t, e.DeleteWorkload(ctx, "shop:{name}", ""))
	if c := must.Get(e.Client(ctx, id)); c.Scopes != nil || !c.Disabled {
		t.Errorf("without its workload: got %+v", c)
	}
	must.Succeed(t, e.DeleteClient(ctx, target))
}
