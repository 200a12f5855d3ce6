package verify_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/metrictest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
	"github.com/grantorhq/grantor/service/tokentest"
)

// measurements are the metrics and spans of a verifier with telemetry.
type measurements struct {
	option  verify.Option
	metrics *metrictest.Registry
	spans   *tracetest.InMemoryExporter
}

// measure returns a Telemetry option that records the calls whose callers request it.
func measure(t testing.TB) *measurements {
	m := &measurements{metrics: metrictest.New(t), spans: tracetest.NewInMemoryExporter()}
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(m.spans),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	t.Cleanup(func() { _ = tracers.Shutdown(context.Background()) })
	m.option = verify.Telemetry(m.metrics.Provider, tracers)
	return m
}

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// TestTelemetryDuringNew collects the metrics while New starts to follow a feed. It is for the race detector.
func TestTelemetryDuringNew(t *testing.T) {
	signer, m := newSigner(), measure(t)
	stop := make(chan struct{})
	var collecting sync.WaitGroup
	collecting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				m.metrics.Values(t)
			}
		}
	})
	feed := &scriptedFeed{watch: func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
		send(complete)
		<-ctx.Done()
		return ctx.Err()
	}}
	verifier := newVerifier(signer, verify.OverGRPC(feed), m.option)
	close(stop)
	collecting.Wait()
	verifier.Close()
}

func TestTelemetry(t *testing.T) {
	signer, m := newSigner(), measure(t)
	verifier := newVerifier(signer, m.option)
	t.Cleanup(verifier.Close)
	server := verify.NewServer(verifier, goPolicy)
	server.RegisterService(goService, nil)
	conn := listen(t, server)
	good := must.Get(signer.Sign(claims(testIssuer, "orders.read")))
	expired := must.Get(signer.Sign(claims(testIssuer, "orders.read", func(c *token.Claims) { c.ExpiresAt = time.Now().Add(-time.Second) })))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent)
	for _, authorization := range []string{"Bearer " + good, "Bearer " + good, "Bearer " + expired, "", "Basic x"} {
		_ = conn.Invoke(metadata.AppendToOutgoingContext(ctx, "authorization", authorization), "/test.v1.Go/Read", &emptypb.Empty{}, &wrapperspb.StringValue{})
	}
	_ = conn.Invoke(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+good), "/test.v1.Go/Transfer", &emptypb.Empty{}, &wrapperspb.StringValue{})
	chat := must.Get(conn.NewStream(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+good),
		&grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.v1.Go/Chat"))
	_ = chat.SendMsg(&emptypb.Empty{})
	_ = chat.CloseSend()
	for chat.RecvMsg(&wrapperspb.StringValue{}) == nil {
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders/{id}", func(http.ResponseWriter, *http.Request) {})
	inside := verify.HTTP(verifier, verify.Scopes("orders.read"))(mux)
	outside := http.NewServeMux()
	outside.Handle("/users/{id}", verify.HTTP(verifier, verify.Authenticated())(http.NotFoundHandler()))
	for _, call := range []struct {
		handler http.Handler
		path    string
	}{{inside, "/orders/1"}, {inside, "/orders/2"}, {inside, "/else"}, {outside, "/users/1"}} {
		r := httptest.NewRequest(http.MethodGet, call.path, nil)
		r.Header.Set("Authorization", "Bearer "+good)
		r.Header.Set("Traceparent", parent)
		serve(call.handler, r)
	}
	want := map[string]float64{
		"rpc_server_call_duration_seconds rpc_method=test.v1.Go/Read rpc_response_status_code=OK rpc_system_name=grpc":                       2,
		"rpc_server_call_duration_seconds rpc_method=test.v1.Go/Read rpc_response_status_code=UNAUTHENTICATED rpc_system_name=grpc":          3,
		"rpc_server_call_duration_seconds rpc_method=test.v1.Go/Transfer rpc_response_status_code=PERMISSION_DENIED rpc_system_name=grpc":    1,
		"rpc_server_call_duration_seconds rpc_method=test.v1.Go/Chat rpc_response_status_code=OK rpc_system_name=grpc":                       1,
		"http_server_request_duration_seconds http_request_method=GET http_response_status_code=200 http_route=/orders/{id} url_scheme=http": 2,
		"http_server_request_duration_seconds http_request_method=GET http_response_status_code=404 url_scheme=http":                         1,
		"http_server_request_duration_seconds http_request_method=GET http_response_status_code=404 http_route=/users/{id} url_scheme=http":  1,
		"grantor_verify_calls_refused_total reason=expired":                                                                                  1,
		"grantor_verify_calls_refused_total reason=no_token":                                                                                 2,
		"grantor_verify_calls_refused_total reason=insufficient_scope":                                                                       1,
		"grantor_verify_cache_lookups_total result=hit":                                                                                      7,
		"grantor_verify_cache_lookups_total result=miss":                                                                                     2,
	}
	must.Eventually(t, "all calls are measured", func() bool { return len(m.metrics.Values(t)) >= len(want) && len(m.spans.GetSpans()) >= 11 })
	got := m.metrics.Values(t)
	for series, value := range want {
		if got[series] != value {
			t.Errorf("%s: got %g, want %g", series, got[series], value)
		}
		delete(got, series)
	}
	if len(got) > 0 {
		t.Errorf("also measured: %v", got)
	}
	for _, span := range m.spans.GetSpans() {
		if span.Parent.SpanID().String() != "00f067aa0ba902b7" || span.SpanKind != trace.SpanKindServer {
			t.Errorf("span %s of kind %s has parent %s", span.Name, span.SpanKind, span.Parent.SpanID())
		}
	}
}

// A verifier that follows a feed measures it until Close.
func TestTelemetryOfFeed(t *testing.T) {
	issuer, m := tokentest.New(t), measure(t)
	verifier := must.Get(verify.New(t.Context(), issuer.URL, verify.Audience(orders), verify.Now(issuer.Now), m.option))
	for _, series := range []string{
		"grantor_verify_feed_age_seconds", "grantor_verify_revocations_live", "grantor_verify_calls_stale_total",
		"grantor_verify_cache_lookups_total result=hit",
	} {
		if _, ok := m.metrics.Values(t)[series]; !ok {
			t.Errorf("%s is not measured", series)
		}
	}
	verifier.Close()
	if got := m.metrics.Values(t); len(got) > 0 {
		t.Errorf("after Close: %v", got)
	}
}

// A method without a rule is not a metric label, whatever name a caller sends to a server that accepts any.
func TestTelemetryIsBounded(t *testing.T) {
	m := measure(t)
	chain := verify.UnaryServerInterceptor(newVerifier(newSigner(), m.option), nil)
	call := func() {
		_, err := chain(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/" + rand.Text()}, nil)
		if got := outcome(err, nil); !strings.HasPrefix(got, codes.PermissionDenied.String()) {
			t.Fatalf("got %s", got)
		}
	}
	call()
	before := len(m.metrics.Values(t))
	for range 1000 {
		call()
	}
	if after := m.metrics.Values(t); len(after) != before {
		t.Errorf("%d series before, %d after", before, len(after))
	}
}

// A handler that panics is measured as a failure, and the panic goes on.
func TestTelemetryOfPanic(t *testing.T) {
	m := measure(t)
	chain := verify.UnaryServerInterceptor(newVerifier(newSigner(), m.option), verify.Policy{"/a.B/C": verify.Public()})
	func() {
		defer func() {
			if recover() != "oh" {
				t.Error("the panic is lost")
			}
		}()
		_, _ = chain(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}, func(context.Context, any) (any, error) { panic("oh") })
	}()
	name := "rpc_server_call_duration_seconds error_type=UNKNOWN rpc_method=a.B/C rpc_response_status_code=UNKNOWN rpc_system_name=grpc"
	if got := m.metrics.Values(t); got[name] != 1 {
		t.Errorf("got %v, want %s", got, name)
	}
}
