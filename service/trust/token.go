package trust

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/oauth"
)

// Leeway is how far the clock of the maker of a token may be ahead.
const Leeway = 30 * time.Second

// Token is a token by which an issuer vouches for a workload, or a JWT-SVID of a trust domain. Whether the issuer has
// signed it is for [jws.Message.Verify] to say.
type Token struct {
	Message  *jws.Message
	Claims   jws.Claims
	Identity Identity
}

// ReadToken returns what a message says as the token of an issuer, by "iss" and "sub", or as a JWT-SVID, by "sub" alone.
func ReadToken(message *jws.Message, svid bool) (*Token, error) {
	claims, err := jws.ParseClaims(message.Payload)
	if err != nil {
		return nil, err
	}
	subject, err := claims.Text("sub")
	if err != nil {
		return nil, err
	}
	t := &Token{Message: message, Claims: claims}
	if svid {
		if err := checkWorkloadID(subject); err != nil {
			return nil, fmt.Errorf("sub: %w", err)
		}
		t.Identity.SPIFFEID = subject
		return t, nil
	}
	t.Identity = Identity{Subject: subject, Claim: claims.Scalar}
	t.Identity.Issuer, err = claims.Text("iss")
	return t, err
}

// SVID reports whether the token is a JWT-SVID.
func (t *Token) SVID() bool { return t.Identity.SPIFFEID != "" }

// Verdict is what is wrong with a token, apart from its signature; nil where nothing is.
type Verdict struct {
	Type, Audience error
	// Times is what is wrong with the claims of Validity. Whether the token is valid now is for [Validity.Check] to say: that
	// changes, and the rest does not.
	Times    error
	Validity Validity
}

// Err returns the first of the errors, or nil.
func (v *Verdict) Err() error { return cmp.Or(v.Type, v.Audience, v.Times) }

// CheckToken returns what is wrong with a token of the issuer. audience is the identifier of the server that the token
// is for.
func (i *Issuer) CheckToken(t *Token, audience string) (v Verdict) {
	v.Type = t.checkType()
	v.Audience = t.checkAudience(i.Accepts(audience))
	v.Validity, v.Times = ReadValidity(t.Claims)
	return v
}

// tokenTypes are the values of "typ" that tokens of issuers have. Others are those of tokens with another purpose,
// which an issuer may sign with the same keys (RFC 8725 §3.11).
var tokenTypes = [...]string{"", "JWT", "at+jwt", clientassertion.MediaType}

// checkType returns what is wrong with the header of the token.
func (t *Token) checkType() error {
	header := t.Message.Header
	if t.SVID() {
		return checkSVIDHeader(header)
	}
	name := jws.MediaType(header.Type)
	if !slices.ContainsFunc(tokenTypes[:], func(known string) bool { return oauth.EqualFold(name, known) }) {
		return fmt.Errorf("typ is %.40q, want JWT or none", header.Type)
	}
	return nil
}

// checkSVIDHeader returns what is wrong with the header of a JWT-SVID (JWT-SVID §2).
func checkSVIDHeader(header jws.Header) error {
	switch {
	case header.KeyID == "":
		return errors.New("a JWT-SVID has a kid")
	case header.Type != "" && header.Type != "JWT" && header.Type != "JOSE":
		return fmt.Errorf("typ is %.40q, want JWT, JOSE or none", header.Type)
	case jwks.Algorithm(header.Algorithm) == jwks.EdDSA:
		return errors.New("EdDSA is not one of the algorithms of JWT-SVIDs")
	}
	return nil
}

// Accepts returns the values of "aud" of which a token of the issuer must have one, at the server with the identifier.
func (i *Issuer) Accepts(audience string) []string {
	if audience == "" {
		return i.Audience
	}
	return append([]string{audience}, i.Audience...)
}

// checkAudience returns what is wrong with the "aud" of the token. It has one value: a token that other servers accept
// too could be passed on by them. Kubernetes sends a list of one.
func (t *Token) checkAudience(accepted []string) error {
	got := t.Claims.Texts("aud")
	if len(got) != 1 || !slices.Contains(accepted, got[0]) {
		return fmt.Errorf("aud is %.200s, want %s alone", cmp.Or(string(t.Claims["aud"]), "missing"), strings.Join(accepted, " or "))
	}
	return nil
}

// Validity is when a token is valid.
type Validity struct {
	// NotBefore is the later of "nbf" and "iat", zero if there is neither; Expires is "exp".
	NotBefore, Expires time.Time
}

// ReadValidity returns the validity that claims state. "exp" is required.
func ReadValidity(claims jws.Claims) (v Validity, err error) {
	if v.Expires, err = claims.Time("exp"); err != nil {
		return v, err
	}
	for _, name := range [...]string{"nbf", "iat"} {
		if _, ok := claims[name]; !ok {
			continue
		}
		start, err := claims.Time(name)
		if err != nil {
			return v, err
		}
		if start.After(v.NotBefore) {
			v.NotBefore = start
		}
	}
	return v, nil
}

// Check returns an error if what is valid has expired or is from the future.
func (v Validity) Check(now time.Time) error {
	switch {
	case !now.Before(v.Expires):
		return fmt.Errorf("it expired at %s", v.Expires.UTC().Format(time.RFC3339))
	case v.NotBefore.After(now.Add(Leeway)):
		return fmt.Errorf("its nbf or iat is %s, which is ahead", v.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}
