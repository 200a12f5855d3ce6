// Package verify authorizes the calls of a gRPC server, or the requests of an HTTP server, by access tokens. It
// implements RFC 6750 §2.1 and §3, and RFC 9068 §4.
//
// A [Verifier] checks tokens locally, with the issuer's public keys. A [Policy] says which scopes each method requires;
// a method without a rule is never run, and a [Server] that has one does not start. The handler gets the [Caller]:
//
//	verifier, err := verify.New(ctx, "https://auth.example.com", verify.Audience("https://orders.internal"))
//	server := verify.NewServer(verifier, verify.Policy{
//		"/orders.v1.Orders/List": verify.Scopes("orders.read"),
//	})
//	caller, ok := verify.CallerFrom(ctx) // in the handler
//
// [HTTP] does the same for an [http.Handler], and [Verifier.Check] for requests that another server received, such as a proxy.
//
// # Refusals
//
// A refused gRPC call has a google.rpc.ErrorInfo with the domain "grantor"; a refused HTTP request has the reason and
// the message in a JSON body:
//
//	no token, or an invalid one              UNAUTHENTICATED    401  invalid_token
//	a bound token without its proof          UNAUTHENTICATED    401  invalid_token
//	a valid token without a required scope   PERMISSION_DENIED  403  insufficient_scope
//	a method without a rule                  PERMISSION_DENIED       no_rule
//	the issuer's keys are not available      UNAVAILABLE        503  temporarily_unavailable
//	the knowledge of revocations is too old  UNAVAILABLE        503  temporarily_unavailable (RefuseWhenStale)
//	a clock or a key source panicked         INTERNAL           500  server_error
//
// The first three also carry the challenge of RFC 6750 §3 as "www-authenticate". Over gRPC it is in the trailer, where it
// shows the client that this package refused the call and no handler saw it. Over HTTP it also names the metadata of the
// resource if the verifier has [DescribeResource] (RFC 9728): clients that know the URL of the server alone find its issuer there.
//
// # Bound tokens
//
// A token that is bound to a client certificate (RFC 8705 §3) is accepted on connections with that certificate alone, so
// that it is of no use to a thief. The server must ask its clients for certificates; it need not verify them:
// [tls.RequestClientCert] is enough. [Caller.Proof] says what the caller has proven, and [RequireBoundTokens] refuses
// all other tokens. A server behind a proxy that ends TLS does not see certificates, and refuses bound tokens.
//
// A token that is bound to a key of DPoP proofs (RFC 9449) is accepted as "Authorization: DPoP …" with one proof for the
// request in the header DPoP, or in the metadata dpop over gRPC, where the proof is for POST and
// https://AUTHORITY/package.Service/Method. [DPoPOrigin], [RequireDPoPNonce] and [DPoPReplays] configure that.
//
// # Revocation
//
// If the issuer is Grantor, the verifier follows its feed of revocations and refuses a revoked token from the next call
// on. [Verifier.Feed] reports how current that knowledge is.
//
// # Streams
//
// A stream of a guarded method ends with UNAUTHENTICATED within a second after its token expires or is revoked: its
// handler's context is cancelled, and no message is sent or received any more. A client can keep its stream with a new
// token if the server has [RegisterStreamRenewal].
package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/recovery"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// startTimeout bounds how long New waits for the issuer.
const startTimeout = 5 * time.Second

// Verifier checks the access tokens of one issuer, or of several if [Issuers] returned it. It is safe for concurrent use
// by multiple goroutines and may serve several servers. A nil or zero Verifier admits callers of public methods alone.
type Verifier struct {
	tokens *token.Cache
	// keys are those of the issuer, which tokens uses.
	keys      token.KeySource
	denied    *revocation.List
	streams   *guardedStreams
	proofs    *proofs
	onRefusal func(ctx context.Context, method string, err error)
	// follower is nil if no feed is followed.
	follower    *feedFollower
	refuseStale bool
	// requireBound refuses bearer tokens, and certificates has the thumbprints of client certificates.
	requireBound bool
	certificates *thumbprints
	// resourceMetadata is nil without [ResourceMetadata].
	resourceMetadata *string
	// resource is nil without [DescribeResource].
	resource *resource
	// instruments is nil without [Telemetry].
	instruments *instruments
	// members is keyed by issuer and caches contains their tokens. In the verifier of [Issuers] they take the place of
	// all fields above but onRefusal, resourceMetadata, resource and instruments; in others they are nil.
	// Its certificates are its own.
	members map[string]*Verifier
	caches  token.Caches
	stop    context.CancelFunc
	// stopMu keeps goroutines from starting once stop was called.
	stopMu  sync.Mutex
	stopped sync.WaitGroup
}

// New returns a verifier for the tokens of issuer. [Audience] is required.
//
// New fetches the issuer's keys, which it finds in the issuer's metadata (RFC 8414), so that the first call need not
// wait for them. It is not an error if the issuer cannot be reached within ctx, or within 5 s: services start in any
// order, and calls fail with UNAVAILABLE until the keys can be fetched. It is an error if the issuer's metadata names
// another issuer (oauth.ErrOtherIssuer), or its certificate is not trusted.
//
// If the issuer is Grantor, the verifier follows its feed of revocations until [Verifier.Close]: a revoked token is
// refused from the next call on, without a request during the call. Grantor's metadata name the gRPC endpoint of the
// feed; a feed that is named and cannot be reached, or answers UNIMPLEMENTED or 404, is an outage: it is retried, and
// calls count as stale. Metadata that name none are fetched again when a call arrives a minute later or more. With
// [OverGRPC], the feed is always expected on the connection.
//
// A panic of the program's code, such as a transport, a connection or a clock, does not end the program: for the keys and
// the feed it is an outage, for a call a refusal ([ErrFault]), for a stream its end. That excludes code which net/http,
// gRPC or the runtime run in goroutines of their own: a dialer, or a callback of a [tls.Config].
func New(ctx context.Context, issuer string, options ...Option) (*Verifier, error) {
	c := newConfig(options)
	if ctx == nil {
		ctx = context.Background()
	}
	switch {
	case c.mistake != nil:
		return nil, c.mistake
	case issuer == "":
		return nil, errors.New("verify: the issuer is missing")
	case len(c.audience) == 0 || slices.Contains(c.audience, ""):
		return nil, errors.New("verify: the audience is missing: name the resource that this server is with verify.Audience")
	}
	described, err := c.newResource()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	keys, err := c.keySource(ctx, issuer)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	denied := c.denied
	if denied == nil {
		denied = revocation.NewList()
	}
	verifier := &token.Verifier{
		Issuer: issuer, Audience: c.audience, Profile: c.profile, Keys: keys, Denied: denied, Leeway: c.leeway, Now: c.now,
	}
	tokens, err := token.NewCache(verifier, c.cacheSize)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	v := &Verifier{
		tokens: tokens, keys: keys, denied: denied, streams: newGuardedStreams(verifier.CheckCurrent, c.audience),
		proofs: c.newProofs(), onRefusal: c.onRefusal, refuseStale: c.refuseStale, resourceMetadata: c.resourceMetadata,
		requireBound: c.requireBound, certificates: newThumbprints(),
	}
	if v.resource, err = described.publish(v); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	dial := c.feedDialer(issuer)
	if dial != nil {
		// The callback that newInstruments registers reads the follower, from then on concurrently.
		v.follower = &feedFollower{
			dial: dial, list: denied, maxStale: c.revocationsMaxStale, onChange: v.streams.recheck,
			start: time.Now(), ready: make(chan struct{}),
		}
	}
	if c.telemetry {
		v.instruments, err = recovery.Call("a provider of Telemetry", func() (*instruments, error) { return newInstruments(&c, v) })
		if err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
	}
	if dial != nil {
		v.follow(ctx, v.follower, c.now)
	}
	return v, nil
}

// maxTokenLifetime is how long a revocation without an end time is kept: no token of Grantor lives longer.
const maxTokenLifetime = 24 * time.Hour

// follow starts following the feed, and waits within ctx until all earlier revocations are known.
func (v *Verifier) follow(ctx context.Context, f *feedFollower, now func() time.Time) {
	running, stop := context.WithCancel(context.Background())
	v.stop = stop
	f.restart = func() {
		v.stopMu.Lock() // Close waits for no goroutine that starts later
		defer v.stopMu.Unlock()
		if running.Err() == nil {
			v.stopped.Go(func() {
				following, end := context.WithCancel(running)
				defer end() // without a feed there is nothing to sweep either
				v.stopped.Go(func() { v.sweep(following, now) })
				f.run(following)
			})
		}
	}
	f.restart()
	select {
	case <-f.ready:
	case <-ctx.Done():
	}
}

// sweep removes the revocations that no longer concern a live token, every minute until ctx ends.
func (v *Verifier) sweep(ctx context.Context, now func() time.Time) {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			// If the clock panics, the list stays as it is.
			_ = recovery.Do("the clock", func() { v.denied.Sweep(now(), maxTokenLifetime) })
		}
	}
}

// Close stops following the issuer's feed and waits for the verifier's goroutines. The verifier continues to verify
// tokens, with the revocations known at that time.
func (v *Verifier) Close() {
	if v == nil {
		return
	}
	if v.members != nil {
		for _, member := range v.members {
			member.Close()
		}
		return
	}
	if v.stop != nil {
		v.stopMu.Lock()
		v.stop()
		v.stopMu.Unlock()
		v.stopped.Wait()
	}
	if v.instruments != nil {
		v.instruments.close()
	}
}

// Feed returns the state of the verifier's knowledge of the issuer's revocations.
func (v *Verifier) Feed() FeedStatus {
	if v == nil {
		return FeedStatus{}
	}
	if v.members != nil {
		return v.feedOfMembers()
	}
	if v.follower == nil || v.follower.absent.Load() {
		return FeedStatus{}
	}
	age, complete := v.follower.age()
	return FeedStatus{
		Followed: true, Complete: complete, Age: age, Live: v.denied.Len(), StaleCalls: v.follower.staleCalls.Load(),
	}
}

// feedDialer returns how to connect to the issuer's feed, or nil if no feed is followed.
func (c *config) feedDialer(issuer string) feedDialer {
	switch {
	case c.conn != nil:
		return func(context.Context) (grpc.ClientConnInterface, func(), error) {
			if conn, ok := c.conn.(*grpc.ClientConn); ok {
				conn.ResetConnectBackoff() // its backoff grows to two minutes, longer than the feed may be stale
			}
			return c.conn, func() {}, nil
		}
	case c.keys != nil:
		return nil
	}
	return c.discoveredDialer(issuer)
}

// discovery returns how the issuer's documents are fetched.
func (c *config) discovery() oauth.Discovery {
	return oauth.Discovery{Client: c.client, From: c.from, AllowPlaintext: c.plaintext}
}

// keySource returns the source of the issuer's keys, which are fetched if the issuer can be reached now.
func (c *config) keySource(ctx context.Context, issuer string) (token.KeySource, error) {
	if c.keys != nil {
		return c.keys, nil
	}
	discovery := c.discovery()
	fetch := jwks.Discovered(discovery, issuer)
	if c.conn != nil {
		fetch = overGRPC(c.conn, issuer, c.plaintext)
	} else if err := discovery.Secure(discovery.Base(issuer)); err != nil {
		return nil, fmt.Errorf("the issuer: %w", err)
	}
	remote := jwks.NewRemote(fetch, jwks.RemoteConfig{MaxStale: c.keysMaxStale, Now: c.now})
	_, err := recovery.Call("fetching the keys", func() (struct{}, error) {
		err := remote.Refresh(ctx)
		// A retry cures neither a wrong name nor an untrusted certificate.
		if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted || errors.Is(err, oauth.ErrOtherIssuer) {
			return struct{}{}, err
		}
		return struct{}{}, nil
	})
	return remote, err
}
