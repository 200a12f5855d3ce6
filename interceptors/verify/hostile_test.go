package verify_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// emptyMeters provides a meter that returns nothing, emptyTracers a tracer that starts nothing, and noMeters no meter.
type (
	emptyMeters  struct{ metricnoop.MeterProvider }
	emptyMeter   struct{ metricnoop.Meter }
	emptyTracers struct{ tracenoop.TracerProvider }
	emptyTracer  struct{ tracenoop.Tracer }
	noMeters     struct{ metricnoop.MeterProvider }
	// pointerMeters panics if it is nil, as the provider of the OpenTelemetry SDK does.
	pointerMeters struct {
		metricnoop.MeterProvider

		meter metric.Meter
	}
)

func (emptyMeters) Meter(string, ...metric.MeterOption) metric.Meter      { return emptyMeter{} }
func (noMeters) Meter(string, ...metric.MeterOption) metric.Meter         { return nil }
func (emptyTracers) Tracer(string, ...trace.TracerOption) trace.Tracer    { return emptyTracer{} }
func (p *pointerMeters) Meter(string, ...metric.MeterOption) metric.Meter { return p.meter }

func (emptyTracer) Start(context.Context, string, ...trace.SpanStartOption) (context.Context, trace.Span) {
	return nil, nil
}

func (emptyMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return nil, nil
}

func (emptyMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, nil
}

func (emptyMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return nil, nil
}

// A mistake in an option is an error of New, and what has a default may be nil. Nothing panics, then or in a call.
func TestFaultyOptions(t *testing.T) {
	signer := newSigner()
	raw := must.Get(signer.Sign(claims(testIssuer, "orders.read")))
	var none context.Context
	for name, test := range map[string]struct {
		option verify.Option
		want   string // the error; empty if there is none
	}{
		"nil option":         {nil, ""},
		"nil clock":          {verify.Now(nil), ""},
		"nil client":         {verify.HTTPClient(nil), ""},
		"nil hook":           {verify.OnRefusal(nil), ""},
		"nil list":           {verify.Denied(nil), ""},
		"nil TLS settings":   {verify.FeedTLS(nil), ""},
		"nil providers":      {verify.Telemetry(nil, nil), ""},
		"no meter":           {verify.Telemetry(noMeters{}, nil), ""},
		"empty providers":    {verify.Telemetry(emptyMeters{}, emptyTracers{}), ""},
		"nil *MeterProvider": {verify.Telemetry((*pointerMeters)(nil), nil), "a provider of Telemetry panicked"},
		"nil connection":     {verify.OverGRPC(nil), "OverGRPC: the connection is nil"},
		"nil *ClientConn":    {verify.OverGRPC((*grpc.ClientConn)(nil)), "OverGRPC: the connection is nil"},
		"URL of the feed":    {verify.FeedFrom("HTTPS://auth.internal:8081"), "FeedFrom: the address is a URL"},
		"no cache":           {verify.CacheSize(-1), "the size must be positive"},
		"password in a URL":  {verify.ResourceMetadata("https://a:s3cret@orders.internal/x"), `"https://orders.internal/x"`},
		"no keys":            {verify.Keys((*jwks.Set)(nil)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			verifier, err := verify.New(none, testIssuer, verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public())), test.option)
			defer verifier.Close() // a nil verifier may be closed too
			if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret")) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if err != nil {
				return
			}
			want := map[string]int{raw: http.StatusOK, "x": http.StatusUnauthorized}
			if name == "no keys" {
				want[raw] = http.StatusUnauthorized
			}
			unary := verify.UnaryServerInterceptor(verifier, verify.Policy{"/a.B/C": verify.Authenticated()})
			for sent, status := range want {
				if got := statusFor(verifier, sent); got != status {
					t.Errorf("got %d, want %d", got, status)
				}
				ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+sent))
				_, err := unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}, func(context.Context, any) (any, error) { return nil, nil })
				if (err == nil) != (status == http.StatusOK) {
					t.Errorf("got %v, want as over HTTP, %d", err, status)
				}
			}
		})
	}
}

// A verifier that was not made by New admits callers of public methods alone.
func TestNoVerifier(t *testing.T) {
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for name, verifier := range map[string]*verify.Verifier{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			verifier.Close()
			if got := verifier.Feed(); got != (verify.FeedStatus{}) {
				t.Errorf("got %+v", got)
			}
			request := httptest.NewRequest(http.MethodGet, "/", nil)
			request.Header.Set("Authorization", "Bearer a.b.c")
			if got := serve(verify.HTTP(verifier, verify.Public())(nothing), request).StatusCode; got != http.StatusOK {
				t.Errorf("public: got %d", got)
			}
			answer := serve(verify.HTTP(verifier, verify.Authenticated())(nothing), request)
			if got, want := body(answer), "server_error: The access token could not be checked."; answer.StatusCode != http.StatusInternalServerError || got != want {
				t.Errorf("got %d, %q, want 500, %q", answer.StatusCode, got, want)
			}
			server := verify.NewServer(verifier, nil)
			server.RegisterService(protoService, nil)
			verify.RegisterStreamRenewal(server, verifier)
			conn := listen(t, server)
			for _, stream := range []bool{false, true} {
				method := map[bool]string{false: "/test.v1.Proto/Any", true: "/test.v1.Proto/Chat"}[stream]
				if got := call(conn, method, stream, "Bearer a.b.c"); got != "Internal server_error" {
					t.Errorf("%s: got %s", method, got)
				}
			}
			if _, err := verify.Issuers(verifier); err == nil {
				t.Error("Issuers: no error")
			}
		})
	}
	var none context.Context
	if _, ok := verify.CallerFrom(none); ok {
		t.Error("got a caller without a context")
	}
}

// faultyConn is a connection to a feed whose first attempts fail in the program's code.
type faultyConn struct {
	scriptedFeed

	attempts atomic.Int32
	fault    func()
	inStream bool
}

func (c *faultyConn) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	c.fault()
	return nil
}

func (c *faultyConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	faulty := c.attempts.Add(1) < 3
	if faulty && !c.inStream {
		c.fault()
		return nil, faultyError{}
	}
	stream, err := c.scriptedFeed.NewStream(ctx, desc, method, opts...)
	if faulty {
		return faultyStream{stream, c.fault}, nil
	}
	return stream, err
}

type faultyStream struct {
	grpc.ClientStream

	fault func()
}

func (s faultyStream) RecvMsg(any) error { s.fault(); return faultyError{} }

// faultyError is an error whose method panics.
type faultyError struct{}

func (faultyError) Error() string { return "faulty" }
func (faultyError) Is(error) bool { panic("s3cret") }

// faults are what code of a program may do.
var faults = map[string]func(){
	"panics":             func() { panic("s3cret") },
	"panics by accident": func() { _ = []int{}[len("a")] },
	"ends its goroutine": runtime.Goexit,
}

// A connection that panics, or ends the goroutine of the feed, is an outage of the feed: it is followed again.
func TestFaultyConnection(t *testing.T) {
	all := maps.Clone(faults)
	all["returns an error that panics"] = func() {}
	for name, fault := range all {
		for _, inStream := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				signer := newSigner()
				conn := &faultyConn{fault: fault, inStream: inStream, scriptedFeed: scriptedFeed{
					watch: func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
						return sendEverySecond(ctx, send, complete, forever)
					}}}
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
					defer cancel()
					verifier := must.Get(verify.New(ctx, testIssuer, verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public())),
						verify.OverGRPC(conn), verify.RefuseWhenStale()))
					defer verifier.Close()
					raw := must.Get(signer.Sign(claims(testIssuer, "")))
					if got := statusFor(verifier, raw); got != http.StatusServiceUnavailable || verifier.Feed().StaleCalls != 1 {
						t.Errorf("got %d, %+v, want 503 and one stale call", got, verifier.Feed())
					}
					advance(time.Second)
					if got := statusFor(verifier, raw); got != http.StatusOK || !verifier.Feed().Complete {
						t.Errorf("after the fault: got %d, %+v, want 200 and a complete feed", got, verifier.Feed())
					}
				})
			})
		}
	}
}

// A clock that panics in New is an error of New.
func TestFaultyClockInNew(t *testing.T) {
	_, err := verify.New(t.Context(), testIssuer, verify.Audience(orders), verify.Now(func() time.Time { panic("s3cret") }))
	if err == nil || !strings.Contains(err.Error(), "fetching the keys panicked with a string") {
		t.Errorf("got %v, want the panic of the clock", err)
	}
}

// nilConn is a connection that panics where it is nil.
type nilConn struct{ grpc.ClientConnInterface }

// A connection or a transport that panics, or ends its goroutine, leaves the issuer's keys unknown.
func TestFaultyTransport(t *testing.T) {
	raw := must.Get(newSigner().Sign(claims(testIssuer, "")))
	options := map[string]verify.Option{
		"nil pointer":         verify.OverGRPC((*nilConn)(nil)),
		"returns nothing":     verify.HTTPClient(&http.Client{Transport: transport(func(*http.Request) (*http.Response, error) { return nil, nil })}),
		"nil *http.Transport": verify.HTTPClient(&http.Client{Transport: (*http.Transport)(nil)}),
	}
	for name, fault := range faults {
		options["a connection that "+name] = verify.OverGRPC(&faultyConn{fault: fault, attempts: atomic.Int32{}})
		options["a transport that "+name] = verify.HTTPClient(&http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			fault()
			return nil, errors.New("down")
		})})
	}
	for name, option := range options {
		t.Run(name, func(t *testing.T) {
			var reason error
			verifier := startVerifier(shortContext(t), t, testIssuer, option, verify.OnRefusal(func(_ context.Context, _ string, err error) { reason = err }))
			for range 2 {
				if got := statusFor(verifier, raw); got != http.StatusServiceUnavailable || !errors.Is(reason, token.ErrNoKeys) || strings.Contains(reason.Error(), "s3cret") {
					t.Errorf("got %d, %v, want 503 for want of keys", got, reason)
				}
			}
			if got := verifier.Feed(); !got.Followed || got.Complete {
				t.Errorf("the feed: got %+v, want an outage", got)
			}
		})
	}
}

// faultyKeys is a source of keys that panics.
type faultyKeys struct{ *jwks.Set }

func (faultyKeys) Trusts(jwks.Key) bool { panic("s3cret") }

// A call that cannot be checked since the clock or the source of keys panics is refused, and a stream ends.
func TestFaultyClock(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			var reasons []error
			now := func() time.Time {
				if broken.Load() {
					fault()
				}
				return time.Now()
			}
			feed := &scriptedFeed{watch: func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
				return sendEverySecond(ctx, send, complete, forever)
			}}
			runInBubble(t, feed, func(t *testing.T, verifier *verify.Verifier, own *token.Signer) {
				raw := must.Get(own.Sign(claims(testIssuer, "orders.read")))
				ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+raw))
				ended := make(chan error, 1)
				go func() {
					ended <- verify.StreamInterceptor(verifier, nil)(nil, fakeServerStream{ctx: ctx},
						&grpc.StreamServerInfo{FullMethod: "/test.v1.Proto/Chat"},
						func(_ any, stream grpc.ServerStream) error { <-stream.Context().Done(); return nil })
				}()
				advance(time.Second)
				broken.Store(true)
				advance(time.Second)
				if got := status.Code(<-ended); got != codes.Internal {
					t.Errorf("the stream: got %v, want INTERNAL", got)
				}
				if name != "ends its goroutine" { // in a call, that is the goroutine of the server
					if got := statusFor(verifier, raw); got != http.StatusInternalServerError {
						t.Errorf("got %d, want 500", got)
					}
				}
				advance(2 * time.Minute) // the list is swept once a minute
				broken.Store(false)
				if got := statusFor(verifier, raw); got != http.StatusOK {
					t.Errorf("after the fault: got %d, want 200", got)
				}
			}, verify.Now(now), verify.OnRefusal(func(_ context.Context, _ string, err error) { reasons = append(reasons, err) }))
			for _, reason := range reasons {
				if !errors.Is(reason, verify.ErrFault) || verify.Reason(reason) != "fault" || strings.Contains(reason.Error(), "s3cret") {
					t.Errorf("OnRefusal: got %v, want %v", reason, verify.ErrFault)
				}
			}
			if len(reasons) == 0 {
				t.Error("OnRefusal was not called")
			}
		})
	}
	signer := newSigner()
	raw := must.Get(signer.Sign(claims(testIssuer, "orders.read")))
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+raw))
	verifier := newVerifier(signer, verify.Keys(faultyKeys{jwks.NewSet(signer.Public())}))
	unary := verify.UnaryServerInterceptor(verifier, nil)
	for i := range 2 { // the second token is a cached one
		_, err := unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/test.v1.Proto/Read"}, func(context.Context, any) (any, error) { return nil, nil })
		if got := outcome(err, nil); i == 1 && got != "Internal server_error" {
			t.Errorf("got %s, want INTERNAL", got)
		}
	}
}

// panickingHandler is a logger that panics.
type panickingHandler struct{ slog.Handler }

func (panickingHandler) Handle(context.Context, slog.Record) error { panic("oh") }

// A hook or a logger that panics changes nothing for the caller.
func TestFaultyHook(t *testing.T) {
	before := slog.Default()
	defer slog.SetDefault(before)
	var log bytes.Buffer
	verifier := newVerifier(newSigner(), verify.OnRefusal(func(context.Context, string, error) { panic("s3cret") }))
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), panickingHandler{slog.NewTextHandler(&log, nil)}} {
		slog.SetDefault(slog.New(handler))
		if got := statusFor(verifier, "x"); got != http.StatusUnauthorized {
			t.Errorf("got %d, want 401", got)
		}
	}
	if got := log.String(); strings.Count(got, "the function of OnRefusal panicked") != 1 || strings.Contains(got, "s3cret") {
		t.Errorf("got the log %q, want the panic without its value", got)
	}
}
