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

// StoreCalls returns a function that measures a call to Redis by the semantic conventions for database clients. The
// function is called when a command begins, with its name in capitals. It returns the function to call with the result.
func StoreCalls(meter metric.Meter, tracer trace.Tracer) (func(ctx context.Context, command string) (done func(error)), error) {
	convention := dbconv.ClientOperationDuration{}
	duration, err := instrument.Durations(meter, convention.Name(), convention.Description())
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

// storeFailure returns the error.type of a failed command, which is one of four words.
func storeFailure(err error) string {
	var (
		netErr   net.Error
		redisErr interface{ RedisError() } // an error that Redis itself returned
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return "timeout"
	case errors.As(err, &redisErr):
		return "refused"
	}
	return "network"
}
