// Package verify guards a gRPC server, or an HTTP one, with access tokens. It carries out RFC 6750 §2.1 and §3 and RFC
// 9068 §4.
//
// A [Verifier] checks tokens locally, with the issuer's public keys. A [Policy] says who may call which method; a method
// that no rule speaks of is never run, and a [Server] that has one does not start. What the handler sees is the
// [Caller]:
//
//	verifier, err := verify.New(ctx, "https://auth.example.com", verify.Audience("https://orders.internal"))
//	server := verify.NewServer(verifier, policy)
//	caller, ok := verify.CallerFrom(ctx)
//
// # Refusals
//
// A refusal carries google.rpc.ErrorInfo with the domain "grantor", over HTTP a JSON body with the same words:
//
//	no token, or one that does not hold      UNAUTHENTICATED    401  invalid_token
//	a good token without the right scope     PERMISSION_DENIED  403  insufficient_scope
//	a method without a rule                  PERMISSION_DENIED       no_rule
//	the issuer's keys cannot be had          UNAVAILABLE        503  temporarily_unavailable
//	too little is known of revocations       UNAVAILABLE        503  temporarily_unavailable (RefuseWhenStale)
//
// The first two also carry the challenge of RFC 6750 §3 as "www-authenticate": over gRPC in the trailer, where it tells
// the client that this package refused the call and no handler saw it.
//
// # Streams
//
// A stream of a guarded method ends with UNAUTHENTICATED within a second after its token has expired or was revoked; its
// handler's context ends then, and no message is sent or received any more. A client can prevent that with a new token
// where the server has [RegisterStreamRenewal].
package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

const (
	defaultCacheSize = 10_000
	defaultLeeway    = 30 * time.Second
	defaultStaleness = 30 * time.Second
	// firstFetch bounds how long New waits for the issuer.
	firstFetch = 5 * time.Second
)

// Verifier checks the access tokens of one issuer. It may be used by several goroutines and by several servers.
type Verifier struct {
	tokens    *token.Cache
	denied    *revocation.List
	streams   *sessions
	onRefusal func(ctx context.Context, method string, err error)
	// feed is nil where none is followed.
	feed        *feed
	refuseStale bool
	// instruments are nil without [Telemetry].
	instruments *instruments
	stop        context.CancelFunc
	stopped     sync.WaitGroup
}

// New makes a verifier for tokens of issuer. [Audience] is required.
//
// The issuer's keys are found by its description (RFC 8414) and fetched here, so that the first call need not wait for
// them. An issuer that cannot be reached within ctx, or 5 seconds, is no error: services start in any order, and until
// the keys can be had calls get UNAVAILABLE. An issuer that calls itself by another name (oauth.ErrOtherIssuer), or whose
// certificate is not trusted, is an error.
//
// Where the issuer is Grantor, the verifier follows its feed of revocations from here on, until [Verifier.Close]: a token
// that is revoked is refused from the next call on, without asking anybody during a call.
func New(ctx context.Context, issuer string, options ...Option) (*Verifier, error) {
	c := config{cacheSize: defaultCacheSize, leeway: defaultLeeway, client: http.DefaultClient, now: time.Now, maxStaleness: defaultStaleness}
	for _, option := range options {
		option(&c)
	}
	switch {
	case issuer == "":
		return nil, errors.New("verify: the issuer is missing")
	case len(c.audience) == 0 || slices.Contains(c.audience, ""):
		return nil, errors.New("verify: the audience is missing: say by verify.Audience which resource this server is")
	}
	ctx, cancel := context.WithTimeout(ctx, firstFetch)
	defer cancel()
	keys, err := c.source(ctx, issuer)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	denied := c.denied
	if denied == nil {
		denied = revocation.NewList()
	}
	verifier := &token.Verifier{
		Issuer: issuer, Audience: c.audience, Keys: keys, Denied: denied, Leeway: c.leeway, Now: c.now,
	}
	tokens, err := token.NewCache(verifier, c.cacheSize)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	v := &Verifier{
		tokens: tokens, denied: denied, streams: newSessions(verifier.CheckCurrent),
		onRefusal: c.onRefusal, refuseStale: c.refuseStale,
	}
	if c.telemetry {
		if v.instruments, err = newInstruments(&c, v); err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
	}
	if connect := c.feed(issuer); connect != nil {
		v.follow(ctx, &feed{
			connect: connect, list: denied, maxStale: c.maxStaleness, changed: v.streams.tell,
			start: time.Now(), ready: make(chan struct{}),
		}, c.now)
	}
	return v, nil
}

// longestToken is how long a revocation without an end of its own is remembered: no token of Grantor lives longer.
const longestToken = 24 * time.Hour

// follow starts the feed and waits within ctx until what was revoked before is known.
func (v *Verifier) follow(ctx context.Context, f *feed, now func() time.Time) {
	v.feed = f
	running, stop := context.WithCancel(context.Background())
	v.stop = stop
	v.stopped.Go(func() {
		defer stop() // where there is no feed there is nothing to forget either
		f.run(running)
	})
	v.stopped.Go(func() {
		sweep := time.NewTicker(time.Minute)
		defer sweep.Stop()
		for {
			select {
			case <-running.Done():
				return
			case <-sweep.C:
				v.denied.Sweep(now(), longestToken)
			}
		}
	})
	select {
	case <-f.ready:
	case <-ctx.Done():
	}
}

// Close ends following the issuer's feed. The verifier goes on to verify, by what it knows then.
func (v *Verifier) Close() {
	if v.stop != nil {
		v.stop()
		v.stopped.Wait()
	}
	if v.instruments != nil {
		_ = v.instruments.observed.Unregister() // it fails where the provider has none of this
	}
}

// Feed says how the verifier stands with the issuer's feed of revocations.
func (v *Verifier) Feed() FeedStatus {
	if v.feed == nil || v.feed.absent.Load() {
		return FeedStatus{}
	}
	age, complete := v.feed.age()
	return FeedStatus{
		Followed: true, Complete: complete, Age: age, Live: v.denied.Len(), StaleCalls: v.feed.staleCalls.Load(),
	}
}

// Option changes how [New] makes a verifier.
type Option func(*config)

type config struct {
	audience  []string
	keys      token.KeySource
	denied    *revocation.List
	conn      grpc.ClientConnInterface
	client    *http.Client
	cacheSize int
	leeway    time.Duration
	maxStale  time.Duration
	now       func() time.Time
	// maxStaleness and refuseStale are about the feed.
	maxStaleness time.Duration
	refuseStale  bool
	onRefusal    func(ctx context.Context, method string, err error)
	// telemetry says that the two below were given.
	telemetry bool
	meters    metric.MeterProvider
	tracers   trace.TracerProvider
}

// Audience says which resources the server is: a token must name one of them as its "aud", byte for byte.
func Audience(resources ...string) Option {
	return func(c *config) { c.audience = append(c.audience, resources...) }
}

// HTTPClient sets what fetches the issuer's description and keys. Default [http.DefaultClient].
func HTTPClient(client *http.Client) Option {
	return func(c *config) { c.client = client }
}

// OverGRPC fetches the issuer's description and keys from the grantor.v1.TokenService on conn instead of over HTTP. How
// conn is secured decides whose keys they are, so a *grpc.ClientConn in plaintext is refused unless its target is loopback.
//
// Make conn with attach.IssuerDialOptions, which finds another replica when one stops, or at least with
// grpc.WithKeepaliveParams and a Time of 10 s: without that a connection that falls silent stays in use until the kernel
// gives it up, a quarter of an hour later, and what is revoked meanwhile is not known here.
func OverGRPC(conn grpc.ClientConnInterface) Option {
	return func(c *config) { c.conn = conn }
}

// Keys sets where keys come from, for tests and for places without a way to the issuer: a *jwks.Set is a source.
// Nothing is fetched then.
func Keys(source token.KeySource) Option {
	return func(c *config) { c.keys = source }
}

// Denied sets where revocations are known from, for an issuer that guards services of its own. The verifier adds nothing
// to the list. It goes with [Keys]: nothing is followed then.
func Denied(list *revocation.List) Option {
	return func(c *config) { c.denied = list }
}

// CacheSize bounds how many verified tokens are remembered. Default 10,000; a usual one takes about 1.2 KiB.
func CacheSize(tokens int) Option {
	return func(c *config) { c.cacheSize = tokens }
}

// Leeway is how far the issuer's clock may be ahead of ours. Default 30 s. It does not prolong a token.
func Leeway(d time.Duration) Option {
	return func(c *config) { c.leeway = d }
}

// MaxStaleKeys is how long, after their max-age, the last good keys are used while the issuer cannot be reached. Default
// 24 h.
func MaxStaleKeys(d time.Duration) Option {
	return func(c *config) { c.maxStale = max(d, 1) } // zero is meant, where the key set takes it for its default
}

// Now sets the clock. Default [time.Now].
func Now(now func() time.Time) Option {
	return func(c *config) { c.now = now }
}

// OnRefusal sets what is told of every refused call: the method ("/pkg.Service/Method", or over HTTP "GET /path") and
// the true reason, which the caller is not told: errors.Is finds in it one of this package's or the token package's
// errors. It must not block; method and reason may hold what an attacker chose, so quote them.
func OnRefusal(observe func(ctx context.Context, method string, err error)) Option {
	return func(c *config) { c.onRefusal = observe }
}

// MaxStaleness is how old the knowledge of revocations may be, while the feed is out of reach, before calls count as stale
// ([FeedStatus]) and the log says so once. Default 30 s.
func MaxStaleness(d time.Duration) Option {
	return func(c *config) { c.maxStaleness = d }
}

// RefuseWhenStale refuses calls with UNAVAILABLE (503) when the knowledge of revocations is older than [MaxStaleness],
// where they are decided by what is known otherwise.
func RefuseWhenStale() Option {
	return func(c *config) { c.refuseStale = true }
}

// feed gives the way to the issuer's feed; nil where none is looked for.
func (c *config) feed(issuer string) func(context.Context) (grpc.ClientConnInterface, func(), error) {
	switch {
	case c.conn != nil:
		return func(context.Context) (grpc.ClientConnInterface, func(), error) {
			if conn, ok := c.conn.(*grpc.ClientConn); ok {
				conn.ResetConnectBackoff() // its own pause grows to two minutes, longer than any staleness
			}
			return c.conn, func() {}, nil
		}
	case c.keys != nil:
		return nil
	}
	return discovered(c.client, issuer)
}

// source gives the issuer's keys, fetched if they can be had now.
func (c *config) source(ctx context.Context, issuer string) (token.KeySource, error) {
	if c.keys != nil {
		return c.keys, nil
	}
	fetch := jwks.HTTP(c.client, issuer)
	if c.conn != nil {
		fetch = overGRPC(c.conn, issuer)
	} else if err := oauth.SecureURL(issuer); err != nil {
		return nil, fmt.Errorf("the issuer: %w", err)
	}
	remote := jwks.NewRemote(fetch, jwks.RemoteConfig{MaxStale: c.maxStale, Now: c.now})
	err := remote.Refresh(ctx)
	// Waiting mends neither a wrong name nor a certificate that is not trusted.
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted || errors.Is(err, oauth.ErrOtherIssuer) {
		return nil, err
	}
	return remote, nil
}
