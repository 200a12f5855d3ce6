// Package ports serves an issuer on its three ports: REST, gRPC and operations. It bounds what a connection may hold on to,
// and ends connections without a failed call.
package ports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
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
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/oauth"
)

// Config says which ports are opened and how.
type Config struct {
	// HTTP, GRPC and Ops are the addresses to listen on: REST, gRPC and operations.
	HTTP, GRPC, Ops string
	// TLS names the certificate of the REST and gRPC ports; its zero value is plaintext.
	TLS TLSPaths
	// AllowPlaintext permits plaintext on addresses that other machines reach.
	AllowPlaintext bool
	// Reflection offers gRPC server reflection, and Profiling profiles on the operations port.
	Reflection, Profiling bool
	// Connections bounds the connections to the REST and gRPC ports.
	Connections ConnectionLimits
	// ConnectionAge is how long a connection over REST lasts before its client is sent to a new one.
	ConnectionAge time.Duration
	Log           *slog.Logger
}

// Ports are the three listeners and what serves on them.
type Ports struct {
	http, grpc, ops net.Listener
	connections     *connections
	config          Config
	tls             *TLSFiles

	httpServer *http.Server
	grpcServer *grpc.Server
	opsServer  *http.Server
	health     *health.Server
	ready      func() error
	// leaving is set when the server is about to stop: it still takes calls, and sends their callers elsewhere.
	leaving atomic.Bool
	// draining ends when the server takes no new calls any more.
	draining context.Context
	drainNow context.CancelFunc
}

// Open opens the ports. Its errors name the setting.
func Open(ctx context.Context, config Config) (_ *Ports, err error) {
	p := &Ports{config: config, connections: newConnections(config.Connections)}
	p.draining, p.drainNow = context.WithCancel(context.WithoutCancel(ctx))
	if config.TLS.Certificate != "" {
		if p.tls, err = NewTLSFiles(config.TLS, config.Log); err != nil {
			return nil, err
		}
	}
	operations := &connections{most: mostOperations, mostPerSource: mostOperationsPerSource}
	for _, port := range []struct {
		port
		to *net.Listener
	}{
		{port{"http-listen", config.HTTP, true, p.connections}, &p.http},
		{port{"grpc-listen", config.GRPC, true, p.connections}, &p.grpc},
		{port{"ops-listen", config.Ops, false, operations}, &p.ops},
	} {
		if *port.to, err = p.open(ctx, port.port); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// port is an address to listen on and the setting that names it.
type port struct {
	setting, address string
	// secret reports whether secrets and tokens pass through the port.
	secret      bool
	connections *connections
}

// open listens on a port.
func (p *Ports) open(ctx context.Context, port port) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(port.address); err != nil {
		return nil, fmt.Errorf("%s: %q is no address such as :8080 or localhost:8080", port.setting, port.address)
	}
	if port.secret && p.tls == nil && !p.config.AllowPlaintext && !loopbackAddress(port.address) {
		return nil, fmt.Errorf("%s: %s is reachable from other machines: set tls-cert-file and tls-key-file, or listen on localhost", port.setting, port.address)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", port.address)
	if err != nil {
		return nil, cli.SettingError(port.setting, err)
	}
	return port.connections.bound(listener), nil
}

// HTTPAddr gives the address of the REST port.
func (p *Ports) HTTPAddr() string { return p.http.Addr().String() }

// GRPCAddr gives the address of the gRPC port.
func (p *Ports) GRPCAddr() string { return p.grpc.Addr().String() }

// OpsAddr gives the address of the operations port.
func (p *Ports) OpsAddr() string { return p.ops.Addr().String() }

// Certificate gives the files of the certificate; nil where the ports are plaintext.
func (p *Ports) Certificate() *TLSFiles { return p.tls }

// OpenConnections gives how many connections are open to the REST and gRPC ports.
func (p *Ports) OpenConnections() int64 { return p.connections.open.Load() }

// RefusedConnections gives how many connections to the REST and gRPC ports were refused.
func (p *Ports) RefusedConnections() int64 { return p.connections.refused.Load() }

func loopbackAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && oauth.Loopback(host)
}

func (p *Ports) Close() {
	p.drainNow()
	for _, l := range []net.Listener{p.http, p.grpc, p.ops} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// Serve puts the servers behind the listeners.
func (p *Ports) Serve(s *service.Service, face http.Handler, metrics *prometheusclient.Registry) {
	p.ready = s.Ready
	options := append(s.ServerOptions(), grpc.StreamInterceptor(p.endWithServer))
	if p.tls != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(p.tls.Config("h2"))))
	}
	p.grpcServer = grpc.NewServer(options...)
	s.Register(p.grpcServer)
	p.health = health.NewServer()
	p.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	p.health.SetServingStatus(grantorv1.TokenService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(p.grpcServer, p.health)
	if p.config.Reflection {
		reflection.Register(p.grpcServer)
	}
	p.httpServer = newHTTPServer(p.spread(face))
	p.httpServer.ConnContext = p.aging
	if p.tls != nil {
		p.httpServer.TLSConfig = p.tls.Config("h2", "http/1.1")
	}
	p.opsServer = newHTTPServer(p.operations(metrics))
}

// newHTTPServer bounds what a slow or hostile caller can hold on to.
func newHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		// A form is at most 64 KiB, and a connection of HTTP/2 need not hold more than one that is not read yet.
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerStream: 64 << 10,
			MaxReceiveBufferPerConnection: 64 << 10, SendPingTimeout: time.Minute, PingTimeout: 20 * time.Second,
			WriteByteTimeout: 15 * time.Second,
		},
		// What net/http logs is about callers that break off or do not speak the protocol.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
}

// operations is what the third port serves.
func (p *Ports) operations(metrics *prometheusclient.Registry) http.Handler {
	mux := http.NewServeMux()
	facts := buildinfo.Read()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, "ok\n%s\n", &facts) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := p.readiness(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	if p.config.Profiling {
		// Not the command line, which can have a secret in it.
		mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
		mux.HandleFunc("GET /debug/pprof/", timed(pprof.Index))
		mux.HandleFunc("GET /debug/pprof/profile", timed(pprof.Profile))
		mux.HandleFunc("GET /debug/pprof/trace", timed(pprof.Trace))
	}
	return mux
}

// timed bounds how long a profile takes: while one is made, nobody else can have one.
func timed(serve http.HandlerFunc) http.HandlerFunc {
	const most = 60
	return func(w http.ResponseWriter, r *http.Request) {
		if text := r.URL.Query().Get("seconds"); text != "" {
			if seconds, err := strconv.ParseFloat(text, 64); err != nil || !(seconds >= 0 && seconds <= most) {
				http.Error(w, fmt.Sprintf("seconds is from 0 to %d", most), http.StatusBadRequest)
				return
			}
		}
		serve(w, r)
	}
}

// readiness reports why no new call should come here; nil when it may.
func (p *Ports) readiness() error {
	if p.leaving.Load() {
		return errors.New("stopping")
	}
	return p.ready()
}

// readinessInterval is how often the standard gRPC health service is told how things stand.
const readinessInterval = 250 * time.Millisecond

// Run serves on all ports until they are drained, and tells the health service how things stand until ctx ends.
func (p *Ports) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ignoreClosed(p.grpcServer.Serve(p.grpc)) })
	group.Go(func() error {
		if p.tls != nil {
			return ignoreClosed(p.httpServer.ServeTLS(p.http, "", ""))
		}
		return ignoreClosed(p.httpServer.Serve(p.http))
	})
	group.Go(func() error { return ignoreClosed(p.opsServer.Serve(p.ops)) })
	group.Go(func() error {
		ticker := time.NewTicker(readinessInterval)
		defer ticker.Stop()
		for {
			p.tellHealth()
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	})
	return group.Wait()
}

func (p *Ports) tellHealth() {
	state := healthpb.HealthCheckResponse_SERVING
	if p.readiness() != nil {
		state = healthpb.HealthCheckResponse_NOT_SERVING
	}
	p.health.SetServingStatus("", state)
	p.health.SetServingStatus(grantorv1.TokenService_ServiceDesc.ServiceName, state)
}

// ignoreClosed passes over what a server says that was told to stop, if need be before it began.
func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}
