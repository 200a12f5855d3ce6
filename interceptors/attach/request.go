package attach

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// client is an issuer that requests tokens with the client's secret, or with a proof that needs none.
type client struct {
	id      string
	proof   *proof   // nil for a client with a secret
	secrets []secret // exactly one without a proof, otherwise issue fails
	to      requester
	mistake error // of an option, or nil
	memory  memory
}

// requester requests a token from one kind of endpoint. The secret is an argument, so that the text that must not be
// echoed is the secret that was sent.
type requester interface {
	// requestToken requests a token with the secret, which is empty if the client has a proof instead. The client
	// authenticates with the method that the endpoint prefers or, if other is true, with its other one.
	requestToken(ctx context.Context, secret string, other bool) (issuedToken, error)
	// offersOther reports whether there is another method. It is called after a refusal.
	offersOther(ctx context.Context) bool
	// forget makes the next request ask for the issuer's metadata again.
	forget()
}

// memory is what a client knows about the authentication methods. It is used only by the one request in flight.
type memory struct {
	// other is the method to use with a new secret. It is proven if it was accepted before.
	other, proven bool
	// refused is the hash of the last refused secret, and refusedOther the method with which it was sent last. The zero
	// hash is that of no secret.
	refused      [sha256.Size]byte
	refusedOther bool
}

// method returns the method for the secret. A refused secret is sent with the two methods in turn.
func (m *memory) method(secret string) (other bool) {
	if m.knows(secret) {
		return !m.refusedOther
	}
	return m.other
}

// undecided reports whether a limited refusal of the secret may be due to the method: the one to send it with was not
// accepted yet, or the secret was refused since.
func (m *memory) undecided(secret string) bool { return !m.proven || m.knows(secret) }

// knows reports whether the secret is the last refused one.
func (m *memory) knows(secret string) bool { return m.refused == sha256.Sum256([]byte(secret)) }

// accept remembers a method that the issuer accepted.
func (m *memory) accept(other bool) { *m = memory{other: other, proven: true} }

// refuse remembers a refused secret, if there is another method to send it with.
func (m *memory) refuse(secret string, other bool) {
	m.refused, m.refusedOther = sha256.Sum256([]byte(secret)), other
}

func (c *client) issue(ctx context.Context) (issuedToken, error) {
	switch {
	case c.mistake != nil:
		return issuedToken{}, misuse("%w", c.mistake)
	case c.id == "" && (c.proof == nil || c.proof.needsID):
		return issuedToken{}, misuse("the client id is empty")
	case c.proof != nil:
		return c.to.requestToken(ctx, "", false)
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
	answer, refused, err := c.request(ctx, sent, c.memory.method(sent))
	switch {
	case refused == nil:
		return answer, err
	case refused.limited: // which says nothing about the secret
		return c.requestOther(ctx, sent, refused)
	}
	// The secret may have been replaced between reading and sending it, or be newer than a cached one.
	next, failure := secret(ctx)
	if next != "" && next != sent {
		sent = next
		if answer, refused, err = c.request(ctx, sent, c.memory.method(sent)); refused == nil {
			return answer, err
		}
	} else if failure != nil {
		// The secret that was sent may be wrong because a newer one could not be read.
		refused.Cause = failure.Cause
	}
	return c.requestOther(ctx, sent, refused)
}

// request requests a token with one method. It returns a refusal after which the other method may be accepted as refused,
// and any other failure as err. At the limit of its failed authentications a client gets a limited refusal for a method
// that it may not use, although the other would be accepted.
func (c *client) request(ctx context.Context, secret string, other bool) (_ issuedToken, refused *Error, err error) {
	answer, err := c.to.requestToken(ctx, secret, other)
	failure := (*Error)(nil)
	if !errors.As(err, &failure) {
		c.memory.accept(other)
		return answer, nil, nil
	}
	switch failure.Code {
	case oauth.UnauthorizedClient, oauth.InvalidScope, oauth.InvalidTarget:
		c.memory.accept(other) // the issuer authenticates a client before it checks these
	}
	if failure.Code == oauth.InvalidClient || failure.limited && c.memory.undecided(secret) {
		return issuedToken{}, failure, nil
	}
	return issuedToken{}, nil, err
}

// requestOther handles the refusal of a secret. It repeats the request with the other method, if there is one, no method
// was accepted yet and the secret was not refused before. An issuer that limits its client is not asked for its metadata
// again: they are not the cause.
func (c *client) requestOther(ctx context.Context, secret string, refused *Error) (issuedToken, error) {
	if !refused.limited {
		defer c.to.forget()
	}
	if !c.to.offersOther(ctx) {
		return issuedToken{}, refused
	}
	other := c.memory.method(secret)
	if !c.memory.proven && !c.memory.knows(secret) {
		other = !other
		answer, again, err := c.request(ctx, secret, other)
		if err == nil && again == nil || c.memory.proven {
			return answer, err
		}
	}
	c.memory.refuse(secret, other)
	return issuedToken{}, refused
}

// account is the part of a token request that does not change.
type account struct {
	id        string
	scopes    []string
	resources []string
	// parameters are further parameters. None has the name of another, nor of one that the package sets.
	parameters []parameter
	// method is the authentication method, or empty if the issuer's metadata decide.
	method string
	// assertion returns the client assertion for one request, and assertionType is its client_assertion_type. It is nil for
	// a client with a secret and for one with a certificate.
	assertion     secret
	assertionType string
	// certified reports that the certificate of the connection authenticates the client.
	certified bool
	// prover makes the DPoP proofs of the requests; nil without [DPoP].
	prover *prover
}

type parameter struct{ name, value string }

func (a *account) scope() string { return strings.Join(a.scopes, " ") }

// basic returns the Basic credentials of a client. RFC 6749 §2.3.1: both parts are form-encoded before they are joined,
// so that a client id may contain a colon.
func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
}

// issuedToken is an issuer's answer. A zero lifetime means that the issuer did not state one.
type issuedToken struct {
	token    string
	lifetime time.Duration
}

// newIssuedToken validates a token response. A token with a character outside visible ASCII could not be sent in a
// header, or would end the header. The secret is what an error must not quote.
func (a *account) newIssuedToken(raw, kind string, lifetime time.Duration, secret string) (issuedToken, error) {
	switch {
	case raw == "":
		return issuedToken{}, misuse("the issuer's answer has no access_token")
	case len(raw) > token.MaxSize:
		return issuedToken{}, misuse("the issuer's access_token has %d bytes, more than %d", len(raw), token.MaxSize)
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }):
		return issuedToken{}, misuse("the issuer's access_token is not visible ASCII")
	// RFC 6749 §7.1: a client must not use a token of a type that it does not understand.
	case !oauth.EqualFold(kind, a.prover.scheme()):
		return issuedToken{}, misuse("the issuer's token_type is %.20q, not %s", sanitize(kind, secret), a.prover.scheme())
	}
	return issuedToken{raw, lifetime}, nil
}
