package verify

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/instrument"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/recovery"
	"github.com/grantorhq/grantor/service/token"
)

// scope is the name of the instrumentation scope.
const scope = "github.com/grantorhq/grantor/interceptors/verify"

// Telemetry records metrics and spans of the guarded gRPC methods and HTTP handlers, refused calls included:
//
//	rpc.server.call.duration        histogram, s  by method and status code (OpenTelemetry semantic conventions)
//	http.server.request.duration    histogram, s  by method, status and, if an http.ServeMux sets it, route
//	grantor.verify.calls.refused    counter       by reason: no_token, expired, revoked, insufficient_scope, …
//	grantor.verify.calls.stale      counter       see FeedStatus.StaleCalls
//	grantor.verify.cache.lookups    counter       by result: hit (a token that was verified before) or miss
//	grantor.verify.feed.age         gauge, s      see FeedStatus.Age; absent if no feed is followed
//	grantor.verify.revocations.live gauge         see FeedStatus.Live
//
// Each call is a span that continues the caller's trace (W3C Trace Context). Callers can request that a trace is
// recorded; the sampler of tracers decides. Metrics and spans contain no token, client or path. A nil provider disables
// metrics or spans, respectively. The gauges end with [Verifier.Close]. If a program has several verifiers, each
// needs its own provider, or only one of them has a provider.
func Telemetry(meters metric.MeterProvider, tracers trace.TracerProvider) Option {
	return func(c *config) { c.meters, c.tracers, c.telemetry = meters, tracers, true }
}

// instruments are the metrics and tracers of a verifier.
type instruments struct {
	rpc     *instrument.RPC
	http    *instrument.HTTP
	refused metric.Int64Counter
	// observed is the registration of the callback that reads the observable instruments. It is nil if the provider
	// returned none.
	observed metric.Registration
}

func newInstruments(c *config, v *Verifier) (*instruments, error) {
	var tracer trace.Tracer
	if c.tracers != nil {
		tracer = c.tracers.Tracer(scope)
	}
	meters := c.meters
	if meters == nil {
		meters = noop.NewMeterProvider()
	}
	meter := cmp.Or(meters.Meter(scope), noop.NewMeterProvider().Meter(scope))
	i := &instruments{}
	var errs [8]error
	i.rpc, errs[0] = instrument.NewRPCServer(meter, tracer)
	i.http, errs[1] = instrument.NewHTTPServer(meter, tracer)
	refused, err := meter.Int64Counter("grantor.verify.calls.refused", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that were refused, by reason."))
	i.refused, errs[2] = cmp.Or[metric.Int64Counter](refused, noop.Int64Counter{}), err // a provider may return nothing
	stale, err := meter.Int64ObservableCounter("grantor.verify.calls.stale", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that were decided, or refused, while the knowledge of revocations was too old."))
	errs[3] = err
	lookups, err := meter.Int64ObservableCounter("grantor.verify.cache.lookups", metric.WithUnit("{lookup}"),
		metric.WithDescription("Lookups of tokens in the cache of this verifier."))
	errs[4] = err
	age, err := meter.Float64ObservableGauge("grantor.verify.feed.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the knowledge of revocations: every revocation made longer ago is in effect."))
	errs[5] = err
	live, err := meter.Int64ObservableGauge("grantor.verify.revocations.live", metric.WithUnit("{revocation}"),
		metric.WithDescription("Revocations of tokens that may not have expired."))
	errs[6] = err
	hit, miss := metric.WithAttributes(attribute.String("result", "hit")), metric.WithAttributes(attribute.String("result", "miss"))
	i.observed, errs[7] = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		hits, misses := v.tokens.Lookups()
		o.ObserveInt64(lookups, int64(hits), hit)    //nolint:gosec // not within a lifetime
		o.ObserveInt64(lookups, int64(misses), miss) //nolint:gosec // the same
		if feed := v.Feed(); feed.Followed {
			o.ObserveFloat64(age, feed.Age.Seconds())
			o.ObserveInt64(live, int64(feed.Live))
			o.ObserveInt64(stale, int64(feed.StaleCalls)) //nolint:gosec // the same
		}
		return nil
	}, stale, lookups, age, live)
	if err := errors.Join(errs[:]...); err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

// close ends the callback.
func (i *instruments) close() {
	if i.observed != nil {
		_ = i.observed.Unregister() // fails only if the provider does not know the callback
	}
}

// Reason returns the metric label for the error that [OnRefusal] gets: "no_token", "insufficient_scope", "no_rule",
// "stale", "fault" or "use_dpop_nonce" for an error of this package, and the label of [token.Reason] for any other.
func Reason(cause error) string {
	switch {
	case errors.Is(cause, ErrNoToken):
		return string(oauth.NoToken)
	case errors.Is(cause, ErrScope):
		return string(oauth.InsufficientScope)
	case errors.Is(cause, ErrNoRule):
		return string(oauth.NoRule)
	case errors.Is(cause, ErrStale):
		return "stale"
	case errors.Is(cause, ErrFault):
		return "fault"
	case errors.Is(cause, ErrNonce):
		return string(oauth.UseDPoPNonce)
	}
	return token.Reason(cause)
}

// count counts a refusal.
func (i *instruments) count(ctx context.Context, cause error) {
	i.refused.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", Reason(cause))))
}

// logRecord logs with the program's default logger, which may panic: some records are written in goroutines of the
// verifier.
func logRecord(level slog.Level, message string, attributes ...any) {
	_ = recovery.Do("the logger", func() { slog.Log(context.Background(), level, message, attributes...) })
}

// errPanicked is the status under which a call is counted if its handler panics.
var errPanicked = status.Error(codes.Unknown, "the handler panicked")

// route returns the path of the pattern with which an [http.ServeMux] chose the handler, or "" if there is none.
func route(r *http.Request) string {
	if slash := strings.IndexByte(r.Pattern, '/'); slash >= 0 {
		return r.Pattern[slash:]
	}
	return ""
}
