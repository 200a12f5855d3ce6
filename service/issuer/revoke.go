package issuer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// Introspect returns the claims of a valid token that concerns the client: its own, or one for a resource that it serves
// (RFC 7662 §4). It returns nil for any other token, so that the answer does not reveal whether a token of other clients
// is valid.
func (i *Issuer) Introspect(ctx context.Context, client *registry.Client, raw string) (*token.Claims, error) {
	claims, err := i.live.Verify(ctx, raw)
	if err != nil {
		return nil, checkKeys(err)
	}
	serves := slices.ContainsFunc(client.Resources, func(r oauth.Resource) bool {
		return slices.Contains(claims.Audience, r.String())
	})
	if !serves && claims.ClientID != client.ID.String() {
		return nil, nil
	}
	return claims, nil
}

// Revoke revokes a token of the client (RFC 7009 §2.1). It returns the claims of what it revoked: nil for a token that is
// invalid or belongs to another client, which is not an error.
func (i *Issuer) Revoke(ctx context.Context, client *registry.Client, raw string) (*token.Claims, error) {
	claims, err := i.live.Verify(ctx, raw)
	revoked := errors.Is(err, token.ErrRevoked)
	if revoked {
		claims, err = i.signed.Verify(ctx, raw)
	}
	if err != nil {
		return nil, checkKeys(err)
	}
	if claims.ClientID != client.ID.String() {
		return nil, nil
	}
	if _, ok := claims.Identity(); !ok {
		// The ID could be published, but no verifier would find the token by it.
		return nil, fmt.Errorf("the id %.100q is not one of this issuer's", claims.ID)
	}
	c := revocation.Change{Kind: revocation.TokenRevoked, ID: claims.ID, At: claims.ExpiresAt}
	if revoked {
		// The revocation is in effect, but the request that made it may have failed.
		return claims, notRecorded(i.config.Publisher.Confirm(ctx, c))
	}
	return claims, i.publish(ctx, c)
}

// RevokeAll revokes every token that was issued to the client up to now.
//
// The moment up to which they are revoked is the end of the next second, for replicas whose clocks are ahead; the issuer
// dates later tokens after it. A moment that is still to come is therefore followed by a later one, for the tokens that
// were dated after it in between. It lies at most maxAhead in the future, so that verifiers accept such tokens; a request
// that would exceed that is refused.
func (i *Issuer) RevokeAll(ctx context.Context, client *registry.Client, maxAhead time.Duration) error {
	now := i.config.Now().Truncate(time.Second)
	until := now.Add(time.Second)
	if last := i.config.Ledger.List.RevokedUntil(client.ID.String()); !last.Before(until) {
		until = last.Add(time.Second)
	}
	if ahead := until.Sub(now); ahead > maxAhead {
		return &oauth.Error{
			Code: oauth.TemporarilyUnavailable, Text: "The client's tokens were revoked too often; try again.",
			RetryAfter: ahead - maxAhead, Limited: true,
		}
	}
	return i.publish(ctx, revocation.Change{Kind: revocation.ClientRevoked, ID: client.ID.String(), At: until})
}

// publish records a change for all replicas and applies it here at once, so that the next request to this replica sees it.
func (i *Issuer) publish(ctx context.Context, c revocation.Change) error {
	if err := i.config.Publisher.Publish(ctx, c); err != nil {
		return notRecorded(err)
	}
	i.config.Ledger.List.Apply(c)
	return nil
}

// notRecorded returns the refusal for a revocation that may be lost again, or nil if err is nil.
func notRecorded(err error) error {
	if err == nil {
		return nil
	}
	return &oauth.Error{
		Code: oauth.TemporarilyUnavailable, Text: "The revocation could not be recorded; try again.", RetryAfter: time.Second,
		Cause: fmt.Errorf("publishing a revocation: %w", err),
	}
}

// checkKeys returns the refusal for the one failure to verify a token that says nothing about the token; nil for all
// others.
func checkKeys(err error) error {
	if errors.Is(err, token.ErrNoKeys) {
		return &oauth.Error{Code: oauth.TemporarilyUnavailable, Text: "The server cannot check tokens now.", RetryAfter: time.Second, Cause: err}
	}
	return nil
}
