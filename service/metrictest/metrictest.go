// Package metrictest is support for tests: it reads metrics under the names that Prometheus gives them, without a module of
// Prometheus, which the go.sum of every program that uses attach or verify would name.
package metrictest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Registry holds the metrics of its provider. It is safe for concurrent use by multiple goroutines.
type Registry struct {
	// Provider makes the meters.
	Provider *sdkmetric.MeterProvider

	reader *sdkmetric.ManualReader
}

// New returns a registry without metrics. Its provider ends with the test.
func New(t testing.TB) *Registry {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	r := &Registry{Provider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), reader: reader}
	t.Cleanup(func() { _ = r.Provider.Shutdown(context.Background()) })
	return r
}

// Values maps each series, as "name label=value …" with the labels in order, to its value, or to the count of a histogram.
func (r *Registry) Values(t testing.TB) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if !add(values, m) {
				t.Fatalf("metric %s has data of the unexpected type %T", m.Name, m.Data)
			}
		}
	}
	return values
}

// add adds the series of a metric to values. It reports whether it knows the type of their data.
func add(values map[string]float64, m metricdata.Metrics) bool {
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		addPoints(values, name(m, data.IsMonotonic), data.DataPoints)
	case metricdata.Sum[float64]:
		addPoints(values, name(m, data.IsMonotonic), data.DataPoints)
	case metricdata.Gauge[int64]:
		addPoints(values, name(m, false), data.DataPoints)
	case metricdata.Gauge[float64]:
		addPoints(values, name(m, false), data.DataPoints)
	case metricdata.Histogram[float64]:
		for _, point := range data.DataPoints {
			values[series(name(m, false), point.Attributes.ToSlice())] = float64(point.Count)
		}
	default:
		return false
	}
	return true
}

func addPoints[N int64 | float64](values map[string]float64, name string, points []metricdata.DataPoint[N]) {
	for _, point := range points {
		values[series(name, point.Attributes.ToSlice())] = float64(point.Value)
	}
}

// name returns the name of a metric in Prometheus. Seconds are the only unit of this module that is part of it.
func name(m metricdata.Metrics, total bool) string {
	name := strings.ReplaceAll(m.Name, ".", "_")
	if m.Unit == "s" {
		name += "_seconds"
	}
	if total {
		name += "_total"
	}
	return name
}

func series(name string, attributes []attribute.KeyValue) string {
	labels := make([]string, len(attributes))
	for i, a := range attributes {
		labels[i] = fmt.Sprintf(" %s=%s", strings.ReplaceAll(string(a.Key), ".", "_"), a.Value.String())
	}
	slices.Sort(labels)
	return name + strings.Join(labels, "")
}
