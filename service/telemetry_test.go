package service_test

import (
	"context"
	"crypto/rand"
	"flag"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/metrictest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/rest"
)

// newMeter returns a meter, preceded by the registry of its metrics.
func newMeter(t testing.TB) (*metrictest.Registry, metric.Meter) {
	t.Helper()
	registry := metrictest.New(t)
	return registry, registry.Provider.Meter("test")
}

// newTracer returns a tracer that records a share of the traces, preceded by what it has recorded.
func newTracer(t testing.TB, share float64) (*tracetest.InMemoryExporter, trace.Tracer) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(share))))
	t.Cleanup(func() { must.Succeed(t, provider.Shutdown(context.Background())) })
	return spans, provider.Tracer("test")
}

// TestLossIsCounted deletes the data of the Redis under a running replica.
func TestLossIsCounted(t *testing.T) {
	c := newCluster(t)
	metrics, meter := newMeter(t)
	c.meter = meter
	r := c.start(t)
	must.Succeed(t, r.CatchUp(t.Context()))
	c.redis.Kill()
	c.redis.Wipe()
	c.redis.Start()
	must.Eventually(t, "the loss is counted", func() bool { return metrics.Values(t)["grantor_store_lost_total"] == 1 })
}

// direct calls the methods of a service in process, through its middleware.
type direct struct {
	chain   grpc.UnaryServerInterceptor
	methods map[string]grpc.MethodHandler
	service map[string]any
}

func newDirect(s *service.Service) *direct {
	d := &direct{s.UnaryInterceptor(), make(map[string]grpc.MethodHandler), make(map[string]any)}
	s.Register(d)
	return d
}

func (d *direct) RegisterService(desc *grpc.ServiceDesc, service any) {
	for _, m := range desc.Methods {
		name := "/" + desc.ServiceName + "/" + m.MethodName
		d.methods[name], d.service[name] = m.Handler, service
	}
}

func (d *direct) call(ctx context.Context, method string, request proto.Message) (any, error) {
	return d.methods[method](d.service[method], ctx, func(into any) error {
		proto.Merge(into.(proto.Message), request)
		return nil
	}, d.chain)
}

func (d *direct) issue(ctx context.Context, m *grantorv1.IssueTokenRequest) error {
	_, err := d.call(ctx, grantorv1.TokenService_IssueToken_FullMethodName, m)
	return err
}

// clientless is a store without clients.
type clientless struct{ *redisstore.Store }

func (clientless) Client(context.Context, oauth.ClientID) (*registry.Client, error) {
	return nil, registry.ErrNotFound
}

// callers is the number of callers in TestSeriesAreBounded. make test also runs it with a million, without the race
// detector.
var callers = flag.Int("callers", 20_000, "number of callers in the test of the metrics")

// TestSeriesAreBounded has callers send values that no other has sent: each of them a client ID, every hundredth also a
// method, a path, a scope and a trace. The metrics have as many series afterwards as before.
func TestSeriesAreBounded(t *testing.T) {
	c := newCluster(t)
	metrics, meter := newMeter(t)
	store := c.open(t)
	s, err := service.New(t.Context(), service.Config{
		Issuer: must.Get(oauth.ParseIssuer("https://issuer.test")), Store: clientless{store}, Sealer: c.sealer,
		Log: slog.New(slog.DiscardHandler), Meter: meter, Algorithms: []jwks.Algorithm{jwks.ES256}, AccessTokenLifetime: time.Hour,
		KeyRotation: 30 * 24 * time.Hour, JWKSMaxAge: time.Minute, MaxStaleness: time.Hour, CachedClients: 100, CachedTokens: 100,
	})
	must.Succeed(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	must.Succeed(t, s.CatchUp(t.Context()))
	name := must.Get(oauth.ParseIssuer("https://issuer.test"))
	d, handler := newDirect(s), s.MeasureHTTP(must.Get(rest.New(t.Context(), name, s)), rest.Route(name))
	caller := func(name string, everything bool) {
		request := &grantorv1.IssueTokenRequest{GrantType: oauth.GrantClientCredentials, ClientId: name, ClientSecret: secret}
		if !everything {
			expectCode(t, d.issue(ctx, request), codes.Unauthenticated)
			return
		}
		request.GrantType, request.Scope = name, name
		expectCode(t, d.issue(ctx, request), codes.InvalidArgument)
		r := httptest.NewRequest(http.MethodPost, "/"+name, strings.NewReader("grant_type="+name))
		r.Method = name
		r.Header.Set("Traceparent", name)
		handler.ServeHTTP(httptest.NewRecorder(), r)
		_, _ = d.chain(ctx, request, &grpc.UnaryServerInfo{FullMethod: "/" + name + "/" + name},
			func(context.Context, any) (any, error) { return nil, nil })
	}
	for range 100 { // from here on every kind of series exists
		caller(rand.Text(), false)
		caller(rand.Text(), true)
	}
	before := slices.Sorted(maps.Keys(metrics.Values(t)))
	var all sync.WaitGroup
	const workers = 4
	for range workers {
		all.Go(func() {
			for i := range *callers / workers {
				caller(rand.Text(), i%100 == 0)
			}
		})
	}
	all.Wait()
	after := slices.Sorted(maps.Keys(metrics.Values(t)))
	if !slices.Equal(before, after) {
		t.Errorf("%d series before %d callers, %d after", len(before), *callers, len(after))
	}
	if len(before) < 25 {
		t.Errorf("only %d series: %v", len(before), before)
	}
}

// TestCallIsTraced checks that the spans of a call, and of what is slow within it, are children of the caller's span.
func TestCallIsTraced(t *testing.T) {
	c := newCluster(t)
	spans, tracer := newTracer(t, 0) // nothing but what the caller records
	c.tracer = tracer
	r := c.start(t)
	m := manifest()
	m.Clients[0].Secret = "chosen by a person"
	r.apply(t, m)
	request := &grantorv1.IssueTokenRequest{GrantType: oauth.GrantClientCredentials, ClientId: "svc", ClientSecret: "chosen by a person"}
	const traceID, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, c := range []struct {
		name   string
		header []string
		want   []string
	}{
		{"a caller that records", []string{"traceparent", "00-" + traceID + "-" + caller + "-01"}, []string{"argon2id", "grantor.v1.TokenService/IssueToken"}},
		{"the same, remembered", []string{"traceparent", "00-" + traceID + "-" + caller + "-01"}, []string{"grantor.v1.TokenService/IssueToken"}},
		{"a caller that does not record", []string{"traceparent", "00-" + traceID + "-" + caller + "-00"}, nil},
		{"no caller", nil, nil},
		{"two callers", []string{"traceparent", "00-" + traceID + "-" + caller + "-01", "traceparent", "00-" + traceID + "-" + caller + "-01"}, nil},
		{"malformed", []string{"traceparent", strings.Repeat("0", 4000)}, nil},
	} {
		spans.Reset()
		ctx := metadata.AppendToOutgoingContext(t.Context(), c.header...)
		if _, err := r.tokens.IssueToken(ctx, request); err != nil {
			t.Fatal(err)
		}
		// The answer may come before the span has ended.
		must.Eventually(t, c.name, func() bool { return len(spans.GetSpans()) >= len(c.want) })
		var names []string
		for _, span := range spans.GetSpans() {
			names = append(names, span.Name)
			if span.SpanContext.TraceID().String() != traceID {
				t.Errorf("%s: %s belongs to another trace", c.name, span.Name)
			}
			if call := span.SpanKind == trace.SpanKindServer; call && span.Parent.SpanID().String() != caller {
				t.Errorf("%s: %s is not a child of the caller's span", c.name, span.Name)
			}
		}
		if slices.Sort(names); !slices.Equal(names, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, names, c.want)
		}
	}
}

// BenchmarkTelemetry issues tokens through the middleware: without metrics and traces, with metrics as in production, and
// with traces of a hundredth of the calls as well. The three take turns, so that a busy moment affects all of them. Costs
// are reported in percent of the first.
func BenchmarkTelemetry(b *testing.B) {
	c := newCluster(b)
	c.log = io.Discard // the audit events are written, as in production, but not kept
	_, meter := newMeter(b)
	_, tracer := newTracer(b, .01)
	replicas := []*replica{c.start(b)}
	c.meter = meter
	replicas = append(replicas, c.start(b))
	_, c.meter = newMeter(b)
	c.tracer = tracer
	replicas = append(replicas, c.start(b))
	replicas[0].apply(b, manifest())
	request := &grantorv1.IssueTokenRequest{GrantType: oauth.GrantClientCredentials, ClientId: "svc", ClientSecret: secret}
	for _, wire := range []string{"in process", "gRPC"} {
		b.Run(wire, func(b *testing.B) {
			var issue []func() error
			for _, r := range replicas {
				d := newDirect(r.Service)
				issue = append(issue, func() error { return d.issue(b.Context(), request) })
				if wire == "gRPC" {
					issue[len(issue)-1] = func() error { _, err := r.issue(b.Context()); return err }
				}
			}
			var took [3]time.Duration
			for turn := 0; b.Loop(); turn++ {
				for i := range issue {
					i = (i + turn) % len(issue) // the order makes a difference too
					start := time.Now()
					must.Succeed(b, issue[i]())
					took[i] += time.Since(start)
				}
			}
			b.ReportMetric(float64(took[0].Nanoseconds())/float64(b.N), "ns/token")
			b.ReportMetric(100*float64(took[1]-took[0])/float64(took[0]), "%metrics")
			b.ReportMetric(100*float64(took[2]-took[0])/float64(took[0]), "%traced")
		})
	}
}
