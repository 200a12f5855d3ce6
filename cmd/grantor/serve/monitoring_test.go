package serve_test

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
)

// TestOneTrace has a client get a token and call a service with it, over REST and over gRPC, and expects the spans of
// all three in one trace.
func TestOneTrace(t *testing.T) {
	for _, over := range []string{"REST", "gRPC"} {
		t.Run(over, func(t *testing.T) {
			c := servetest.NewCollector(t)
			r := servetest.Dev(t, "--otlp-endpoint="+c.URL, "--trace-sampling=0")
			issuer := r.URL("")
			issuerName, err := r.Issuer()
			if err != nil {
				t.Fatal(err)
			}
			options := []attach.Option{attach.Telemetry(nil, c.Tracers(t, "client")), attach.TokenURL(issuer + "/connect/token")}
			if over == "gRPC" {
				options[1] = attach.OverGRPC(servetest.Dial(t, r.GRPCAddr()))
			}
			source := attach.ClientCredentials(issuerName.String(), "background-service", "service-secret-here", options...)
			conn := callee(t, r, issuerName.String(), c.Tracers(t, "server"), source)
			callers := c.Tracers(t, "client")
			ctx, span := callers.Tracer("test").Start(t.Context(), "caller", trace.WithNewRoot())
			if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
			span.End()
			r.Stop() // sends the remaining data
			<-r.Ended
			want := []string{
				"client: caller", "client: grpc.health.v1.Health/Check", "grantor: grantor.v1.TokenService/IssueToken", "grantor: argon2id",
				"grantor: HMGET", "server: grpc.health.v1.Health/Check",
			}
			if over == "REST" {
				want = append(want, "client: POST", "grantor: POST /connect/token")
			} else {
				want = append(want, "client: grantor.v1.TokenService/IssueToken")
			}
			c.Mu.Lock()
			defer c.Mu.Unlock()
			got := slices.Clone(c.Spans)
			slices.Sort(want)
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("got the spans %q\nwant %q", got, want)
			}
			if len(c.Traces) != 1 {
				t.Errorf("they are of %d traces, want one", len(c.Traces))
			}
			for _, name := range []string{"rpc.server.call.duration", "grantor.token.issued", "grantor.feed.age", "db.client.operation.duration"} {
				if !c.Metrics["grantor: "+name] {
					t.Errorf("the collector has no %s of grantor", name)
				}
			}
		})
	}
}

// callee runs a service that verifies tokens, and returns a client's connection to it.
func callee(t *testing.T, r *servetest.Replica, issuer string, tracers trace.TracerProvider, source *attach.Source) *grpc.ClientConn {
	t.Helper()
	verifier, err := verify.New(t.Context(), issuer, verify.Audience("https://orders.internal"), verify.Telemetry(nil, tracers),
		verify.OverGRPC(servetest.Dial(t, r.GRPCAddr())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	server := verify.NewServer(verifier, verify.Policy{"/grpc.health.v1.Health/Check": verify.Scopes("api1")})
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); running.Wait() })
	conn, err := grpc.NewClient(listener.Addr().String(),
		attach.DialOptions(source, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestCollectorAway expects tokens to be issued, and the server to stop in time, while no collector accepts the traces.
func TestCollectorAway(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts no connection
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	r := servetest.Dev(t, "--otlp-endpoint=http://"+listener.Addr().String(), "--trace-sampling=1")
	for range 10 {
		r.Token(t)
	}
	if code, _ := servetest.Get(t, "http://"+r.OpsAddr()+"/readyz"); code != http.StatusOK {
		t.Errorf("not ready: %d", code)
	}
}
