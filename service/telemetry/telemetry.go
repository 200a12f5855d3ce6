// Package telemetry names every metric and every audit event of the issuer, once.
//
// An audit event is a log record of level INFO with msg "audit" and the attribute "event"; the attributes of each event
// are listed with its method. No token and no secret is ever an attribute.
package telemetry

import (
	"log/slog"

	"go.opentelemetry.io/otel/metric"
)

// Recorder writes audit events and metrics. It may be used by several goroutines.
type Recorder struct {
	log *slog.Logger
	metrics
}

// New makes a recorder that writes events to log and metrics to meter.
func New(log *slog.Logger, meter metric.Meter) (*Recorder, error) {
	instruments, err := newMetrics(meter)
	if err != nil {
		return nil, err
	}
	return &Recorder{log, *instruments}, nil
}
