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

// expectResources checks what is stored, as "id(name scopes)", in byte order.
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

func nothing(*registry.Resource) error { return nil }

func TestRegisterResources(t *testing.T) {
	store, r := newRegistry()
	ctx, a := t.Context(), resourceID("urn:a")
	store.expectResources(t, storedA, storedC)
	must.Succeed(t, r.CreateResource(ctx, registry.Resource{ID: resourceID("urn:b"), Name: "B", Scopes: scopes("b2"), SigningAlg: jwks.ES256}))
	store.expectResources(t, storedA, "urn:b(B b2)", storedC)

	before, _ := store.resources.Get(a)
	etag := before.ETag()
	got, err := r.UpdateResource(ctx, a, etag, func(r *registry.Resource) error {
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

	expectError(t, r.DeleteResource(ctx, a, etag), registry.ErrConflict)
	store.expectResources(t, "urn:a(AA a a2)", "urn:b(B b2)", storedC)
	must.Succeed(t, r.DeleteResource(ctx, a, got.ETag()))
	must.Succeed(t, r.DeleteResource(ctx, resourceID("urn:b"), ""))
	store.expectResources(t, storedC)
}

func TestResourcesRefused(t *testing.T) {
	admin := resourceID(registry.AdminResource)
	refused := errors.New("refused")
	create := func(resource registry.Resource) func(*testing.T, *registry.Editor) error {
		return func(t *testing.T, r *registry.Editor) error { return r.CreateResource(t.Context(), resource) }
	}
	update := func(id oauth.Resource, etag string, change func(*registry.Resource) error) func(*testing.T, *registry.Editor) error {
		return func(t *testing.T, r *registry.Editor) error {
			got, err := r.UpdateResource(t.Context(), id, etag, change)
			if got != nil {
				t.Errorf("got %+v", got)
			}
			return err
		}
	}
	remove := func(id oauth.Resource, etag string) func(*testing.T, *registry.Editor) error {
		return func(t *testing.T, r *registry.Editor) error { return r.DeleteResource(t.Context(), id, etag) }
	}
	with := func(change func(*registry.Resource)) func(*registry.Resource) error {
		return func(r *registry.Resource) error { change(r); return nil }
	}
	a, none := resourceID("urn:a"), resourceID("urn:none")
	for name, test := range map[string]struct {
		do    func(*testing.T, *registry.Editor) error
		want  error
		field string // where want is nil
		blame oauth.Resource
	}{
		"made twice":              {create(registry.Resource{ID: a}), registry.ErrExists, "", a},
		"made, another's scope":   {create(registry.Resource{ID: none, Scopes: scopes("c")}), nil, "scopes", none},
		"made, the issuer's":      {create(registry.Resource{ID: admin}), nil, "resource", admin},
		"made, issuer's scope":    {create(registry.Resource{ID: none, Scopes: scopes("grantor:clients.read")}), nil, "scopes", none},
		"made, too many scopes":   {create(registry.Resource{ID: none, Scopes: many(oauth.MaxScopes + 1)}), nil, "scopes", none},
		"made, no key":            {create(registry.Resource{ID: none, SigningAlg: jwks.RS256}), nil, "signing_alg", none},
		"made, odd name":          {create(registry.Resource{ID: none, Name: "\x1b"}), nil, "name", none},
		"made, lifetime":          {create(registry.Resource{ID: none, AccessTokenLifetime: 25 * time.Hour}), nil, "access_token_lifetime", none},
		"changed, not there":      {update(none, "", nothing), registry.ErrNotFound, "", none},
		"changed, the issuer's":   {update(admin, "", nothing), nil, "resource", admin},
		"changed, another state":  {update(a, "x", nothing), registry.ErrConflict, "", a},
		"changed, refused":        {update(a, "", func(*registry.Resource) error { return refused }), refused, "", a},
		"changed, later's scope":  {update(a, "", with(func(r *registry.Resource) { r.Scopes = scopes("a c") })), nil, "scopes", a},
		"changed, issuer's scope": {update(a, "", with(func(r *registry.Resource) { r.Scopes = scopes("grantor:x") })), nil, "scopes", a},
		"changed, many scopes":    {update(a, "", with(func(r *registry.Resource) { r.Scopes = many(oauth.MaxScopes + 1) })), nil, "scopes", a},
		"changed, no key":         {update(a, "", with(func(r *registry.Resource) { r.SigningAlg = jwks.RS256 })), nil, "signing_alg", a},
		"changed, long name":      {update(a, "", with(func(r *registry.Resource) { r.Name = strings.Repeat("a", 256) })), nil, "name", a},
		"removed, not there":      {remove(none, ""), registry.ErrNotFound, "", none},
		"removed, the issuer's":   {remove(admin, ""), nil, "resource", admin},
		"removed, another state":  {remove(a, "x"), registry.ErrConflict, "", a},
	} {
		t.Run(name, func(t *testing.T) {
			store, r := newRegistry()
			err := test.do(t, r)
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
	_, r := newRegistry()
	r.Algorithms = nil // where the issuer's are not known, none is refused
	must.Succeed(t, r.CreateResource(t.Context(), registry.Resource{ID: none, SigningAlg: jwks.RS256}))
	// One who may do nothing with clients may yet change resources: that is for the caller's scopes to say.
	r = r.As(registry.Authority{})
	must.Succeed(t, r.DeleteResource(t.Context(), none, ""))
}

// All resources are one record. Who changes another one meanwhile is no conflict, and loses nothing.
func TestResourcesAtOnce(t *testing.T) {
	store, r := newRegistry()
	ctx, a, c := t.Context(), resourceID("urn:a"), resourceID("urn:c")
	rename := func(id oauth.Resource, name string) func() {
		return func() {
			_, err := r.UpdateResource(ctx, id, "", func(r *registry.Resource) error { r.Name = name; return nil })
			must.Succeed(t, err)
		}
	}
	before, _ := store.resources.Get(a)
	addScope := func(r *registry.Resource) error { r.Scopes = append(r.Scopes, scopes("a3")...); return nil }
	store.meanwhile = []func(){rename(c, "C")}
	_, err := r.UpdateResource(ctx, a, before.ETag(), addScope)
	must.Succeed(t, err)
	store.expectResources(t, "urn:a(A a b a3)", "urn:c(C c)")
	// The same one, meanwhile: with a state that is meant it is a conflict, else both changes stay.
	now, _ := store.resources.Get(a)
	store.meanwhile = []func(){rename(a, "AA")}
	_, err = r.UpdateResource(ctx, a, now.ETag(), func(r *registry.Resource) error { r.Scopes = scopes("a"); return nil })
	expectError(t, err, registry.ErrConflict)
	store.expectResources(t, "urn:a(AA a b a3)", "urn:c(C c)")
	store.meanwhile = []func(){rename(a, "AAA")}
	_, err = r.UpdateResource(ctx, a, "", func(r *registry.Resource) error { r.Scopes = scopes("a"); return nil })
	must.Succeed(t, err)
	store.expectResources(t, "urn:a(AAA a)", "urn:c(C c)")
	// A scope that another one takes meanwhile is not taken twice.
	store.meanwhile = []func(){func() {
		must.Succeed(t, r.CreateResource(ctx, registry.Resource{ID: resourceID("urn:b"), Scopes: scopes("b")}))
	}}
	expectField(t, r.CreateResource(ctx, registry.Resource{ID: resourceID("urn:d"), Scopes: scopes("b")}), "scopes")
	store.meanwhile = []func(){func() { must.Succeed(t, r.DeleteResource(ctx, resourceID("urn:b"), "")) }}
	expectError(t, r.DeleteResource(ctx, resourceID("urn:b"), ""), registry.ErrNotFound)
	store.expectResources(t, "urn:a(AAA a)", "urn:c(C c)")

	for range 100 {
		store.meanwhile = append(store.meanwhile, rename(c, "C"), nil)
	}
	if expectError(t, r.DeleteResource(ctx, a, ""), registry.ErrConflict); len(store.meanwhile) < 100 {
		t.Error("it was tried too often")
	}
	store.meanwhile = nil

	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if err := r.CreateResource(ctx, registry.Resource{ID: resourceID(fmt.Sprint("urn:many:", i))}); err != nil {
				t.Error(err)
			}
		})
	}
	if group.Wait(); len(store.resources.List()) != 10 {
		t.Errorf("there are %d resources, want 10", len(store.resources.List()))
	}
}
