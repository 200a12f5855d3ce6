package registry

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
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

// Resources are all the resources there are, and [AdminResource]. They are kept and changed as one, so that no two of
// them can come to own a scope. They do not change once made.
type Resources struct {
	list []Resource
	byID map[oauth.Resource]*Resource
	// owner has scope → the resource that owns it.
	owner map[oauth.Scope]*Resource
	// version tells this state of the table from every other one; zero where nothing is stored.
	version uint64
}

// NewResources makes the table of what a store keeps under version. It refuses two resources with one identifier, a
// scope with two owners, what is the issuer's own and what no resource can be.
func NewResources(version uint64, list []Resource) (*Resources, error) {
	r := &Resources{
		list: list, version: version,
		byID: make(map[oauth.Resource]*Resource, len(list)+1), owner: make(map[oauth.Scope]*Resource),
	}
	r.byID[admin.ID] = admin
	for _, scope := range admin.Scopes {
		r.owner[scope] = admin
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
	if resource.ID == admin.ID {
		return &FieldError{"resource", fmt.Sprintf("%q is the issuer's own", resource.ID)}
	}
	if _, twice := r.byID[resource.ID]; twice {
		return &FieldError{"resource", fmt.Sprintf("%q is there twice", resource.ID)}
	}
	r.byID[resource.ID] = resource
	for _, scope := range resource.Scopes {
		// These two ask for a person's identity and presence; this issuer has only services.
		if name := scope.String(); name == "openid" || name == "offline_access" {
			return &FieldError{"scopes", fmt.Sprintf("%q is reserved for grants with a user", scope)}
		}
		if administrative(scope) {
			return &FieldError{"scopes", fmt.Sprintf("%q begins with %q, as the issuer's own do", scope, adminPrefix)}
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

// check reports what a resource that is stored may have, but a new one may not.
func (r *Resource) check(algorithms []jwks.Algorithm) error {
	if err := checkName("name", r.Name); err != nil {
		return err
	}
	if len(r.Scopes) > oauth.MaxScopes {
		return &FieldError{"scopes", fmt.Sprintf("there are more than %d", oauth.MaxScopes)}
	}
	if r.SigningAlg != "" && len(algorithms) > 0 && !slices.Contains(algorithms, r.SigningAlg) {
		return &FieldError{"signing_alg", fmt.Sprintf("the issuer has no key for %s; add it to signing-algorithms first", r.SigningAlg)}
	}
	return nil
}

// ETag names the state of the resource. All resources have one version, so it is made of what the resource is.
func (r *Resource) ETag() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %d %q", r.ID, r.Name, r.Scopes, r.AccessTokenLifetime, r.SigningAlg))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// ResourceError says which resource is wrong, and how.
type ResourceError struct {
	ID  oauth.Resource
	Err error
}

func (e *ResourceError) Error() string { return fmt.Sprintf("resource %s: %v", e.ID, e.Err) }

// Unwrap gives the [FieldError].
func (e *ResourceError) Unwrap() error { return e.Err }

// List gives the resources in the order in which they were stored, without the built-in one.
func (r *Resources) List() []Resource { return r.list }

// Version tells this state of the table from every other one; zero where nothing is stored.
func (r *Resources) Version() uint64 { return r.version }

// Get gives the resource with the identifier, which may be the built-in one.
func (r *Resources) Get(id oauth.Resource) (*Resource, bool) {
	resource, ok := r.byID[id]
	return resource, ok
}

// Owner gives the resource that owns scope, which may be the built-in one.
func (r *Resources) Owner(scope oauth.Scope) (*Resource, bool) {
	resource, ok := r.owner[scope]
	return resource, ok
}

// Scopes gives every scope there is in byte order, without the built-in ones: those are not for the public to see.
func (r *Resources) Scopes() []string {
	names := make([]string, 0, len(r.owner))
	for i := range r.list {
		names = append(names, r.list[i].Scopes.Strings()...)
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
