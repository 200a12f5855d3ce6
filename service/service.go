// Package service has the gRPC servers of the issuer: each translates a message for the domain, calls it, and translates
// the answer back. It builds the domain from its stores and keeps it up to date.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/admin"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/grant"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/token"
)

// Store is everything that an issuer keeps.
type Store interface {
	registry.ClientStore
	registry.ResourceStore
	registry.UsageStore
	limit.Store
	keys.Store
	revocation.Log
	revocation.Publisher
	// Authenticate gives the store the key that authenticates its records. It comes before the first use of one.
	Authenticate(key []byte)
}

// Config says what issuer is built. A field without a default is required.
type Config struct {
	// Issuer is the "iss" of the tokens and the base of the endpoints' URLs.
	Issuer oauth.Issuer
	Store  Store
	Sealer *keys.Sealer
	Log    *slog.Logger
	Meter  metric.Meter
	// AuditSink keeps the audit events. Default none: they are in the log alone.
	AuditSink telemetry.AuditSink
	// Tracer makes the spans; nil where nothing is traced.
	Tracer trace.Tracer
	// Algorithms are those that tokens can be signed with; the first signs where no resource chooses.
	Algorithms []jwks.Algorithm
	// AccessTokenLifetime is that of a token where neither client nor resource bounds it.
	AccessTokenLifetime time.Duration
	// KeyRotation is how long a key signs; JWKSMaxAge is how long a verifier may keep the published keys.
	KeyRotation, JWKSMaxAge time.Duration
	// MaxStaleness is how old this replica's knowledge may be while it issues.
	MaxStaleness time.Duration
	// CachedClients and CachedTokens are how many clients, and tokens that were introspected, are held in memory.
	CachedClients, CachedTokens int
	// StartupGrace is how long a new key ring waits for an older one that the store has lost. Default zero.
	StartupGrace time.Duration
	// GRPCEndpoint is where callers reach the gRPC port, as host:port; empty where that is not known.
	GRPCEndpoint string
	// ConnectionAge is how long a connection of the gRPC port is used, give or take a tenth. Default 10 minutes.
	ConnectionAge time.Duration
	// Limits bound what callers may do. Default none.
	Limits limit.Limits
	// Proxies are the networks whose X-Forwarded-For says where a request came from. Default none.
	Proxies remoteaddr.Networks
	// Now is the clock of the tokens. Default time.Now.
	Now func() time.Time
}

// Service is an issuer without its listeners.
type Service struct {
	issuer *issuer
	events *telemetry.Recorder
	hasher *clientsecret.Hasher
	usage  *registry.Usage
	limits *limit.Limiter
	config Config
	admin  admin.Config
	// unaryGuard and streamGuard let through what the rules in the protos allow.
	unaryGuard  grpc.UnaryServerInterceptor
	streamGuard grpc.StreamServerInterceptor
	// slowest is how long a follower of the revocations may take to accept an answer.
	slowest time.Duration
	// methods has the full names of the methods, which calls may be counted by.
	methods     methodNames
	subscribers subscribers
	// arrivals bounds the calls whose request has not arrived.
	arrivals *arrivals
	// mend asks Run to publish again what the feed has lost.
	mend chan struct{}
	// look asks it to read the resources.
	look chan struct{}
}

// New builds the issuer: it opens the key ring, and makes one where the store has none.
func New(ctx context.Context, config Config) (*Service, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	events, err := telemetry.New(config.Log, config.Meter, config.Tracer, config.Algorithms)
	if err != nil {
		return nil, err
	}
	if config.AuditSink != nil {
		events.Keep(config.AuditSink)
	}
	ring, err := openRing(ctx, &config, events)
	if err != nil {
		return nil, fmt.Errorf("opening the key ring: %w", err)
	}
	config.Store.Authenticate(keys.RecordKey(ring.Pepper()))
	hasher, err := clientsecret.NewHasher(ring.Pepper())
	if err != nil {
		return nil, err
	}
	directory := registry.NewDirectory(config.Store, config.Store, config.CachedClients)
	ledger := revocation.NewLedger()
	signed := &token.Verifier{Issuer: config.Issuer.String(), Keys: ring, Leeway: leeway, Now: config.Now}
	verifier, err := token.NewCache(&token.Verifier{
		Issuer: signed.Issuer, Keys: ring, Denied: ledger.List, Leeway: leeway, Now: config.Now,
	}, config.CachedTokens)
	if err != nil {
		return nil, err
	}
	s := &Service{
		events: events, hasher: hasher, usage: registry.NewUsage(config.Store), config: config, slowest: slowest,
		arrivals: newArrivals(), methods: make(methodNames), mend: make(chan struct{}, 1), look: make(chan struct{}, 1),
	}
	if s.limits, err = s.newLimiter(ring.Pepper()); err != nil {
		return nil, err
	}
	s.issuer = &issuer{
		name: config.Issuer,
		authenticator: clientauth.New(clientauth.Config{
			Clients: directory, Store: config.Store, Hasher: hasher, Uses: s.usage, Failures: s.limits, Now: config.Now,
			Slow: events.SlowHash,
		}),
		limiter:      s.limits,
		directory:    directory,
		ring:         ring,
		grant:        &grant.ClientCredentials{Lifetime: config.AccessTokenLifetime, Algorithm: config.Algorithms[0]},
		ledger:       ledger,
		publisher:    config.Store,
		verifier:     verifier,
		signed:       signed,
		maxStaleness: config.MaxStaleness,
		now:          config.Now,
	}
	s.look <- struct{}{} // what was written before the feed begins counts too
	s.issuer.feed = revocation.NewTail(config.Store, &follower{Service: s})
	s.Register(s.methods)
	s.methods.RegisterService(&healthpb.Health_ServiceDesc, nil)
	return s, errors.Join(s.protect(ctx), s.observe())
}

// openRing opens the key ring, and tells of what becomes of its keys.
func openRing(ctx context.Context, config *Config, events *telemetry.Recorder) (*keys.Ring, error) {
	return keys.Open(ctx, keys.Config{
		Store: config.Store, Sealer: config.Sealer, Algorithms: config.Algorithms, Rotation: config.KeyRotation,
		MaxAge: config.JWKSMaxAge, Retention: registry.MaxLifetime, StartupGrace: config.StartupGrace, Now: config.Now,
		OnChange: recordKeys(events), OnCreate: func() {
			if config.StartupGrace > 0 { // development mode, which waits for no older ring, makes one at each start
				config.Log.Warn("the store had no key ring, so a new one was made; if this issuer is not new, its Redis has lost its data")
			}
		},
	})
}

// observe publishes how the issuer stands.
func (s *Service) observe() error {
	return telemetry.Observe(s.config.Meter, telemetry.Sources{
		Ready: s.Ready,
		FeedAge: func() time.Duration {
			age, _ := s.issuer.feed.Age()
			return age
		},
		Revocations: s.issuer.ledger.List.Len,
		Clients:     s.issuer.directory.Lookups, Tokens: s.issuer.verifier.Lookups,
		Authentication: s.issuer.authenticator.Stats,
		Ring:           s.issuer.ring, Now: s.config.Now,
		Subscribers: func() (int64, uint64) { return s.subscribers.following.Load(), s.subscribers.dropped.Load() },
	})
}

// Editor returns an editor of the clients and resources in the issuer's store, with the authority of the operator.
func (s *Service) Editor() *registry.Editor {
	return registry.NewEditor(registry.Config{
		Clients: s.config.Store, Resources: s.config.Store, Hasher: s.hasher, Algorithms: s.config.Algorithms, Now: s.config.Now,
		Confirm: Confirm(s.config.Store, s.config.Now),
	}).As(registry.Unlimited())
}

// Applied records a change that [Service.Editor] made in the audit log.
func (s *Service) Applied(ctx context.Context, c registry.Change) {
	admin.Applied(ctx, s.events, telemetry.Administrator{}, c)
}

// Confirm returns the Confirm function of a [registry.Config].
func Confirm(publisher revocation.Publisher, now func() time.Time) func(context.Context, oauth.ClientID) error {
	return func(ctx context.Context, id oauth.ClientID) error {
		return publisher.Confirm(ctx, revocation.Change{Kind: revocation.ClientRevoked, ID: id.String(), At: now().Add(revocation.Ahead)})
	}
}

// Register adds the services to a server.
func (s *Service) Register(server grpc.ServiceRegistrar) {
	grantorv1.RegisterTokenServiceServer(server, &tokenServer{issuer: s.issuer, events: s.events, grpcEndpoint: s.config.GRPCEndpoint})
	grantorv1.RegisterRevocationServiceServer(server, &revocationServer{issuer: s.issuer, slowest: s.slowest, subscribers: &s.subscribers})
	admin.Register(server, s.admin)
}

// Unread writes the audit event of a request that was refused because it could not be read, so that no call came of it.
func (s *Service) Unread(ctx context.Context, event string, refusal *oauth.Error) {
	about := telemetry.Token{Peer: peerOf(ctx)}
	switch event {
	case telemetry.EventAdminRefused:
		s.events.AdminRefused(ctx, "", telemetry.Administrator{Peer: about.Peer}, string(refusal.Why()), refusal)
	case telemetry.EventTokenRefused:
		s.events.TokenRefused(ctx, about, refusal)
	default:
		s.events.Refused(ctx, event, about, refusal)
	}
}

// Run keeps the issuer up to date until ctx ends: it follows the feed, mends it, and maintains the key ring. It also
// writes what nobody waits for: when secrets were used, hashes of our own for imported ones, the audit events, and what the
// limits count, for the other replicas.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.events.Run(ctx) })
	group.Go(func() error { return s.issuer.feed.Run(ctx) })
	group.Go(func() error {
		return s.issuer.ring.Run(ctx, func(err error) { s.config.Log.Error(err.Error()) })
	})
	group.Go(func() error { return s.maintain(ctx) })
	warn := func(err error) { s.config.Log.Warn(err.Error()) }
	group.Go(func() error { return s.usage.Run(ctx, warn) })
	group.Go(func() error { return s.issuer.authenticator.Run(ctx, warn) })
	group.Go(func() error { return s.limits.Run(ctx, warn) })
	return group.Wait()
}

// leeway is how far the clocks of replicas may be apart.
const leeway = 30 * time.Second

// Ready reports why no token can be issued now, or none should be because another replica knows more; nil when it can.
func (s *Service) Ready() error {
	if err := s.issuer.upToDate(); err != nil {
		return err
	}
	if s.issuer.ring.Outdated() {
		return fmt.Errorf("the stored key ring: %w", keys.ErrNewer)
	}
	if s.issuer.outdated.Load() {
		return fmt.Errorf("the stored resources: %w", registry.ErrNewer)
	}
	return nil
}

// CatchUp waits until every change made before the call, by whichever replica, is in force here. It needs [Service.Run]
// to be under way.
func (s *Service) CatchUp(ctx context.Context) error { return s.issuer.feed.CatchUp(ctx) }
