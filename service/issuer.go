package service

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/grant"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// issuer is the way of one token request through the domain, whatever wire it came by.
type issuer struct {
	name          oauth.Issuer
	authenticator *clientauth.Authenticator
	directory     *registry.Directory
	ring          *keys.Ring
	grant         *grant.ClientCredentials
	feed          *revocation.Tail
	ledger        *revocation.Ledger
	publisher     revocation.Publisher
	// verifier looks at tokens that this issuer may have issued, for whatever audience.
	verifier *token.Cache
	limiter  *limit.Limiter
	// signed does so without regard to whether they were revoked.
	signed       *token.Verifier
	maxStaleness time.Duration
	now          func() time.Time
	// outdated is set while a newer release has written the resources.
	outdated atomic.Bool
}

// issued is a token and what it says.
type issued struct {
	token     string
	claims    *token.Claims
	lifetime  time.Duration
	algorithm jwks.Algorithm
}

// authenticate gives the client that the evidence proves. What is wrong with the request itself is told first, since it
// is wrong whoever asks; nil where nothing is.
func (i *issuer) authenticate(ctx context.Context, request *oauth.Error, e clientauth.Evidence) (*registry.Client, string, error) {
	if err := i.fresh(); err != nil {
		return nil, "", err
	}
	if request != nil {
		return nil, "", request
	}
	return i.authenticator.Authenticate(ctx, e)
}

// checkGrant reports what is wrong with a grant type.
func checkGrant(grantType string) *oauth.Error {
	switch grantType {
	case oauth.GrantClientCredentials:
		return nil
	case "":
		return oauth.Refuse(oauth.InvalidRequest, "grant_type is missing.")
	}
	return oauth.Refuse(oauth.UnsupportedGrantType, "grant_type must be client_credentials.")
}

// upToDate reports why what this replica knows is too old to issue by; nil when it is not.
func (i *issuer) upToDate() error {
	switch age, complete := i.feed.Age(); {
	case !complete:
		return errors.New("the feed has not been read to its end yet")
	case age > i.maxStaleness:
		return fmt.Errorf("the feed was last read to its end %s ago", age.Round(time.Millisecond))
	}
	return nil
}

// fresh refuses where what this replica knows is too old to decide by.
func (i *issuer) fresh() error {
	if err := i.upToDate(); err != nil {
		return &oauth.Error{
			Code: oauth.TemporarilyUnavailable, Text: "The server has lost touch with its store.", RetryAfter: time.Second,
			Reason: oauth.StaleKnowledge, Cause: err,
		}
	}
	return nil
}

// issue gives the client what the grant decides.
func (i *issuer) issue(ctx context.Context, client *registry.Client, r grant.Request) (*issued, error) {
	resources, err := i.resources(ctx)
	if err != nil {
		return nil, err
	}
	decision, err := i.grant.Decide(client, resources, r)
	if err != nil {
		return nil, err
	}
	if wait := i.limiter.AllowToken(client.ID.String()); wait > 0 {
		return nil, &oauth.Error{
			Code: oauth.TemporarilyUnavailable, Reason: oauth.QuotaReached, Limited: true, RetryAfter: wait,
			Text: "The client has had as many tokens as it may in a while; use the one there is, or try again later.",
		}
	}
	signer, err := i.ring.Signer(decision.Algorithm)
	if err != nil {
		return nil, err
	}
	now := i.now().Truncate(time.Second)
	// A token is dated after the moment up to which the client's tokens are revoked, which may be this very second.
	if until := i.ledger.List.RevokedUntil(client.ID.String()); !until.Before(now) {
		now = until.Add(time.Second)
	}
	claims := &token.Claims{
		Issuer:    i.name.String(),
		Subject:   client.ID.String(),
		ClientID:  client.ID.String(),
		Audience:  decision.Audience,
		Scope:     decision.Scopes,
		IssuedAt:  now,
		ExpiresAt: now.Add(decision.Lifetime),
		ID:        token.NewID().String(),
	}
	signed, err := signer.Sign(claims)
	return &issued{signed, claims, decision.Lifetime, decision.Algorithm}, err
}

// scopes gives every scope that a client can be given.
func (i *issuer) scopes(ctx context.Context) ([]string, error) {
	resources, err := i.resources(ctx)
	if err != nil {
		return nil, err
	}
	return resources.Scopes(), nil
}

func (i *issuer) resources(ctx context.Context) (*registry.Resources, error) {
	resources, err := i.directory.Resources(ctx)
	if newer := errors.Is(err, registry.ErrNewer); newer || err == nil {
		i.outdated.Store(newer)
	}
	if err != nil {
		return nil, &oauth.Error{
			Code: oauth.TemporarilyUnavailable, Text: "The server cannot reach its store.", RetryAfter: time.Second,
			Cause: fmt.Errorf("reading the resources: %w", err),
		}
	}
	return resources, nil
}
