package verify

import (
	"context"
	"fmt"
	"strings"

	"github.com/grantorhq/grantor/service/token"
)

// admit decides about one call, whatever carried it: rule is the method's rule, authorization every value of the header
// of that name. The context it gives has the caller, where the rule asks for one.
func (v *Verifier) admit(ctx context.Context, rule Rule, authorization []string) (context.Context, *refusal) {
	switch rule.kind {
	case public:
		return ctx, nil
	case authenticated:
	default:
		return nil, refuseRule(rule)
	}
	raw, err := bearer(authorization)
	if err != nil {
		return nil, refuseToken(err)
	}
	if v.feed != nil && v.feed.stale() && v.refuseStale {
		return nil, refuseToken(ErrStale)
	}
	claims, err := v.tokens.Verify(ctx, raw)
	if err != nil {
		return nil, refuseToken(err)
	}
	if !claims.Scope.HasAll(rule.scopes) {
		return nil, refuseScope(rule.scopes, claims)
	}
	return withCaller(ctx, claims), nil
}

// report tells the operator of a refusal.
func (v *Verifier) report(ctx context.Context, method string, refused *refusal) {
	if v.instruments != nil {
		v.instruments.count(ctx, refused.cause)
	}
	if v.onRefusal != nil {
		v.onRefusal(ctx, method, refused.cause)
	}
}

// bearer takes the token out of the Authorization values (RFC 6750 §2.1):
//
//	credentials = "Bearer" 1*SP b64token
//
// with just one space, as senders write it. A scheme has no letter case (RFC 9110 §11.1); another scheme is no token.
// The verifier holds the rest to a bound first and then to the characters of a JWT, which are fewer than those of
// b64token; so a further space or a list of values is refused there.
func bearer(authorization []string) (string, error) {
	const scheme = "Bearer"
	switch len(authorization) {
	case 0:
		return "", ErrNoToken
	case 1:
	default:
		return "", fmt.Errorf("%w: %d authorization values", token.ErrMalformed, len(authorization))
	}
	name, raw, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(name, scheme) || raw == "" {
		return "", ErrNoToken
	}
	return raw, nil
}
