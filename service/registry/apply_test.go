package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// applier is an editor and the options with which it applies manifests.
type applier struct {
	*registry.Editor
	registry.ApplyOptions
}

func newApplier(store *memory) *applier { return &applier{Editor: newEditor(store)} }

func (a *applier) Apply(ctx context.Context, m registry.Manifest) ([]registry.Change, error) {
	return a.Editor.Apply(ctx, m, a.ApplyOptions)
}

// secret is a generated secret, because chosen ones are slow to hash.
var secret = clientsecret.New()

func manifest() registry.Manifest {
	return registry.Manifest{
		Resources: []registry.Resource{
			{ID: resourceID("urn:a"), Name: "A", Scopes: scopes("a b"), SigningAlg: jwks.ES256, AccessTokenLifetime: time.Hour},
			{ID: resourceID("urn:c"), Scopes: scopes("c")},
		},
		Clients: []registry.ClientSpec{
			{Client: full(), Secret: secret},
			{Client: registry.Client{ID: clientID("bare")}},
		},
	}
}

// account formats changes as "action kind id(fields)".
func account(changes []registry.Change) []string {
	var lines []string
	for _, c := range changes {
		line := fmt.Sprintf("%s %s %s", c.Action, c.Kind, c.ID)
		if len(c.Fields()) > 0 {
			line += "(" + strings.Join(c.Fields(), ",") + ")"
		}
		lines = append(lines, line)
	}
	return lines
}

func expectApplied(t *testing.T, a *applier, m registry.Manifest, want ...string) {
	t.Helper()
	changes, err := a.Apply(t.Context(), m)
	if err != nil {
		t.Error(err)
	}
	if got := account(changes); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

var (
	allCreated   = []string{"created resource urn:a", "created resource urn:c", "created client full", "created client bare"}
	allUnchanged = []string{"unchanged resource urn:a", "unchanged resource urn:c", "unchanged client full", "unchanged client bare"}
)

func TestApply(t *testing.T) {
	store := newMemory()
	a := newApplier(store)
	expectApplied(t, a, manifest(), allCreated...)
	got := *store.clients[clientID("full")]
	if len(got.Secrets) != 1 || !a.Config().Hasher.Matches(got.Secrets[0].Hash, secret) || got.Secrets[0].CreatedAt != start {
		t.Errorf("got secrets %+v", got.Secrets)
	}
	got.Secrets, got.Version = nil, 0
	want := full()
	want.CreatedAt, want.ChangedAt = start, start
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !reflect.DeepEqual(store.resources.List(), manifest().Resources) {
		t.Errorf("got %+v", store.resources.List())
	}
	if bare := store.clients[clientID("bare")]; len(bare.Secrets) != 0 {
		t.Errorf("a client without a secret has %v", bare.Secrets)
	}
	writes := store.writes
	expectApplied(t, a, manifest(), allUnchanged...)
	if store.writes != writes {
		t.Errorf("applying again: got %d writes, want 0", store.writes-writes)
	}
}

func TestApplyChanges(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*registry.Manifest)
		want   string
	}{
		"client_name":    {func(m *registry.Manifest) { m.Clients[0].Name = "x" }, "changed client full(client_name)"},
		"auth_methods":   {func(m *registry.Manifest) { m.Clients[0].AuthMethods = nil }, "changed client full(auth_methods)"},
		"grant_types":    {func(m *registry.Manifest) { m.Clients[0].GrantTypes = nil }, "changed client full(grant_types)"},
		"scopes":         {func(m *registry.Manifest) { m.Clients[0].Scopes = scopes("b") }, "changed client full(scopes)"},
		"default_scopes": {func(m *registry.Manifest) { m.Clients[0].DefaultScopes = nil }, "changed client full(default_scopes)"},
		"resources":      {func(m *registry.Manifest) { m.Clients[0].Resources = nil }, "changed client full(resources)"},
		"lifetime":       {func(m *registry.Manifest) { m.Clients[0].AccessTokenLifetime = 0 }, "changed client full(access_token_lifetime)"},
		"networks":       {func(m *registry.Manifest) { m.Clients[0].AllowedNetworks = m.Clients[0].AllowedNetworks[:1] }, "changed client full(allowed_networks)"},
		"disabled":       {func(m *registry.Manifest) { m.Clients[0].Disabled = true }, "changed client full(disabled)"},
		"client_secret":  {func(m *registry.Manifest) { m.Clients[0].Secret = clientsecret.New() }, "changed client full(client_secret)"},
		"first secret":   {func(m *registry.Manifest) { m.Clients[1].Secret = secret }, "changed client bare(client_secret)"},
		"two fields": {
			func(m *registry.Manifest) { m.Clients[0].Name, m.Clients[0].Disabled = "x", true }, "changed client full(client_name,disabled)",
		},
		"resource's name":     {func(m *registry.Manifest) { m.Resources[0].Name = "x" }, "changed resource urn:a(name)"},
		"resource's scopes":   {func(m *registry.Manifest) { m.Resources[0].Scopes = scopes("b a") }, "changed resource urn:a(scopes)"},
		"resource's lifetime": {func(m *registry.Manifest) { m.Resources[0].AccessTokenLifetime = 0 }, "changed resource urn:a(access_token_lifetime)"},
		"resource's alg":      {func(m *registry.Manifest) { m.Resources[0].SigningAlg = "" }, "changed resource urn:a(signing_alg)"},
		"no secret":           {func(m *registry.Manifest) { m.Clients[0].Secret = "" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			store := newMemory()
			a := newApplier(store)
			expectApplied(t, a, manifest(), allCreated...)
			before := *store.clients[clientID("full")]
			a.Config().Now = func() time.Time { return start.Add(time.Hour) }
			m := manifest()
			test.change(&m)
			changes, err := a.Apply(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			changed := ""
			for _, line := range account(changes) {
				if !strings.HasPrefix(line, "unchanged ") {
					changed += line
				}
			}
			if changed != test.want {
				t.Errorf("got %q, want %q", changed, test.want)
			}
			after := store.clients[clientID("full")]
			if after.CreatedAt != start || (after.ChangedAt != start) != (after.Version != before.Version) {
				t.Errorf("created %s, changed %s, version %d after %d", after.CreatedAt, after.ChangedAt, after.Version, before.Version)
			}
			if len(after.Secrets) != 1 {
				t.Errorf("got secrets %v, want one", after.Secrets)
			}
			expectApplied(t, a, m, allUnchanged...)
		})
	}
}

func TestApplyDryRun(t *testing.T) {
	store := newMemory()
	a := newApplier(store)
	a.DryRun, a.Prune = true, true
	expectApplied(t, a, manifest(), allCreated...)
	expectApplied(t, a, manifest(), allCreated...)
	a.DryRun = false
	expectApplied(t, a, manifest(), allCreated...)
	writes := store.writes
	a.DryRun = true
	expectApplied(t, a, registry.Manifest{}, "removed resource urn:a", "removed resource urn:c", "removed client bare", "removed client full")
	if store.writes != writes {
		t.Errorf("a dry run: got %d writes, want 0", store.writes-writes)
	}
}

func TestApplyPrune(t *testing.T) {
	store := newMemory()
	a := newApplier(store)
	expectApplied(t, a, manifest(), allCreated...)
	m := manifest()
	m.Resources, m.Clients = m.Resources[:1], m.Clients[:1]
	expectApplied(t, a, m, allUnchanged[0], allUnchanged[2])
	a.Prune = true
	expectApplied(t, a, m, allUnchanged[0], "removed resource urn:c", allUnchanged[2], "removed client bare")
	expectApplied(t, a, m, allUnchanged[0], allUnchanged[2])
	// Resources only.
	a.Prune = false
	expectApplied(t, a, manifest(), allUnchanged[0], allCreated[1], allUnchanged[2], allCreated[3])
	a.PruneResources = true
	expectApplied(t, a, m, allUnchanged[0], "removed resource urn:c", allUnchanged[2])
	a.PruneResources = false
	// More than one page.
	var many registry.Manifest
	for i := range 1100 {
		many.Clients = append(many.Clients, registry.ClientSpec{Client: registry.Client{ID: clientID(fmt.Sprint("x", i))}})
	}
	if _, err := a.Apply(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	a.Prune = true
	changes, err := a.Apply(t.Context(), m)
	if err != nil || len(changes) != 1103 || len(store.clients) != 1 {
		t.Errorf("%d changes, %v, and %d clients left, want 1103 and 1", len(changes), err, len(store.clients))
	}
}

func TestApplyRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*registry.Manifest)
		want   string // the field of the error
	}{
		"an unowned scope":        {func(m *registry.Manifest) { m.Clients[1].Scopes = scopes("x") }, "scopes"},
		"a scope with two owners": {func(m *registry.Manifest) { m.Resources[1].Scopes = scopes("a") }, "scopes"},
		"a resource's name":       {func(m *registry.Manifest) { m.Resources[1].Name = "\x1b" }, "name"},
		"too many scopes":         {func(m *registry.Manifest) { m.Resources[1].Scopes = many(65) }, "scopes"},
		"a resource twice":        {func(m *registry.Manifest) { m.Resources[1].ID = m.Resources[0].ID }, "resource"},
		"a client twice":          {func(m *registry.Manifest) { m.Clients[1].ID = m.Clients[0].ID }, "client_id"},
		"an unknown grant":        {func(m *registry.Manifest) { m.Clients[1].GrantTypes = []string{"password"} }, "grant_types"},
		"an unknown algorithm":    {func(m *registry.Manifest) { m.Resources[1].SigningAlg = "none" }, "signing_alg"},
		"a scope removed that a client needs": {func(m *registry.Manifest) {
			m.Resources[0].Scopes = scopes("a")
		}, "scopes"},
		"a scope that a stored resource owns": {func(m *registry.Manifest) {
			m.Resources = []registry.Resource{{ID: resourceID("urn:new"), Scopes: scopes("stored")}}
			m.Clients = nil
		}, "scopes"},
	} {
		t.Run(name, func(t *testing.T) {
			store := newMemory()
			store.resources = must.Get(registry.NewResources(0, []registry.Resource{{ID: resourceID("urn:stored"), Scopes: scopes("stored")}}))
			m := manifest()
			test.change(&m)
			changes, err := newApplier(store).Apply(t.Context(), m)
			expectField(t, err, test.want)
			_, ofClient := errors.AsType[*registry.ManifestError](err)
			_, ofResource := errors.AsType[*registry.ResourceError](err)
			if ofClient == ofResource || len(changes) > 0 || store.writes > 0 {
				t.Errorf("got %v, %v after %d writes, want an error about a client or a resource, and no writes", changes, err, store.writes)
			}
		})
	}
}

// TestApplyConflicts checks that concurrent changes are not lost, and that the changes are those made in the end.
func TestApplyConflicts(t *testing.T) {
	store := newMemory()
	concurrent := func() {
		if _, err := newApplier(store).Apply(t.Context(), manifest()); err != nil {
			t.Error(err)
		}
	}
	store.concurrent = []func(){concurrent}
	expectApplied(t, newApplier(store), manifest(), allUnchanged...)

	// Another writer changes the name while Apply changes the scopes: the manifest determines both.
	rename := func() {
		c := *store.clients[clientID("full")]
		c.Name = "renamed"
		if err := store.SaveClient(t.Context(), &c); err != nil {
			t.Error(err)
		}
	}
	m := manifest()
	m.Clients[0].Scopes = scopes("b")
	store.concurrent = []func(){rename}
	expectApplied(t, newApplier(store), m, allUnchanged[0], allUnchanged[1], "changed client full(client_name,scopes)", allUnchanged[3])

	// If every attempt fails by a conflict, Apply returns it, and the change that failed is not listed.
	m.Clients[0].Scopes = scopes("b a")
	for range 100 {
		store.concurrent = append(store.concurrent, rename)
		store.concurrent = append(store.concurrent, nil)
	}
	changes, err := newApplier(store).Apply(t.Context(), m)
	if got := account(changes); !errors.Is(err, registry.ErrConflict) || !reflect.DeepEqual(got, allUnchanged[:2]) {
		t.Errorf("got %q, %v, want %v", got, err, registry.ErrConflict)
	}
}

// TestPruneConflict checks that a client which changes while it is pruned is removed, and those removed before are listed once.
func TestPruneConflict(t *testing.T) {
	store := newMemory()
	a := newApplier(store)
	expectApplied(t, a, manifest(), allCreated...)
	a.Prune = true
	m := registry.Manifest{Resources: manifest().Resources}
	store.concurrent = []func(){nil, func() {
		c := *store.clients[clientID("full")]
		if err := store.SaveClient(t.Context(), &c); err != nil {
			t.Error(err)
		}
	}}
	expectApplied(t, a, m, allUnchanged[0], allUnchanged[1], "removed client bare", "removed client full")
	if len(store.clients) > 0 {
		t.Errorf("got %v, want no clients", store.clients)
	}
}

func TestApplyStoreFails(t *testing.T) {
	store := newMemory()
	store.fail = errors.New("down")
	if changes, err := newApplier(store).Apply(t.Context(), manifest()); !errors.Is(err, store.fail) || len(changes) > 0 {
		t.Errorf("got %v, %v, want %v", changes, err, store.fail)
	}
	// If the store fails midway, the changes are those made until then.
	store = newMemory()
	down := errors.New("down")
	store.concurrent = []func(){nil, nil, func() { store.fail = down }}
	changes, err := newApplier(store).Apply(t.Context(), manifest())
	if got := account(changes); !errors.Is(err, down) || !reflect.DeepEqual(got, allCreated[:3]) {
		t.Errorf("got %q, %v, want %q", got, err, allCreated[:3])
	}
	store.fail = nil
	expectApplied(t, newApplier(store), manifest(), allUnchanged[0], allUnchanged[1], allUnchanged[2], allCreated[3])
}

// TestApplyLeavesNetworks checks that a manifest without networks does not lift a restriction made in an emergency.
func TestApplyLeavesNetworks(t *testing.T) {
	a, id := newApplier(newMemory()), clientID("a")
	bound := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	must.Succeed(t, a.Config().Clients.SaveClient(t.Context(), &registry.Client{ID: id, AllowedNetworks: bound}))
	for _, specified := range [][]netip.Prefix{nil, {netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}} {
		_, err := a.Apply(t.Context(), registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: id, AllowedNetworks: specified}}}})
		must.Succeed(t, err)
		if len(specified) > 0 {
			bound = specified
		}
		got, err := a.Config().Clients.Client(t.Context(), id)
		must.Succeed(t, err)
		if !slices.Equal(got.AllowedNetworks, bound) {
			t.Errorf("got %v after a manifest with %v, want %v", got.AllowedNetworks, specified, bound)
		}
	}
}

// TestApplyLeavesDisabled checks that a manifest which does not specify it does not enable a client disabled in an emergency.
func TestApplyLeavesDisabled(t *testing.T) {
	for name, test := range map[string]struct {
		spec     registry.ClientSpec
		disabled bool
		action   registry.Action
	}{
		"not specified": {registry.ClientSpec{LeaveDisabled: true}, true, registry.Unchanged},
		"enabled":       {registry.ClientSpec{}, false, registry.Changed},
		"disabled":      {registry.ClientSpec{Client: registry.Client{Disabled: true}}, true, registry.Unchanged},
		"another field": {registry.ClientSpec{Client: registry.Client{Name: "x"}, LeaveDisabled: true}, true, registry.Changed},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApplier(newMemory())
			var confirmed []string
			a.Config().Confirm = func(_ context.Context, id oauth.ClientID) error {
				confirmed = append(confirmed, id.String())
				return nil
			}
			id := clientID("a")
			must.Succeed(t, a.Config().Clients.SaveClient(t.Context(), &registry.Client{ID: id, Disabled: true}))
			test.spec.ID = id
			account, err := a.Apply(t.Context(), registry.Manifest{Clients: []registry.ClientSpec{test.spec}})
			must.Succeed(t, err)
			got, err := a.Config().Clients.Client(t.Context(), id)
			must.Succeed(t, err)
			if got.Disabled != test.disabled || account[0].Action != test.action {
				t.Errorf("got disabled %t and %q, want %t and %q", got.Disabled, account[0].Action, test.disabled, test.action)
			}
			// Too few replicas of the store may have acknowledged the earlier revocation.
			if want := test.disabled && test.action == registry.Unchanged; (len(confirmed) == 1) != want {
				t.Errorf("confirmed %q, want %t", confirmed, want)
			}
		})
	}
}
