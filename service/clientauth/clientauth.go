// Package clientauth authenticates clients: it finds the client that the evidence in a request proves. Each
// authentication method has its own file. The package implements RFC 6749 §2.3.
//
// Every failure has the same answer and costs the same work, be it an unknown client, a wrong or expired secret or a
// disabled client: how a secret is checked depends on the secret that was sent, never on the client that was named or
// on how many secrets it has. The one exception is a client with a hash imported from another server; see
// [clientsecret.Hasher.Match].
package clientauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// Evidence is what a request offers as proof of its client. An empty string stands for an absent value.
type Evidence struct {
	// Authorization is the value of the Authorization header. Schemes other than Basic are ignored.
	Authorization string
	// ClientID and ClientSecret are the parameters client_id and client_secret.
	ClientID, ClientSecret string
	// Assertion and AssertionType are the parameters client_assertion and client_assertion_type (RFC 7521 §4.2).
	Assertion, AssertionType string
	// Certificates are those of the client at the other end of the connection, its own first. They are not verified, except
	// that the client has the private key of the first.
	Certificates []*x509.Certificate
	// Source is the address that the request came from. The zero address means unknown.
	Source netip.Addr
}

// ClaimedID returns the client ID that the evidence claims, however it was sent, or the empty string if there is none.
// The ID is not validated and may be any text.
func (e *Evidence) ClaimedID() string {
	if e.Assertion != "" {
		switch sent, err := e.parseAssertion(); {
		case err != nil || federated(sent) && e.ClientID != "":
			return e.ClientID
		default:
			return sent.Identity.Name()
		}
	}
	c, _ := e.credentials()
	return c.id
}

// Clients finds clients.
type Clients interface {
	// Client returns the client with the ID. The error is [registry.ErrNotFound] if there is none; any other error means
	// that it is unknown whether there is one.
	Client(ctx context.Context, id oauth.ClientID) (*registry.Client, error)
}

// Config configures an [Authenticator]. All fields but Authorities, Federation, Fetch and Slow are required.
type Config struct {
	// Issuer is the audience of client assertions.
	Issuer oauth.Issuer
	// Clients is queried for each request.
	Clients Clients
	// Store receives the replaced hashes of clients.
	Store  Store
	Hasher *clientsecret.Hasher
	// Uses records each successful authentication.
	Uses Uses
	// Failures limits the failed authentications.
	Failures Failures
	// Replays refuses client assertions that were used before.
	Replays Replays
	Now     func() time.Time
	// Authorities returns those that vouch for the certificates of clients. If it is nil, no client authenticates by
	// [oauth.TLSClientAuth].
	Authorities func() []*x509.CertPool
	// Federation configures the issuers and trust domains whose identities authenticate clients. Default: none.
	Federation Federation
	// Fetch makes the requests for the key sets of clients that register a URL. If it is nil, no such client authenticates.
	Fetch *http.Client
	// Slow, if not nil, is called when a request starts to compute a slow hash. The function that it returns is called
	// when the computation ends.
	Slow func(ctx context.Context) (done func())
}

// Uses records the uses of client secrets.
type Uses interface {
	// Note records that the secret authenticated the client at the given time. It must not block.
	Note(client oauth.ClientID, secretID string, at time.Time)
}

// Failures counts failed authentications by claimed client ID, whether or not such a client exists, and by source.
// [limit.Limiter] implements it.
type Failures interface {
	// RetryAfter returns how long it takes until another authentication may fail, or zero if one may fail now.
	RetryAfter(client string, source netip.Addr) time.Duration
	// RecordFailure counts a failure and returns zero, unless a limit is reached already: then it counts nothing and
	// returns what RetryAfter returns.
	RecordFailure(client string, source netip.Addr) time.Duration
	// Suspect reports whether an authentication from the source failed recently, whatever client it claimed.
	Suspect(source netip.Addr) bool
}

// Authenticator authenticates clients. It is safe for concurrent use by multiple goroutines.
type Authenticator struct {
	config     Config
	secrets    *secrets
	keys       *keySets
	federation *federation
	upgrades   chan upgrade
}

// New returns an authenticator. It computes at most as many slow hashes at once as the process may use processors.
func New(config Config) *Authenticator {
	return &Authenticator{
		config: config, secrets: newSecrets(config), keys: newKeySets(config.Fetch, config.Now), federation: newFederation(config),
		upgrades: make(chan upgrade, maxUpgrades),
	}
}

// refused returns the one answer to every failed authentication. Reason and cause are for the operator alone.
func refused(reason oauth.Reason, format string, args ...any) *oauth.Error {
	err := oauth.Errorf(oauth.InvalidClient, "Client authentication failed.", format, args...)
	err.Reason = reason
	return err
}

// Authentication is the result of an authentication.
type Authentication struct {
	// ID is that of the client that the evidence is of, also where the client may not authenticate; empty if it is not known.
	ID string
	// Client is the client that the evidence proves; nil if it proves none.
	Client *registry.Client
	// Method is the method by which the client authenticates, or tries to; empty if it is not known.
	Method string
	// Identity is what the client is called by the issuer or authority that vouches for it, or the id of the client's own key
	// that the request proves; empty for a secret.
	Identity string
}

// Authenticate returns the client that the evidence proves. With an error, the result has no client. Evidence of two
// kinds is an error (RFC 6749 §2.3).
func (a *Authenticator) Authenticate(ctx context.Context, e Evidence) (Authentication, error) {
	if err := e.checkKinds(); err != nil {
		return Authentication{}, err
	}
	if e.Assertion != "" {
		return a.authenticateByAssertion(ctx, e)
	}
	if e.certificateAlone() {
		return a.authenticateByCertificate(ctx, e)
	}
	c, err := e.credentials()
	p := proof{c, e.Source, a.config.Now()}
	if refusal, ok := errors.AsType[*oauth.Error](err); ok && refusal.Reason == oauth.MalformedCredentials && c.raw != "" {
		return Authentication{Method: c.method}, a.fail(ctx, p, refusal)
	}
	if err != nil {
		return Authentication{Method: c.method}, err
	}
	client, err := a.check(ctx, p)
	return Authentication{Client: client, Method: c.method}, err
}

// proof is a client ID and a secret, with the source and the time of the request.
type proof struct {
	credentials

	source netip.Addr
	at     time.Time
}

// tooMany returns the refusal after too many failures. It affects a caller with a wrong secret, and a caller with a
// chosen secret that has not been proven to this replica yet if another caller guesses from the same source.
func tooMany(wait time.Duration, cause error) *oauth.Error {
	return &oauth.Error{
		Code: oauth.TemporarilyUnavailable, Reason: oauth.TooManyFailures, Limited: true, RetryAfter: wait,
		Text: "Too many authentications failed; try again later.", Cause: cause,
	}
}

// fail counts a failed authentication and returns the answer to it. Beyond the limits the answer is the same for every
// cause of failure.
func (a *Authenticator) fail(ctx context.Context, p proof, cause *oauth.Error) *oauth.Error {
	if wait := a.config.Failures.RecordFailure(p.id, p.source); wait > 0 {
		return tooMany(wait, cause)
	}
	a.explainRaw(ctx, p, cause)
	return cause
}

// absentClient stands in for a client that does not exist: it has no secret or key that could match.
var absentClient registry.Client

// find returns the client with the ID. If there is none, known is false, and the client is absentClient.
func (a *Authenticator) find(ctx context.Context, id string) (_ *registry.Client, known bool, err error) {
	if clientID, err := oauth.ParseClientID(id); err == nil {
		switch client, err := a.config.Clients.Client(ctx, clientID); {
		case err == nil:
			return client, true, nil
		case !errors.Is(err, registry.ErrNotFound):
			return nil, false, oauth.StoreUnavailable(ctx, oauth.StoreUnreachable, fmt.Errorf("reading client %q: %w", id, err))
		}
	}
	return &absentClient, false, nil
}

// checkUsable returns why a client that has proven itself may not authenticate; nil if it may.
func (a *Authenticator) checkUsable(p proof, client *registry.Client) *oauth.Error {
	switch {
	case client.Disabled:
		return refused(oauth.ClientDisabled, "client %q is disabled", p.id)
	case !client.Allows(p.method):
		return refused(oauth.MethodNotAllowed, "client %q may not use %s", p.id, p.method)
	case !client.AllowsFrom(p.source):
		return refused(oauth.NetworkNotAllowed, "client %q may not come from %s", p.id, p.source)
	}
	return nil
}

// check returns the client that the secret of the proof authenticates.
func (a *Authenticator) check(ctx context.Context, p proof) (*registry.Client, error) {
	client, known, err := a.find(ctx, p.id)
	if err != nil {
		return nil, err
	}
	unusable := a.checkUsable(p, client)
	found, err := a.secrets.verify(ctx, attempt{p, client, known && unusable == nil})
	switch {
	case err != nil:
		return nil, err
	case !known:
		return nil, a.fail(ctx, p, refused(oauth.UnknownClient, "unknown client")) // the ID is left out: it may be a misplaced secret
	case !found.found():
		return nil, a.fail(ctx, p, refused(oauth.WrongSecret, "wrong or expired secret for client %q", p.id))
	case unusable != nil:
		return nil, a.fail(ctx, p, unusable)
	}
	a.config.Uses.Note(client.ID, found.id, p.at)
	if found.outdated {
		a.requestUpgrade(upgrade{client.ID, found, p.secret})
	}
	return client, nil
}
