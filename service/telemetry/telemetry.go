// Package telemetry declares every metric, span and audit event of the issuer in one place.
//
// An audit event is a log record of level INFO with msg "audit" and the attribute "event"; [Events] lists them with
// their attributes. An [AuditSink] can store them as well. No attribute contains a token or a secret. At most 200
// refusals are written per second, at most 100 of them for one reason or from one source, and at most 20 for one reason
// from one source. An [EventLeftOut] contains the number of those that were not written.
package telemetry

import (
	"log/slog"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/grantorhq/grantor/service/jwks"
)

// Recorder writes audit events and metrics. It is safe for concurrent use by multiple goroutines.
type Recorder struct {
	log    *slog.Logger
	tracer trace.Tracer
	*metrics

	sampler        sampler
	introspections introspections
	queue          queue
	unreadableLog  unreadableLog
}

// New returns a recorder that writes events to log, metrics to meter, and spans to tracer, which may be nil. algorithms
// are the algorithms that tokens can be signed with.
func New(log *slog.Logger, meter metric.Meter, tracer trace.Tracer, algorithms []jwks.Algorithm) (*Recorder, error) {
	instruments, err := newMetrics(meter, tracer, algorithms)
	if err != nil {
		return nil, err
	}
	return &Recorder{log: log, tracer: tracer, metrics: instruments}, nil
}
