package service

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/admin"
	"github.com/grantorhq/grantor/service/broadcast"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/egress"
	"github.com/grantorhq/grantor/service/grant"
	"github.com/grantorhq/grantor/service/issuer"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/middleware"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/rpc"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/trust"
	"github.com/grantorhq/grantor/service/workloadapi"
)

// domain is an issuer without its transports.
type domain struct {
	config        Config
	events        *telemetry.Recorder
	ring          *keys.Ring
	hasher        *clientsecret.Hasher
	directory     *registry.Directory
	usage         *registry.Usage
	limiter       *limit.Limiter
	authenticator *clientauth.Authenticator
	ledger        *revocation.Ledger
	sync          *syncer
	feed          *revocation.Tail
	issuer        *issuer.Issuer
}

func newDomain(ctx context.Context, config Config) (_ *domain, err error) {
	d := &domain{config: config}
	if d.events, err = telemetry.New(config.Log, config.Meter, config.Tracer, config.Algorithms); err != nil {
		return nil, err
	}
	if config.AuditSink != nil {
		d.events.Keep(config.AuditSink)
	}
	config.Store.OnUnreadable(d.events.StoreUnreadable)
	if d.ring, err = openRing(ctx, config, d.events); err != nil {
		return nil, fmt.Errorf("opening the key ring: %w", err)
	}
	config.Store.Authenticate(keys.RecordKey(d.ring.Pepper()))
	if d.hasher, err = clientsecret.NewHasher(d.ring.Pepper()); err != nil {
		return nil, err
	}
	if d.limiter, err = newLimiter(config, d.ring.Pepper()); err != nil {
		return nil, err
	}
	d.usage = registry.NewUsage(config.Store)
	d.directory = registry.NewDirectory(config.Store, config.Store, config.Store, config.CachedClients)
	d.authenticator = clientauth.New(clientauth.Config{
		Issuer: config.Issuer, Clients: d.directory, Store: config.Store, Hasher: d.hasher, Uses: d.usage, Failures: d.limiter,
		Replays: config.Store, Fetch: egress.NewClient(egress.Config{Allowed: config.FetchNetworks}), Now: config.Now,
		Slow: d.events.SlowHash, Authorities: config.Authorities,
		Federation: clientauth.Federation{
			Trust: d.directory, Networks: config.FetchNetworks, Directories: config.TrustDirectories, WorkloadAPI: workloadapi.Bundle,
		},
	})
	d.ledger = revocation.NewLedger()
	d.sync = newSyncer(d)
	d.feed = revocation.NewTail(config.Store, d.sync)
	d.issuer, err = issuer.New(issuer.Config{
		Name: config.Issuer, Authenticator: d.authenticator, Directory: d.directory, Ring: d.ring, Limiter: d.limiter,
		Grant: &grant.ClientCredentials{Lifetime: config.AccessTokenLifetime, Algorithm: config.Algorithms[0]},
		Feed:  d.feed, Ledger: d.ledger, Publisher: config.Store, MaxStaleness: config.MaxStaleness,
		CachedTokens: config.CachedTokens, Now: config.Now,
	})
	return d, err
}

// openRing opens the key ring and records what becomes of its keys.
func openRing(ctx context.Context, config Config, events *telemetry.Recorder) (*keys.Ring, error) {
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

// recordKeys returns a function that writes the audit events of keys that the ring adds and removes.
func recordKeys(events *telemetry.Recorder) func(context.Context, []keys.KeyAdded, []keys.KeyRemoved) {
	return func(ctx context.Context, added []keys.KeyAdded, removed []keys.KeyRemoved) {
		by := middleware.Administrator(ctx) // the zero value where the ring itself makes the change
		for _, k := range added {
			events.Changed(ctx, telemetry.EventKeysRotated, by, slog.String("alg", string(k.Algorithm)), slog.String("kid", k.ID),
				slog.String("replaces", k.Replaces), slog.Time("activate_time", k.Activates.UTC()))
		}
		for _, k := range removed {
			events.Changed(ctx, telemetry.EventKeyGone, by, slog.String("alg", string(k.Algorithm)), slog.String("kid", k.ID))
		}
	}
}

func newLimiter(config Config, pepper []byte) (*limit.Limiter, error) {
	key, err := hkdf.Key(sha256.New, pepper, nil, "grantor limits", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("deriving the key for limits: %w", err)
	}
	return limit.New(limit.Config{
		Limits: config.Limits, Key: key, Store: config.Store, Now: config.Now,
		Exceeded: func(client string) {
			config.Log.Warn("a client exceeded tokens-per-client; tokens are still issued because tokens-mode is warn", "client_id", client)
		},
	}), nil
}

// editor returns an editor of the clients and resources in the issuer's store, with the authority of the operator.
func (d *domain) editor() *registry.Editor {
	return registry.NewEditor(registry.Config{
		Clients: d.config.Store, Resources: d.config.Store, Trust: d.config.Store, Hasher: d.hasher, Algorithms: d.config.Algorithms,
		Issuer: d.config.Issuer, Now: d.config.Now, Confirm: Confirm(d.config.Store, d.config.Now),
		TrustDirectories: &d.config.TrustDirectories,
	}).As(registry.Unlimited())
}

// Confirm returns the function to use as [registry.Config.Confirm].
func Confirm(publisher revocation.Publisher, now func() time.Time) func(context.Context, oauth.ClientID) error {
	return func(ctx context.Context, id oauth.ClientID) error {
		return publisher.Confirm(ctx, revocation.Change{Kind: revocation.ClientRevoked, ID: id.String(), At: now().Add(revocation.Ahead)})
	}
}

// revokeTokens revokes the tokens of a client for an administrator, who is not bound as closely as the client itself: the
// client may just have been disabled and enabled again.
func (d *domain) revokeTokens(ctx context.Context, client *registry.Client) error {
	return d.issuer.RevokeAll(ctx, client, issuer.Leeway-5*time.Second)
}

// observe publishes the state of the issuer as metrics.
func (s *Service) observe() error {
	return telemetry.Observe(s.domain.config.Meter, telemetry.Sources{
		Ready: s.Ready,
		FeedAge: func() time.Duration {
			age, _ := s.domain.feed.Age()
			return age
		},
		Revocations: s.domain.ledger.List.Len,
		Clients:     s.domain.directory.Lookups, Tokens: s.domain.issuer.TokenLookups,
		Authentication: s.domain.authenticator.Stats,
		Ring:           s.domain.ring, Now: s.domain.config.Now,
		Subscribers: s.servers.revocations.Hub.Followers,
	})
}

// servers are the servers of an issuer's gRPC services.
type servers struct {
	tokens      *rpc.TokenServer
	revocations *rpc.RevocationServer
	admin       admin.Config
}

func newServers(d *domain) (*servers, error) {
	pageKey, err := hkdf.Key(sha256.New, d.ring.Pepper(), nil, "grantor page tokens", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("deriving the key for page tokens: %w", err)
	}
	proofs := &dpop.Verifier{Replays: dpop.NewReplays(dpop.DefaultReplays), Now: d.config.Now}
	if d.config.RequireDPoPNonce {
		nonceKey, err := hkdf.Key(sha256.New, d.ring.Pepper(), nil, "grantor dpop nonces", sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("deriving the key for the nonces of DPoP proofs: %w", err)
		}
		proofs.Nonces = dpop.NewNonces(nonceKey)
	}
	return &servers{
		tokens: &rpc.TokenServer{
			Issuer: d.issuer, Events: d.events, GRPCEndpoint: d.config.GRPCEndpoint, CertificateMethods: d.config.CertificateMethods,
			Proofs:       proofs,
			TrustsDomain: d.trustsDomain,
		},
		revocations: &rpc.RevocationServer{Hub: broadcast.New(d.feed, d.ledger, d.config.Now)},
		admin: admin.Config{
			Editor: d.editor(), Usage: d.config.Store, Directory: d.directory, Ring: d.ring, RevokeTokens: d.revokeTokens,
			Fresh: d.issuer.Fresh, CatchUp: d.feed.CatchUp, Events: d.events, Log: d.config.Log, PageKey: pageKey,
		},
	}, nil
}

// trustsDomain reports whether a SPIFFE trust domain is trusted.
func (d *domain) trustsDomain(ctx context.Context) (bool, error) {
	table, err := d.directory.Trust(ctx)
	if err != nil {
		return false, oauth.StoreUnavailable(ctx, oauth.StoreUnreachable, fmt.Errorf("reading the trusted issuers: %w", err))
	}
	return slices.ContainsFunc(table.Issuers(), func(i trust.Issuer) bool { return i.TrustDomain != "" }), nil
}

// register registers the services with a server.
func (s *servers) register(server grpc.ServiceRegistrar) {
	grantorv1.RegisterTokenServiceServer(server, s.tokens)
	grantorv1.RegisterRevocationServiceServer(server, s.revocations)
	admin.Register(server, s.admin)
}

// methods returns the methods of the services, and those of the health service, which the listeners add.
func (s *servers) methods() middleware.Methods {
	methods := middleware.Methods{}
	s.register(methods)
	methods.RegisterService(&healthpb.Health_ServiceDesc, nil)
	return methods
}
