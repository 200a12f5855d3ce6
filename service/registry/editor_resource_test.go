package registry_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// expectResources checks the stored resources, formatted as "id(name scopes)", in byte order.
func (m *memory) expectResources(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, r := range m.resources.List() {
		got = append(got, fmt.Sprintf("%s(%s %s)", r.ID, r.Name, r.Scopes))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("stored is %q, want %q", got, want)
	}
}

const storedA, storedC = "urn:a(A a b)", "urn:c( c)"

func noChange(*registry.Resource) error { return nil }

func TestRegisterResources(t *testing.T) {
	store, e := newRegistry()
	ctx, a := t.Context(), resourceID("urn:a")
	store.expectResources(t, storedA, storedC)
	must.Succeed(t, e.CreateResource(ctx, registry.Resource{ID: resourceID("urn:b"), Name: "B", Scopes: scopes("b2"), SigningAlg: jwks.ES256}))
	store.expectResources(t, storedA, "urn:b(B b2)", storedC)

	before, _ := store.resources.Get(a)
	etag := before.ETag()
	got, err := e.UpdateResource(ctx, a, etag, func(r *registry.Resource) error {
		r.ID, r.Name, r.Scopes[1], r.AccessTokenLifetime = resourceID("urn:x"), "AA", scopes("a2")[0], time.Hour
		return nil
	})
	must.Succeed(t, err)
	want := &registry.Resource{ID: a, Name: "AA", Scopes: scopes("a a2"), AccessTokenLifetime: time.Hour}
	if after, _ := store.resources.Get(a); !reflect.DeepEqual(got, want) || !reflect.DeepEqual(after, want) {
		t.Errorf("got %+v, stored %+v, want %+v", got, after, want)
	}
	if before.ETag() != etag || got.ETag() == etag {
		t.Errorf("the etag %s has become %s, that of the new state is %s", etag, before.ETag(), got.ETag())
	}
	store.expectResources(t, "urn:a(AA a a2)", "urn:b(B b2)", storedC)

	expectError(t, e.DeleteResource(ctx, a, etag), registry.ErrConflict)
	store.expectResources(t, "urn:a(AA a a2)", "urn:b(B b2)", storedC)
	must.Succeed(t, e.DeleteResource(ctx, a, got.ETag()))
	must.Succeed(t, e.DeleteResource(ctx, resourceID("urn:b"), ""))
	store.expectResources(t, storedC)
}

func TestResourcesRefused(t *testing.T) {
	admin := resourceID(registry.AdminResource)
	refused := errors.New("refused")
	create := func(resource registry.Resource) func(*testing.T, *registry.Editor) error {
		return func(t *testing.T, e *registry.Editor) error { return e.CreateResource(t.Context(), resource) }
	}
	update := func(id oauth.Resource, etag string, change func(*registry.Resource) error) func(*testing.T, *registry.Editor) error {
		return func(t *testing.T, e *registry.Editor) error {
			got, err := e.UpdateResource(t.Context(), id, etag, change)
			if got != nil {
				t.Errorf("got %+v", got)
			}
			return err
		}
	}
	remove := func(id oauth.Resource, etag string) func(*testing.T, *registry.Editor) error {
		return func(t *testing.T, e *registry.Editor) error { return e.DeleteResource(t.Context(), id, etag) }
	}
	with := func(change func(*registry.Resource)) func(*registry.Resource) error {
		return func(r *registry.Resource) error { change(r); return nil }
	}
	a, none := resourceID("urn:a"), resourceID("urn:none")
	for name, test := range map[string]struct {
		do    func(*testing.T, *registry.Editor) error
		want  error
		field string // if want is nil
		blame oauth.Resource
	}{
		"created twice":            {create(registry.Resource{ID: a}), registry.ErrExists, "", a},
		"created, another's scope": {create(registry.Resource{ID: none, Scopes: scopes("c")}), nil, "scopes", none},
		"created, the issuer's":    {create(registry.Resource{ID: admin}), nil, "resource", admin},
		"created, issuer's scope":  {create(registry.Resource{ID: none, Scopes: scopes("grantor:clients.read")}), nil, "scopes", none},
		"created, too many scopes": {create(registry.Resource{ID: none, Scopes: many(oauth.MaxScopes + 1)}), nil, "scopes", none},
		"created, no key":          {create(registry.Resource{ID: none, SigningAlg: jwks.RS256}), nil, "signing_alg", none},
		"created, odd name":        {create(registry.Resource{ID: none, Name: "\x1b"}), nil, "name", none},
		"created, lifetime":        {create(registry.Resource{ID: none, AccessTokenLifetime: 25 * time.Hour}), nil, "access_token_lifetime", none},
		"changed, not stored":      {update(none, "", noChange), registry.ErrNotFound, "", none},
		"changed, the issuer's":    {update(admin, "", noChange), nil, "resource", admin},
		"changed, another state":   {update(a, "x", noChange), registry.ErrConflict, "", a},
		"changed, refused":         {update(a, "", func(*registry.Resource) error { return refused }), refused, "", a},
		"changed, later's scope":   {update(a, "", with(func(r *registry.Resource) { r.Scopes = scopes("a c") })), nil, "scopes", a},
		"changed, issuer's scope":  {update(a, "", with(func(r *registry.Resource) { r.Scopes = scopes("grantor:x") })), nil, "scopes", a},
		"changed, many scopes":     {update(a, "", with(func(r *registry.Resource) { r.Scopes = many(oauth.MaxScopes + 1) })), nil, "scopes", a},
		"changed, no key":          {update(a, "", with(func(r *registry.Resource) { r.SigningAlg = jwks.RS256 })), nil, "signing_alg", a},
		"changed, long name":       {update(a, "", with(func(r *registry.Resource) { r.Name = strings.Repeat("a", 256) })), nil, "name", a},
		"deleted, not stored":      {remove(none, ""), registry.ErrNotFound, "", none},
		"deleted, the issuer's":    {remove(admin, ""), nil, "resource", admin},
		"deleted, another state":   {remove(a, "x"), registry.ErrConflict, "", a},
	} {
		t.Run(name, func(t *testing.T) {
			store, e := newRegistry()
			err := test.do(t, e)
			if test.want != nil {
				expectError(t, err, test.want)
			} else if expectField(t, err, test.field); err != nil {
				if of, ok := errors.AsType[*registry.ResourceError](err); !ok || of.ID != test.blame {
					t.Errorf("%v does not blame %s", err, test.blame)
				}
			}
			if store.expectResources(t, storedA, storedC); store.writes > 0 {
				t.Errorf("%d writes", store.writes)
			}
		})
	}
	_, e := newRegistry()
	e.Config().Algorithms = nil // if the issuer's algorithms are not known, any is accepted
	must.Succeed(t, e.CreateResource(t.Context(), registry.Resource{ID: none, SigningAlg: jwks.RS256}))
	// The authority bounds clients only; the scopes of the caller decide about resources.
	e = e.As(registry.Authority{})
	must.Succeed(t, e.DeleteResource(t.Context(), none, ""))
}

// TestResourcesAtOnce checks concurrent changes. All resources are one record, but a change of another resource is no conflict.
func TestResourcesAtOnce(t *testing.T) {
	store, e := newRegistry()
	ctx, a, c := t.Context(), resourceID("urn:a"), resourceID("urn:c")
	rename := func(id oauth.Resource, name string) func() {
		return func() {
			_, err := e.UpdateResource(ctx, id, "", func(r *registry.Resource) error { r.Name = name; return nil })
			must.Succeed(t, err)
		}
	}
	before, _ := store.resources.Get(a)
	addScope := func(r *registry.Resource) error { r.Scopes = append(r.Scopes, scopes("a3")...); return nil }
	store.concurrent = []func(){rename(c, "C")}
	_, err := e.UpdateResource(ctx, a, before.ETag(), addScope)
	must.Succeed(t, err)
	store.expectResources(t, "urn:a(A a b a3)", "urn:c(C c)")
	// A concurrent change of the same resource is a conflict if a state is required; otherwise both changes are made.
	now, _ := store.resources.Get(a)
	store.concurrent = []func(){rename(a, "AA")}
	_, err = e.UpdateResource(ctx, a, now.ETag(), func(r *registry.Resource) error { r.Scopes = scopes("a"); return nil })
	expectError(t, err, registry.ErrConflict)
	store.expectResources(t, "urn:a(AA a b a3)", "urn:c(C c)")
	store.concurrent = []func(){rename(a, "AAA")}
	_, err = e.UpdateResource(ctx, a, "", func(r *registry.Resource) error { r.Scopes = scopes("a"); return nil })
	must.Succeed(t, err)
	store.expectResources(t, "urn:a(AAA a)", "urn:c(C c)")
	// A scope that another resource takes concurrently is not taken twice.
	store.concurrent = []func(){func() {
		must.Succeed(t, e.CreateResource(ctx, registry.Resource{ID: resourceID("urn:b"), Scopes: scopes("b")}))
	}}
	expectField(t, e.CreateResource(ctx, registry.Resource{ID: resourceID("urn:d"), Scopes: scopes("b")}), "scopes")
	store.concurrent = []func(){func() { must.Succeed(t, e.DeleteResource(ctx, resourceID("urn:b"), "")) }}
	expectError(t, e.DeleteResource(ctx, resourceID("urn:b"), ""), registry.ErrNotFound)
	store.expectResources(t, "urn:a(AAA a)", "urn:c(C c)")

	for i := range 100 {
		store.concurrent = append(store.concurrent, rename(c, fmt.Sprint("C", i)), nil)
	}
	if expectError(t, e.DeleteResource(ctx, a, ""), registry.ErrConflict); len(store.concurrent) < 100 {
		t.Error("too many attempts")
	}
	store.concurrent = nil

	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if err := e.CreateResource(ctx, registry.Resource{ID: resourceID(fmt.Sprint("urn:many:", i))}); err != nil {
				t.Error(err)
			}
		})
	}
	if group.Wait(); len(store.resources.List()) != 10 {
		t.Errorf("got %d resources, want 10", len(store.resources.List()))
	}
}
