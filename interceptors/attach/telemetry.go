package attach

import (
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
)

// scope names what measures.
const scope = "github.com/grantorhq/grantor/interceptors/attach"

// Telemetry measures and traces the calls that carry the source's token, over gRPC and HTTP, and the requests for it:
//
//	rpc.client.call.duration      histogram, s  by method and status code, as OpenTelemetry's conventions have it
//	http.client.request.duration  histogram, s  by method, server and status, up to the head of the answer
//	grantor.attach.token.requests counter       by client_id and result: issued, an OAuth error, unavailable, misuse
//	grantor.attach.token.remaining gauge, s     by client_id: time until the token expires, below zero where it has
//
// Each call is a span, and names itself to the server (W3C Trace Context); one that is made once more counts twice. A
// request for a token follows the call that needed it. No token, secret or path is in a metric or a span. A nil provider
// stands for nothing of its kind.
func Telemetry(meters metric.MeterProvider, tracers trace.TracerProvider) Option {
	return func(c *config) { c.instruments = newInstruments(meters, tracers) }
}

// instruments are what a source measures with.
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
	i := &instruments{meter: meters.Meter(scope)}
	var errs [3]error
	i.rpc, errs[0] = instrument.NewRPCClient(i.meter, tracer)
	i.http, errs[1] = instrument.NewHTTPClient(i.meter, tracer)
	i.requests, errs[2] = i.meter.Int64Counter("grantor.attach.token.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Requests for a token, by client and result."))
	handle(errors.Join(errs[:]...))
	return i
}

// handle tells whoever set up OpenTelemetry of its error: no call fails because it is not measured.
func handle(err error) {
	if err != nil {
		otel.Handle(err)
	}
}

// observe publishes how long the source's token is still valid, for as long as anybody has the source.
func (i *instruments) observe(s *Source) {
	remaining, err := i.meter.Float64ObservableGauge("grantor.attach.token.remaining", metric.WithUnit("s"),
		metric.WithDescription("Time until the token expires."))
	handle(err)
	source, client := weak.Make(s), metric.WithAttributes(attribute.String("client_id", s.name))
	registration, err := i.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		if s := source.Value(); s != nil {
			if e := s.cached.Load(); e != nil {
				o.ObserveFloat64(remaining, time.Until(e.end).Seconds(), client)
			}
		}
		return nil
	}, remaining)
	handle(err)
	runtime.AddCleanup(s, func(r metric.Registration) { _ = r.Unregister() }, registration)
}

// asked counts a request for a token.
func (i *instruments) asked(ctx context.Context, client string, err error) {
	i.requests.Add(ctx, 1, metric.WithAttributes(attribute.String("client_id", client), attribute.String("result", result(err))))
}

// result says in a word how a request for a token ended. An issuer's own words are not taken over.
func result(err error) string {
	failure := (*Error)(nil)
	if !errors.As(err, &failure) {
		return "issued"
	}
	switch failure.Code {
	case oauth.InvalidRequest, oauth.InvalidClient, oauth.UnauthorizedClient, oauth.UnsupportedGrantType, oauth.InvalidScope,
		oauth.InvalidTarget, oauth.TemporarilyUnavailable, oauth.ServerError:
		return string(failure.Code)
	case "":
		if failure.grpc == codes.Unavailable {
			return "unavailable"
		}
		return "misuse"
	}
	return "other"
}

// triggered gives the context of a request for a token: it follows the call that needed the token, and ends with no
// caller's context.
func triggered(ctx context.Context) context.Context {
	return trace.ContextWithSpan(context.Background(), trace.SpanFromContext(ctx))
}

// unary measures each attempt of a call.
func (i *instruments) unary(invoke grpc.UnaryInvoker) grpc.UnaryInvoker {
	return func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
		ctx, call := i.rpc.Start(ctx, method, static(opts))
		err := invoke(ctx, method, request, reply, cc, opts...)
		call.End(err)
		return err
	}
}

// stream measures each attempt of a stream, until it has ended.
func (i *instruments) stream(open grpc.Streamer) grpc.Streamer {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		ctx, call := i.rpc.Start(ctx, method, static(opts))
		var once sync.Once
		end := func(err error) { once.Do(func() { call.End(err) }) }
		opened, err := open(ctx, desc, cc, method, append(slices.Clip(opts), grpc.OnFinish(end))...)
		if err != nil {
			end(err)
		}
		return opened, err
	}
}

// static reports whether the method is one of generated code's, and so of a fixed set.
func static(opts []grpc.CallOption) bool {
	return slices.ContainsFunc(opts, func(o grpc.CallOption) bool {
		_, ok := o.(grpc.StaticMethodCallOption)
		return ok
	})
}

// roundTripper measures what base sends.
func (i *instruments) roundTripper(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return measuring{i, base}
}

type measuring struct {
	instruments *instruments
	base        http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (m measuring) RoundTrip(r *http.Request) (*http.Response, error) {
	return m.instruments.http.RoundTrip(r, m.base.RoundTrip)
}
