// Package service assembles an issuer: it builds the domain from its stores, puts the gRPC servers and the middleware in
// front of it, and keeps it up to date.
package service

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	"github.com/grantorhq/grantor/service/admin"
	"github.com/grantorhq/grantor/service/broadcast"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/middleware"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/peercert"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/trust"
)

// Store keeps everything that an issuer keeps.
type Store interface {
	registry.Store
	limit.Store
	clientauth.Replays
	keys.Store
	revocation.Log
	revocation.Publisher
	// Authenticate sets the key that authenticates the store's records. It is called before the first use of a record.
	Authenticate(key []byte)
	// OnUnreadable sets what is called for each record that cannot be read. It is called before the first use of the store.
	OnUnreadable(f func(telemetry.UnreadableRecord))
}

// Config configures an issuer. A field without a default is required.
type Config struct {
	// Issuer is the "iss" of the tokens and the base of the endpoints' URLs.
	Issuer oauth.Issuer
	Store  Store
	Sealer *keys.Sealer
	Log    *slog.Logger
	Meter  metric.Meter
	// AuditSink keeps the audit events. Default none: they are in the log alone.
	AuditSink telemetry.AuditSink
	// Tracer makes the spans. Default none.
	Tracer trace.Tracer
	// Algorithms are those that tokens can be signed with; the first signs where no resource chooses.
	Algorithms []jwks.Algorithm
	// AccessTokenLifetime is the lifetime of a token where neither client nor resource bounds it.
	AccessTokenLifetime time.Duration
	// KeyRotation is how long a key signs; JWKSMaxAge is how long a verifier may keep the published keys.
	KeyRotation, JWKSMaxAge time.Duration
	// MaxStaleness is the maximum age of this replica's knowledge at which it still issues.
	MaxStaleness time.Duration
	// CachedClients and CachedTokens are how many clients, and tokens that were introspected, are held in memory.
	CachedClients, CachedTokens int
	// StartupGrace is how long a new key ring waits for an older one that the store has lost. Default zero.
	StartupGrace time.Duration
	// GRPCEndpoint is where callers reach the gRPC port, as host:port. Default empty: it is not known.
	GRPCEndpoint string
	// ConnectionAge is how long a connection of the gRPC port is used, give or take a tenth. Default 10 minutes.
	ConnectionAge time.Duration
	// Limits bound what callers may do. Default none.
	Limits limit.Limits
	// Proxies are the networks whose X-Forwarded-For is trusted. Default none.
	Proxies remoteaddr.Networks
	// CertificateHeader is the header in which Proxies forward the certificate of a client. Default none.
	CertificateHeader peercert.Header
	// CertificateMethods are the methods of RFC 8705 §2 by which clients can authenticate here, for the metadata. Default none:
	// no client can show a certificate.
	CertificateMethods []string
	// Authorities returns those that vouch for the certificates of clients. Default none.
	Authorities func() []*x509.CertPool
	// FetchNetworks are the networks from which the key sets of clients and trusted issuers are fetched, besides public
	// addresses. Default none.
	FetchNetworks remoteaddr.Networks
	// TrustDirectories are the directories below which the files are read that trusted issuers name. Default none.
	TrustDirectories trust.Directories
	// RequireDPoPNonce requires a nonce of this issuer in the DPoP proofs of token requests.
	RequireDPoPNonce bool
	// Now is the clock of the tokens. Default time.Now.
	Now func() time.Time
}

// Service is an issuer without its listeners. It is safe for concurrent use by multiple goroutines.
type Service struct {
	domain  *domain
	servers *servers
	chain   *middleware.Chain
}

// New builds an issuer. It opens the key ring, and creates one if the store has none.
func New(ctx context.Context, config Config) (*Service, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.ConnectionAge == 0 {
		config.ConnectionAge = defaultConnectionAge
	}
	domain, err := newDomain(ctx, config)
	if err != nil {
		return nil, err
	}
	servers, err := newServers(domain)
	if err != nil {
		return nil, err
	}
	chain, err := middleware.New(ctx, middleware.Config{
		Events: domain.events, Limiter: domain.limiter, Proxies: config.Proxies, CertificateHeader: config.CertificateHeader,
		Methods: servers.methods(),
		Issuer:  config.Issuer, Keys: domain.ring, Denied: domain.ledger.List, Now: config.Now,
	})
	if err != nil {
		return nil, err
	}
	s := &Service{domain: domain, servers: servers, chain: chain}
	return s, s.observe()
}

// Run keeps the issuer up to date until ctx ends: it follows the feed, and maintains the feed and the key ring. It also
// writes what no request waits for: the times at which secrets were used, new hashes in place of imported ones, audit
// events, and the counts of the limits, for the other replicas.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	warn := func(err error) { s.domain.config.Log.Warn(err.Error()) }
	group.Go(func() error { return s.domain.events.Run(ctx) })
	group.Go(func() error { return s.domain.feed.Run(ctx) })
	group.Go(func() error { return s.servers.revocations.Hub.Run(ctx) })
	group.Go(func() error {
		return s.domain.ring.Run(ctx, func(err error) { s.domain.config.Log.Error(err.Error()) })
	})
	group.Go(func() error { return s.domain.sync.run(ctx, s.domain.feed, s.domain.issuer.CheckResources) })
	group.Go(func() error { return s.domain.sync.checkpoint(ctx, s.domain.feed) })
	group.Go(func() error { return s.domain.usage.Run(ctx, warn) })
	group.Go(func() error { return s.domain.authenticator.Run(ctx, warn) })
	group.Go(func() error { return s.domain.limiter.Run(ctx, warn) })
	return group.Wait()
}

// Ready reports why no token can be issued now, or why none should be because another replica knows more; nil if neither
// applies.
func (s *Service) Ready() error { return s.domain.issuer.Ready() }

// CatchUp waits until every change made before the call, by any replica, is in effect here. It requires that [Service.Run]
// is running.
func (s *Service) CatchUp(ctx context.Context) error { return s.domain.feed.CatchUp(ctx) }

// SetLimits replaces the limits at once.
func (s *Service) SetLimits(limits limit.Limits) { s.domain.limiter.SetLimits(limits) }

// Register registers the issuer's services with a gRPC server.
func (s *Service) Register(server grpc.ServiceRegistrar) { s.servers.register(server) }

// Editor returns an editor of the clients and resources in the issuer's store, with the authority of the operator.
func (s *Service) Editor() *registry.Editor { return s.domain.editor() }

// Applied writes the audit event of what a [Service.Editor] did.
func (s *Service) Applied(ctx context.Context, c registry.Change) {
	admin.Applied(ctx, s.domain.events, telemetry.Administrator{}, c)
}

const (
	// maxMessage is the maximum size of a request, in bytes: room for a full batch of tokens.
	maxMessage = 1 << 20
	// defaultConnectionAge is how long a connection of the gRPC port is used.
	defaultConnectionAge = 10 * time.Minute
)

// ServerOptions returns the options of the issuer's gRPC server, transport security aside.
func (s *Service) ServerOptions() []grpc.ServerOption {
	return append(s.chain.ServerOptions(),
		broadcast.ServerOption(),
		// Each connection keeps a buffer, also while it is idle, and a verifier's is; 4 KiB hold some ten requests.
		grpc.ReadBufferSize(4<<10),
		// Workers keep their grown stacks; a fresh goroutine would grow its own for each signature.
		grpc.NumStreamWorkers(64),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(16<<10),
		grpc.MaxConcurrentStreams(250),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 30 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second,
			// Clients reconnect, and so spread over new replicas.
			MaxConnectionAge: s.domain.config.ConnectionAge, MaxConnectionAgeGrace: time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
}

// UnaryInterceptor returns the middleware that every unary call passes, over either wire.
func (s *Service) UnaryInterceptor() grpc.UnaryServerInterceptor { return s.chain.UnaryInterceptor() }

// MeasureHTTP returns a handler that measures what next answers. route returns the route of a request: one of a fixed
// set, or "".
func (s *Service) MeasureHTTP(next http.Handler, route func(*http.Request) string) http.Handler {
	return s.chain.MeasureHTTP(next, route)
}

// Origin returns the address that a request originates from. peer is the other end of its connection, and forwarded are
// the values of its X-Forwarded-For headers. If peer is a trusted proxy, Origin returns the forwarded address, without a
// port; otherwise peer.
func (s *Service) Origin(peer net.Addr, forwarded []string) net.Addr {
	return s.domain.config.Proxies.Resolve(peer, forwarded)
}

// Certificates returns the peer of a request over REST with the certificates of the client that the request comes from. end is
// the other end of its connection, and header returns the values of a header.
func (s *Service) Certificates(p *peer.Peer, end net.Addr, header func(name string) []string) (*peer.Peer, error) {
	return s.chain.Certificates(p, end, header)
}

// Admit refuses a request over REST of a source that makes too many, before its body is read. ctx has the peer. The calls
// that serve the request get the context that is returned, and are not counted again.
func (s *Service) Admit(ctx context.Context) (context.Context, error) { return s.chain.Admit(ctx) }

// Receive reserves memory for a request over REST before its body is read; leave releases it. body is the maximum size of
// the body. busy reports that the body should arrive within a second.
func (s *Service) Receive(ctx context.Context, body int) (leave func(), busy bool, err error) {
	return s.chain.Receive(ctx, body)
}

// Unread audits the refusal of a REST request that could not be read. The event is the name of the audit event, and ctx is
// the context that [Service.Admit] returned.
func (s *Service) Unread(ctx context.Context, event string, refusal *oauth.Error) {
	s.chain.Unread(ctx, event, refusal)
}
