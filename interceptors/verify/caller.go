package verify

import (
	"context"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// Caller is who a verified token speaks for. What its fields point to is shared between calls and must not be changed.
type Caller struct {
	// ClientID is the client that the token was issued to.
	ClientID string
	// Subject is the "sub": for a service that speaks for itself the same as ClientID.
	Subject string
	// Scopes are what the token allows.
	Scopes oauth.Scopes
	// ExpiresAt is when the token ends.
	ExpiresAt time.Time
	// Claims is the whole token; its Decode gives claims that other issuers add.
	Claims *token.Claims
}

// HasScope reports whether the token allows the scope.
func (c Caller) HasScope(scope string) bool {
	return slices.ContainsFunc(c.Scopes, func(s oauth.Scope) bool { return s.String() == scope })
}

type callerKey struct{}

// withCaller puts the claims rather than a Caller into the context: they are a pointer already, a Caller would be one
// allocation more on every call.
func withCaller(ctx context.Context, claims *token.Claims) context.Context {
	return context.WithValue(ctx, callerKey{}, claims)
}

// CallerFrom gives the caller of a call that this package let through. There is none in a public method, whether or not
// a token was sent.
func CallerFrom(ctx context.Context) (Caller, bool) {
	claims, ok := ctx.Value(callerKey{}).(*token.Claims)
	if !ok {
		return Caller{}, false
	}
	return Caller{
		ClientID: claims.ClientID, Subject: claims.Subject, Scopes: claims.Scope,
		ExpiresAt: claims.ExpiresAt, Claims: claims,
	}, true
}
