// Package instrument measures and traces RPC calls and HTTP requests for the issuer and for both interceptors. It
// implements the semantic conventions of OpenTelemetry for RPC and HTTP, version 1.43.0, and W3C Trace Context.
//
// No attribute of a metric contains a value that a caller chooses, which bounds the number of series: unknown methods
// are counted as "_OTHER", unknown routes without a route. Attributes are built once for each series and cached. Spans
// contain no path, query, address or header of a call either.
//
// A nil [metric.Meter] records nothing, and a nil [trace.Tracer] starts no spans.
package instrument

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// other replaces an unknown method, and is the error.type of a request that got no response.
const other = "_OTHER"

// boundaries are the bucket boundaries of the histograms, in seconds. Those of the conventions begin with 5 ms, while
// issuing a token takes about 50 µs.
var boundaries = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Durations returns a histogram of durations in seconds. It records nothing if meter is nil, or returns nothing. The
// histogram is never nil, whatever the error.
func Durations(meter metric.Meter, name, description string) (metric.Float64Histogram, error) {
	if meter == nil {
		return noop.Float64Histogram{}, nil
	}
	histogram, err := meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description),
		metric.WithExplicitBucketBoundaries(boundaries...))
	return cmp.Or[metric.Float64Histogram](histogram, noop.Float64Histogram{}), err
}

// startSpan starts a span. A tracer that returns no span starts none, and one that returns no context leaves ctx as it is.
func startSpan(ctx context.Context, tracer trace.Tracer, name string, kind trace.SpanKind) (context.Context, trace.Span) {
	next, span := tracer.Start(ctx, name, trace.WithSpanKind(kind))
	if next == nil {
		next = ctx
	}
	if span == nil {
		span = trace.SpanFromContext(context.Background())
	}
	return next, span
}

// cache holds values that are built once for each key. A read takes no lock and allocates nothing. It is safe for
// concurrent use by multiple goroutines.
type cache[K comparable, V any] struct {
	values atomic.Pointer[map[K]V]
	mu     sync.Mutex // serializes changes of values
}

// maxCached is the maximum number of values in a cache. Values beyond it are built at each use.
const maxCached = 2000

// get returns the value of key. build must be able to run more than once for a key.
func (c *cache[K, V]) get(key K, build func() V) V {
	if values := c.values.Load(); values != nil {
		if v, ok := (*values)[key]; ok {
			return v
		}
	}
	v := build()
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[K]V)
	if values := c.values.Load(); values != nil {
		if len(*values) >= maxCached {
			return v
		}
		maps.Copy(next, *values)
	}
	next[key] = v
	c.values.Store(&next)
	return v
}

// traceContext reads and writes traceparent and tracestate. It omits baggage, because nothing here acts on a caller's
// baggage.
var traceContext propagation.TraceContext

// maxState is the maximum length of a tracestate that is propagated, in bytes. The recommendation requires no more than
// that (W3C Trace Context §3.3.1.5).
const maxState = 512

// carrier is the [propagation.TextMapCarrier] of a call. get is nil in a carrier that is only written, set in one that
// is only read.
type carrier struct {
	get func(key string) []string
	set func(key, value string)
}

// Get implements [propagation.TextMapCarrier]. Two traceparents are ignored. A tracestate may be sent in parts.
func (c carrier) Get(key string) string {
	values := c.get(key)
	if len(values) > 1 && key == "traceparent" {
		return ""
	}
	value := strings.Join(values, ",")
	if len(value) > maxState {
		return ""
	}
	return value
}

// Set implements [propagation.TextMapCarrier].
func (c carrier) Set(key, value string) { c.set(key, value) }

// Keys implements [propagation.TextMapCarrier].
func (carrier) Keys() []string { return slices.Clone(traceContext.Fields()) }
