// Package ports serves on three ports: HTTP, gRPC and operations. It bounds what a connection can hold, and shuts down
// without failing a call.
package ports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	prometheusclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/grantorhq/grantor/cmd/grantor/buildinfo"
	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
	"github.com/grantorhq/grantor/service/oauth"
)

// Config configures the ports.
type Config struct {
	// HTTP, GRPC and Ops are the addresses of the HTTP, the gRPC and the operations port.
	HTTP, GRPC, Ops string
	// WithoutHTTP opens no HTTP port.
	WithoutHTTP bool
	// TLS names the certificate of the HTTP and gRPC ports. Its zero value is plaintext.
	TLS tlsfiles.Paths
	// AllowPlaintext permits plaintext on addresses that other machines reach.
	AllowPlaintext bool
	// Reflection enables gRPC server reflection, and Profiling the profiles on the operations port.
	Reflection, Profiling bool
	// Connections bounds the connections to the HTTP and gRPC ports.
	Connections ConnectionLimits
	// ConnectionAge is how long an HTTP connection lasts before its client is sent to a new one. Zero is no bound.
	ConnectionAge time.Duration
	// IdleTimeout is how long a connection to the HTTP port may be idle.
	IdleTimeout time.Duration
	// MaxHeader bounds the header of a request to the HTTP port, in bytes. The default is 16 KiB.
	MaxHeader int
	// H2C permits HTTP/2 in plaintext on the HTTP port, without an upgrade from HTTP/1.1.
	H2C bool
	Log *slog.Logger
}

// Ports are the listeners and the servers behind them.
type Ports struct {
	// http is nil if there is no HTTP port.
	http, grpc, ops net.Listener
	connections     *connections
	config          Config
	tls             *tlsfiles.Files

	httpServer *http.Server
	grpcServer *grpc.Server
	opsServer  *http.Server
	health     *health.Server
	// services are the names under which the health service reports readiness.
	services []string
	ready    func() error
	// leaving is set before the server stops: it still accepts calls, but sends clients elsewhere.
	leaving atomic.Bool
	// draining ends when the server accepts no more calls.
	draining context.Context
	drainNow context.CancelFunc
}

// Open opens the listeners. Its errors name the setting.
func Open(ctx context.Context, config Config) (_ *Ports, err error) {
	p := &Ports{config: config, connections: newConnections(config.Connections)}
	p.draining, p.drainNow = context.WithCancel(context.WithoutCancel(ctx))
	if config.TLS.Certificate.Path != "" {
		if p.tls, err = tlsfiles.New(config.TLS, config.Log); err != nil {
			return nil, err
		}
	}
	operations := &connections{max: maxOperations, maxPerSource: maxOperationsPerSource}
	for _, port := range []struct {
		port
		to *net.Listener
	}{
		{port{"http-listen", config.HTTP, true, p.connections}, &p.http},
		{port{"grpc-listen", config.GRPC, true, p.connections}, &p.grpc},
		{port{"ops-listen", config.Ops, false, operations}, &p.ops},
	} {
		if port.to == &p.http && config.WithoutHTTP {
			continue
		}
		if *port.to, err = p.open(ctx, port.port); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// port is an address to listen on, and the setting that names it.
type port struct {
	setting, address string
	// secret reports whether secrets and tokens pass through the port.
	secret      bool
	connections *connections
}

// open listens on a port.
func (p *Ports) open(ctx context.Context, port port) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(port.address); err != nil {
		return nil, cli.SettingError(port.setting, fmt.Errorf("%q is not an address such as :8080 or localhost:8080", port.address))
	}
	if port.secret && p.tls == nil && !p.config.AllowPlaintext && !loopbackAddress(port.address) {
		return nil, cli.SettingError(port.setting, fmt.Errorf("%s is reachable from other machines: set tls-cert-file and tls-key-file, or listen on localhost", port.address))
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", port.address)
	if err != nil {
		return nil, cli.SettingError(port.setting, err)
	}
	return port.connections.bound(listener), nil
}

// HTTPAddr returns the address of the HTTP port, or "" if there is none.
func (p *Ports) HTTPAddr() string {
	if p.http == nil {
		return ""
	}
	return p.http.Addr().String()
}

// GRPCAddr returns the address of the gRPC port.
func (p *Ports) GRPCAddr() string { return p.grpc.Addr().String() }

// OpsAddr returns the address of the operations port.
func (p *Ports) OpsAddr() string { return p.ops.Addr().String() }

// Certificate returns the certificate files, or nil if the ports are plaintext.
func (p *Ports) Certificate() *tlsfiles.Files { return p.tls }

// PrepareTLS reads other certificate files and returns a function that switches to them. The files can change; whether the
// ports have TLS cannot.
func (p *Ports) PrepareTLS(paths tlsfiles.Paths, log *slog.Logger) (apply func() error, err error) {
	switch {
	case (p.tls == nil) != (paths.Certificate.Path == ""):
		return nil, cli.SettingError("tls-cert-file", errors.New("turning TLS on or off needs a restart"))
	case p.tls == nil:
		return func() error { return nil }, nil
	}
	read, err := tlsfiles.New(paths, log)
	return func() error { p.tls.Replace(read); return nil }, err
}

// OpenConnections returns how many connections to the HTTP and gRPC ports are open.
func (p *Ports) OpenConnections() int64 { return p.connections.open.Load() }

// RefusedConnections returns how many connections to the HTTP and gRPC ports were refused.
func (p *Ports) RefusedConnections() int64 { return p.connections.refused.Load() }

func loopbackAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && oauth.Loopback(host)
}

// Close closes the listeners.
func (p *Ports) Close() {
	p.drainNow()
	for _, l := range []net.Listener{p.http, p.grpc, p.ops} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// Servers are what the ports serve.
type Servers struct {
	// Options configure the gRPC server, and Register registers its services.
	Options  []grpc.ServerOption
	Register func(grpc.ServiceRegistrar)
	// Service is the name of the service whose health is reported, besides that of the server.
	Service string
	// HTTP handles the requests to the HTTP port. It is nil if there is none.
	HTTP http.Handler
	// Metrics are those of the operations port.
	Metrics *prometheusclient.Registry
	// Ready returns why no new call should come here, or nil.
	Ready func() error
}

// Serve creates the servers behind the listeners. [Ports.Run] starts them.
func (p *Ports) Serve(s Servers) {
	p.ready = s.Ready
	options := append(slices.Clone(s.Options), grpc.StreamInterceptor(p.endStreams))
	if p.tls != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(p.tls.ServerConfig("h2"))))
	}
	p.grpcServer = grpc.NewServer(options...)
	s.Register(p.grpcServer)
	p.health, p.services = health.NewServer(), []string{"", s.Service}
	p.setHealth(healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(p.grpcServer, p.health)
	if p.config.Reflection {
		reflection.Register(p.grpcServer)
	}
	p.serveHTTP(s.HTTP)
	p.opsServer = newHTTPServer(p.operations(s.Metrics))
}

// serveHTTP creates the server of the HTTP port.
func (p *Ports) serveHTTP(handler http.Handler) {
	p.httpServer = newHTTPServer(p.rebalance(handler))
	p.httpServer.IdleTimeout = p.config.IdleTimeout
	p.httpServer.MaxHeaderBytes = cmp.Or(p.config.MaxHeader, p.httpServer.MaxHeaderBytes)
	if p.config.ConnectionAge > 0 {
		p.httpServer.ConnContext = p.withConnectionEnd
	}
	if p.config.H2C {
		// The limits of newHTTPServer, and those of the connections, are the same for it.
		p.httpServer.Protocols = new(http.Protocols)
		p.httpServer.Protocols.SetHTTP1(true)
		p.httpServer.Protocols.SetUnencryptedHTTP2(true)
	}
	if p.tls != nil {
		p.httpServer.TLSConfig = p.tls.ServerConfig("h2", "http/1.1")
	}
}

// newHTTPServer returns a server that bounds what a slow or hostile client can hold.
func newHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		// A form has at most 64 KiB, and an HTTP/2 connection need not hold more than one that was not read yet.
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerStream: 64 << 10,
			MaxReceiveBufferPerConnection: 64 << 10, SendPingTimeout: time.Minute, PingTimeout: 20 * time.Second,
			WriteByteTimeout: 15 * time.Second,
		},
		// net/http logs about clients that disconnect or violate the protocol.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
}

// operations returns the handler of the operations port.
func (p *Ports) operations(metrics *prometheusclient.Registry) http.Handler {
	mux := http.NewServeMux()
	info := buildinfo.Read()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, "ok\n%s\n", &info) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := p.readiness(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	if p.config.Profiling {
		// The command line is not served, because it may have a secret.
		mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
		mux.HandleFunc("GET /debug/pprof/", limitProfile(pprof.Index))
		mux.HandleFunc("GET /debug/pprof/profile", limitProfile(pprof.Profile))
		mux.HandleFunc("GET /debug/pprof/trace", limitProfile(pprof.Trace))
	}
	return mux
}

// limitProfile rejects profiles longer than a minute: only one can run at a time.
func limitProfile(serve http.HandlerFunc) http.HandlerFunc {
	const maxSeconds = 60
	return func(w http.ResponseWriter, r *http.Request) {
		if text := r.URL.Query().Get("seconds"); text != "" {
			if seconds, err := strconv.ParseFloat(text, 64); err != nil || !(seconds >= 0 && seconds <= maxSeconds) { // also refuses NaN
				http.Error(w, fmt.Sprintf("seconds must be from 0 to %d", maxSeconds), http.StatusBadRequest)
				return
			}
		}
		serve(w, r)
	}
}

// readiness returns why no new call should come here, or nil.
func (p *Ports) readiness() error {
	if p.leaving.Load() {
		return errors.New("stopping")
	}
	return p.ready()
}

// readinessInterval is the interval at which the gRPC health service is updated.
const readinessInterval = 250 * time.Millisecond

// Run serves on all ports until they are drained, and updates the health service until ctx ends.
func (p *Ports) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ignoreClosed(p.grpcServer.Serve(p.grpc)) })
	group.Go(func() error {
		switch {
		case p.http == nil:
			return nil
		case p.tls != nil:
			return ignoreClosed(p.httpServer.ServeTLS(p.http, "", ""))
		}
		return ignoreClosed(p.httpServer.Serve(p.http))
	})
	group.Go(func() error { return ignoreClosed(p.opsServer.Serve(p.ops)) })
	group.Go(func() error {
		ticker := time.NewTicker(readinessInterval)
		defer ticker.Stop()
		for {
			p.updateHealth()
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	})
	return group.Wait()
}

func (p *Ports) updateHealth() {
	state := healthpb.HealthCheckResponse_SERVING
	if p.readiness() != nil {
		state = healthpb.HealthCheckResponse_NOT_SERVING
	}
	p.setHealth(state)
}

func (p *Ports) setHealth(state healthpb.HealthCheckResponse_ServingStatus) {
	for _, service := range p.services {
		p.health.SetServingStatus(service, state)
	}
}

// ignoreClosed ignores the error of a server that was stopped, even before it began to serve.
func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}
