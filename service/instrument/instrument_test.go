package instrument_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/instrument"
	"github.com/grantorhq/grantor/service/must"
)

// recorder is a meter and a tracer whose records can be read.
type recorder struct {
	metric.Meter
	trace.Tracer
	reader *sdkmetric.ManualReader
	spans  *tracetest.InMemoryExporter
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	s := &recorder{reader: sdkmetric.NewManualReader(), spans: tracetest.NewInMemoryExporter()}
	s.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(s.reader)).Meter("")
	s.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.spans)).Tracer("")
	return s
}

// series returns the counts of the histograms, keyed by "name attributes".
func (s *recorder) series(t *testing.T) map[string]uint64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := s.reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]uint64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			for _, point := range m.Data.(metricdata.Histogram[float64]).DataPoints {
				var name strings.Builder
				name.WriteString(m.Name)
				for _, a := range point.Attributes.ToSlice() {
					fmt.Fprintf(&name, " %s=%s", a.Key, a.Value.AsString())
					if a.Value.AsString() == "" {
						fmt.Fprint(&name, a.Value.AsInt64())
					}
				}
				counts[name.String()] = point.Count
			}
		}
	}
	return counts
}

// TestRPC checks which statuses count as errors: a mistake of the caller does to a client, but not to a server.
func TestRPC(t *testing.T) {
	s := newRecorder(t)
	server, client := must.Get(instrument.NewRPCServer(s, s)), must.Get(instrument.NewRPCClient(s, s))
	for _, rpc := range []*instrument.RPC{server, client} {
		for _, err := range []error{nil, status.Error(grpccodes.NotFound, ""), errors.New("no status"), status.Error(99, "")} {
			_, call := rpc.Start(t.Context(), "/a.B/C", true)
			call.End(err)
		}
	}
	_, call := server.Start(t.Context(), "/any/thing", false)
	call.End(nil)
	want := map[string]uint64{
		"rpc.server.call.duration rpc.method=a.B/C rpc.response.status_code=OK rpc.system.name=grpc":                             1,
		"rpc.server.call.duration rpc.method=a.B/C rpc.response.status_code=NOT_FOUND rpc.system.name=grpc":                      1,
		"rpc.server.call.duration error.type=UNKNOWN rpc.method=a.B/C rpc.response.status_code=UNKNOWN rpc.system.name=grpc":     2,
		"rpc.server.call.duration rpc.method=_OTHER rpc.response.status_code=OK rpc.system.name=grpc":                            1,
		"rpc.client.call.duration rpc.method=a.B/C rpc.response.status_code=OK rpc.system.name=grpc":                             1,
		"rpc.client.call.duration error.type=NOT_FOUND rpc.method=a.B/C rpc.response.status_code=NOT_FOUND rpc.system.name=grpc": 1,
		"rpc.client.call.duration error.type=UNKNOWN rpc.method=a.B/C rpc.response.status_code=UNKNOWN rpc.system.name=grpc":     2,
	}
	got := s.series(t)
	for name, count := range want {
		if got[name] != count {
			t.Errorf("%s: got %d, want %d", name, got[name], count)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	failed := 0
	for _, span := range s.spans.GetSpans() {
		if span.Status.Code == codes.Error {
			failed++
		}
	}
	if failed != 2+3 {
		t.Errorf("%d spans are errors, want 5", failed)
	}
}

// TestHTTP checks the attributes of requests to a server.
func TestHTTP(t *testing.T) {
	s := newRecorder(t)
	h := must.Get(instrument.NewHTTPServer(s, s)).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/early":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusTeapot)
		case "/panic":
			panic(http.ErrAbortHandler)
		}
	}), func(r *http.Request) string { return r.URL.Path })
	for _, call := range []struct{ method, path string }{{"GET", "/"}, {"BREW", "/"}, {"GET", "/early"}, {"POST", "/panic"}} {
		func() {
			defer func() { _ = recover() }()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(call.method, call.path, nil))
		}()
	}
	got := s.series(t)
	for _, name := range []string{
		"http.server.request.duration http.request.method=GET http.response.status_code=200 http.route=/ url.scheme=http",
		"http.server.request.duration http.request.method=_OTHER http.response.status_code=200 http.route=/ url.scheme=http",
		"http.server.request.duration http.request.method=GET http.response.status_code=418 http.route=/early url.scheme=http",
		"http.server.request.duration error.type=500 http.request.method=POST http.response.status_code=500 http.route=/panic url.scheme=http",
	} {
		if got[name] != 1 {
			t.Errorf("%s: got %d, want 1", name, got[name])
		}
	}
	if len(got) != 4 {
		t.Errorf("got %v", got)
	}
}

// TestRoundTrip checks that the server gets the span of a request, whether the request fails or not, and that the
// request itself is not changed.
func TestRoundTrip(t *testing.T) {
	s := newRecorder(t)
	h := must.Get(instrument.NewHTTPClient(s, s))
	request := httptest.NewRequest(http.MethodGet, "https://a.internal/path", nil)
	request.Header = nil
	for _, err := range []error{nil, errors.New("unreachable")} {
		_, _ = h.RoundTrip(request, func(r *http.Request) (*http.Response, error) {
			if r.Header.Get("Traceparent") == "" {
				t.Error("got no Traceparent in the request")
			}
			return &http.Response{StatusCode: http.StatusOK}, err
		})
	}
	if request.Header != nil {
		t.Error("the request was changed")
	}
	got := s.series(t)
	for _, name := range []string{
		"http.client.request.duration http.request.method=GET http.response.status_code=200 server.address=a.internal server.port=443 url.scheme=https",
		"http.client.request.duration error.type=_OTHER http.request.method=GET server.address=a.internal server.port=443 url.scheme=https",
	} {
		if got[name] != 1 {
			t.Errorf("%s: got %d, want 1; all: %v", name, got[name], got)
		}
	}
}

// emptyMeter and emptyTracer return nothing.
type (
	emptyMeter  struct{ noop.Meter }
	emptyTracer struct{ tracenoop.Tracer }
)

func (emptyMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, errors.New("no histogram")
}

func (emptyTracer) Start(context.Context, string, ...trace.SpanStartOption) (context.Context, trace.Span) {
	return nil, nil
}

// TestFaultyProviders checks that a meter and a tracer that return nothing stop no call, nor does a transport that does.
func TestFaultyProviders(t *testing.T) {
	clientRPC, errClientRPC := instrument.NewRPCClient(emptyMeter{}, emptyTracer{})
	serverRPC, errServerRPC := instrument.NewRPCServer(emptyMeter{}, emptyTracer{})
	client, errClient := instrument.NewHTTPClient(emptyMeter{}, emptyTracer{})
	server, errServer := instrument.NewHTTPServer(emptyMeter{}, emptyTracer{})
	for _, err := range []error{errClientRPC, errServerRPC, errClient, errServer} {
		if err == nil {
			t.Error("the error of the meter is lost")
		}
	}
	for _, rpc := range []*instrument.RPC{clientRPC, serverRPC} {
		ctx, call := rpc.Start(t.Context(), "/a.B/C", true)
		if ctx == nil {
			t.Error("got no context")
		}
		call.End(status.Error(1<<32-1, ""))
	}
	served := false
	server.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true }), func(*http.Request) string { return "" }).
		ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	answer, err := client.RoundTrip(httptest.NewRequest(http.MethodGet, "https://a.internal", nil), func(*http.Request) (*http.Response, error) { return nil, nil })
	if !served || answer != nil || err != nil {
		t.Errorf("got %v, %v, %v, want what the handler and the transport do", served, answer, err)
	}
}

// FuzzTraceContext sends arbitrary trace contexts to a server.
func FuzzTraceContext(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=value")
	f.Add("00-00000000000000000000000000000000-0000000000000000-01", strings.Repeat("a=b,", 200))
	server := must.Get(instrument.NewRPCServer(nil, sdktrace.NewTracerProvider().Tracer("")))
	f.Fuzz(func(t *testing.T, parent, state string) {
		ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("traceparent", parent, "tracestate", state))
		ctx, call := server.Start(ctx, "/a.B/C", true)
		call.End(nil)
		span := trace.SpanContextFromContext(ctx)
		if !span.IsValid() || len(span.TraceState().String()) > 512 {
			t.Errorf("got %v with a state of %d bytes", span, len(span.TraceState().String()))
		}
	})
}
