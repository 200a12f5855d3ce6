// Package instrument measures and traces calls for the issuer and for both interceptors, by the semantic conventions of
// OpenTelemetry for RPC and HTTP (version 1.43.0) and by W3C Trace Context.
//
// Nothing that a caller chooses becomes an attribute of a metric, so the number of series has a bound: a method or a path
// that is not known counts as one that is not named. Attributes are made once for each series and kept. A span has no
// path, query, address or header of its call either.
//
// A nil [metric.Meter] measures nothing, a nil [trace.Tracer] traces nothing, and neither costs anything then.
package instrument

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
)

// other stands for a method that is not known.
const other = "_OTHER"

// boundaries are those of the histograms, in seconds: a token takes some 50 µs, where the conventions begin with 5 ms.
var boundaries = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Durations makes a histogram of durations in seconds.
func Durations(meter metric.Meter, name, description string) (metric.Float64Histogram, error) {
	if meter == nil {
		return noop.Float64Histogram{}, nil
	}
	return meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description),
		metric.WithExplicitBucketBoundaries(boundaries...))
}

// cache keeps what is made once for each key. Reading it takes no lock and allocates nothing.
type cache[K comparable, V any] struct {
	kept atomic.Pointer[map[K]V]
	mu   sync.Mutex
}

// mostKept bounds a cache: what finds no place is made anew each time.
const mostKept = 2000

func (c *cache[K, V]) get(key K, build func() V) V {
	if kept := c.kept.Load(); kept != nil {
		if v, ok := (*kept)[key]; ok {
			return v
		}
	}
	v := build()
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[K]V)
	if kept := c.kept.Load(); kept != nil {
		if len(*kept) >= mostKept {
			return v
		}
		maps.Copy(next, *kept)
	}
	next[key] = v
	c.kept.Store(&next)
	return v
}

// traceContext reads and writes traceparent and tracestate, and no baggage: nobody here acts on what a caller puts there.
var traceContext propagation.TraceContext

// mostState is how long a tracestate is taken over, in bytes. The recommendation asks for no more than that to be passed on
// (W3C Trace Context §3.3.1.5).
const mostState = 512

// carrier gives a propagator what a call carries, and takes what it is to carry.
type carrier struct {
	get func(key string) []string
	set func(key, value string)
}

// Get implements [propagation.TextMapCarrier]. Of two traceparents none counts; a tracestate may be sent in parts.
func (c carrier) Get(key string) string {
	values := c.get(key)
	if len(values) > 1 && key == "traceparent" {
		return ""
	}
	value := strings.Join(values, ",")
	if len(value) > mostState {
		return ""
	}
	return value
}

// Set implements [propagation.TextMapCarrier].
func (c carrier) Set(key, value string) { c.set(key, value) }

// Keys implements [propagation.TextMapCarrier].
func (carrier) Keys() []string { return slices.Clone(traceContext.Fields()) }
