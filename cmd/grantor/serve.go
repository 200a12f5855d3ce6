package main

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
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/rest"
	"github.com/grantorhq/grantor/service/telemetry"
)

func newServeCommand() *cobra.Command {
	var s serveSettings
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
				return settingError("dev", errors.New("GRANTOR_REDIS is set, which development mode would write to; unset it, or give --redis"))
			}
			return resolve(cmd.Flags())
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !s.dev {
				s.settle = settle
			}
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			reloads, err := newReloader(cmd.Flags(), hangup)
			if err != nil {
				return err
			}
			defer gatherGarbage(usualGarbage)()
			server, err := newServer(cmd.Context(), &s, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			server.reloads = reloads
			return server.run(cmd.Context())
		},
	}
	s.declare(cmd.Flags())
	return cmd
}

// server is a running issuer: its listeners are open from the start, so that a port which is taken is a start-up error.
type server struct {
	settings *serveSettings
	log      *slog.Logger
	out      io.Writer
	level    *slog.LevelVar
	signals  *signals
	service  *service.Service
	ports    *ports
	// reloads is nil where nothing asks for it.
	reloads *reloader
	// fleet is told about this replica; common has what must be the same for all.
	fleet  heartbeat.Store
	common map[string]string
	// close ends what the server holds when it has stopped.
	close []func()
}

// newServer does everything that can fail at start. out gets what dev mode prints, errOut the log.
func newServer(ctx context.Context, s *serveSettings, out, errOut io.Writer) (_ *server, err error) {
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
	redis.SetLogger(redisLog{log})
	srv := &server{settings: s, log: log, level: level, out: out}
	defer func() {
		if err != nil {
			srv.shut()
		}
	}()
	if srv.ports, err = listen(ctx, s, log); err != nil {
		return nil, err
	}
	srv.close = append(srv.close, srv.ports.close)
	issuer, err := srv.issuer()
	if err != nil {
		return nil, err
	}
	if srv.signals, err = newSignals(ctx, s, srv.ports.tls, log); err != nil {
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
	srv.ports.serve(srv.service, srv.service.MeasureHTTP(face, rest.Route), srv.signals.registry)
	return srv, nil
}

// issuer gives the issuer of the settings; dev mode names itself after its REST port.
func (srv *server) issuer() (oauth.Issuer, error) {
	if srv.settings.issuer != "" {
		return oauth.ParseIssuer(srv.settings.issuer)
	}
	_, port, err := net.SplitHostPort(srv.ports.http.Addr().String())
	if err != nil {
		return oauth.Issuer{}, err
	}
	return oauth.ParseIssuer(srv.scheme() + "://localhost:" + port)
}

// scheme is that of the REST port's URL.
func (srv *server) scheme() string {
	if srv.settings.tlsCert != "" {
		return "https"
	}
	return "http"
}

// grpcEndpoint gives where callers reach the gRPC port.
func (srv *server) grpcEndpoint(issuer oauth.Issuer) string {
	if srv.settings.grpcEndpoint != "" {
		return srv.settings.grpcEndpoint
	}
	_, port, err := net.SplitHostPort(srv.ports.grpc.Addr().String())
	if err != nil {
		return ""
	}
	return net.JoinHostPort(issuer.Host(), port)
}

// store reaches the Redis of the settings, or dev mode's own.
func (srv *server) store(ctx context.Context) (*redisstore.Store, error) {
	s := srv.settings
	if s.dev && s.redis == "" {
		url, stop, err := embeddedRedis()
		if err != nil {
			return nil, err
		}
		srv.close = append(srv.close, stop)
		s.redis = url
	}
	client, err := s.connect()
	if err != nil {
		return nil, err
	}
	srv.close = append(srv.close, func() { _ = client.Close() })
	redisstore.Watch(client, srv.signals.storeCall)
	store, err := s.open(client)
	if err != nil {
		return nil, err
	}
	warnings, err := store.Check(ctx)
	if err != nil {
		return nil, settingError("redis", err)
	}
	for _, warning := range warnings {
		if !s.dev {
			srv.log.Warn(warning)
		}
	}
	return store, nil
}

func (srv *server) build(ctx context.Context, issuer oauth.Issuer, store *redisstore.Store) (*service.Service, error) {
	s := srv.settings
	sealer, err := s.sealer(ctx)
	if err != nil {
		return nil, err
	}
	if sealer == nil {
		if !s.dev {
			return nil, errNoKEK
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
	if err := telemetry.Connections(srv.signals.meter, srv.ports.connections.open.Load, srv.ports.connections.refused.Load); err != nil {
		return nil, err
	}
	return service.New(ctx, service.Config{
		Issuer: issuer, Store: store, Sealer: sealer, Log: srv.log, AuditSink: s.trail(store), Algorithms: algorithms,
		Meter: srv.signals.meter, Tracer: srv.signals.tracer, Limits: s.limits(), Proxies: proxies,
		AccessTokenLifetime: s.tokenLifetime, KeyRotation: s.keyRotation, JWKSMaxAge: s.jwksMaxAge,
		MaxStaleness: s.maxStaleness, CachedClients: s.cachedClients, CachedTokens: s.cachedTokens,
		GRPCEndpoint: srv.grpcEndpoint(issuer), StartupGrace: s.settle, ConnectionAge: s.connectionAge,
	})
}

// register applies the file of the settings and, in dev mode, its own.
func (srv *server) register(ctx context.Context) error {
	var wanted []*manifest
	if srv.settings.dev {
		m, err := developmentManifest()
		if err != nil {
			return err
		}
		wanted = append(wanted, m)
	}
	if path := srv.settings.apply; path != "" {
		m, err := readManifest(path)
		if err != nil {
			return settingError("apply", err)
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
func (srv *server) applyFile(ctx context.Context, m *manifest) error {
	err := applyManifest(ctx, m, srv.service.Editor(), registry.ApplyOptions{}, func(c registry.Change) {
		srv.log.Info("applied", "action", c.Action, c.Kind, c.ID, "fields", strings.Join(c.Fields(), ","))
		srv.service.Applied(ctx, c)
	})
	if err != nil {
		return settingError("apply", err)
	}
	return nil
}

// run serves until ctx ends, then sends callers elsewhere and lets calls in flight end.
func (srv *server) run(ctx context.Context) error {
	defer srv.shut()
	facts := thisBuild()
	srv.log.Info("serving", "http", srv.ports.http.Addr().String(), "grpc", srv.ports.grpc.Addr().String(), "ops", srv.ports.ops.Addr().String(),
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
	group.Go(func() error { return srv.ports.run(running) })
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
		return srv.ports.drain(delay, srv.settings.shutdownTimeout)
	})
	err := group.Wait()
	srv.log.Info("stopped")
	return err
}

// insecure lists what is in force that a production issuer should not have.
func (srv *server) insecure() []string {
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
	if s.dev && s.kek == "" && s.kekFile == "" && s.realRedis() {
		found = append(found, "insecure: the signing keys in this Redis are sealed with development mode's key, which is public")
	}
	return found
}

func (srv *server) shut() {
	for _, end := range slices.Backward(srv.close) {
		end()
	}
}

// newLog makes the log of the settings, with a level that can be changed.
func newLog(s *serveSettings, level *slog.LevelVar, w io.Writer) (*slog.Logger, error) {
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
func setLevel(level encoding.TextUnmarshaler, s *serveSettings) error {
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return settingError("log-level", fmt.Errorf("%q is not one of debug, info, warn, error", s.logLevel))
	}
	return nil
}

// redisLog takes what go-redis logs of its own accord, beside the errors that it returns.
type redisLog struct{ log *slog.Logger }

// Printf implements go-redis's logger.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}

// readinessInterval is how often the standard gRPC health service is told how things stand.
const readinessInterval = 250 * time.Millisecond
