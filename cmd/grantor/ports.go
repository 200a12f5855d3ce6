package main

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

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/oauth"
)

// ports are the three listeners and what serves on them.
type ports struct {
	http, grpc, ops net.Listener
	connections     *connections
	settings        *serveSettings
	tls             *tlsFiles

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

// listen opens the ports. Its errors name the setting.
func listen(ctx context.Context, s *serveSettings, log *slog.Logger) (p *ports, err error) {
	var config net.ListenConfig
	p = &ports{settings: s}
	if p.connections, err = newConnections(&s.limitSettings); err != nil {
		return nil, err
	}
	p.draining, p.drainNow = context.WithCancel(context.WithoutCancel(ctx))
	if s.tlsCert != "" {
		if p.tls, err = newTLSFiles(s, log); err != nil {
			return nil, err
		}
	}
	for _, port := range []struct {
		setting, address string
		secret           bool
		to               *net.Listener
	}{
		{"http-listen", s.httpListen, true, &p.http},
		{"grpc-listen", s.grpcListen, true, &p.grpc},
		{"ops-listen", s.opsListen, false, &p.ops},
	} {
		if _, _, split := net.SplitHostPort(port.address); split != nil {
			err = fmt.Errorf("%s: %q is no address such as :8080 or localhost:8080", port.setting, port.address)
		} else if port.secret && p.tls == nil && !s.allowPlaintext && !loopbackAddress(port.address) {
			err = fmt.Errorf("%s: %s is reachable from other machines: set tls-cert-file and tls-key-file, or listen on localhost", port.setting, port.address)
		} else if *port.to, err = config.Listen(ctx, "tcp", port.address); err != nil {
			err = settingError(port.setting, err)
		} else if port.secret {
			*port.to = p.connections.bound(*port.to)
		} else {
			*port.to = (&connections{most: mostOperations, mostPerSource: mostOperationsPerSource}).bound(*port.to)
		}
		if err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

func loopbackAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && oauth.Loopback(host)
}

func (p *ports) close() {
	p.drainNow()
	for _, l := range []net.Listener{p.http, p.grpc, p.ops} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// serve puts the servers behind the listeners.
func (p *ports) serve(s *service.Service, face http.Handler, metrics *prometheusclient.Registry) {
	p.ready = s.Ready
	options := append(s.ServerOptions(), grpc.StreamInterceptor(p.endWithServer))
	if p.tls != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(p.tls.config("h2"))))
	}
	p.grpcServer = grpc.NewServer(options...)
	s.Register(p.grpcServer)
	p.health = health.NewServer()
	p.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	p.health.SetServingStatus(grantorv1.TokenService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(p.grpcServer, p.health)
	if p.settings.dev {
		reflection.Register(p.grpcServer)
	}
	p.httpServer = newHTTPServer(p.spread(face))
	p.httpServer.ConnContext = p.aging
	if p.tls != nil {
		p.httpServer.TLSConfig = p.tls.config("h2", "http/1.1")
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
		// A form is at most 64 KiB, and a connection of HTTP/2 need not hold more than a few.
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerStream: 64 << 10,
			MaxReceiveBufferPerConnection: 256 << 10, SendPingTimeout: time.Minute, PingTimeout: 20 * time.Second,
			WriteByteTimeout: 15 * time.Second,
		},
		// What net/http logs is about callers that break off or do not speak the protocol.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
}

// operations is what the third port serves.
func (p *ports) operations(metrics *prometheusclient.Registry) http.Handler {
	mux := http.NewServeMux()
	facts := thisBuild()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, "ok\n%s\n", &facts) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := p.readiness(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	if p.settings.profiling {
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
func (p *ports) readiness() error {
	if p.leaving.Load() {
		return errors.New("stopping")
	}
	return p.ready()
}

// run serves on all ports until they are drained, and tells the health service how things stand until ctx ends.
func (p *ports) run(ctx context.Context) error {
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

func (p *ports) tellHealth() {
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
