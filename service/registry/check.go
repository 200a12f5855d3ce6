package registry

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

const (
	// MaxLifetime is the maximum lifetime of an access token. Keys and revocations must be kept that long after their use.
	MaxLifetime = 24 * time.Hour
	// maxNetworks is the maximum number of networks of a client.
	maxNetworks = 64
	// maxName is the maximum length of a name for people, in bytes.
	maxName = 255
)

// Check returns the first field of the client that is not valid, given the resources, as a [FieldError].
func (c *Client) Check(resources *Resources) error { return c.check(resources, &Client{}) }

// check is Check for a client that is stored as before. A scope or resource that the client has, and that was deleted since,
// does not prevent another change, such as disabling the client.
func (c *Client) check(resources *Resources, stored *Client) error {
	if err := c.checkRestriction(); err != nil {
		return err
	}
	for i := range clientFields {
		f := &clientFields[i]
		if f.check != nil {
			if err := fieldError(f.Name, f.check(c, stored, resources)); err != nil {
				return err
			}
		}
		if list, ok := f.Get(c).([]string); ok {
			if err := fieldError(f.Name, checkUnique(list)); err != nil {
				return err
			}
		}
	}
	return nil
}

// restrictions are the fields that what is stored of a client which a workload makes may have.
var restrictions = []string{"client_name", "access_token_lifetime", "allowed_networks", "disabled", "workload"}

// checkRestriction returns what a client that a workload makes may not have, as a [FieldError].
func (c *Client) checkRestriction() error {
	if !c.Workload {
		return nil
	}
	for i := range clientFields {
		if f := &clientFields[i]; f.Text(c) != "" && !slices.Contains(restrictions, f.Name) {
			return &FieldError{Field: f.Name, Problem: "cannot be set for a client that a workload makes"}
		}
	}
	if len(c.Secrets) > 0 {
		return &FieldError{Field: "workload", Problem: "a client that a workload makes cannot have a secret"}
	}
	return nil
}

// checkTokenSize returns a [FieldError] if the token that the client gets without requesting scopes is larger than verifiers
// accept: such a token is never issued. A token for some of the scopes may still fit. If the issuer is not known, its name
// counts as empty and its signature as the shortest one, so that a token which is slightly too large passes here and is
// refused when it is requested.
func (e *Editor) checkTokenSize(c *Client, resources *Resources) error {
	if !slices.Contains(c.GrantTypes, oauth.GrantClientCredentials) {
		return nil
	}
	claims := &token.Claims{
		Issuer: e.config.Issuer.String(), Subject: c.ID.String(), ClientID: c.ID.String(), Scope: c.ScopesByDefault(resources),
		IssuedAt: e.config.Now(), ExpiresAt: e.config.Now(), ID: token.NewID().String(),
	}
	algorithm := jwks.ES256 // has the shortest signature
	if e.config.Issuer != (oauth.Issuer{}) && len(e.config.Algorithms) > 0 {
		algorithm = e.config.Algorithms[0]
	}
	for _, owner := range resources.Owners(claims.Scope) {
		claims.Audience = append(claims.Audience, owner.ID.String())
		algorithm = cmp.Or(owner.SigningAlg, algorithm)
	}
	size, err := token.Size(claims, algorithm)
	if err != nil || size <= token.MaxSize {
		return err
	}
	field, advice := "default_scopes", "give fewer"
	if len(c.DefaultScopes) == 0 {
		field, advice = "scopes", "give default_scopes, for requests that name none"
	}
	return &FieldError{Field: field, Problem: fmt.Sprintf("a token with all of them would have %d bytes, more than the %d that verifiers accept; %s", size, token.MaxSize, advice)}
}

// check returns what a stored resource may have, but a new one may not, as a [FieldError].
func (r *Resource) check(algorithms []jwks.Algorithm) error {
	if problem := checkName(r.Name); problem != "" {
		return &FieldError{Field: "name", Problem: problem}
	}
	if problem := checkCount(len(r.Scopes), oauth.MaxScopes); problem != "" {
		return &FieldError{Field: "scopes", Problem: problem}
	}
	if r.SigningAlg != "" && len(algorithms) > 0 && !slices.Contains(algorithms, r.SigningAlg) {
		return &FieldError{Field: "signing_alg", Problem: fmt.Sprintf("the issuer has no key for %s; add it to signing-algorithms first", r.SigningAlg)}
	}
	return nil
}

func checkScopes(c, stored *Client, resources *Resources) string {
	if problem := checkCount(len(c.Scopes), oauth.MaxScopes); problem != "" {
		return problem
	}
	for _, scope := range c.Scopes {
		if _, ok := resources.Owner(scope); !ok && !stored.Scopes.Has(scope) {
			return fmt.Sprintf("%q belongs to no resource", scope)
		}
	}
	return ""
}

func checkDefaultScopes(c, _ *Client, _ *Resources) string {
	for _, scope := range c.DefaultScopes {
		if !c.Scopes.Has(scope) {
			return fmt.Sprintf("%q is not among the client's scopes", scope)
		}
	}
	return ""
}

func checkResources(c, stored *Client, resources *Resources) string {
	for _, served := range c.Resources {
		if served == admin.ID {
			// A client that serves a resource may introspect the tokens for it.
			return fmt.Sprintf("%q is served by the issuer alone", served)
		}
		if _, ok := resources.Get(served); !ok && !slices.Contains(stored.Resources, served) {
			return fmt.Sprintf("there is no resource %q", served)
		}
	}
	return ""
}

func checkOffered(list []string, offered ...string) string {
	for _, value := range list {
		if !slices.Contains(offered, value) {
			return fmt.Sprintf("%q is not offered", value)
		}
	}
	return ""
}

func checkCount(count, limit int) string {
	if count > limit {
		return fmt.Sprintf("there are more than %d", limit)
	}
	return ""
}

func checkUnique(list []string) string {
	seen := make(map[string]bool, len(list))
	for _, value := range list {
		if seen[value] {
			return duplicateError(value).Error()
		}
		seen[value] = true
	}
	return ""
}

func checkName(name string) string {
	if len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Sprintf("is not UTF-8 of at most %d bytes without control characters", maxName)
	}
	return ""
}

func checkLifetime(d time.Duration) string {
	if d < 0 || d > MaxLifetime || d%time.Second != 0 {
		return fmt.Sprintf("%s is not between 1s and %s in whole seconds", d, MaxLifetime)
	}
	return ""
}

// maxURI is the maximum length of a jwks_uri, in bytes.
const maxURI = 512

func checkKeysURI(c, _ *Client, _ *Resources) string {
	if c.KeysURI == "" {
		return ""
	}
	u, err := url.Parse(c.KeysURI)
	switch {
	case len(c.KeysURI) > maxURI:
		return fmt.Sprintf("has more than %d bytes", maxURI)
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || oauth.SecureURL(c.KeysURI) != nil:
		return "is not an https URL without a user and a fragment"
	case c.Keys.String() != "":
		return "cannot be set beside jwks (RFC 7591 §2)"
	}
	return ""
}

// maxRules is the maximum number of rules in the federation of a client.
const maxRules = 16

func checkFederation(c, _ *Client, _ *Resources) string {
	if problem := checkCount(len(c.Federation), maxRules); problem != "" {
		return problem
	}
	for i := range c.Federation {
		if err := c.Federation[i].Check(); err != nil {
			return fmt.Sprintf("rule %d: %v", i+1, err)
		}
	}
	return ""
}
