// Package serve runs one issuer: it wires the service to its store and its ports, reloads settings, and stops.
package serve

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/grantorhq/grantor/cmd/grantor/buildinfo"
	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/cmd/grantor/ports"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/storage"
	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/rest"
	"github.com/grantorhq/grantor/service/telemetry"
)

func NewCommand() *cobra.Command {
	var s Settings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the issuer",
		Long: `Run the issuer. Each setting below comes from its flag, else from the environment variable GRANTOR_NAME (in capitals,
with _ for -), else from the file that --config names.

SIGHUP has the settings read again: those that say so below take effect, and of others that have changed the log says that
they need a restart. If anything is wrong, the log says what, and nothing changes.`,
		Args: cobra.NoArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			// The Redis of a production issuer may stand in the environment, and development mode would give it a client
			// whose secret is public.
			if s.dev && !cmd.Flags().Changed("redis") && os.Getenv("GRANTOR_REDIS") != "" {
				return cli.SettingError("dev", errors.New("GRANTOR_REDIS is set, which development mode would write to; unset it, or give --redis"))
			}
			return settings.Resolve(cmd.Flags(), nil)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !s.dev {
				s.settle = storage.StartupGrace
			}
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			reloads, err := newReloader(cmd.Flags(), hangup)
			if err != nil {
				return err
			}
			defer TuneGC(DefaultGarbage)()
			server, err := New(cmd.Context(), &s, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			server.reloads = reloads
			return server.Run(cmd.Context())
		},
	}
	s.Declare(cmd.Flags())
	return cmd
}

// Server is a running issuer: its listeners are open from the start, so that a port which is taken is a start-up error.
type Server struct {
	settings *Settings
	log      *slog.Logger
	out      io.Writer
	level    *slog.LevelVar
	signals  *instruments
	service  *service.Service
	ports    *ports.Ports
	// reloads is nil where nothing asks for it.
	reloads *reloader
	// fleet is told about this replica; common has what must be the same for all.
	fleet  heartbeat.Store
	common map[string]string
	// close ends what the server holds when it has stopped.
	close []func()
}

// New does everything that can fail at start. out gets what dev mode prints, errOut the log.
func New(ctx context.Context, s *Settings, out, errOut io.Writer) (_ *Server, err error) {
	if s.dev {
		s.develop()
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	level := new(slog.LevelVar)
	log, err := newLog(s, level, errOut)
	if err != nil {
		return nil, err
	}
	storage.SetRedisLog(log)
	srv := &Server{settings: s, log: log, level: level, out: out}
	defer func() {
		if err != nil {
			srv.shut()
		}
	}()
	config, err := s.ports(log)
	if err != nil {
		return nil, err
	}
	if srv.ports, err = ports.Open(ctx, config); err != nil {
		return nil, err
	}
	srv.close = append(srv.close, srv.ports.Close)
	issuer, err := srv.Issuer()
	if err != nil {
		return nil, err
	}
	if srv.signals, err = newInstruments(ctx, s, srv.ports.Certificate(), log); err != nil {
		return nil, err
	}
	srv.close = append(srv.close, srv.signals.close)
	store, err := srv.store(ctx)
	if err != nil {
		return nil, err
	}
	if srv.service, err = srv.build(ctx, issuer, store); err != nil {
		return nil, err
	}
	srv.fleet, srv.common = store, srv.commonSettings(issuer)
	if err := srv.register(ctx); err != nil {
		return nil, err
	}
	face, err := rest.New(ctx, issuer, srv.service)
	if err != nil {
		return nil, err
	}
	srv.ports.Serve(srv.service, srv.service.MeasureHTTP(face, rest.Route), srv.signals.registry)
	return srv, nil
}

// HTTPAddr gives the address of the REST port.
func (srv *Server) HTTPAddr() string { return srv.ports.HTTPAddr() }

// GRPCAddr gives the address of the gRPC port.
func (srv *Server) GRPCAddr() string { return srv.ports.GRPCAddr() }

// OpsAddr gives the address of the operations port.
func (srv *Server) OpsAddr() string { return srv.ports.OpsAddr() }

// Service gives the service behind the ports.
func (srv *Server) Service() *service.Service { return srv.service }

// Connections gives how many connections to the REST and gRPC ports are open, and how many were refused.
func (srv *Server) Connections() (open, refused int64) {
	return srv.ports.OpenConnections(), srv.ports.RefusedConnections()
}

// ports are the settings of the ports.
func (s *Settings) ports(log *slog.Logger) (ports.Config, error) {
	proxies, err := s.proxies()
	return ports.Config{
		HTTP: s.httpListen, GRPC: s.grpcListen, Ops: s.opsListen, TLS: s.tlsPaths(), AllowPlaintext: s.allowPlaintext,
		Reflection: s.dev, Profiling: s.profiling, ConnectionAge: s.connectionAge, Log: log,
		Connections: ports.ConnectionLimits{
			Max: s.maxConnections, MaxPerSource: s.connectionsPerSource, Proxies: proxies, ProxyProtocol: s.proxyProtocol,
		},
	}, err
}

func (s *Settings) tlsPaths() ports.TLSPaths {
	return ports.TLSPaths{Certificate: s.tlsCert, Key: s.tlsKey, ClientCA: s.tlsClientCA}
}

// Issuer gives the issuer of the settings; dev mode names itself after its REST port.
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

// scheme is that of the REST port's URL.
func (srv *Server) scheme() string {
	if srv.settings.tlsCert != "" {
		return "https"
	}
	return "http"
}

// grpcEndpoint gives where callers reach the gRPC port.
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

// store reaches the Redis of the settings, or dev mode's own.
func (srv *Server) store(ctx context.Context) (*redisstore.Store, error) {
	s := srv.settings
	if s.dev && s.Redis == "" {
		url, stop, err := embeddedRedis()
		if err != nil {
			return nil, err
		}
		srv.close = append(srv.close, stop)
		s.Redis = url
	}
	client, err := s.Connect()
	if err != nil {
		return nil, err
	}
	srv.close = append(srv.close, func() { _ = client.Close() })
	redisstore.Watch(client, srv.signals.storeCall)
	store, err := s.Open(client)
	if err != nil {
		return nil, err
	}
	warnings, err := store.Check(ctx)
	if err != nil {
		return nil, cli.SettingError("redis", err)
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
	algorithms, err := s.signingAlgorithms()
	if err != nil {
		return nil, err
	}
	proxies, err := s.proxies()
	if err != nil {
		return nil, err
	}
	if err := telemetry.Connections(srv.signals.meter, srv.ports.OpenConnections, srv.ports.RefusedConnections); err != nil {
		return nil, err
	}
	return service.New(ctx, service.Config{
		Issuer: issuer, Store: store, Sealer: sealer, Log: srv.log, AuditSink: s.AuditSink(store), Algorithms: algorithms,
		Meter: srv.signals.meter, Tracer: srv.signals.tracer, Limits: s.limits(), Proxies: proxies,
		AccessTokenLifetime: s.tokenLifetime, KeyRotation: s.keyRotation, JWKSMaxAge: s.jwksMaxAge,
		MaxStaleness: s.maxStaleness, CachedClients: s.cachedClients, CachedTokens: s.cachedTokens,
		GRPCEndpoint: srv.grpcEndpoint(issuer), StartupGrace: s.settle, ConnectionAge: s.connectionAge,
	})
}

// register applies the file of the settings and, in dev mode, its own.
func (srv *Server) register(ctx context.Context) error {
	var wanted []*manifest.File
	if srv.settings.dev {
		m, err := developmentManifest()
		if err != nil {
			return err
		}
		wanted = append(wanted, m)
	}
	if path := srv.settings.apply; path != "" {
		m, err := manifest.Read(path)
		if err != nil {
			return cli.SettingError("apply", err)
		}
		wanted = append(wanted, m)
	}
	for _, m := range wanted {
		if err := srv.applyFile(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// applyFile registers what a file wants.
func (srv *Server) applyFile(ctx context.Context, m *manifest.File) error {
	err := m.Apply(ctx, srv.service.Editor(), registry.ApplyOptions{}, func(c registry.Change) {
		srv.log.Info("applied", "action", c.Action, c.Kind, c.ID, "fields", strings.Join(c.Fields(), ","))
		srv.service.Applied(ctx, c)
	})
	if err != nil {
		return cli.SettingError("apply", err)
	}
	return nil
}

// Run serves until ctx ends, then sends callers elsewhere and lets calls in flight end.
func (srv *Server) Run(ctx context.Context) error {
	defer srv.shut()
	facts := buildinfo.Read()
	srv.log.Info("serving", "http", srv.ports.HTTPAddr(), "grpc", srv.ports.GRPCAddr(), "ops", srv.ports.OpsAddr(),
		"version", facts.Version, "revision", facts.Revision)
	for _, warning := range srv.insecure() {
		srv.log.Warn(warning)
	}
	if srv.settings.dev {
		srv.introduce()
	}
	// The service outlives the ports: calls in flight still need it.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return srv.service.Run(background) })
	group.Go(func() error {
		heartbeat.Run(background, srv.fleet, srv.status, func(err error) { srv.log.Warn(err.Error()) })
		return nil
	})
	group.Go(func() error { return srv.ports.Run(running) })
	if srv.reloads != nil {
		group.Go(func() error { return srv.reloads.run(running, srv) })
	}
	group.Go(func() error {
		defer stopBackground()
		<-running.Done()
		delay := srv.settings.shutdownDelay
		if ctx.Err() == nil {
			delay = 0 // something has failed, and what is taken now would fail with it
		}
		srv.log.Info("stopping; calls in flight may end", "after", delay.String(), "within", srv.settings.shutdownTimeout.String())
		return srv.ports.Drain(delay, srv.settings.shutdownTimeout)
	})
	err := group.Wait()
	srv.log.Info("stopped")
	return err
}

// insecure lists what is in force that a production issuer should not have.
func (srv *Server) insecure() []string {
	var found []string
	s := srv.settings
	switch {
	case s.dev:
		found = append(found, "insecure: development mode; its client's secret is public")
	case s.tlsCert == "" && s.allowPlaintext:
		found = append(found, "insecure: no TLS on the REST and gRPC ports, beyond loopback; secrets and tokens are readable on the way")
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

func (srv *Server) shut() {
	for _, end := range slices.Backward(srv.close) {
		end()
	}
}

// newLog makes the log of the settings, with a level that can be changed.
func newLog(s *Settings, level *slog.LevelVar, w io.Writer) (*slog.Logger, error) {
	if err := setLevel(level, s); err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	if s.logFormat == "text" {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}

// setLevel sets a level to that of the settings.
func setLevel(level encoding.TextUnmarshaler, s *Settings) error {
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return cli.SettingError("log-level", fmt.Errorf("%q is not one of debug, info, warn, error", s.logLevel))
	}
	return nil
}
