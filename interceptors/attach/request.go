package attach

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// client is an issuer that requests tokens with the client's secret.
type client struct {
	id      string
	secrets []secret // exactly one, otherwise issue fails
	to      requester
	mistake error // of an option, or nil
}

// requester requests a token from one kind of endpoint. The secret is an argument, so that the text that must not be
// echoed is the secret that was sent.
type requester interface {
	requestToken(ctx context.Context, secret string) (issuedToken, error)
}

func (c *client) issue(ctx context.Context) (issuedToken, error) {
	switch {
	case c.mistake != nil:
		return issuedToken{}, misuse("%w", c.mistake)
	case c.id == "":
		return issuedToken{}, misuse("the client id is empty")
	case len(c.secrets) == 0:
		return issuedToken{}, misuse("the client secret is empty")
	case len(c.secrets) > 1:
		return issuedToken{}, misuse("the client secret is set in %d ways; set it in one", len(c.secrets))
	}
	secret := c.secrets[0]
	sent, failure := secret(ctx)
	if sent == "" {
		return issuedToken{}, failure
	}
	answer, err := c.to.requestToken(ctx, sent)
	refused := (*Error)(nil)
	if !errors.As(err, &refused) || refused.Code != oauth.InvalidClient {
		return answer, err
	}
	// The secret may have been replaced between reading and sending it, or be newer than a cached one.
	next, failure := secret(ctx)
	switch {
	case next != "" && next != sent:
		return c.to.requestToken(ctx, next)
	case failure != nil:
		// The secret that was sent may be wrong because a newer one could not be read.
		refused.Cause = failure.Cause
	}
	return issuedToken{}, refused
}

// account is the part of a token request that does not change.
type account struct {
	id        string
	scopes    []string
	resources []string
}

func (a *account) scope() string { return strings.Join(a.scopes, " ") }

// issuedToken is an issuer's answer. A zero lifetime means that the issuer did not state one.
type issuedToken struct {
	token    string
	lifetime time.Duration
}

// newIssuedToken validates a token response. A token with a character outside visible ASCII could not be sent in a
// header, or would end the header. The
// secret is what an error must not quote.
func newIssuedToken(raw, kind string, lifetime time.Duration, secret string) (issuedToken, error) {
	switch {
	case raw == "":
		return issuedToken{}, misuse("the issuer's answer has no access_token")
	case len(raw) > token.MaxSize:
		return issuedToken{}, misuse("the issuer's access_token has %d bytes, more than %d", len(raw), token.MaxSize)
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }):
		return issuedToken{}, misuse("the issuer's access_token is not visible ASCII")
	// RFC 6749 §7.1: a client must not use a token of a type that it does not understand.
	case !strings.EqualFold(kind, "Bearer"):
		return issuedToken{}, misuse("the issuer's token_type is %.20q, not Bearer", sanitize(kind, secret))
	}
	return issuedToken{raw, lifetime}, nil
}
