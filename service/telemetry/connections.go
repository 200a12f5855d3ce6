package telemetry

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/metric"
)

// Connections publishes the number of connections that are open to the ports, and the number of those that were closed
// on arrival because there were too many. open and refused return them.
func Connections(meter metric.Meter, open, refused func() int64) error {
	observe := func(count func() int64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(count())
			return nil
		}
	}
	_, openErr := meter.Int64ObservableGauge("grantor.connections.open", metric.WithUnit("{connection}"), metric.WithInt64Callback(observe(open)),
		metric.WithDescription("Connections that are open to the REST and gRPC ports."))
	_, refusedErr := meter.Int64ObservableCounter("grantor.connections.refused", metric.WithUnit("{connection}"), metric.WithInt64Callback(observe(refused)),
		metric.WithDescription("Connections that were closed on arrival, beyond max-connections or connections-per-source."))
	return errors.Join(openErr, refusedErr)
}
