package attach

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"
	"weak"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/service/instrument"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/recovery"
)

// scope is the name of the instrumentation scope.
const scope = "github.com/grantorhq/grantor/interceptors/attach"

// Telemetry records metrics and spans of the calls that carry the source's token, over gRPC and HTTP, and of the token
// requests:
//
//	rpc.client.call.duration      histogram, s  by method and status code (OpenTelemetry semantic conventions)
//	http.client.request.duration  histogram, s  by method, server and status, up to the response header
//	grantor.attach.token.requests counter       by client_id and result: issued, an OAuth error, unavailable, misuse
//	grantor.attach.token.remaining gauge, s     by client_id: time until the token expires, negative after its expiry
//
// Each call is a span and propagates its trace context to the server (W3C Trace Context); a call that is repeated
// counts twice. A token request belongs to the trace of the call that needed the token. Metrics and spans contain no
// token, secret or path. A nil provider disables metrics or spans, respectively.
func Telemetry(meters metric.MeterProvider, tracers trace.TracerProvider) Option {
	return func(c *config) {
		made, err := recovery.Call("a provider of Telemetry", func() (*instruments, error) { return newInstruments(meters, tracers), nil })
		reportError(err)
		c.instruments = made
	}
}

// instruments are the metrics and tracers of a source.
type instruments struct {
	rpc      *instrument.RPC
	http     *instrument.HTTP
	meter    metric.Meter
	requests metric.Int64Counter
}

func newInstruments(meters metric.MeterProvider, tracers trace.TracerProvider) *instruments {
	var tracer trace.Tracer
	if tracers != nil {
		tracer = tracers.Tracer(scope)
	}
	if meters == nil {
		meters = noop.NewMeterProvider()
	}
	i := &instruments{meter: cmp.Or(meters.Meter(scope), noop.NewMeterProvider().Meter(scope))}
	var errs [3]error
	i.rpc, errs[0] = instrument.NewRPCClient(i.meter, tracer)
	i.http, errs[1] = instrument.NewHTTPClient(i.meter, tracer)
	requests, err := i.meter.Int64Counter("grantor.attach.token.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Requests for a token, by client and result."))
	i.requests, errs[2] = cmp.Or[metric.Int64Counter](requests, noop.Int64Counter{}), err // a provider may return nothing
	reportError(errors.Join(errs[:]...))
	return i
}

// reportError passes err to OpenTelemetry's error handler: no call fails because it cannot be measured. The handler is code
// of the program; if it panics, the error is lost.
func reportError(err error) {
	if err != nil {
		_ = recovery.Do("the error handler of OpenTelemetry", func() { otel.Handle(err) })
	}
}

// observe registers the gauge of the token's remaining validity. The gauge does not keep the source alive and ends with
// it.
func (i *instruments) observe(s *Source) {
	reportError(recovery.Do("a provider of Telemetry", func() { i.register(s) }))
}

func (i *instruments) register(s *Source) {
	remaining, err := i.meter.Float64ObservableGauge("grantor.attach.token.remaining", metric.WithUnit("s"),
		metric.WithDescription("Time until the token expires."))
	if reportError(err); err != nil || remaining == nil {
		return
	}
	source, client := weak.Make(s), metric.WithAttributes(attribute.String("client_id", s.name))
	registration, err := i.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		if s := source.Value(); s != nil {
			if e := s.held(); e != nil {
				o.ObserveFloat64(remaining, time.Until(e.expiresAt).Seconds(), client)
			}
		}
		return nil
	}, remaining)
	if reportError(err); registration == nil {
		return // nothing to end
	}
	runtime.AddCleanup(s, func(r metric.Registration) {
		// The program cannot recover in the goroutine of the cleanup.
		_ = recovery.Do("a provider of Telemetry", func() { _ = r.Unregister() })
	}, registration)
}

// countRequest counts a token request.
func (i *instruments) countRequest(ctx context.Context, client string, err error) {
	reportError(recovery.Do("a counter of Telemetry", func() {
		i.requests.Add(ctx, 1, metric.WithAttributes(attribute.String("client_id", client), attribute.String("result", result(err))))
	}))
}

// result returns the label of a token request's result.
func result(err error) string {
	failure := (*Error)(nil)
	switch {
	case !errors.As(err, &failure):
		return "issued"
	case failure.Code != "":
		return label(failure.Code)
	case failure.statusCode() == codes.Unavailable:
		return "unavailable"
	}
	return "misuse"
}

// otherCode is the label of every code that this package does not know. Labels are not taken from the issuer.
const otherCode = "other"

// label returns the label of an OAuth error code.
func label(code oauth.Code) string {
	switch code {
	case oauth.InvalidRequest, oauth.InvalidClient, oauth.UnauthorizedClient, oauth.UnsupportedGrantType, oauth.InvalidScope,
		oauth.InvalidTarget, oauth.InvalidDPoPProof, oauth.UseDPoPNonce, oauth.TemporarilyUnavailable, oauth.ServerError, accessDenied:
		return string(code)
	}
	return otherCode
}

// detached returns a context for a token request. It has the span of the call that needed the token, but is never
// cancelled.
func detached(ctx context.Context) context.Context {
	return trace.ContextWithSpan(context.Background(), trace.SpanFromContext(ctx))
}

// unary measures each attempt of a call.
func (i *instruments) unary(invoke grpc.UnaryInvoker) grpc.UnaryInvoker {
	return func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
		ctx, call := i.rpc.Start(ctx, method, isStatic(opts))
		err := invoke(ctx, method, request, reply, cc, opts...)
		call.End(err)
		return err
	}
}

// stream measures each attempt of a stream, until the stream ends.
func (i *instruments) stream(open grpc.Streamer) grpc.Streamer {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		ctx, call := i.rpc.Start(ctx, method, isStatic(opts))
		var once sync.Once
		end := func(err error) { once.Do(func() { call.End(err) }) }
		opened, err := open(ctx, desc, cc, method, append(slices.Clip(opts), grpc.OnFinish(end))...)
		if err != nil {
			end(err)
		}
		return opened, err
	}
}

// isStatic reports whether the method is one of generated code, and therefore one of a fixed set.
func isStatic(opts []grpc.CallOption) bool {
	return slices.ContainsFunc(opts, func(o grpc.CallOption) bool {
		_, ok := o.(grpc.StaticMethodCallOption)
		return ok
	})
}

// roundTripper returns a transport that measures the requests sent over base.
func (i *instruments) roundTripper(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return measuredTransport{i, base}
}

type measuredTransport struct {
	instruments *instruments
	base        http.RoundTripper
}

// CloseIdleConnections closes those of the base transport.
func (m measuredTransport) CloseIdleConnections() {
	(&http.Client{Transport: m.base}).CloseIdleConnections()
}

// RoundTrip implements [http.RoundTripper].
func (m measuredTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return m.instruments.http.RoundTrip(r, func(r *http.Request) (*http.Response, error) {
		return roundTrip(m.base, r)
	})
}
