// Package registry holds the registered clients with their secrets, and the resources, and the rules for changing them,
// one at a time or by a manifest ([Editor]). It implements RFC 7591 §2 (client metadata), RFC 8707 §2 (resources) and
// AIP-154 (etags).
package registry

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/trust"
)

// Client is a service that may request tokens. A Client that a store or a [Directory] returned is shared and must not be
// changed.
type Client struct {
	ID   oauth.ClientID
	Name string
	// Secrets are alternatives: any one that has not expired authenticates the client.
	Secrets []clientsecret.Secret
	// Keys verify the client's assertions ([oauth.PrivateKeyJWT]). KeysURI is the URL of a JWK Set that does instead.
	Keys    jwks.Document
	KeysURI string
	// UntypedAssertionsUntil is until when an assertion may have the "typ" JWT or none, and OlderAudiencesUntil until when it
	// may be addressed to the token endpoint, or to several servers; zero means not at all.
	UntypedAssertionsUntil, OlderAudiencesUntil time.Time
	// Certificate is the name in a certificate that authenticates the client ([oauth.TLSClientAuth]); the zero value is in
	// none.
	Certificate certificate.Subject
	// CertificateBoundTokens binds the client's tokens to its certificate, and refuses one to a request without it (RFC 8705
	// §3.4).
	CertificateBoundTokens bool
	// DPoPBoundTokens refuses a token to a request without a DPoP proof, to whose key the token is bound (RFC 9449 §5.2).
	DPoPBoundTokens bool
	// AuthMethods are the ways in which the client may authenticate, such as [oauth.ClientSecretBasic]; empty means all for
	// which it has a secret, a key or the name of a certificate.
	AuthMethods []string
	GrantTypes  []string
	// Scopes are all scopes that the client may have.
	Scopes oauth.Scopes
	// DefaultScopes are the scopes of a token for which the client requests none; empty means Scopes.
	DefaultScopes oauth.Scopes
	// Resources are the resources that the client serves, as a resource server.
	Resources []oauth.Resource
	// AccessTokenLifetime limits the lifetime of the client's tokens; zero means no limit beyond those of the issuer.
	AccessTokenLifetime time.Duration
	// AllowedNetworks are the networks from which the client may authenticate; empty means any.
	AllowedNetworks remoteaddr.Networks
	// Disabled keeps the client from authenticating.
	Disabled bool
	// Federation has the rules that select the client's identities elsewhere: any one that matches authenticates it.
	Federation []trust.Rule
	// SPIFFEID is the SPIFFE ID that authenticates the client (draft-ietf-oauth-spiffe-client-auth), or one that ends in
	// /* for all IDs below it; empty for none.
	SPIFFEID string
	// Workload means that a workload of the trust table makes the client ([trust.Workload]). What is stored restricts it:
	// of the fields only Disabled, AllowedNetworks and AccessTokenLifetime count, and the others are empty.
	Workload bool
	// CreatedAt and ChangedAt are when the client was first and last stored.
	CreatedAt, ChangedAt time.Time

	// Version distinguishes this state of the client from every other one; zero means that the client is not stored.
	Version uint64
	// Err is set only in a list, if the client's record cannot be read: [ErrNewer], [ErrAltered] or another error. Only ID
	// is then set as well.
	Err error
}

// authMethods are the ways in which a client can authenticate.
var authMethods = []string{
	oauth.ClientSecretBasic, oauth.ClientSecretPost, oauth.PrivateKeyJWT, oauth.TLSClientAuth, oauth.SelfSignedTLSClientAuth, oauth.FederatedJWT,
	oauth.SPIFFEJWT, oauth.SPIFFEX509,
}

// Allows reports whether the client may authenticate by method.
func (c *Client) Allows(method string) bool {
	if len(c.AuthMethods) == 0 {
		return slices.Contains(authMethods, method)
	}
	return slices.Contains(c.AuthMethods, method)
}

// AllowsFrom reports whether the client may authenticate from the address; the zero address stands for an unknown one.
func (c *Client) AllowsFrom(source netip.Addr) bool {
	return len(c.AllowedNetworks) == 0 || c.AllowedNetworks.Contain(source)
}

// ScopesByDefault returns the scopes of a token for which the client requests none. It omits a scope without an owner,
// whose resource was removed.
func (c *Client) ScopesByDefault(resources *Resources) oauth.Scopes {
	scopes := c.DefaultScopes
	if len(scopes) == 0 {
		scopes = c.Scopes
	}
	return slices.DeleteFunc(slices.Clone(scopes), func(s oauth.Scope) bool {
		_, ok := resources.Owner(s)
		return !ok
	})
}

// CopyFields copies the fields with the given names, of those that [ClientFields] returns.
func (c *Client) CopyFields(from *Client, names []string) { copyFields(ClientFields(), c, from, names) }

// clone returns a copy that can be changed.
func (c *Client) clone() *Client {
	next := *c
	next.Secrets = slices.Clone(c.Secrets)
	for i := range clientFields {
		clientFields[i].copy(&next, c)
	}
	return &next
}

// changes returns the fields in which next differs, its secrets included. The text of a secret is its ID and when it
// expires.
func (c *Client) changes(next *Client) []FieldChange {
	changed := changes(ClientFields(), c, next)
	if before, after := secretsText(c.Secrets), secretsText(next.Secrets); before != after {
		changed = append(changed, FieldChange{"client_secret", before, after})
	}
	return changed
}

func secretsText(secrets []clientsecret.Secret) string {
	texts := make([]string, len(secrets))
	for i := range secrets {
		texts[i] = secrets[i].ID
		if end := secrets[i].ExpiresAt; !end.IsZero() {
			texts[i] += fmt.Sprintf(" (until %s)", end.UTC().Format(time.RFC3339))
		}
	}
	return strings.Join(texts, ", ")
}

// ETag identifies the state of the client; it is empty if the state is not known.
func (c *Client) ETag() string {
	if c.Version == 0 {
		return ""
	}
	return strconv.FormatUint(c.Version, 36)
}

// ParseETag returns the version of the client that [Client.ETag] formatted; zero for an empty etag. Any other text
// identifies no state that a client can have, so the error is [ErrConflict].
func ParseETag(etag string) (uint64, error) {
	if etag == "" {
		return 0, nil
	}
	version, err := strconv.ParseUint(etag, 36, 64)
	if err != nil || version == 0 || strconv.FormatUint(version, 36) != etag {
		return 0, ErrConflict
	}
	return version, nil
}
