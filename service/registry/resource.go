package registry

import (
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
	// AccessTokenLifetime limits the lifetime of tokens for the resource; zero means no limit beyond those of the issuer.
	AccessTokenLifetime time.Duration
	// RequireBoundTokens is the key that tokens for the resource must be bound to; empty means none.
	RequireBoundTokens Binding
	// SigningAlg is the algorithm with which tokens for the resource are signed; empty means any that the issuer chooses.
	SigningAlg jwks.Algorithm
}

// Binding is the kind of key that tokens must be bound to (RFC 7800).
type Binding string

// The bindings that a resource can require: to a client certificate (RFC 8705 §3), to a key that signs DPoP proofs (RFC 9449),
// or to either.
const (
	BindCertificate Binding = "certificate"
	BindDPoP        Binding = "dpop"
	BindAny         Binding = "any"
)

// CopyFields copies the fields with the given names, of those that [ResourceFields] returns.
func (r *Resource) CopyFields(from *Resource, names []string) {
	copyFields(resourceFields, r, from, names)
}

// changes returns the fields in which next differs.
func (r *Resource) changes(next *Resource) []FieldChange { return changes(resourceFields, r, next) }

// ETag identifies the state of the resource. All resources share one version, so it is a hash of the resource itself.
func (r *Resource) ETag() string {
	state := fmt.Appendf(nil, "%q %q %q %d %q", r.ID, r.Name, r.Scopes, r.AccessTokenLifetime, r.SigningAlg)
	if r.RequireBoundTokens != "" { // releases that do not know the field have the same etag for the others
		state = fmt.Appendf(state, " %q", r.RequireBoundTokens)
	}
	sum := sha256.Sum256(state)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// Resources is the table of all resources and [AdminResource]. The resources are stored and changed as one, so that no two
// of them can come to own the same scope. A Resources is immutable.
type Resources struct {
	list []Resource
	byID map[oauth.Resource]*Resource
	// owner maps each scope to the resource that owns it.
	owner map[oauth.Scope]*Resource
	// version distinguishes this state of the table from every other one; zero means that nothing is stored.
	version uint64
}

// NewResources returns the table of the resources that a store keeps under version. It rejects two resources with one
// identifier, a scope with two owners, the issuer's own identifier and scopes, and any value that no resource can have.
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
	if _, ok := r.byID[resource.ID]; ok {
		return &FieldError{"resource", fmt.Sprintf("duplicate %q", resource.ID)}
	}
	r.byID[resource.ID] = resource
	for _, scope := range resource.Scopes {
		// These two scopes request a person's identity and presence; this issuer has only services.
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
	switch resource.RequireBoundTokens {
	case "", BindCertificate, BindDPoP, BindAny:
	default:
		return &FieldError{"require_bound_tokens", fmt.Sprintf("%q is not one of certificate, dpop, any", resource.RequireBoundTokens)}
	}
	return fieldError("access_token_lifetime", checkLifetime(resource.AccessTokenLifetime))
}

// ResourceError reports which resource is not valid, and why.
type ResourceError struct {
	ID  oauth.Resource
	Err error
}

func (e *ResourceError) Error() string { return fmt.Sprintf("resource %s: %v", e.ID, e.Err) }

// Unwrap returns the [FieldError].
func (e *ResourceError) Unwrap() error { return e.Err }

// List returns the resources in the order in which they were stored, without the built-in one.
func (r *Resources) List() []Resource { return r.list }

// Version distinguishes this state of the table from every other one; zero means that nothing is stored.
func (r *Resources) Version() uint64 { return r.version }

// Get returns the resource with the identifier, which may be the built-in one.
func (r *Resources) Get(id oauth.Resource) (*Resource, bool) {
	resource, ok := r.byID[id]
	return resource, ok
}

// Owner returns the resource that owns scope, which may be the built-in one.
func (r *Resources) Owner(scope oauth.Scope) (*Resource, bool) {
	resource, ok := r.owner[scope]
	return resource, ok
}

// Owners returns the resources that own the scopes, in the order of the scopes.
func (r *Resources) Owners(scopes oauth.Scopes) []*Resource {
	var owners []*Resource
	for _, scope := range scopes {
		if owner, ok := r.Owner(scope); ok && !slices.Contains(owners, owner) {
			owners = append(owners, owner)
		}
	}
	return owners
}

// Scopes returns every scope in byte order, without the built-in ones, which are not public.
func (r *Resources) Scopes() []string {
	names := make([]string, 0, len(r.owner))
	for i := range r.list {
		names = append(names, r.list[i].Scopes.Strings()...)
	}
	slices.Sort(names)
	return names
}
