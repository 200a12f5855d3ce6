package metrictest_test

import (
	"context"
	"maps"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/grantorhq/grantor/service/metrictest"
	"github.com/grantorhq/grantor/service/must"
)

func TestValues(t *testing.T) {
	registry := metrictest.New(t)
	if got := registry.Values(t); len(got) > 0 {
		t.Errorf("before the first metric: %v", got)
	}
	meter := registry.Provider.Meter("test")
	labels := metric.WithAttributes(attribute.Int("server.port", 443), attribute.String("server.address", "a"))
	must.Get(meter.Int64Counter("a.calls", metric.WithUnit("{call}"))).Add(t.Context(), 2, labels)
	must.Get(meter.Int64UpDownCounter("a.open", metric.WithUnit("{call}"))).Add(t.Context(), 1)
	must.Get(meter.Float64Histogram("a.call.duration", metric.WithUnit("s"))).Record(t.Context(), .5)
	must.Get(meter.Float64ObservableCounter("a.cpu", metric.WithUnit("s"),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error { o.Observe(1.5); return nil })))
	must.Get(meter.Int64Gauge("a.keys")).Record(t.Context(), 3)
	must.Get(meter.Float64Gauge("a.age", metric.WithUnit("s"))).Record(t.Context(), 2.5)
	want := map[string]float64{
		"a_calls_total server_address=a server_port=443": 2, "a_open": 1, "a_call_duration_seconds": 1, "a_cpu_seconds_total": 1.5,
		"a_keys": 3, "a_age_seconds": 2.5,
	}
	if got := registry.Values(t); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
