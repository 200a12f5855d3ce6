package ports

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// Observe publishes the number of connections that are open to the HTTP and gRPC ports, the number of those that were
// closed on arrival because there were too many, and, with TLS, the remaining validity of the certificate.
func (p *Ports) Observe(meter metric.Meter) error {
	count := func(count func() int64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(count())
			return nil
		}
	}
	if _, err := meter.Int64ObservableGauge("grantor.connections.open", metric.WithUnit("{connection}"),
		metric.WithDescription("Connections that are open to the HTTP and gRPC ports."),
		metric.WithInt64Callback(count(p.OpenConnections))); err != nil {
		return err
	}
	if _, err := meter.Int64ObservableCounter("grantor.connections.refused", metric.WithUnit("{connection}"),
		metric.WithDescription("Connections that were closed on arrival, beyond max-connections or connections-per-source."),
		metric.WithInt64Callback(count(p.RefusedConnections))); err != nil {
		return err
	}
	if p.tls == nil {
		return nil
	}
	_, err := meter.Float64ObservableGauge("grantor.tls.certificate.remaining", metric.WithUnit("s"),
		metric.WithDescription("Time until the certificate of the HTTP and gRPC ports expires."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(time.Until(p.tls.NotAfter()).Seconds())
			return nil
		}))
	return err
}
