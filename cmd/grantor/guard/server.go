// Package guard runs grantor guard: it answers proxies that ask whether a request may pass, by the rules of a file or of
// protos. It imports neither the issuer nor its store.
package guard

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/grantorhq/grantor/cmd/grantor/buildinfo"
	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/monitoring"
	"github.com/grantorhq/grantor/cmd/grantor/ports"
	"github.com/grantorhq/grantor/cmd/grantor/reload"
	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/guard/extauthz"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/instrument"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

// authorizePath is the path of the subrequests of proxies.
const authorizePath = "/authorize"

// Server is a running guard. Its listeners are open from the start, so that a port in use is a start-up error.
type Server struct {
	settings *Settings
	log      *slog.Logger
	level    *slog.LevelVar
	ports    *ports.Ports
	verifier *verify.Verifier
	guard    *guard.Guard
	// reloader is nil if settings are not reloaded.
	reloader *reload.Reloader[*Server, Settings]
	// unready is why the guard is not ready, or points to nil.
	unready atomic.Pointer[error]
	// releases release what the server holds. They are called in reverse order.
	releases []func()
}

// New does everything that can fail at start. The settings must be valid. The log goes to errOut.
func New(ctx context.Context, s *Settings, errOut io.Writer) (_ *Server, err error) {
	if err := s.errRequired(); err != nil {
		return nil, err
	}
	log, level, err := s.monitoring.NewLog(errOut)
	if err != nil {
		return nil, err
	}
	srv := &Server{settings: s, log: log, level: level}
	srv.unready.Store(&errStarting)
	defer func() {
		if err != nil {
			srv.release()
		}
	}()
	rules, err := s.readRules()
	if err != nil {
		return nil, err
	}
	if srv.ports, err = ports.Open(ctx, s.portsConfig(log)); err != nil {
		return nil, err
	}
	srv.releases = append(srv.releases, srv.ports.Close)
	telemetry, err := monitoring.New(ctx, "grantor-guard", &s.monitoring, log)
	if err != nil {
		return nil, err
	}
	err = srv.build(ctx, telemetry, rules)
	srv.releases = append(srv.releases, telemetry.Close) // before the verifier, whose metrics end when it is closed
	if err != nil {
		return nil, err
	}
	srv.logRules(rules)
	return srv, nil
}

// errStarting is why a guard is not ready before its readiness was checked for the first time.
var errStarting = errors.New("starting")

// build creates the guard and the servers behind the ports.
func (srv *Server) build(ctx context.Context, telemetry *monitoring.Telemetry, rules *ruleSet) error {
	s := srv.settings
	if err := srv.ports.Observe(telemetry.Meter()); err != nil {
		return err
	}
	var closeVerifier func()
	var err error
	if srv.verifier, closeVerifier, err = s.newVerifier(ctx, telemetry.Meters, srv.log); err != nil {
		return err
	}
	srv.releases = append(srv.releases, closeVerifier)
	if srv.guard, err = guard.New(srv.verifier, rules.table, guard.Config{
		ClientIDHeader: s.clientIDHeader, ScopesHeader: s.scopesHeader, RemoveToken: s.removeToken,
		MaxConcurrent: s.maxChecks, OnRefusal: srv.logRefusal, Meters: telemetry.Meters,
	}); err != nil {
		return cli.SettingError("client-id-header, scopes-header", err)
	}
	handler, err := srv.handler(telemetry)
	if err != nil {
		return err
	}
	calls, err := instrument.NewRPCServer(telemetry.Meter(), telemetry.Tracer())
	if err != nil {
		return err
	}
	var options []extauthz.Option
	if s.limitStreams {
		options = append(options, extauthz.LimitStreams())
	}
	srv.ports.Serve(ports.Servers{
		Options: serverOptions(calls), Service: authv3.Authorization_ServiceDesc.ServiceName,
		Register: func(server grpc.ServiceRegistrar) {
			authv3.RegisterAuthorizationServer(server, extauthz.New(srv.guard, options...))
		},
		HTTP: handler, Metrics: telemetry.Registry, Ready: srv.Ready,
	})
	return nil
}

const (
	// maxMessage bounds a message of Envoy, in bytes. It has the whole header, and the body if Envoy is set to send it.
	maxMessage = 1 << 20
	// maxStreams bounds the checks in flight on one connection; Envoy opens another connection for more.
	maxStreams = 1000
)

// serverOptions returns the options of the gRPC server.
func serverOptions(calls *instrument.RPC) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, m any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			ctx, call := calls.Start(ctx, info.FullMethod, true)
			answer, err := handler(ctx, m)
			call.End(err)
			return answer, err
		}),
		// Workers keep their grown stacks; a fresh goroutine would grow its own for each check.
		grpc.NumStreamWorkers(64),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// handler returns the handler of the HTTP port, or nil if there is none.
func (srv *Server) handler(telemetry *monitoring.Telemetry) (http.Handler, error) {
	s := srv.settings
	if s.forwardAuth == forwardOff {
		return nil, nil //nolint:nilnil // as documented
	}
	proxies, err := remoteaddr.ParseNetworks(s.trustedProxies)
	if err != nil {
		return nil, err
	}
	forward, err := guard.ForwardAuth(srv.guard, guard.ForwardConfig{Headers: guard.ForwardHeaders(s.forwardAuth), Proxies: proxies})
	if err != nil {
		return nil, err
	}
	requests, err := instrument.NewHTTPServer(telemetry.Meter(), telemetry.Tracer())
	if err != nil {
		return nil, err
	}
	// An http.ServeMux would redirect some paths, and a proxy could pass the redirect on.
	return requests.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != authorizePath {
			http.NotFound(w, r)
			return
		}
		forward.ServeHTTP(w, r)
	}), func(r *http.Request) string {
		if r.URL.Path == authorizePath {
			return authorizePath
		}
		return ""
	}), nil
}

// logRefusal logs a refusal: at level ERROR if the guard is at fault.
func (srv *Server) logRefusal(ctx context.Context, r *guard.Request, refusal *verify.Refusal) {
	level := slog.LevelDebug
	if errors.Is(refusal.Cause, verify.ErrFault) {
		level = slog.LevelError
	}
	if !srv.log.Enabled(ctx, level) {
		return
	}
	path, _, _ := strings.Cut(r.Path, "?") // the query may have a secret
	srv.log.Log(ctx, level, "refused", "wire", r.Wire, "reason", guard.Reason(refusal.Cause), "method", r.Method, "host", r.Host,
		"path", path, "error", refusal.Cause)
}

// logRules logs how many rules are in use, and the methods without one.
func (srv *Server) logRules(rules *ruleSet) {
	srv.log.Info("rules", "file", rules.rules, "methods", rules.methods)
	if len(rules.unruled) > 0 {
		srv.log.Warn("methods without a rule are refused", "methods", strings.Join(rules.unruled, ","))
	}
}

// GRPCAddr returns the address of the gRPC port.
func (srv *Server) GRPCAddr() string { return srv.ports.GRPCAddr() }

// HTTPAddr returns the address of the HTTP port, or "" if there is none.
func (srv *Server) HTTPAddr() string { return srv.ports.HTTPAddr() }

// OpsAddr returns the address of the operations port.
func (srv *Server) OpsAddr() string { return srv.ports.OpsAddr() }

// Ready returns why no proxy should ask here, or nil. It does not wait.
func (srv *Server) Ready() error { return *srv.unready.Load() }

const (
	// readinessInterval is the interval at which readiness is checked.
	readinessInterval = 250 * time.Millisecond
	// readinessTimeout bounds one check, which may fetch the keys.
	readinessTimeout = time.Second
)

// watchReadiness updates the readiness until ctx ends, and logs when it changes.
func (srv *Server) watchReadiness(ctx context.Context) error {
	ticker := time.NewTicker(readinessInterval)
	defer ticker.Stop()
	for {
		checking, cancel := context.WithTimeout(ctx, readinessTimeout)
		err := srv.verifier.Ready(checking)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		switch previous := *srv.unready.Swap(&err); {
		case err == nil && previous != nil:
			srv.log.Info("ready")
		case err != nil && (previous == nil || errors.Is(previous, errStarting)):
			srv.log.Warn("not ready", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Run serves until ctx ends. Then it lets checks in flight end.
func (srv *Server) Run(ctx context.Context) error {
	defer srv.release()
	info := buildinfo.Read()
	srv.log.Info("serving", "grpc", srv.GRPCAddr(), "http", srv.HTTPAddr(), "ops", srv.OpsAddr(),
		"version", info.Version, "revision", info.Revision)
	for _, warning := range srv.warnings() {
		srv.log.Warn(warning)
	}
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return srv.watchReadiness(running) })
	group.Go(func() error { return srv.ports.Run(running) })
	if srv.reloader != nil {
		group.Go(func() error { return srv.reloader.Run(running, srv, srv.log) })
	}
	group.Go(func() error {
		<-running.Done()
		delay := srv.settings.shutdownDelay
		if ctx.Err() == nil {
			delay = 0 // a part of the server has failed
		}
		srv.log.Info("stopping; waiting for checks in flight", "after", delay.String(), "within", srv.settings.shutdownTimeout.String())
		return srv.ports.Drain(delay, srv.settings.shutdownTimeout)
	})
	err := group.Wait()
	srv.log.Info("stopped")
	return err
}

// warnings lists what makes the guard insecure.
func (srv *Server) warnings() []string {
	var found []string
	s := srv.settings
	if s.tlsCert == "" && s.allowPlaintext {
		found = append(found, "insecure: no TLS on the gRPC and HTTP ports, beyond loopback; tokens can be read in transit, and answers forged")
	}
	if s.issuerPlaintext {
		found = append(found, "insecure: the issuer's keys are fetched without TLS; an attacker on the network can forge tokens")
	}
	if s.tlsCert != "" && s.tlsClientCA == "" {
		found = append(found, "no client certificates are required: every caller that reaches the gRPC port is believed to be a proxy; set tls-client-ca-file, or restrict who reaches it")
	}
	return found
}

func (srv *Server) release() {
	for _, release := range slices.Backward(srv.releases) {
		release()
	}
}
