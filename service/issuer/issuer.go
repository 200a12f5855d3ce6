// Package issuer issues, introspects and revokes tokens, independently of the transport. It implements the server side of
// RFC 6749 §5, RFC 7662 and RFC 7009: a request has been parsed before it arrives here, and every error that is not the
// issuer's own fault is an [oauth.Error].
package issuer

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

// Leeway is how far the "iat" of a token may be ahead of this replica's clock. Verifiers are expected to accept as much,
// as package interceptors/verify does by default, so it also bounds how far [Issuer.RevokeAll] may move the moment of a
// revocation, and with it the "iat" of later tokens, into the future.
const Leeway = 30 * time.Second

// Config is what an issuer works on. Every field is required.
type Config struct {
	// Name is the "iss" of the tokens.
	Name          oauth.Issuer
	Authenticator *clientauth.Authenticator
	Directory     *registry.Directory
	Ring          *keys.Ring
	Limiter       *limit.Limiter
	Grant         *grant.ClientCredentials
	// Feed is followed into Ledger.
	Feed      *revocation.Tail
	Ledger    *revocation.Ledger
	Publisher revocation.Publisher
	// MaxStaleness is the maximum age of the feed at which requests are still decided.
	MaxStaleness time.Duration
	// CachedTokens is how many tokens that were introspected are held in memory.
	CachedTokens int
	Now          func() time.Time
}

// Issuer issues, introspects and revokes tokens. It is safe for concurrent use by multiple goroutines.
type Issuer struct {
	config Config
	// live verifies tokens of this issuer, for whatever audience; signed does so without regard to revocations.
	live   *token.Cache
	signed *token.Verifier
	// resourcesNewer is set while the stored resources are in the format of a newer release.
	resourcesNewer atomic.Bool
}

// New returns an issuer.
func New(config Config) (*Issuer, error) {
	verifier := func(denied token.DenyList) *token.Verifier {
		return &token.Verifier{Issuer: config.Name.String(), Keys: config.Ring, Denied: denied, Leeway: Leeway, Now: config.Now}
	}
	live, err := token.NewCache(verifier(config.Ledger.List), config.CachedTokens)
	if err != nil {
		return nil, err
	}
	return &Issuer{config: config, live: live, signed: verifier(nil)}, nil
}

// Name returns the "iss" of the tokens.
func (i *Issuer) Name() oauth.Issuer { return i.config.Name }

// Keys returns the public keys of the tokens, and how long a verifier may keep them.
func (i *Issuer) Keys() (published []jwks.Key, maxAge time.Duration) {
	return i.config.Ring.Published(), i.config.Ring.MaxAge()
}

// Fresh reports why this replica's knowledge is too old to decide a request by; nil if it is not. The error is an
// [oauth.Error].
func (i *Issuer) Fresh() error {
	if err := i.feedCurrent(); err != nil {
		return &oauth.Error{
			Code: oauth.TemporarilyUnavailable, Text: "The server has lost touch with its store.", RetryAfter: time.Second,
			Reason: oauth.StaleKnowledge, Cause: err,
		}
	}
	return nil
}

func (i *Issuer) feedCurrent() error {
	switch age, complete := i.config.Feed.Age(); {
	case !complete:
		return errors.New("the feed has not been read to its end yet")
	case age > i.config.MaxStaleness:
		return fmt.Errorf("the feed was last read to its end %s ago", age.Round(time.Millisecond))
	}
	return nil
}

// Ready reports why no token can be issued now, or why none should be because another replica knows more; nil if neither
// applies.
func (i *Issuer) Ready() error {
	if err := i.feedCurrent(); err != nil {
		return err
	}
	if i.config.Ring.Outdated() {
		return fmt.Errorf("the stored key ring: %w", keys.ErrNewer)
	}
	if i.resourcesNewer.Load() {
		return fmt.Errorf("the stored resources: %w", registry.ErrNewer)
	}
	return nil
}

// Authenticate returns the client that the evidence proves. With an error, the result has no client. Callers check
// [Issuer.Fresh] first.
func (i *Issuer) Authenticate(ctx context.Context, e clientauth.Evidence) (clientauth.Authentication, error) {
	return i.config.Authenticator.Authenticate(ctx, e)
}

// Issued is a token and what it says.
type Issued struct {
	Token     string
	Claims    *token.Claims
	Lifetime  time.Duration
	Algorithm jwks.Algorithm
}

// Issue returns a token for an authenticated client, as the grant decides.
func (i *Issuer) Issue(ctx context.Context, client *registry.Client, r grant.Request) (*Issued, error) {
	resources, err := i.resources(ctx)
	if err != nil {
		return nil, err
	}
	decision, err := i.config.Grant.Decide(client, resources, r)
	if err != nil {
		return nil, err
	}
	if wait := i.config.Limiter.AllowToken(client.ID.String()); wait > 0 {
		return nil, &oauth.Error{
			Code: oauth.TemporarilyUnavailable, Reason: oauth.QuotaReached, Limited: true, RetryAfter: wait,
			Text: "The client has had as many tokens as it may in a while; use the one there is, or try again later.",
		}
	}
	signer, err := i.config.Ring.Signer(decision.Algorithm)
	if err != nil {
		return nil, err
	}
	now := i.config.Now().Truncate(time.Second)
	// A token is dated after the moment up to which the client's tokens are revoked, which may be this very second.
	if until := i.config.Ledger.List.RevokedUntil(client.ID.String()); !until.Before(now) {
		now = until.Add(time.Second)
	}
	claims := &token.Claims{
		Issuer:    i.config.Name.String(),
		Subject:   client.ID.String(),
		ClientID:  client.ID.String(),
		Audience:  decision.Audience,
		Scope:     decision.Scopes,
		IssuedAt:  now,
		ExpiresAt: now.Add(decision.Lifetime),
		ID:        token.NewID().String(),

		Confirmation: decision.Confirmation,
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		return nil, err
	}
	if len(signed) > token.MaxSize {
		// The bounds of scopes, resources and IDs allow for more together than verifiers accept.
		return nil, oauth.Errorf(oauth.InvalidScope, "The token would have more than 8192 bytes; ask for fewer scopes or resources.",
			"a token of %d bytes for %d scopes and %d resources", len(signed), len(decision.Scopes), len(decision.Audience))
	}
	return &Issued{signed, claims, decision.Lifetime, decision.Algorithm}, nil
}

// Scopes returns every scope that a client can be granted.
func (i *Issuer) Scopes(ctx context.Context) ([]string, error) {
	resources, err := i.resources(ctx)
	if err != nil {
		return nil, err
	}
	return resources.Scopes(), nil
}

// CheckResources reads the resources unless they are in memory, so that [Issuer.Ready] knows whether they can be read.
func (i *Issuer) CheckResources(ctx context.Context) {
	_, _ = i.resources(ctx) // a request that needs them gets the error
}

func (i *Issuer) resources(ctx context.Context) (*registry.Resources, error) {
	resources, err := i.config.Directory.Resources(ctx)
	if newer := errors.Is(err, registry.ErrNewer); newer || err == nil {
		i.resourcesNewer.Store(newer)
	}
	if err != nil {
		return nil, oauth.StoreUnavailable(ctx, "", fmt.Errorf("reading the resources: %w", err))
	}
	return resources, nil
}

// TokenLookups counts the tokens that were found in memory when they were introspected or revoked, and those that were
// not.
func (i *Issuer) TokenLookups() (hits, misses uint64) { return i.live.Lookups() }
