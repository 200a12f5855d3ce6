package attach_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/metrictest"
)

// measurements are the metrics and spans of a source with telemetry.
type measurements struct {
	option  attach.Option
	metrics *metrictest.Registry
	spans   *tracetest.InMemoryExporter
	tracers trace.TracerProvider
}

// measure returns a Telemetry option that records the given share of traces.
func measure(t testing.TB, share float64) *measurements {
	t.Helper()
	m := &measurements{metrics: metrictest.New(t), spans: tracetest.NewInMemoryExporter()}
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(m.spans),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(share))))
	t.Cleanup(func() { _ = tracers.Shutdown(context.Background()) })
	m.option, m.tracers = attach.Telemetry(m.metrics.Provider, tracers), tracers
	return m
}

// values maps "name label=value …", without the address of a server, to the value, or to the count of a histogram.
func (m *measurements) values(t *testing.T) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for series, value := range m.metrics.Values(t) {
		values[serverLabel.ReplaceAllString(series, "")] += value
	}
	return values
}

var serverLabel = regexp.MustCompile(` server_(address|port)=\S*`)

// A call, a stream, an HTTP request and the token requests are all measured and belong to the caller's trace.
func TestTelemetry(t *testing.T) {
	m := measure(t, 1)
	issuer := &grantor{}
	source := attach.ClientCredentials("", "billing", "s3cret", attach.OverGRPC(tokenService(t, issuer)), m.option)
	server := &orders{}
	var parents []string
	recordParent := grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		parents = append(parents, metadata.ValueFromIncomingContext(ctx, "traceparent")...)
		return handler(ctx, request)
	})
	conn := dial(t, server.serve(t, recordParent), attach.DialOptions(source, plaintext)...)
	client := testgrpc.NewTestServiceClient(conn)
	ctx, caller := m.tracers.Tracer("test").Start(t.Context(), "caller")
	if _, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{Payload: hello}); err != nil {
		t.Fatal(err)
	}
	stream, err := client.StreamingOutputCall(ctx, &testgrpc.StreamingOutputCallRequest{Payload: hello})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	// A method name that does not come from generated code may be arbitrary, as in a proxy.
	_ = conn.Invoke(ctx, "/anything/at-all", &emptypb.Empty{}, &emptypb.Empty{})
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		parents = append(parents, r.Header.Get("Traceparent"))
	}))
	t.Cleanup(web.Close)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, web.URL+"/secret/path", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: source.Transport(newTransport(t))}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	caller.End()
	source.Drop("over-grpc")
	issuer.err = status.Error(codes.Unavailable, "away")
	_, _ = source.TokenContext(ctx)
	want := map[string]float64{
		"rpc_client_call_duration_seconds rpc_method=grpc.testing.TestService/UnaryCall rpc_response_status_code=OK rpc_system_name=grpc":                                 1,
		"rpc_client_call_duration_seconds rpc_method=grpc.testing.TestService/StreamingOutputCall rpc_response_status_code=OK rpc_system_name=grpc":                       1,
		"rpc_client_call_duration_seconds error_type=UNIMPLEMENTED rpc_method=_OTHER rpc_response_status_code=UNIMPLEMENTED rpc_system_name=grpc":                         1,
		"rpc_client_call_duration_seconds rpc_method=grantor.v1.TokenService/IssueToken rpc_response_status_code=OK rpc_system_name=grpc":                                 1,
		"rpc_client_call_duration_seconds error_type=UNAVAILABLE rpc_method=grantor.v1.TokenService/IssueToken rpc_response_status_code=UNAVAILABLE rpc_system_name=grpc": 1,
		"http_client_request_duration_seconds http_request_method=GET http_response_status_code=200 url_scheme=http":                                                      1,
		"grantor_attach_token_requests_total client_id=billing result=issued":                                                                                             1,
		"grantor_attach_token_requests_total client_id=billing result=unavailable":                                                                                        1,
	}
	got := m.values(t)
	if remaining := got["grantor_attach_token_remaining_seconds client_id=billing"]; remaining <= 0 || remaining > 60 {
		t.Errorf("the token is valid for %g s, want up to a minute", remaining)
	}
	delete(got, "grantor_attach_token_remaining_seconds client_id=billing")
	for series, value := range want {
		if got[series] != value {
			t.Errorf("%s: got %g, want %g", series, got[series], value)
		}
		delete(got, series)
	}
	if len(got) > 0 {
		t.Errorf("also measured: %v", got)
	}
	spans := m.spans.GetSpans()
	if len(spans) != 7 { // including the caller's
		t.Errorf("%d spans, want 7", len(spans))
	}
	ids := make(map[string]bool)
	for _, span := range spans {
		if span.SpanContext.TraceID() != caller.SpanContext().TraceID() {
			t.Errorf("%s is of another trace than the caller's", span.Name)
		}
		ids["00-"+span.SpanContext.TraceID().String()+"-"+span.SpanContext.SpanID().String()+"-01"] = true
	}
	if len(parents) != 2 || !ids[parents[0]] || !ids[parents[1]] {
		t.Errorf("the servers received traceparents %q", parents)
	}
}

// An issuer cannot create metric series.
func TestTelemetryIsBounded(t *testing.T) {
	m := measure(t, 1)
	server := newTokenServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"` + time.Now().Format("150405.000000000") + `"}`))
	})
	source := attach.ClientCredentials("", "billing", "s3cret", attach.TokenURL(server.URL+"/connect/token"), m.option)
	for range 3 {
		_, _ = attach.Issue(t.Context(), source)
		_, _ = source.Token()
	}
	got := m.values(t)
	if len(got) != 2 || got["grantor_attach_token_requests_total client_id=billing result=other"] == 0 {
		t.Errorf("got %v, want one kind of refusal and the requests over HTTP", got)
	}
}

// A source that is no longer referenced is not kept alive by its metrics.
func TestTelemetryKeepsNoSource(t *testing.T) {
	m := measure(t, 1)
	const name = "grantor_attach_token_remaining_seconds client_id=billing"
	func() {
		source := attach.ClientCredentials("", "billing", "s3cret", attach.OverGRPC(tokenService(t, &grantor{})), m.option)
		if _, err := source.Token(); err != nil {
			t.Fatal(err)
		}
		if _, ok := m.values(t)[name]; !ok {
			t.Fatalf("%s is not measured", name)
		}
		runtime.KeepAlive(source)
	}()
	deadline := time.Now().Add(30 * time.Second)
	for _, ok := m.values(t)[name]; ok; _, ok = m.values(t)[name] {
		if time.Now().After(deadline) {
			t.Fatal("the token is still measured")
		}
		runtime.GC()
	}
}
