package telemetry

import (
	"context"
	"errors"
	"net"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"
	"go.opentelemetry.io/otel/trace"

	"github.com/grantorhq/grantor/service/instrument"
)

// StoreCalls makes what measures the calls to the Redis, by the conventions for database clients. The function that it
// gives is told the command when it begins, in capitals, and gives what is told how it ended.
func StoreCalls(meter metric.Meter, tracer trace.Tracer) (func(ctx context.Context, command string) (done func(error)), error) {
	of := dbconv.ClientOperationDuration{}
	duration, err := instrument.Durations(meter, of.Name(), of.Description())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, command string) func(error) {
		start := time.Now()
		span := child(ctx, tracer, command, trace.SpanKindClient)
		return func(err error) {
			attributes := []attribute.KeyValue{semconv.DBSystemNameRedis, semconv.DBOperationName(command)}
			if err != nil {
				attributes = append(attributes, semconv.ErrorTypeKey.String(storeFailure(err)))
				span.SetStatus(codes.Error, "")
			}
			duration.Record(ctx, time.Since(start).Seconds(), metric.WithAttributes(attributes...))
			span.SetAttributes(attributes...)
			span.End()
		}
	}, nil
}

// storeFailure says in one of a few words what went wrong.
func storeFailure(err error) string {
	var (
		slow   net.Error
		answer interface{ RedisError() } // what Redis itself says
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return "timeout"
	case errors.As(err, &answer):
		return "refused"
	}
	return "network"
}
