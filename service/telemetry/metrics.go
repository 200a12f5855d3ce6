package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the instruments that a [Recorder] writes to.
type metrics struct {
	tokens   metric.Int64Counter
	duration metric.Float64Histogram
}

func newMetrics(meter metric.Meter) (*metrics, error) {
	tokens, err := meter.Int64Counter("grantor.token.requests",
		metric.WithDescription("Answers to token requests by result: issued, or the OAuth error code."))
	if err != nil {
		return nil, err
	}
	// The name, unit and attributes are those of OpenTelemetry's semantic conventions for RPC.
	duration, err := meter.Float64Histogram("rpc.server.call.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from the start of a call to its answer."),
		metric.WithExplicitBucketBoundaries(.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5))
	if err != nil {
		return nil, err
	}
	return &metrics{tokens, duration}, nil
}

// RevocationsLive publishes how many revocations are in force.
func RevocationsLive(meter metric.Meter, count func() int) error {
	_, err := meter.Int64ObservableGauge("grantor.revocations.live",
		metric.WithDescription("Revocations that concern tokens which may not have expired."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(count()))
			return nil
		}))
	return err
}

// FeedAge publishes how old this replica's knowledge is, in seconds.
func FeedAge(meter metric.Meter, age func() time.Duration) error {
	_, err := meter.Float64ObservableGauge("grantor.feed.age", metric.WithUnit("s"),
		metric.WithDescription("Every change made longer ago than this is in force on this replica."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(age().Seconds())
			return nil
		}))
	return err
}

// issued is prepared once, because building attributes anew costs more than counting.
var issued = result("issued")

func result(name string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("result", name)))
}

// Call records one finished call: method as "grantor.v1.TokenService/IssueToken", code as a gRPC status code's name.
func (m *metrics) Call(ctx context.Context, method, code string, took time.Duration) {
	m.duration.Record(ctx, took.Seconds(), metric.WithAttributeSet(attribute.NewSet(
		attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", method),
		attribute.String("rpc.response.status_code", code))))
}
