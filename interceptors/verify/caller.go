package verify

import (
	"context"
	"crypto/x509"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// Caller identifies the client of a verified token. The values its fields refer to are shared between calls and must
// not be changed.
type Caller struct {
	// Issuer is the issuer of the token. ClientID, Subject and Scopes mean what this issuer defines.
	Issuer string
	// ClientID is the client to which the token was issued.
	ClientID string
	// Subject is the "sub" claim. It equals ClientID for a client that acts for itself (RFC 9068 §2.2).
	Subject string
	// Scopes are the scopes of the token.
	Scopes oauth.Scopes
	// ExpiresAt is the time at which the token expires.
	ExpiresAt time.Time
	// Claims are all claims of the token; [token.Claims.Decode] reads those that other issuers add.
	Claims *token.Claims
	// Proof says which key the caller has proven: the one that the token is bound to ([token.Claims.Confirmation]).
	Proof Proof
	// Certificate is the client certificate of the caller if Proof is [ProofCertificate], and nil otherwise. The token's
	// thumbprint is what vouches for it: whether an authority does is up to the TLS settings of the server.
	Certificate *x509.Certificate
}

// HasScope reports whether the token has the scope.
func (c Caller) HasScope(scope string) bool {
	return slices.ContainsFunc(c.Scopes, func(s oauth.Scope) bool { return s.String() == scope })
}

type callerKey struct{}

// withCaller returns a context with a caller. It stores the claims rather than a Caller because they are a pointer
// already: a Caller would cost one more allocation on every call. proven is nil for a bearer token.
func withCaller(ctx context.Context, claims *token.Claims, proven *admitted) context.Context {
	if proven != nil {
		return context.WithValue(ctx, callerKey{}, proven)
	}
	return context.WithValue(ctx, callerKey{}, claims)
}

// CallerFrom returns the caller of a call that this package admitted. In a public method ok is false, whether or not a
// token was sent, unless another verifier guards the server too and admitted the caller.
func CallerFrom(ctx context.Context) (_ Caller, ok bool) {
	if ctx == nil {
		return Caller{}, false
	}
	var proven admitted
	switch value := ctx.Value(callerKey{}).(type) {
	case *token.Claims:
		proven.claims = value
	case *admitted:
		proven = *value
	default:
		return Caller{}, false
	}
	return newCaller(proven.claims, &proven), true
}

// newCaller returns the caller with the claims. proven is nil for a bearer token.
func newCaller(claims *token.Claims, proven *admitted) Caller {
	caller := Caller{
		Issuer: claims.Issuer, ClientID: claims.ClientID, Subject: claims.Subject, Scopes: claims.Scope,
		ExpiresAt: claims.ExpiresAt, Claims: claims,
	}
	if proven != nil {
		caller.Proof, caller.Certificate = proven.proof, proven.certificate
	}
	return caller
}
