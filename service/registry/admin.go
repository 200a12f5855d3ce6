package registry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
)

// AdminResource identifies what administers the issuer: tokens for it are for the issuer's own API. It is built into
// every [Resources], is never stored, and no client can serve it.
const AdminResource = "urn:grantor:admin"

// The scopes of [AdminResource].
const (
	ScopeClientsRead    = adminPrefix + "clients.read"
	ScopeClientsWrite   = adminPrefix + "clients.write"
	ScopeResourcesRead  = adminPrefix + "resources.read"
	ScopeResourcesWrite = adminPrefix + "resources.write"
	ScopeKeysRead       = adminPrefix + "keys.read"
	ScopeKeysWrite      = adminPrefix + "keys.write"
)

// adminPrefix begins every scope of the issuer's own, and no other.
const adminPrefix = "grantor:"

func administrative(scope oauth.Scope) bool { return strings.HasPrefix(scope.String(), adminPrefix) }

// admin is the built-in resource.
var admin = builtIn()

func builtIn() *Resource {
	// Constants parse, or no test passes.
	id, _ := oauth.ParseResource(AdminResource)
	scopes, _ := oauth.ParseScopes(strings.Join([]string{
		ScopeClientsRead, ScopeClientsWrite, ScopeResourcesRead, ScopeResourcesWrite, ScopeKeysRead, ScopeKeysWrite,
	}, " "))
	return &Resource{ID: id, Name: "Grantor's own administration", Scopes: scopes}
}

// Authority says which of the issuer's own scopes somebody may hand out. The zero Authority may hand out none. It
// bounds nothing else.
type Authority struct {
	everything bool
	scopes     oauth.Scopes
}

// AuthorityOf gives the authority of a caller whose token has the scopes.
func AuthorityOf(scopes oauth.Scopes) Authority { return Authority{scopes: scopes} }

// Unlimited gives the authority of who holds the store itself, and so could write anything into it.
func Unlimited() Authority { return Authority{everything: true} }

// Over reports, as a [ForbiddenError], that the client has a scope of the issuer's own which the authority lacks. Who
// has no authority over a client may neither make it, change it, remove it nor touch its secrets and tokens: each of
// these is a way to act as the client, or to keep it from acting.
func (a Authority) Over(c *Client) error {
	if a.everything {
		return nil
	}
	for _, scope := range slices.Concat(c.Scopes, c.DefaultScopes) {
		if administrative(scope) && !a.scopes.Has(scope) {
			return &ForbiddenError{c.ID, scope}
		}
	}
	return nil
}

// ForbiddenError says that a client has, or would get, a scope that the caller may not hand out.
type ForbiddenError struct {
	ID    oauth.ClientID
	Scope oauth.Scope
}

func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("client %s: the scope %s is beyond the caller's own", e.ID, e.Scope)
}
