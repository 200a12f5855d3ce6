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
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/admin"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/grant"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/token"
)

// Store is everything that an issuer keeps.
type Store interface {
	registry.ClientStore
	registry.ResourceStore
	registry.UsageStore
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
	// Settle is how long a new key ring waits for an older one that the store has lost. Default zero.
	Settle time.Duration
	// GRPCEndpoint is where callers reach the gRPC port, as host:port; empty where that is not known.
	GRPCEndpoint string
	// Now is the clock of the tokens. Default time.Now.
	Now func() time.Time
}

// Service is an issuer without its listeners.
type Service struct {
	issuer *issuer
	events *telemetry.Recorder
	hasher *registry.Hasher
	usage  *registry.Usage
	config Config
	admin  admin.Config
	// unaryGuard and streamGuard let through what the rules in the protos allow.
	unaryGuard  grpc.UnaryServerInterceptor
	streamGuard grpc.StreamServerInterceptor
	// slowest is how long a follower of the revocations may take to accept an answer.
	slowest time.Duration
	// mend asks Run to publish again what the feed has lost.
	mend chan struct{}
}

// New builds the issuer: it opens the key ring, and makes one where the store has none.
func New(ctx context.Context, config Config) (*Service, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	events, err := telemetry.New(config.Log, config.Meter)
	if err != nil {
		return nil, err
	}
	ring, err := keys.Open(ctx, keys.Config{
		Store: config.Store, Sealer: config.Sealer, Algorithms: config.Algorithms, Rotation: config.KeyRotation,
		MaxAge: config.JWKSMaxAge, Retention: registry.MaxLifetime, Settle: config.Settle, Now: config.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("opening the key ring: %w", err)
	}
	config.Store.Authenticate(keys.RecordKey(ring.Pepper()))
	hasher, err := registry.NewHasher(ring.Pepper())
	if err != nil {
		return nil, err
	}
	directory := registry.NewDirectory(config.Store, config.Store, config.CachedClients)
	ledger := revocation.NewLedger()
	signed := token.Verifier{Issuer: config.Issuer.String(), Keys: ring, Leeway: leeway, Now: config.Now}
	denying := signed
	denying.Denied = ledger.List
	verifier, err := token.NewCache(&denying, config.CachedTokens)
	if err != nil {
		return nil, err
	}
	s := &Service{
		events: events, hasher: hasher, usage: registry.NewUsage(config.Store), config: config, slowest: slowest,
		mend: make(chan struct{}, 1),
	}
	s.issuer = &issuer{
		name: config.Issuer,
		authenticator: clientauth.New(clientauth.Config{
			Clients: directory, Store: config.Store, Hasher: hasher, Uses: s.usage, Now: config.Now,
		}),
		directory:    directory,
		ring:         ring,
		grant:        &grant.ClientCredentials{Lifetime: config.AccessTokenLifetime, Algorithm: config.Algorithms[0]},
		ledger:       ledger,
		publisher:    config.Store,
		verifier:     verifier,
		signed:       &signed,
		maxStaleness: config.MaxStaleness,
		now:          config.Now,
	}
	s.issuer.feed = revocation.NewTail(config.Store, &follower{s})
	return s, errors.Join(s.protect(ctx), s.observe())
}

// observe publishes what the issuer knows of revocations.
func (s *Service) observe() error {
	return errors.Join(
		telemetry.RevocationsLive(s.config.Meter, s.issuer.ledger.List.Len),
		telemetry.FeedAge(s.config.Meter, func() time.Duration {
			age, _ := s.issuer.feed.Age()
			return age
		}))
}

// Applier makes what registers clients in this issuer's store, for who runs the issuer.
func (s *Service) Applier() *registry.Applier {
	return &registry.Applier{
		Clients: s.config.Store, Resources: s.config.Store, Hasher: s.hasher, Algorithms: s.config.Algorithms, Now: s.config.Now,
		Authority: registry.Unlimited(), Confirm: Confirm(s.config.Store, s.config.Now),
	}
}

// Confirm makes what a [registry.Applier] calls by that name.
func Confirm(publisher revocation.Publisher, now func() time.Time) func(context.Context, oauth.ClientID) error {
	return func(ctx context.Context, id oauth.ClientID) error {
		return publisher.Confirm(ctx, revocation.Change{Kind: revocation.ClientRevoked, ID: id.String(), At: now().Add(revocation.Ahead)})
	}
}

// Register adds the services to a server.
func (s *Service) Register(server grpc.ServiceRegistrar) {
	grantorv1.RegisterTokenServiceServer(server, &tokenServer{issuer: s.issuer, events: s.events, grpcEndpoint: s.config.GRPCEndpoint})
	grantorv1.RegisterRevocationServiceServer(server, &revocationServer{issuer: s.issuer, slowest: s.slowest})
	admin.Register(server, s.admin)
}

// Run keeps the issuer up to date until ctx ends: it follows the feed, mends it, and maintains the key ring. It also
// writes what authentication leaves behind, which nobody waits for: when secrets were used, and hashes of our own for
// imported ones.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.issuer.feed.Run(ctx) })
	group.Go(func() error {
		return s.issuer.ring.Run(ctx, func(err error) { s.config.Log.Error(err.Error()) })
	})
	group.Go(func() error { return s.maintain(ctx) })
	warn := func(err error) { s.config.Log.Warn(err.Error()) }
	group.Go(func() error { return s.usage.Run(ctx, warn) })
	group.Go(func() error { return s.issuer.authenticator.Run(ctx, warn) })
	return group.Wait()
}

// leeway is how far the clocks of replicas may be apart.
const leeway = 30 * time.Second

// Ready reports why no token can be issued now; nil when it can.
func (s *Service) Ready() error { return s.issuer.upToDate() }

// CatchUp waits until every change made before the call, by whichever replica, is in force here. It needs [Service.Run]
// to be under way.
func (s *Service) CatchUp(ctx context.Context) error { return s.issuer.feed.CatchUp(ctx) }
