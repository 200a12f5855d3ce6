package monitoring

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/grantorhq/grantor/cmd/grantor/buildinfo"
)

// observeBuild publishes the version, the revision and the Go version of the program.
func observeBuild(meter metric.Meter, info *buildinfo.Info) error {
	about := metric.WithAttributes(attribute.String("version", info.Version), attribute.String("revision", info.Revision),
		attribute.String("go_version", info.Go))
	_, err := meter.Float64ObservableGauge("grantor.build.info", metric.WithDescription("Always 1; the attributes identify the build."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(1, about)
			return nil
		}))
	return err
}
