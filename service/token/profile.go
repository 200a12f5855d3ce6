package token

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/oauth"
)

// Profile says how the access tokens of an issuer differ from RFC 9068. The zero Profile is RFC 9068 itself: the header
// has the "typ" at+jwt, and "sub", "client_id" and "jti" are present. A Profile never concerns the signature, "iss",
// "aud" or the times of a token.
//
// A token whose type is not at+jwt could be an ID token or a logout token of the same issuer. It is therefore refused if
// it has a claim that only these have: "nonce", "at_hash", "c_hash", "s_hash", "events", or one of Forbidden. Beyond
// that, the audience keeps them apart: that of an ID token is a client's id. A verifier whose audience is the id of a
// client that signs in users relies on those claims alone.
type Profile struct {
	// Types lists the values of "typ" in the header, besides at+jwt, that an access token may have. The empty string
	// stands for a header without "typ". Letter case is not significant.
	Types []string
	// Use is the claim that says what a token is for, such as "typ" or "token_use", and UseValue what it says of an
	// access token. A token with another value is refused; one with this value is not searched for the claims of ID
	// tokens. A token need not have the claim. An empty Use names none.
	Use, UseValue string
	// Forbidden lists further claims that the issuer's ID tokens have and its access tokens do not.
	Forbidden []string
	// ClientID lists the claims that may contain the client's id; the first that is present counts. A token must have
	// one. The default is "client_id".
	ClientID []string
	// Scopes lists the claims that may contain scopes, each as a space-separated string or a list of strings. The
	// token's scopes are those of all of them. The default is "scope", as a string.
	Scopes []string
	// Roles is the path of a claim with a list of strings, such as {"roles"}, or {"realm_access", "roles"} for a member
	// of an object. The roles count as scopes; those that cannot be written as a scope are left out. By default, roles
	// are ignored.
	Roles []string
	// OptionalID permits tokens without "jti", and OptionalSubject tokens without "sub"; the client is then the subject.
	OptionalID, OptionalSubject bool
}

// WithRoles returns p with the path of [Profile.Roles].
func (p Profile) WithRoles(path ...string) Profile {
	p.Roles = slices.Clone(path)
	return p
}

// allowsType reports whether the header of an access token may have the type.
func (p Profile) allowsType(name string) bool {
	return isMediaType(name) || slices.ContainsFunc(p.Types, func(own string) bool { return oauth.EqualFold(own, name) })
}

// isMediaType reports whether name is [MediaType]. RFC 9068 §4 accepts both spellings; media types have no letter case
// (RFC 7515 §4.1.9).
func isMediaType(name string) bool {
	return oauth.EqualFold(name, MediaType) || oauth.EqualFold(name, "application/"+MediaType)
}

// foreignClaims are the claims of ID tokens (OpenID Connect Core §2, §3.1.3.6, §3.3.2.11, and s_hash of FAPI) and of
// security events such as logout tokens (RFC 8417 §2.2).
var foreignClaims = [...]string{"nonce", "at_hash", "c_hash", "s_hash", "events"}

// checkUse returns an error if the claims say that the token is not an access token.
func (p Profile) checkUse(raw map[string]json.RawMessage) error {
	if claim, ok := raw[p.Use]; ok && p.Use != "" {
		var use string
		if !jws.String(claim, &use) || use != p.UseValue {
			return fail(ErrType, "the claim %.40s is %.40q", p.Use, claim)
		}
		return nil
	}
	for _, names := range [...][]string{foreignClaims[:], p.Forbidden} {
		for _, name := range names {
			if _, ok := raw[name]; ok {
				return fail(ErrType, "the claim %.40s is not one of access tokens", name)
			}
		}
	}
	return nil
}

// clientID returns the name of the claim with the client's id.
func (p Profile) clientID(raw map[string]json.RawMessage) string {
	for _, name := range p.ClientID {
		if _, ok := raw[name]; ok {
			return name
		}
	}
	if len(p.ClientID) > 0 {
		return p.ClientID[0]
	}
	return "client_id"
}

// scopes returns the scopes of a token.
func (p Profile) scopes(raw map[string]json.RawMessage) (oauth.Scopes, error) {
	if len(p.Scopes)+len(p.Roles) == 0 {
		return readScope(raw, "scope", false)
	}
	var all oauth.Scopes
	for _, name := range p.scopeClaims() {
		scopes, err := readScope(raw, name, len(p.Scopes) > 0)
		if err != nil {
			return nil, err
		}
		all = append(all, scopes...)
	}
	roles, err := p.roles(raw)
	if err != nil {
		return nil, err
	}
	return append(all, roles...).Unique(), nil
}

func (p Profile) scopeClaims() []string {
	if len(p.Scopes) == 0 {
		return []string{"scope"}
	}
	return p.Scopes
}

// readScope parses the claim with scopes, if it is present. A list is accepted if list is true.
func readScope(raw map[string]json.RawMessage, name string, list bool) (oauth.Scopes, error) {
	claim, ok := raw[name]
	if !ok {
		return nil, nil
	}
	var scopes oauth.Scopes
	var err error
	var text string
	switch {
	case jws.String(claim, &text):
		scopes, err = oauth.ReadScopes(text)
	case !list:
		return nil, fail(ErrMalformed, "the claim %s is not a string", name)
	default:
		names, ok := parseStrings(claim)
		if !ok {
			return nil, fail(ErrMalformed, "the claim %s is neither a string nor a list of strings", name)
		}
		scopes, err = oauth.CollectScopes(names)
	}
	if err != nil {
		return nil, fail(ErrMalformed, "the claim %s: %v", name, err)
	}
	return scopes, nil
}

// roles returns the roles of a token as scopes.
func (p Profile) roles(raw map[string]json.RawMessage) (oauth.Scopes, error) {
	if len(p.Roles) == 0 {
		return nil, nil
	}
	last := len(p.Roles) - 1
	for _, name := range p.Roles[:last] {
		var inner map[string]json.RawMessage
		claim, ok := raw[name]
		if !ok {
			return nil, nil
		}
		if json.Unmarshal(claim, &inner) != nil {
			return nil, fail(ErrMalformed, "the claim %.100s is not an object", name)
		}
		raw = inner
	}
	claim, ok := raw[p.Roles[last]]
	if !ok {
		return nil, nil
	}
	names, ok := parseStrings(claim)
	if !ok {
		return nil, fail(ErrMalformed, "the claim %.100s is not a list of strings", strings.Join(p.Roles, "."))
	}
	var roles oauth.Scopes
	for _, name := range names {
		if role, err := oauth.ReadScope(name); err == nil {
			roles = append(roles, role)
		}
	}
	return roles, nil
}

// parseStrings parses a list of strings and nothing else: encoding/json alone would accept a null as "".
func parseStrings(claim json.RawMessage) ([]string, bool) {
	var members []json.RawMessage
	if !bytes.HasPrefix(claim, []byte("[")) || json.Unmarshal(claim, &members) != nil {
		return nil, false
	}
	all := make([]string, len(members))
	for i, member := range members {
		if !jws.String(member, &all[i]) {
			return nil, false
		}
	}
	return all, true
}
