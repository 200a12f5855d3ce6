// Package telemetry names every metric, every span and every audit event of the issuer, once.
//
// An audit event is a log record of level INFO with msg "audit" and the attribute "event"; [Events] lists them with their
// attributes. A [AuditSink] can keep them too. No token and no secret is ever an attribute. Of refusals at most
// 200 are written in a second, and 100 with one reason, of which one source has a part; an [EventLeftOut] tells how many were not.
package telemetry

import (
	"log/slog"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/grantorhq/grantor/service/jwks"
)

// Recorder writes audit events and metrics. It may be used by several goroutines.
type Recorder struct {
	log    *slog.Logger
	tracer trace.Tracer
	*metrics

	sampler sampler
	told    told
	queue   queue
}

// New makes a recorder that writes events to log, metrics to meter, and spans to tracer unless that is nil. The algorithms are
// those that tokens can be signed with.
func New(log *slog.Logger, meter metric.Meter, tracer trace.Tracer, algorithms []jwks.Algorithm) (*Recorder, error) {
	instruments, err := newMetrics(meter, tracer, algorithms)
	if err != nil {
		return nil, err
	}
	return &Recorder{log: log, tracer: tracer, metrics: instruments}, nil
}
