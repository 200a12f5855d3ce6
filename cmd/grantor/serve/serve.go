// Package serve runs one issuer: it wires the service to its store and its ports, reloads settings, and stops.
package serve

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/grantorhq/grantor/cmd/grantor/buildinfo"
	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/cmd/grantor/monitoring"
	"github.com/grantorhq/grantor/cmd/grantor/ports"
	"github.com/grantorhq/grantor/cmd/grantor/reload"
	"github.com/grantorhq/grantor/cmd/grantor/secretmanager"
	"github.com/grantorhq/grantor/cmd/grantor/storage"
	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/peercert"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/rest"
	"github.com/grantorhq/grantor/service/telemetry"
)

// Server is an issuer. Its listeners are open from the start, so that a port in use is a start-up error.
type Server struct {
	settings  *Settings
	log       *slog.Logger
	out       io.Writer
	level     *slog.LevelVar
	telemetry *monitoring.Telemetry
	service   *service.Service
	ports     *ports.Ports
	// authorities are those of client-certificate-ca-file.
	authorities *tlsfiles.Files
	// reloader is nil if settings are not reloaded.
	reloader *reload.Reloader[*Server, Settings]
	// replicas is where the server announces itself. shared are the settings that must be the same for all replicas.
	replicas heartbeat.Store
	shared   map[string]string
	// devKey is the key of the client of development mode.
	devKey developmentKey
	// releases release what the server holds. They are called in reverse order.
	releases []func()
}

// New does everything that can fail at start. The settings must be valid. Development mode prints to out; the log goes to
// errOut.
func New(ctx context.Context, s *Settings, out, errOut io.Writer) (_ *Server, err error) {
	if s.dev {
		s.develop()
	}
	log, level, err := s.monitoring.NewLog(errOut)
	if err != nil {
		return nil, err
	}
	storage.SetRedisLog(log)
	srv := &Server{settings: s, log: log, level: level, out: out}
	defer func() {
		if err != nil {
			srv.release()
		}
	}()
	config, err := s.portsConfig(log)
	if err != nil {
		return nil, err
	}
	if srv.ports, err = ports.Open(ctx, config); err != nil {
		return nil, err
	}
	srv.releases = append(srv.releases, srv.ports.Close)
	issuer, err := srv.Issuer()
	if err != nil {
		return nil, err
	}
	if srv.telemetry, err = monitoring.New(ctx, "grantor", &s.monitoring, log); err != nil {
		return nil, err
	}
	srv.releases = append(srv.releases, srv.telemetry.Close)
	if err := srv.ports.Observe(srv.telemetry.Meter()); err != nil {
		return nil, err
	}
	store, err := srv.store(ctx)
	if err != nil {
		return nil, err
	}
	if srv.service, err = srv.build(ctx, issuer, store); err != nil {
		return nil, err
	}
	srv.replicas, srv.shared = store, srv.sharedSettings(issuer)
	if err := srv.register(ctx); err != nil {
		return nil, err
	}
	origins, err := s.origins()
	if err != nil {
		return nil, err
	}
	handler, err := rest.New(ctx, issuer, srv.service, origins...)
	if err != nil {
		return nil, err
	}
	srv.ports.Serve(ports.Servers{
		Options: srv.service.ServerOptions(), Register: srv.service.Register, Service: grantorv1.TokenService_ServiceDesc.ServiceName,
		HTTP: srv.service.MeasureHTTP(handler, rest.Route(issuer)), Metrics: srv.telemetry.Registry, Ready: srv.service.Ready,
	})
	return srv, nil
}

// HTTPAddr returns the address of the REST port.
func (srv *Server) HTTPAddr() string { return srv.ports.HTTPAddr() }

// GRPCAddr returns the address of the gRPC port.
func (srv *Server) GRPCAddr() string { return srv.ports.GRPCAddr() }

// OpsAddr returns the address of the operations port.
func (srv *Server) OpsAddr() string { return srv.ports.OpsAddr() }

// Service returns the service behind the ports.
func (srv *Server) Service() *service.Service { return srv.service }

// Connections returns how many connections to the REST and gRPC ports are open, and how many were refused.
func (srv *Server) Connections() (open, refused int64) {
	return srv.ports.OpenConnections(), srv.ports.RefusedConnections()
}

// Issuer returns the issuer of the settings. Without one, development mode takes the URL of its REST port.
func (srv *Server) Issuer() (oauth.Issuer, error) {
	if srv.settings.issuer != "" {
		return oauth.ParseIssuer(srv.settings.issuer)
	}
	_, port, err := net.SplitHostPort(srv.ports.HTTPAddr())
	if err != nil {
		return oauth.Issuer{}, err
	}
	return oauth.ParseIssuer(srv.scheme() + "://localhost:" + port)
}

// scheme returns the URL scheme of the REST port.
func (srv *Server) scheme() string {
	if srv.settings.tlsCert != "" {
		return "https"
	}
	return "http"
}

// grpcEndpoint returns the address at which clients reach the gRPC port.
func (srv *Server) grpcEndpoint(issuer oauth.Issuer) string {
	if srv.settings.grpcEndpoint != "" {
		return srv.settings.grpcEndpoint
	}
	_, port, err := net.SplitHostPort(srv.ports.GRPCAddr())
	if err != nil {
		return ""
	}
	return net.JoinHostPort(issuer.Host(), port)
}

// store connects to the Redis of the settings, or starts the embedded one of development mode.
func (srv *Server) store(ctx context.Context) (*redisstore.Store, error) {
	s := srv.settings
	if s.dev && s.Redis == "" {
		url, stop, err := embeddedRedis()
		if err != nil {
			return nil, err
		}
		srv.releases = append(srv.releases, stop)
		s.Redis = url
	}
	client, err := s.Connect(srv.log)
	if err != nil {
		return nil, err
	}
	srv.releases = append(srv.releases, func() { _ = client.Close() })
	storeCall, err := telemetry.StoreCalls(srv.telemetry.Meter(), srv.telemetry.Tracer())
	if err != nil {
		return nil, err
	}
	redisstore.Watch(client, storeCall)
	store, err := s.Open(client)
	if err != nil {
		return nil, err
	}
	warnings, err := store.Check(ctx)
	if err != nil {
		return nil, s.Failure(err)
	}
	for _, warning := range warnings {
		if !s.dev {
			srv.log.Warn(warning)
		}
	}
	return store, nil
}

func (srv *Server) build(ctx context.Context, issuer oauth.Issuer, store *redisstore.Store) (*service.Service, error) {
	s := srv.settings
	sealer, err := s.Sealer(ctx)
	if err != nil {
		return nil, err
	}
	if sealer == nil {
		if !s.dev {
			return nil, storage.ErrNoKEK
		}
		if sealer, err = developmentSealer(); err != nil {
			return nil, err
		}
	}
	if s.dev && s.realRedis() {
		if err := checkDevelopmentRedis(ctx, store, sealer); err != nil {
			return nil, s.Failure(err)
		}
	}
	algorithms, err := s.signingAlgorithms()
	if err != nil {
		return nil, err
	}
	proxies, err := remoteaddr.ParseNetworks(s.trustedProxies)
	if err != nil {
		return nil, err
	}
	fetch, err := remoteaddr.ParseNetworks(s.fetchNetworks)
	if err != nil {
		return nil, err
	}
	var authorities func() []*x509.CertPool
	if authorities, srv.authorities, err = s.authorities(srv.ports.Certificate(), srv.log); err != nil {
		return nil, err
	}
	built, err := service.New(ctx, service.Config{
		Issuer: issuer, Store: store, Sealer: sealer, Log: srv.log, AuditSink: s.AuditSink(store), Algorithms: algorithms,
		Meter: srv.telemetry.Meter(), Tracer: srv.telemetry.Tracer(), Limits: s.limits(), Proxies: proxies,
		AccessTokenLifetime: s.tokenLifetime, KeyRotation: s.keyRotation, JWKSMaxAge: s.jwksMaxAge,
		MaxStaleness: s.maxStaleness, CachedClients: s.cachedClients, CachedTokens: s.cachedTokens,
		GRPCEndpoint: srv.grpcEndpoint(issuer), StartupGrace: s.startupGrace, ConnectionAge: s.connectionAge, FetchNetworks: fetch,
		CertificateHeader:  peercert.Header{Name: s.certificateHeader, Form: peercert.Form(s.certificateForm)},
		CertificateMethods: s.certificateMethods(), Authorities: authorities,
		TrustDirectories: s.trustDirectories,
		RequireDPoPNonce: s.dpopNonce == "required",
	})
	return built, s.Failure(err)
}

// register applies the manifest of development mode and that of the settings.
func (srv *Server) register(ctx context.Context) error {
	var manifests []*manifest.File
	if srv.settings.dev {
		m, err := missingDevelopment(ctx, srv.service.Editor())
		if err != nil {
			return srv.settings.Failure(err)
		}
		if err := srv.makeDevelopmentKey(m); err != nil {
			return err
		}
		manifests = append(manifests, m)
	}
	if srv.settings.apply != "" {
		m, err := srv.settings.readManifest(ctx)
		if err != nil {
			return err
		}
		manifests = append(manifests, m)
	}
	for _, m := range manifests {
		if err := srv.applyManifest(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// readManifest reads the manifest of the setting apply.
func (s *Settings) readManifest(ctx context.Context) (*manifest.File, error) {
	m, err := manifest.Read(ctx, s.apply, secretmanager.Read)
	if err != nil {
		return nil, fmt.Errorf("apply: %w", cli.InputError(err))
	}
	return m, nil
}

// applyManifest registers the clients and resources of a manifest.
func (srv *Server) applyManifest(ctx context.Context, m *manifest.File) error {
	err := m.Apply(ctx, srv.service.Editor(), registry.ApplyOptions{}, func(c registry.Change) {
		srv.log.Info("applied", "action", c.Action, c.Kind, c.ID, "fields", strings.Join(c.Fields(), ","))
		srv.service.Applied(ctx, c)
	})
	if err != nil {
		return fmt.Errorf("apply: %w", srv.settings.Failure(err))
	}
	return nil
}

// Run serves until ctx ends. Then it sends clients to other replicas and lets calls in flight end.
func (srv *Server) Run(ctx context.Context) error {
	defer srv.release()
	info := buildinfo.Read()
	srv.log.Info("serving", "http", srv.ports.HTTPAddr(), "grpc", srv.ports.GRPCAddr(), "ops", srv.ports.OpsAddr(),
		"version", info.Version, "revision", info.Revision)
	for _, warning := range srv.warnings() {
		srv.log.Warn(warning)
	}
	if srv.settings.dev {
		srv.introduce(ctx)
	}
	// The service outlives the ports, because calls in flight need it.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return srv.service.Run(background) })
	group.Go(func() error {
		heartbeat.Run(background, srv.replicas, srv.status, func(err error) { srv.log.Warn(err.Error()) })
		return nil
	})
	group.Go(func() error { return srv.ports.Run(running) })
	if srv.reloader != nil {
		group.Go(func() error { return srv.reloader.Run(running, srv, srv.log) })
	}
	group.Go(func() error {
		defer stopBackground()
		<-running.Done()
		delay := srv.settings.shutdownDelay
		if ctx.Err() == nil {
			delay = 0 // a part of the server has failed, and a call accepted now would fail with it
		}
		srv.log.Info("stopping; waiting for calls in flight", "after", delay.String(), "within", srv.settings.shutdownTimeout.String())
		return srv.ports.Drain(delay, srv.settings.shutdownTimeout)
	})
	err := group.Wait()
	srv.log.Info("stopped")
	return err
}

// warnings lists what makes the server insecure for production, and what clients would stumble over.
func (srv *Server) warnings() []string {
	var found []string
	s := srv.settings
	if issuer, err := url.Parse(s.issuer); err == nil && issuer.Port() != "" && strings.HasSuffix(srv.ports.GRPCAddr(), ":"+issuer.Port()) {
		found = append(found, "the port of issuer is that of grpc-listen: the issuer is the URL of the REST port, unless a proxy maps one to the other")
	}
	switch {
	case s.dev:
		found = append(found, "insecure: development mode; its client's secret is public")
	case s.tlsCert == "" && s.allowPlaintext:
		found = append(found, "insecure: no TLS on the REST and gRPC ports, beyond loopback; secrets and tokens can be read in transit")
	case s.tlsCert == "":
		found = append(found, "no TLS on the REST and gRPC ports, which are on loopback")
	}
	if s.dev && s.realRedis() {
		found = append(found, "insecure: this Redis now has development mode's client, whose secret is public")
	}
	if s.dev && s.KEK == "" && s.KEKFile == "" && s.realRedis() {
		found = append(found, "insecure: the signing keys in this Redis are sealed with development mode's key, which is public")
	}
	return found
}

func (srv *Server) release() {
	for _, release := range slices.Backward(srv.releases) {
		release()
	}
}
