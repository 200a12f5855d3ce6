package telemetry

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/metric"
)

// Connections publishes how many connections are open to the ports, and how many were closed at once because there were
// too many.
func Connections(meter metric.Meter, open, refused func() int64) error {
	observe := func(count func() int64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(count())
			return nil
		}
	}
	_, err := meter.Int64ObservableGauge("grantor.connections.open", metric.WithUnit("{connection}"), metric.WithInt64Callback(observe(open)),
		metric.WithDescription("Connections that are open to the REST and gRPC ports."))
	_, also := meter.Int64ObservableCounter("grantor.connections.refused", metric.WithUnit("{connection}"), metric.WithInt64Callback(observe(refused)),
		metric.WithDescription("Connections that were closed at once, beyond max-connections or connections-per-source."))
	return errors.Join(err, also)
}
