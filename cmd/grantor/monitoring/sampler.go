package monitoring

import (
	"fmt"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/time/rate"
)

// sampler returns the sampler of the server's spans. It samples a fraction of the traces that begin here, at random. A
// trace that the caller samples is sampled here too, so that it is complete, but only a limited number each second:
// anyone can set that flag, and could choose a trace ID that passes any decision based on the ID.
func sampler(fraction float64) sdktrace.Sampler {
	return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(fraction),
		sdktrace.WithRemoteParentSampled(&limitedSampler{rate.NewLimiter(remoteTraces, remoteTraces)}))
}

// remoteTraces is how many calls per second are sampled because their callers sample them.
const remoteTraces = 50

// limitedSampler samples while its limiter allows it.
type limitedSampler struct{ limiter *rate.Limiter }

// ShouldSample implements [sdktrace.Sampler].
func (l *limitedSampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if l.limiter.Allow() {
		return sdktrace.AlwaysSample().ShouldSample(p)
	}
	return sdktrace.NeverSample().ShouldSample(p)
}

// Description implements [sdktrace.Sampler].
func (l *limitedSampler) Description() string {
	return fmt.Sprintf("Limited{%g/s}", float64(l.limiter.Limit()))
}
