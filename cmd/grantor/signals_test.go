package main

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
)

// collector receives OTLP over gRPC.
type collector struct {
	tracepb.UnimplementedTraceServiceServer
	url string

	mu      sync.Mutex
	spans   []string // "service: name"
	traces  map[string]bool
	metrics map[string]bool
	// all is everything that came, as text.
	all strings.Builder
}

// metricsCollector is the other service of a collector; both have a method Export.
type metricsCollector struct {
	metricspb.UnimplementedMetricsServiceServer
	*collector
}

func newCollector(t testing.TB) *collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{url: "http://" + listener.Addr().String(), traces: make(map[string]bool), metrics: make(map[string]bool)}
	server := grpc.NewServer()
	tracepb.RegisterTraceServiceServer(server, c)
	metricspb.RegisterMetricsServiceServer(server, &metricsCollector{collector: c})
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); running.Wait() })
	return c
}

// Export takes spans.
func (c *collector) Export(_ context.Context, m *tracepb.ExportTraceServiceRequest) (*tracepb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all.WriteString(m.String())
	for _, from := range m.GetResourceSpans() {
		for _, scope := range from.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans = append(c.spans, serviceName(from.GetResource().GetAttributes())+": "+span.GetName())
				c.traces[string(span.GetTraceId())] = true
			}
		}
	}
	return &tracepb.ExportTraceServiceResponse{}, nil
}

// Export takes metrics.
func (c *metricsCollector) Export(_ context.Context, m *metricspb.ExportMetricsServiceRequest) (*metricspb.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all.WriteString(m.String())
	for _, from := range m.GetResourceMetrics() {
		for _, scope := range from.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				c.metrics[serviceName(from.GetResource().GetAttributes())+": "+metric.GetName()] = true
			}
		}
	}
	return &metricspb.ExportMetricsServiceResponse{}, nil
}

func serviceName(of []*commonpb.KeyValue) string {
	for _, a := range of {
		if a.GetKey() == "service.name" {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// text gives everything that came.
func (c *collector) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.String()
}

// tracers makes a provider of a service of the user's, which sends to the collector what it records: everything.
func (c *collector) tracers(t testing.TB, service string) *sdktrace.TracerProvider {
	t.Helper()
	exporter, err := otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpointURL(c.url))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", service))))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider
}

// TestOneTrace has a client get a token and call a service with it, and everything that the three do is one trace in a
// collector: over REST and over gRPC.
func TestOneTrace(t *testing.T) {
	for _, over := range []string{"REST", "gRPC"} {
		t.Run(over, func(t *testing.T) {
			c := newCollector(t)
			r := serveDev(t, "--otlp-endpoint="+c.url, "--trace-sampling=0")
			issuer := r.url("")
			issuerName, err := r.issuer()
			if err != nil {
				t.Fatal(err)
			}
			options := []attach.Option{attach.Telemetry(nil, c.tracers(t, "client")), attach.TokenURL(issuer + "/connect/token")}
			if over == "gRPC" {
				options[1] = attach.OverGRPC(dial(t, r.ports.grpc.Addr().String()))
			}
			source := attach.ClientCredentials(issuerName.String(), "background-service", "service-secret-here", options...)
			conn := callee(t, r, issuerName.String(), c.tracers(t, "server"), source)
			callers := c.tracers(t, "client")
			ctx, span := callers.Tracer("test").Start(t.Context(), "caller", trace.WithNewRoot())
			if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
			span.End()
			r.stop() // which sends what is left
			<-r.ended
			want := []string{
				"client: caller", "client: grpc.health.v1.Health/Check", "grantor: grantor.v1.TokenService/IssueToken", "grantor: argon2id",
				"grantor: HMGET", "server: grpc.health.v1.Health/Check",
			}
			if over == "REST" {
				want = append(want, "client: POST", "grantor: POST /connect/token")
			} else {
				want = append(want, "client: grantor.v1.TokenService/IssueToken")
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			got := slices.Clone(c.spans)
			slices.Sort(want)
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("got the spans %q\nwant %q", got, want)
			}
			if len(c.traces) != 1 {
				t.Errorf("they are of %d traces, want one", len(c.traces))
			}
			for _, name := range []string{"rpc.server.call.duration", "grantor.token.issued", "grantor.feed.age", "db.client.operation.duration"} {
				if !c.metrics["grantor: "+name] {
					t.Errorf("the collector has no %s of grantor", name)
				}
			}
		})
	}
}

// callee runs a service that checks tokens, and gives a connection of a caller to it.
func callee(t *testing.T, r *replica, issuer string, tracers trace.TracerProvider, source *attach.Source) *grpc.ClientConn {
	t.Helper()
	verifier, err := verify.New(t.Context(), issuer, verify.Audience("https://orders.internal"), verify.Telemetry(nil, tracers),
		verify.OverGRPC(dial(t, r.ports.grpc.Addr().String())))
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

// TestSampling floods an issuer with calls that ask to be recorded: no more are than the issuer grants.
func TestSampling(t *testing.T) {
	s := sampler(0)
	ask := func(flags trace.TraceFlags, remote bool) bool {
		parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: remote})
		return s.ShouldSample(sdktrace.SamplingParameters{
			ParentContext: trace.ContextWithSpanContext(t.Context(), parent), TraceID: trace.TraceID{1},
		}).Decision == sdktrace.RecordAndSample
	}
	recorded, began := 0, time.Now()
	for range 10_000 {
		if ask(trace.FlagsSampled, true) {
			recorded++
		}
	}
	if most := remoteTraces + int(time.Since(began).Seconds()*remoteTraces) + 1; recorded < remoteTraces || recorded > most {
		t.Errorf("%d of 10,000 are recorded, want %d to %d", recorded, remoteTraces, most)
	}
	if ask(0, true) {
		t.Error("one is recorded that its caller does not record")
	}
	if !ask(trace.FlagsSampled, false) {
		t.Error("a part of a recorded trace is not recorded")
	}
}

// TestCollectorAway has tokens issued, and the server stop in time, while nobody takes the traces.
func TestCollectorAway(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // which accepts nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	r := serveDev(t, "--otlp-endpoint=http://"+listener.Addr().String(), "--trace-sampling=1")
	for range 10 {
		r.token(t)
	}
	if code, _ := get(t, "http://"+r.ports.ops.Addr().String()+"/readyz"); code != http.StatusOK {
		t.Errorf("not ready: %d", code)
	}
}
