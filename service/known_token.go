package service

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

// introspect gives what a token says if it holds and is the asking client's business: its own, or for a resource that it
// serves (RFC 7662 §4). It gives nil for any other, so that the answer tells nobody whether a token of others is good.
func (i *issuer) introspect(ctx context.Context, client *registry.Client, raw string) (*token.Claims, error) {
	claims, err := i.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, unknowable(err)
	}
	serves := slices.ContainsFunc(client.Resources, func(r oauth.Resource) bool {
		return slices.Contains(claims.Audience, r.String())
	})
	if !serves && claims.ClientID != client.ID.String() {
		return nil, nil
	}
	return claims, nil
}

// revoke takes back a token of the client's (RFC 7009 §2.1). It gives what was revoked; nil for a token that does not
// hold, or is somebody else's.
func (i *issuer) revoke(ctx context.Context, client *registry.Client, raw string) (*token.Claims, error) {
	claims, err := i.verifier.Verify(ctx, raw)
	again := errors.Is(err, token.ErrRevoked)
	if again {
		claims, err = i.signed.Verify(ctx, raw)
	}
	if err != nil {
		return nil, unknowable(err)
	}
	if claims.ClientID != client.ID.String() {
		return nil, nil
	}
	if _, ours := claims.Identity(); !ours {
		// Its id could be published, but nobody would find the token by it.
		return nil, fmt.Errorf("the id %.100q is not one of this issuer's", claims.ID)
	}
	c := revocation.Change{Kind: revocation.TokenRevoked, ID: claims.ID, At: claims.ExpiresAt}
	if again {
		// It is in force, but the try that made it so may have been refused.
		return claims, unrecorded(i.publisher.Confirm(ctx, c))
	}
	return claims, i.publish(ctx, c)
}

// revokeAll takes back every token that the client was issued up to now. The moment is the end of the next second, for
// replicas whose clocks are ahead; the issuer dates later tokens after it. So a moment that is still to come is followed
// by a later one, for the tokens that were dated after it meanwhile; not farther ahead than most, so that verifiers take
// such tokens.
func (i *issuer) revokeAll(ctx context.Context, client *registry.Client, most time.Duration) error {
	now := i.now().Truncate(time.Second)
	until := now.Add(time.Second)
	if last := i.ledger.List.RevokedUntil(client.ID.String()); !last.Before(until) {
		until = last.Add(time.Second)
	}
	if ahead := until.Sub(now); ahead > most {
		return &oauth.Error{
			Code: oauth.TemporarilyUnavailable, Text: "The client's tokens were revoked too often; try again.",
			RetryAfter: ahead - most, Limited: true,
		}
	}
	return i.publish(ctx, revocation.Change{Kind: revocation.ClientRevoked, ID: client.ID.String(), At: until})
}

// publish records a change for all and puts it in force here at once, so that who asks this replica next meets it.
func (i *issuer) publish(ctx context.Context, c revocation.Change) error {
	if err := i.publisher.Publish(ctx, c); err != nil {
		return unrecorded(err)
	}
	i.ledger.List.Apply(c)
	return nil
}

// unrecorded says that a revocation may be lost again; nil where the store says that it is not.
func unrecorded(err error) error {
	if err == nil {
		return nil
	}
	return &oauth.Error{
		Code: oauth.TemporarilyUnavailable, Text: "The revocation could not be recorded; try again.", RetryAfter: time.Second,
		Cause: fmt.Errorf("publishing a revocation: %w", err),
	}
}

// unknowable passes on the one failure of verifying that says nothing about the token.
func unknowable(err error) error {
	if errors.Is(err, token.ErrNoKeys) {
		return &oauth.Error{Code: oauth.TemporarilyUnavailable, Text: "The server cannot check tokens now.", RetryAfter: time.Second, Cause: err}
	}
	return nil
}
