package registry

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
)

// Resource is something that tokens are for: an API with its scopes. Its identifier is the "aud" of those tokens.
type Resource struct {
	ID   oauth.Resource
	Name string
	// Scopes are owned by this resource and no other.
	Scopes oauth.Scopes
	// AccessTokenLifetime bounds the life of tokens for the resource; zero means no bound of the resource's own.
	AccessTokenLifetime time.Duration
	// SigningAlg is the algorithm that the resource wants; empty means any that the issuer chooses.
	SigningAlg jwks.Algorithm
}

// Resources are all the resources there are. They are kept and changed as one, so that no two of them can come to own
// a scope. They do not change once made.
type Resources struct {
	list []Resource
	byID map[oauth.Resource]*Resource
	// owner has scope → the resource that owns it.
	owner map[oauth.Scope]*Resource
	// version is the store's count of changes; zero where nothing is stored.
	version uint64
}

// NewResources makes the table of what a store keeps under version. It refuses two resources with one identifier, a
// scope with two owners and what no resource can be.
func NewResources(version uint64, list []Resource) (*Resources, error) {
	r := &Resources{
		list: list, version: version,
		byID: make(map[oauth.Resource]*Resource, len(list)), owner: make(map[oauth.Scope]*Resource),
	}
	for i := range list {
		resource := &list[i]
		if err := r.add(resource); err != nil {
			return nil, &ResourceError{resource.ID, err}
		}
	}
	return r, nil
}

func (r *Resources) add(resource *Resource) error {
	if _, twice := r.byID[resource.ID]; twice {
		return &FieldError{"resource", fmt.Sprintf("%q is there twice", resource.ID)}
	}
	r.byID[resource.ID] = resource
	for _, scope := range resource.Scopes {
		// These two ask for a person's identity and presence; this issuer has only services.
		if name := scope.String(); name == "openid" || name == "offline_access" {
			return &FieldError{"scopes", fmt.Sprintf("%q is reserved for grants with a user", scope)}
		}
		if other, taken := r.owner[scope]; taken {
			return &FieldError{"scopes", fmt.Sprintf("%q belongs to %s already", scope, other.ID)}
		}
		r.owner[scope] = resource
	}
	switch resource.SigningAlg {
	case "", jwks.ES256, jwks.RS256, jwks.PS256, jwks.EdDSA:
	default:
		return &FieldError{"signing_alg", fmt.Sprintf("%q is not one of ES256, RS256, PS256, EdDSA", resource.SigningAlg)}
	}
	return checkLifetime(resource.AccessTokenLifetime)
}

// ResourceError says which resource is wrong, and how.
type ResourceError struct {
	ID  oauth.Resource
	Err error
}

func (e *ResourceError) Error() string { return fmt.Sprintf("resource %s: %v", e.ID, e.Err) }

// Unwrap gives the [FieldError].
func (e *ResourceError) Unwrap() error { return e.Err }

// List gives the resources in the order in which they were stored.
func (r *Resources) List() []Resource { return r.list }

// Version is the store's count of changes.
func (r *Resources) Version() uint64 { return r.version }

// Get gives the resource with the identifier.
func (r *Resources) Get(id oauth.Resource) (*Resource, bool) {
	resource, ok := r.byID[id]
	return resource, ok
}

// Owner gives the resource that owns scope.
func (r *Resources) Owner(scope oauth.Scope) (*Resource, bool) {
	resource, ok := r.owner[scope]
	return resource, ok
}

// Scopes gives every scope there is, in byte order.
func (r *Resources) Scopes() []string {
	names := make([]string, 0, len(r.owner))
	for scope := range r.owner {
		names = append(names, scope.String())
	}
	slices.Sort(names)
	return names
}

// ResourceStore keeps the resources. Every change is announced to all replicas in the same step that makes it. It may be
// used by several goroutines.
type ResourceStore interface {
	// Resources gives the table as last saved; an empty one where none was.
	Resources(ctx context.Context) (*Resources, error)
	// SaveResources replaces the table if the stored version is still that of r, else it gives [ErrConflict].
	SaveResources(ctx context.Context, r *Resources) error
}
