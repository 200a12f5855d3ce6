// Package clientauth establishes that a caller is a client: from the evidence of a request to the client that it proves,
// one file for each method. It carries out RFC 6749 §2.3.
//
// Whatever fails, an unknown client, a wrong secret, an expired one, a disabled client, the answer is the same and so is
// the work: how a secret is checked depends on the secret that was sent, never on the client that was named or on how many
// secrets it has. The one exception is a client with a hash from another server, see [clientsecret.Hasher.Match].
package clientauth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// Evidence is what a request offers as proof. An empty string is absent.
type Evidence struct {
	// Authorization is the value of the Authorization header. Schemes other than Basic are not looked at.
	Authorization string
	// ClientID and ClientSecret are the parameters of those names.
	ClientID, ClientSecret string
	// Assertion and AssertionType are the client_assertion parameters (RFC 7521 §4.2). No client can use them yet.
	Assertion, AssertionType string
	// Source is the address that the request came from; the zero address where that is not known.
	Source netip.Addr
}

// ClaimedID gives the id of the client that the evidence is to prove, in whichever way it was sent; empty where there is
// none. It may be anything.
func (e *Evidence) ClaimedID() string {
	if _, id, _, err := e.secret(); err == nil {
		return id
	}
	return e.ClientID
}

// Clients finds a client. An id that no client has is registry.ErrNotFound; any other error means that it is not known
// whether there is one.
type Clients interface {
	Client(ctx context.Context, id oauth.ClientID) (*registry.Client, error)
}

// Config says what an authenticator works with. Every field but Slow is required.
type Config struct {
	// Clients is asked for each request.
	Clients Clients
	// Store is where a hash is replaced.
	Store  Store
	Hasher *clientsecret.Hasher
	// Uses is told of every proof.
	Uses Uses
	// Failures bounds the proofs that fail.
	Failures Failures
	Now      func() time.Time
	// Slow, where set, is told when a request begins to compute a slow hash; what it returns is called at the end of that.
	Slow func(ctx context.Context) (done func())
}

// Uses is told which secret of a client proved it, and when. It must answer at once.
type Uses interface {
	Note(client oauth.ClientID, secretID string, at time.Time)
}

// Failures counts the proofs that fail, by the client id that was claimed, whether a client has it or not, and the address
// they came from. [limit.Limiter] is one.
type Failures interface {
	// RetryAfter tells how long it is until one more may fail; zero where it may now.
	RetryAfter(client string, source netip.Addr) time.Duration
	// RecordFailure counts one, unless that would be one too many: then it gives what RetryAfter gives.
	RecordFailure(client string, source netip.Addr) time.Duration
	// Suspect reports whether one from the address has failed lately, whatever client it claimed.
	Suspect(source netip.Addr) bool
}

// Authenticator checks evidence. It may be used by several goroutines.
type Authenticator struct {
	config   Config
	secrets  *secrets
	upgrades chan upgrade
}

// New makes an authenticator. The number of slow hashes computed at once is bounded by the machine's processors.
func New(config Config) *Authenticator {
	return &Authenticator{config, newSecrets(config), make(chan upgrade, mostUpgrades)}
}

// refused is the one answer to every failed proof; why it failed is for the operator alone.
func refused(why oauth.Reason, format string, args ...any) *oauth.Error {
	err := oauth.Errorf(oauth.InvalidClient, "Client authentication failed.", format, args...)
	err.Reason = why
	return err
}

// Authenticate gives the client that the evidence proves, and the method by which it does. Evidence of two kinds is
// refused (RFC 6749 §2.3).
func (a *Authenticator) Authenticate(ctx context.Context, e Evidence) (*registry.Client, string, error) {
	method, id, secret, err := e.secret()
	if err != nil {
		return nil, method, err
	}
	client, err := a.check(ctx, proof{method, id, secret, e.Source, a.config.Now()})
	return client, method, err
}

// proof is an id and a secret, how they were sent, where from and when.
type proof struct {
	method, id, secret string
	source             netip.Addr
	at                 time.Time
}

// tooMany refuses a proof because too many before it failed. Whom that can hit: who has a wrong secret, and who has a
// chosen one that has not proved right here before and comes from where somebody guesses.
func tooMany(wait time.Duration, cause error) *oauth.Error {
	return &oauth.Error{
		Code: oauth.TemporarilyUnavailable, Reason: oauth.TooManyFailures, Limited: true, RetryAfter: wait,
		Text: "Too many authentications failed; try again later.", Cause: cause,
	}
}

// failed counts a proof that failed, and gives the answer to it. Beyond the limits that is one and the same, whatever it
// failed by.
func (a *Authenticator) failed(p proof, why *oauth.Error) *oauth.Error {
	if wait := a.config.Failures.RecordFailure(p.id, p.source); wait > 0 {
		return tooMany(wait, why)
	}
	return why
}

// check verifies the secret of the client with the id.
func (a *Authenticator) check(ctx context.Context, p proof) (*registry.Client, error) {
	client := &registry.Client{} // stands in for one that does not exist: it has no secret that could match
	known := false
	if clientID, err := oauth.ParseClientID(p.id); err == nil {
		found, err := a.config.Clients.Client(ctx, clientID)
		switch {
		case err == nil:
			client, known = found, true
		case !errors.Is(err, registry.ErrNotFound):
			return nil, &oauth.Error{
				Code: oauth.TemporarilyUnavailable, Text: "The server cannot reach its store.", RetryAfter: time.Second,
				Reason: oauth.StoreUnreachable, Cause: fmt.Errorf("reading client %q: %w", p.id, err),
			}
		}
	}
	usable := known && !client.Disabled && client.Allows(p.method) && client.AllowsFrom(p.source)
	found, err := a.secrets.match(ctx, client, usable, p)
	switch {
	case err != nil:
		return nil, err
	case !known:
		return nil, a.failed(p, refused(oauth.UnknownClient, "unknown client")) // the id may be anything, even a secret in the wrong place
	case found.hash == "":
		return nil, a.failed(p, refused(oauth.WrongSecret, "wrong or expired secret for client %q", p.id))
	case client.Disabled:
		return nil, a.failed(p, refused(oauth.ClientDisabled, "client %q is disabled", p.id))
	case !client.Allows(p.method):
		return nil, a.failed(p, refused(oauth.MethodNotAllowed, "client %q may not use %s", p.id, p.method))
	case !usable:
		return nil, a.failed(p, refused(oauth.NetworkNotAllowed, "client %q may not come from %s", p.id, p.source))
	}
	a.config.Uses.Note(client.ID, found.id, p.at)
	if found.outdated {
		a.wantUpgrade(upgrade{client.ID, found, p.secret})
	}
	return client, nil
}
