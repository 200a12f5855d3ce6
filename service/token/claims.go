// Package token has the access token as a value: its claims, signing it, and the one way to verify it. It carries out
// RFC 9068 (JWT profile for access tokens) under the rules of RFC 8725 (JWT best current practices).
package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/grantorhq/grantor/service/oauth"
)

// MediaType is the "typ" of an access token (RFC 9068 §2.1).
const MediaType = "at+jwt"

// Claims are what an access token says (RFC 9068 §2.2). Times have whole seconds. Claims that [Verifier.Verify] gave
// are shared between callers and must not be changed.
type Claims struct {
	Issuer    string
	Subject   string
	ClientID  string
	Audience  []string
	Scope     oauth.Scopes
	IssuedAt  time.Time
	ExpiresAt time.Time
	// ID is the "jti", unique for the issuer.
	ID string

	// id is ID where it is one of ours, keyID the "kid" of the key that verified the token: what a [DenyList] asks for.
	id    ID
	ours  bool
	keyID string
	// notBefore is the "nbf", or zero.
	notBefore time.Time
	// raw has claim → JSON, for claims that only the caller knows.
	raw map[string]json.RawMessage
}

// Identity gives the ID where it is one that this issuer makes.
func (c *Claims) Identity() (id ID, ok bool) { return c.id, c.ours }

// KeyID gives the "kid" of the key that verified the token.
func (c *Claims) KeyID() string { return c.keyID }

// Decode puts the claim with the name into v as [json.Unmarshal] does. It serves claims that other issuers add. A claim
// that the token does not have is [ErrNoClaim].
func (c *Claims) Decode(name string, v any) error {
	raw, ok := c.raw[name]
	if !ok {
		return ErrNoClaim
	}
	return json.Unmarshal(raw, v)
}

// ErrNoClaim says that a token does not have the claim asked for.
var ErrNoClaim = errors.New("the token has no such claim")

// payload is the claims as they are signed; its field order is the order in the token.
type payload struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	ClientID string `json:"client_id"`
	// Audience is a string where it has one member, else a list (RFC 7519 §4.1.3).
	Audience  any    `json:"aud"`
	Scope     string `json:"scope,omitempty"`
	IssuedAt  int64  `json:"iat"`
	ExpiresAt int64  `json:"exp"`
	ID        string `json:"jti"`
}

// marshal writes the claims for signing.
func (c *Claims) marshal() ([]byte, error) {
	var audience any = c.Audience
	if len(c.Audience) == 1 {
		audience = c.Audience[0]
	}
	return json.Marshal(&payload{
		Issuer: c.Issuer, Subject: c.Subject, ClientID: c.ClientID, Audience: audience, Scope: c.Scope.String(),
		IssuedAt: c.IssuedAt.Unix(), ExpiresAt: c.ExpiresAt.Unix(), ID: c.ID,
	})
}

// parseClaims reads a payload whose signature is already verified. It goes through a map because encoding/json would
// fill a struct's fields from names in any letter case: an issuer that lets its clients add a claim "AUD" must not let
// them replace "aud".
func parseClaims(data []byte) (*Claims, error) {
	c := &Claims{}
	if err := json.Unmarshal(data, &c.raw); err != nil {
		return nil, fail(ErrMalformed, "the payload is not a JSON object")
	}
	texts := []struct {
		name string
		to   *string
	}{{"iss", &c.Issuer}, {"sub", &c.Subject}, {"client_id", &c.ClientID}, {"jti", &c.ID}}
	for _, claim := range texts {
		if !text(c.raw[claim.name], claim.to) || *claim.to == "" {
			return nil, fail(ErrMalformed, "the claim %s is missing or not a string", claim.name)
		}
	}
	c.id, c.ours = ParseID(c.ID)
	if c.Audience = audienceOf(c.raw["aud"]); len(c.Audience) == 0 {
		return nil, fail(ErrMalformed, "the claim aud is missing or not a string or a list of strings")
	}
	var err error
	if c.IssuedAt, err = numericDate(c.raw, "iat"); err != nil {
		return nil, err
	}
	if c.ExpiresAt, err = numericDate(c.raw, "exp"); err != nil {
		return nil, err
	}
	if _, ok := c.raw["nbf"]; ok {
		if c.notBefore, err = numericDate(c.raw, "nbf"); err != nil {
			return nil, err
		}
	}
	if raw, ok := c.raw["scope"]; ok {
		var scope string
		if !text(raw, &scope) {
			return nil, fail(ErrMalformed, "the claim scope is not a string")
		}
		if c.Scope, err = oauth.ParseScopes(scope); err != nil {
			return nil, fail(ErrMalformed, "the claim scope: %v", err)
		}
	}
	return c, nil
}

// audienceOf reads a string or a list of strings, none of them empty; nil where it is anything else.
func audienceOf(raw json.RawMessage) []string {
	all := make([]string, 1)
	// A null in the list would read as "".
	if (!text(raw, &all[0]) && json.Unmarshal(raw, &all) != nil) || slices.Contains(all, "") {
		return nil
	}
	return all
}

// text reads a JSON string, and nothing else: encoding/json alone would let a null pass as "". raw is valid JSON or empty.
func text(raw json.RawMessage, to *string) bool {
	if !bytes.HasPrefix(raw, []byte(`"`)) {
		return false
	}
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		*to = string(raw[1 : len(raw)-1]) // nothing in it stands for something else
		return true
	}
	return json.Unmarshal(raw, to) == nil
}

// numericDate reads a time of RFC 7519 §2: seconds since 1970, with or without a fraction, which is cut off.
func numericDate(raw map[string]json.RawMessage, name string) (time.Time, error) {
	const year9999 = 253402300799
	seconds, err := strconv.ParseInt(string(raw[name]), 10, 64)
	if err != nil {
		float, floatErr := strconv.ParseFloat(string(raw[name]), 64)
		if floatErr != nil || math.Abs(float) > year9999 {
			return time.Time{}, fail(ErrMalformed, "the claim %s is missing or not a time", name)
		}
		seconds = int64(float)
	}
	if seconds < 0 || seconds > year9999 {
		return time.Time{}, fail(ErrMalformed, "the claim %s is not a time of this era", name)
	}
	return time.Unix(seconds, 0), nil
}

// fail words why a token is refused, for the log; kind is one of the errors of this package.
func fail(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
}
