package verify

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/recovery"
	"github.com/grantorhq/grantor/service/token"
)

// admit decides whether a call may proceed. The returned context carries the caller if the rule requires a token.
func (v *Verifier) admit(ctx context.Context, rule Rule, r *request) (context.Context, *Refusal) {
	claims, proven, refused := v.decide(ctx, rule, r)
	switch {
	case refused != nil:
		return nil, refused
	case claims == nil:
		return ctx, nil
	}
	return withCaller(ctx, claims, proven), nil
}

// decide decides whether a call may proceed, independently of transport: it is the only place that does. The rule is
// that of the method, and r is the call. The claims are nil if the rule requires no token, and proven is nil for a
// bearer token.
func (v *Verifier) decide(ctx context.Context, rule Rule, r *request) (claims *token.Claims, proven *admitted, refused *Refusal) {
	switch rule.kind {
	case public:
		return nil, nil, nil
	case authenticated:
	default:
		return nil, nil, refuseRule(rule)
	}
	err := r.parseAuthorization()
	if err == nil {
		claims, err = v.verify(ctx, r.token)
	}
	if err == nil {
		err = r.checkResource(claims)
	}
	if err == nil {
		proven, err = v.prove(ctx, r, claims)
	}
	switch {
	case err != nil:
		refused = refuseToken(err)
	case !claims.Scope.HasAll(rule.scopes):
		refused = refuseScope(rule.scopes, claims)
	default:
		return claims, proven, nil
	}
	refused.challengeFor(r.scheme)
	refused.Nonce = r.nonce
	return nil, nil, refused
}

// verify returns the claims of a valid token. The clock and the source of the keys are code of the program.
func (v *Verifier) verify(ctx context.Context, raw string) (*token.Claims, error) {
	claims, err := recovery.Call("checking the token", func() (*token.Claims, error) {
		switch {
		case v.members != nil:
			return v.verifyMember(ctx, raw)
		case v.tokens == nil:
			return nil, errNotMade
		case v.stale():
			return nil, ErrStale
		}
		return v.tokens.Verify(ctx, raw)
	})
	if panicked, ok := err.(*recovery.Error); ok { //nolint:errorlint // a key source's own error may wrap one
		return nil, fmt.Errorf("%w: %w", ErrFault, panicked)
	}
	return claims, err
}

// stale reports whether calls are refused because the knowledge of revocations is too old, and counts the call if it is.
func (v *Verifier) stale() bool {
	return v.follower != nil && v.follower.stale() && v.refuseStale
}

// report counts a refusal and passes it to [OnRefusal].
func (v *Verifier) report(ctx context.Context, method string, refused *Refusal) {
	if v.instruments != nil {
		v.instruments.count(ctx, refused.Cause)
	}
	if v.onRefusal == nil {
		return
	}
	if err := recovery.Do("the function of OnRefusal", func() { v.onRefusal(ctx, method, refused.Cause) }); err != nil {
		logRecord(slog.LevelError, "verify: a refusal was not observed", "error", err)
	}
}

// bearerScheme is the authentication scheme of RFC 6750.
const bearerScheme = "Bearer"

// parseAuthorization sets the scheme and the token to those in the Authorization values (RFC 6750 §2.1, RFC 9449 §7.1):
//
//	credentials = ( "Bearer" / "DPoP" ) 1*SP token
//
// with exactly one space, as senders write it. The scheme is compared without letter case (RFC 9110 §11.1); another
// scheme counts as no token. The verifier limits the rest to a size first and then to the characters of a JWT, which
// are fewer than those of b64token; so it rejects a further space or a list of values.
func (r *request) parseAuthorization() error {
	switch len(r.authorization) {
	case 0:
		return ErrNoToken
	case 1:
	default:
		return fmt.Errorf("%w: %d authorization values", token.ErrMalformed, len(r.authorization))
	}
	name, raw, _ := strings.Cut(r.authorization[0], " ")
	switch {
	case oauth.EqualFold(name, bearerScheme):
		r.scheme = bearerScheme
	case oauth.EqualFold(name, dpop.Scheme):
		r.scheme = dpop.Scheme
	default:
		return ErrNoToken
	}
	if raw == "" {
		return ErrNoToken
	}
	r.token = raw
	return nil
}
