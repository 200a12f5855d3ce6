package registry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// AdminResource is the identifier of the issuer's own administrative API, and the audience of tokens for it. It is built
// into every [Resources] and never stored, and no client can serve it.
const AdminResource = "urn:grantor:admin"

// The scopes of [AdminResource].
const (
	ScopeClientsRead    = adminPrefix + "clients.read"
	ScopeClientsWrite   = adminPrefix + "clients.write"
	ScopeResourcesRead  = adminPrefix + "resources.read"
	ScopeResourcesWrite = adminPrefix + "resources.write"
	ScopeKeysRead       = adminPrefix + "keys.read"
	ScopeKeysWrite      = adminPrefix + "keys.write"
	ScopeTrustRead      = adminPrefix + "trust.read"
	ScopeTrustWrite     = adminPrefix + "trust.write"
)

// adminPrefix starts every scope of [AdminResource], and no other scope.
const adminPrefix = "grantor:"

func administrative(scope oauth.Scope) bool { return strings.HasPrefix(scope.String(), adminPrefix) }

// admin is the built-in resource.
var admin = builtIn()

func builtIn() *Resource {
	// The constants parse; otherwise no test would pass.
	id, _ := oauth.ParseResource(AdminResource)
	scopes, _ := oauth.ParseScopes(strings.Join([]string{
		ScopeClientsRead, ScopeClientsWrite, ScopeResourcesRead, ScopeResourcesWrite, ScopeKeysRead, ScopeKeysWrite,
		ScopeTrustRead, ScopeTrustWrite,
	}, " "))
	return &Resource{ID: id, Name: "Grantor's own administration", Scopes: scopes}
}

// Authority is the set of administrative scopes that a caller may grant. The zero Authority may grant none. It bounds
// nothing else.
type Authority struct {
	unlimited bool
	scopes    oauth.Scopes
}

// AuthorityOf returns the authority of a caller whose token has the scopes.
func AuthorityOf(scopes oauth.Scopes) Authority { return Authority{scopes: scopes} }

// Unlimited returns the authority of an operator with access to the store itself, who could write anything into it.
func Unlimited() Authority { return Authority{unlimited: true} }

// Check returns a [ForbiddenError] if the client has an administrative scope that the authority lacks. A caller without
// authority over a client may neither create, change nor delete it, nor touch its secrets and tokens: each of these is a
// way to act as the client, or to keep it from acting.
func (a Authority) Check(c *Client) error {
	return a.checkScopes("client", c.ID.String(), slices.Concat(c.Scopes, c.DefaultScopes))
}

// CheckWorkload returns a [ForbiddenError] if the clients that the workload makes have an administrative scope that the
// authority lacks.
func (a Authority) CheckWorkload(w *trust.Workload) error {
	return a.checkScopes(trust.KindWorkload, w.ClientID.String(), slices.Concat(w.Scopes, w.DefaultScopes))
}

// CheckIssuer returns a [ForbiddenError] if the authority lacks an administrative scope: a caller who chooses the keys of an
// issuer can act as every client that the issuer vouches for, and which these are changes with clients and workloads.
func (a Authority) CheckIssuer(i *trust.Issuer) error {
	return a.checkScopes(trust.KindIssuer, i.ID(), admin.Scopes)
}

func (a Authority) checkScopes(kind, id string, scopes oauth.Scopes) error {
	if a.unlimited {
		return nil
	}
	for _, scope := range scopes {
		if administrative(scope) && !a.scopes.Has(scope) {
			return &ForbiddenError{kind, id, scope}
		}
	}
	return nil
}

// ForbiddenError reports that a client, workload or trusted issuer has, would get or may grant a scope that the caller may not
// grant.
type ForbiddenError struct {
	// Kind is what it is about: "client", [trust.KindWorkload] or [trust.KindIssuer]; ID is which.
	Kind, ID string
	Scope    oauth.Scope
}

func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("%s %s: the scope %s is beyond the caller's own", e.Kind, e.ID, e.Scope)
}
