package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// Option configures a [Verifier].
type Option func(*config)

type config struct {
	audience []string
	profile  token.Profile
	// resourceMetadata is nil without [ResourceMetadata].
	resourceMetadata *string
	// resource is nil without [DescribeResource].
	resource *ProtectedResource
	keys     token.KeySource
	denied   *revocation.List
	conn     grpc.ClientConnInterface
	client   *http.Client
	// from, feedFrom, feedTLS and plaintext say where and how the issuer is reached.
	from, feedFrom string
	feedTLS        *tls.Config
	plaintext      bool
	cacheSize      int
	leeway         time.Duration
	keysMaxStale   time.Duration
	now            func() time.Time
	// revocationsMaxStale and refuseStale apply to the feed.
	revocationsMaxStale time.Duration
	refuseStale         bool
	dpop                dpopConfig
	// requireBound refuses bearer tokens.
	requireBound bool
	onRefusal    func(ctx context.Context, method string, err error)
	// telemetry is true if meters and tracers were set.
	telemetry bool
	meters    metric.MeterProvider
	tracers   trace.TracerProvider
	// mistake is the first error of an option, or nil.
	mistake error
}

const (
	defaultCacheSize    = 10_000
	defaultLeeway       = 30 * time.Second
	defaultMaxStaleness = 30 * time.Second
)

// newConfig returns the defaults, changed by the options.
func newConfig(options []Option) config {
	c := config{
		cacheSize: defaultCacheSize, leeway: defaultLeeway, revocationsMaxStale: defaultMaxStaleness,
		client: http.DefaultClient, now: time.Now, dpop: dpopConfig{replays: dpop.DefaultReplays},
	}
	for _, option := range options {
		if option != nil {
			option(&c)
		}
	}
	return c
}

// fail records a mistake of an option.
func (c *config) fail(text string) {
	if c.mistake == nil {
		c.mistake = errors.New("verify: " + text)
	}
}

// Audience sets the resource identifiers of this server: a token must have one of them in its "aud", byte for byte. It
// is required. Repeated use adds identifiers.
func Audience(resources ...string) Option {
	return func(c *config) { c.audience = append(c.audience, resources...) }
}

// Accept sets the form of the issuer's access tokens, such as [Keycloak] or one that a [Profile] describes, for an issuer
// that does not follow RFC 9068. By default, only tokens of RFC 9068 are accepted.
func Accept(profile Profile) Option {
	return func(c *config) { c.profile = profile }
}

// ResourceMetadata sets the URL at which this server publishes its protected resource metadata (RFC 9728), if something else
// than [MetadataHandler] serves them; [DescribeResource] sets it otherwise. The challenges of [HTTP] then have it as
// "resource_metadata" (§5.1), as clients of MCP need, and also name the scopes of the rule when there is no valid token. By
// default, challenges name no URL, because a URL that is named must answer: one derived from [Audience] need not.
func ResourceMetadata(url string) Option {
	return func(c *config) { c.resourceMetadata = &url }
}

// HTTPClient sets the client that fetches the issuer's metadata and keys. The default, also for nil, is
// [http.DefaultClient]. If its transport is an *http.Transport, the feed of revocations uses the TLS settings of that; the
// settings of a transport of another type, such as one that traces requests, cannot be known: pass them to [FeedTLS].
func HTTPClient(client *http.Client) Option {
	if client == nil {
		client = http.DefaultClient
	}
	return func(c *config) { c.client = client }
}

// FetchFrom sets the URL at which the issuer is reached from here, where that is not the URL by which the issuer calls
// itself: inside a cluster, for example, "https://grantor.auth.svc:8080" for "https://auth.example.com". Tokens and
// metadata must still name the issuer that was passed to [New]. Endpoints in the metadata that are on the issuer's host
// are reached on the host of url; so is the feed of revocations, at the port that the metadata name.
func FetchFrom(url string) Option {
	return func(c *config) { c.from = url }
}

// FeedFrom sets the address (host:port) of the issuer's gRPC services, from which the feed of revocations is followed,
// instead of the one in the metadata. It also says that the issuer is Grantor and has a feed. The connection has TLS
// unless the URL of the issuer, or of [FetchFrom], is plain http.
func FeedFrom(address string) Option {
	return func(c *config) {
		if scheme, _, ok := strings.Cut(address, "://"); ok && (oauth.EqualFold(scheme, "https") || oauth.EqualFold(scheme, "http")) {
			c.fail("FeedFrom: the address is a URL, not host:port")
		}
		c.feedFrom = address
	}
}

// FeedTLS sets the TLS settings of the connection to the feed of revocations, such as the root certificates. The default
// is those of [HTTPClient].
func FeedTLS(settings *tls.Config) Option {
	return func(c *config) { c.feedTLS = settings }
}

// AllowInsecurePlaintextToRemoteHosts permits fetching the issuer's metadata, keys and revocations without TLS from
// hosts other than loopback, for a network that encrypts beneath it, such as a service mesh. Anybody on the network path
// can otherwise replace the keys, and with them forge tokens. By default, plaintext is permitted to loopback only.
func AllowInsecurePlaintextToRemoteHosts() Option {
	return func(c *config) { c.plaintext = true }
}

// OverGRPC fetches the issuer's metadata and keys from the grantor.v1.TokenService on conn instead of over HTTP. The
// security of conn decides whose keys are trusted, so a plaintext *grpc.ClientConn is rejected unless its target is
// loopback, or the verifier has [AllowInsecurePlaintextToRemoteHosts].
//
// Make conn with attach.IssuerDialOptions, which uses another replica when one stops, or at least with
// grpc.WithKeepaliveParams and a Time of 10 s: without keepalive, a connection that falls silent stays in use until the
// kernel closes it a quarter of an hour later, and revocations made in the meantime are not known here.
func OverGRPC(conn grpc.ClientConnInterface) Option {
	return func(c *config) {
		if cc, ok := conn.(*grpc.ClientConn); conn == nil || ok && cc == nil {
			c.fail("OverGRPC: the connection is nil")
		}
		c.conn = conn
	}
}

// Keys sets the source of the issuer's keys, such as a *jwks.Set, for tests and for servers that cannot reach the
// issuer. Neither metadata nor revocations are fetched then.
func Keys(source token.KeySource) Option {
	return func(c *config) { c.keys = source }
}

// Denied sets the list of revocations that the verifier consults, for an issuer that guards its own services and
// maintains the list itself. Use it with [Keys] and without [OverGRPC], so that the verifier follows no feed: it would
// change the list by what it receives.
func Denied(list *revocation.List) Option {
	return func(c *config) { c.denied = list }
}

// CacheSize sets the maximum number of verified tokens that are cached. The default is 10,000; a typical token takes
// about 1.2 KiB.
func CacheSize(tokens int) Option {
	return func(c *config) { c.cacheSize = tokens }
}

// Leeway sets how far the "iat" and "nbf" of a token may be in the future, for an issuer whose clock is ahead of the
// local one. The default is 30 s. "exp" is checked without a leeway.
func Leeway(d time.Duration) Option {
	return func(c *config) { c.leeway = d }
}

// MaxStaleKeys sets how long the issuer's last keys are used after their max-age while the issuer cannot be reached.
// After that, calls are refused with UNAVAILABLE (503). The default is 24 h. [MaxStaleness] is about revocations.
func MaxStaleKeys(d time.Duration) Option {
	return func(c *config) { c.keysMaxStale = max(d, 1) } // zero is a value here, but the default to jwks
}

// Now sets the clock. The default, also for nil, is [time.Now].
func Now(now func() time.Time) Option {
	if now == nil {
		now = time.Now
	}
	return func(c *config) { c.now = now }
}

// OnRefusal sets a function that is called for every refused call with the method ("/pkg.Service/Method", or "GET
// /path" for HTTP) and the exact reason, which the caller does not get. The reason wraps one of the errors of this
// package or of package token. The function must not block; a panic in it is logged and changes nothing for the caller.
// Method and reason may contain text chosen by an attacker, so quote them in logs.
func OnRefusal(observe func(ctx context.Context, method string, err error)) Option {
	return func(c *config) { c.onRefusal = observe }
}

// MaxStaleness sets the age up to which the knowledge of revocations is current. While the feed cannot be reached for
// longer, calls count as stale ([FeedStatus]) and one warning is logged. The default is 30 s. [MaxStaleKeys] is about
// keys.
func MaxStaleness(d time.Duration) Option {
	return func(c *config) { c.revocationsMaxStale = d }
}

// RefuseWhenStale refuses calls with UNAVAILABLE (503) while the knowledge of revocations is older than [MaxStaleness].
// By default, such calls are decided by what is known.
func RefuseWhenStale() Option {
	return func(c *config) { c.refuseStale = true }
}
