package monitoring_test

import (
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/grantorhq/grantor/cmd/grantor/monitoring"
)

// TestSampling floods an issuer with calls whose callers sample them, and expects no more to be sampled than the limit.
func TestSampling(t *testing.T) {
	s := monitoring.Sampler(0)
	ask := func(flags trace.TraceFlags, remote bool) bool {
		parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: remote})
		return s.ShouldSample(sdktrace.SamplingParameters{
			ParentContext: trace.ContextWithSpanContext(t.Context(), parent), TraceID: trace.TraceID{1},
		}).Decision == sdktrace.RecordAndSample
	}
	recorded, began := 0, time.Now()
	for range 10_000 {
		if ask(trace.FlagsSampled, true) {
			recorded++
		}
	}
	if most := monitoring.RemoteTraces + int(time.Since(began).Seconds()*monitoring.RemoteTraces) + 1; recorded < monitoring.RemoteTraces || recorded > most {
		t.Errorf("%d of 10,000 are recorded, want %d to %d", recorded, monitoring.RemoteTraces, most)
	}
	if ask(0, true) {
		t.Error("one is recorded that its caller does not record")
	}
	if !ask(trace.FlagsSampled, false) {
		t.Error("a part of a recorded trace is not recorded")
	}
}
