package token

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
)

// MaxSize is the maximum size of a token, in bytes. It is checked before any part of the token is parsed.
const MaxSize = 8 << 10

// Reasons for which a token is refused. Every error of [Verifier.Verify] wraps one of them; the rest of its text is for
// the log and may quote the token.
var (
	ErrMalformed = errors.New("malformed token")
	ErrType      = errors.New("not an access token")
	ErrKey       = errors.New("signed by no key of the issuer")
	ErrSignature = errors.New("wrong signature")
	ErrIssuer    = errors.New("token of another issuer")
	ErrAudience  = errors.New("token for another audience")
	ErrExpired   = errors.New("token has expired")
	ErrNotYet    = errors.New("token is not valid yet")
	ErrRevoked   = errors.New("token was revoked")
	// ErrProof reports that the token is bound to a key ([Confirmation]) which the caller did not prove to have. [Verifier]
	// does not return it: what proves a key is known to the server that received the token alone.
	ErrProof = errors.New("token is bound to a key that was not proven")
	// ErrNoKeys does not concern the token: the issuer's keys could not be obtained.
	ErrNoKeys = errors.New("the issuer's keys are not available")
)

// KeySource provides an issuer's public keys. Implementations must be safe for concurrent use by multiple goroutines;
// jwks.Set and jwks.Remote are such.
type KeySource interface {
	// Find returns a key with the id, from which [jwks.Key.For] selects by the token's algorithm. The error is
	// jwks.ErrUnknownKey if the issuer has no such key; any other error means that the keys could not be obtained. Find
	// may wait for the network, within ctx.
	Find(ctx context.Context, id string) (jwks.Key, error)
	// Trusts reports whether Find would still return this key. It must not block.
	Trusts(key jwks.Key) bool
}

// DenyList contains the revoked tokens. Implementations must be safe for concurrent use by multiple goroutines.
type DenyList interface {
	// Revoked reports whether the token is revoked. It is called for every verification and must not block.
	Revoked(claims *Claims) bool
}

// Verifier verifies access tokens. Its fields must not be changed after the first use, and it must not be copied. It is
// safe for concurrent use by multiple goroutines.
type Verifier struct {
	// Issuer is the only "iss" that is accepted, compared byte for byte.
	Issuer string
	// Audience lists the resources that the verifier protects: a token must name one of them. An empty list accepts any
	// audience, which only the issuer itself may do, to inspect tokens it has issued.
	Audience []string
	// Profile says how the issuer's tokens differ from RFC 9068. The zero Profile accepts tokens of RFC 9068 only.
	Profile Profile
	// Keys provides the issuer's keys. It is required.
	Keys KeySource
	// Denied contains the revoked tokens. If it is nil, no token is revoked.
	Denied DenyList
	// Leeway is how far the issuer's clock may be ahead of the local one; the default is zero. It does not extend the
	// lifetime of a token.
	Leeway time.Duration
	// Now returns the current time. If it is nil, time.Now is used.
	Now func() time.Time

	// last is the header of the last token whose signature was valid. All tokens of a key have the same header, and
	// parsing it again would cost a twentieth of a verification.
	last atomic.Pointer[parsedHeader]
}

// parsedHeader is a header in its encoded and its parsed form.
type parsedHeader struct {
	encoded string
	jws.Header
}

// Verify returns the claims of a token after checking it in every respect (RFC 9068 §4). The error wraps one of this
// package's errors.
func (v *Verifier) Verify(ctx context.Context, raw string) (*Claims, error) {
	claims, _, err := v.verify(ctx, raw)
	return claims, err
}

func (v *Verifier) verify(ctx context.Context, raw string) (*Claims, jwks.Key, error) {
	claims, key, err := v.open(ctx, raw)
	if err != nil {
		return nil, jwks.Key{}, err
	}
	switch {
	case claims.Issuer != v.Issuer:
		err = fail(ErrIssuer, "%.100q", claims.Issuer)
	case !v.serves(claims.Audience):
		err = fail(ErrAudience, "%.200q", claims.Audience)
	default:
		err = v.CheckCurrent(claims)
	}
	if err != nil {
		return nil, jwks.Key{}, err
	}
	return claims, key, nil
}

// open checks the header and the signature, and parses the claims.
func (v *Verifier) open(ctx context.Context, raw string) (*Claims, jwks.Key, error) {
	none := jwks.Key{}
	if len(raw) > MaxSize {
		return nil, none, fail(ErrMalformed, "%d bytes", len(raw))
	}
	signed, signature64, ok := jws.CutLast(raw)
	header64, payload64, ok2 := strings.Cut(signed, ".")
	if !ok || !ok2 {
		return nil, none, fail(ErrMalformed, "not three parts")
	}
	header := v.last.Load()
	if header == nil || header.encoded != header64 {
		read, err := parseHeader(header64, v.Profile)
		if err != nil {
			return nil, none, err
		}
		header = &parsedHeader{strings.Clone(header64), read}
	}
	payload, err := decode(payload64)
	if err != nil {
		return nil, none, err
	}
	signature, err := decode(signature64)
	if err != nil {
		return nil, none, err
	}
	key, err := v.find(ctx, &header.Header)
	if err != nil {
		return nil, none, err
	}
	switch err := jws.Verify(key, []byte(signed), signature); {
	case errors.Is(err, jws.ErrSignature):
		return nil, none, ErrSignature
	case err != nil:
		return nil, none, fail(ErrKey, "%v", err)
	}
	v.last.Store(header)
	claims, err := parseClaims(payload, v.Profile)
	if err != nil {
		return nil, none, err
	}
	if !isMediaType(header.Type) {
		if err := v.Profile.checkUse(claims.raw); err != nil {
			return nil, none, err
		}
	}
	claims.keyID = key.ID()
	return claims, key, nil
}

// find returns the key that the header selects.
func (v *Verifier) find(ctx context.Context, header *jws.Header) (jwks.Key, error) {
	key, err := v.Keys.Find(ctx, header.KeyID)
	switch {
	case errors.Is(err, jwks.ErrUnknownKey):
		return jwks.Key{}, fail(ErrKey, "kid %.100q", header.KeyID)
	case err != nil:
		return jwks.Key{}, fail(ErrNoKeys, "%v", err)
	}
	// The issuer's keys determine the algorithm: the token's must be that of a key with its id (RFC 8725 §3.1).
	fitting, ok := key.For(jwks.Algorithm(header.Algorithm))
	if !ok {
		return jwks.Key{}, fail(ErrKey, "alg %.20q where the key is for %s", header.Algorithm, key.Algorithm())
	}
	return fitting, nil
}

// CheckCurrent checks what can change after a token was verified: its times, and whether it was revoked. The error is
// [ErrExpired], [ErrNotYet] or [ErrRevoked].
func (v *Verifier) CheckCurrent(claims *Claims) error {
	now := v.now()
	if !now.Before(claims.ExpiresAt) {
		return fail(ErrExpired, "at %s", claims.ExpiresAt.UTC().Format(time.RFC3339))
	}
	start := claims.IssuedAt
	if claims.notBefore.After(start) {
		start = claims.notBefore
	}
	if start.After(now.Add(v.Leeway)) {
		return fail(ErrNotYet, "before %s", start.UTC().Format(time.RFC3339))
	}
	if v.Denied != nil && v.Denied.Revoked(claims) {
		return fail(ErrRevoked, "jti %.100q", claims.ID)
	}
	return nil
}

func (v *Verifier) serves(audience []string) bool {
	return len(v.Audience) == 0 || slices.ContainsFunc(audience, func(a string) bool {
		return slices.Contains(v.Audience, a)
	})
}

func (v *Verifier) now() time.Time {
	if v.Now == nil {
		return time.Now()
	}
	return v.Now()
}

// parseHeader parses the header of a token whose signature has not been checked yet.
func parseHeader(encoded string, p Profile) (jws.Header, error) {
	h, err := jws.ParseHeader(encoded)
	switch {
	case err != nil:
		return jws.Header{}, fail(ErrMalformed, "%v", err)
	case !p.allowsType(h.Type):
		return jws.Header{}, fail(ErrType, "typ %.40q", h.Type)
	}
	return h, nil
}

// decode is [jws.Decode] with an error of this package.
func decode(s string) ([]byte, error) {
	data, err := jws.Decode(s)
	if err != nil {
		return nil, fail(ErrMalformed, "%v", err)
	}
	return data, nil
}
