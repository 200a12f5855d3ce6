// Package monitoring is what a long-running command reports about itself: its log, its metrics for Prometheus and OTLP,
// and its traces.
package monitoring

import (
	"context"
	"log/slog"
	"time"

	prometheusclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/grantorhq/grantor/cmd/grantor/buildinfo"
	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// Scope is the instrumentation scope of the commands.
const Scope = "github.com/grantorhq/grantor"

// Telemetry has the providers of metrics and traces, and what exports their data.
type Telemetry struct {
	// Registry has the metrics that the operations port serves.
	Registry *prometheusclient.Registry
	Meters   metric.MeterProvider
	// Tracers is nil if no traces are recorded.
	Tracers  trace.TracerProvider
	shutdown []func(context.Context) error
}

// New returns the metrics and, if the settings name an endpoint, the exporters that send metrics and traces to it. service
// is the name of the service in what they export.
func New(ctx context.Context, service string, s *Settings, log *slog.Logger) (*Telemetry, error) {
	t := &Telemetry{Registry: prometheusclient.NewRegistry()}
	t.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := buildinfo.Read()
	// WithService adds a random service.instance.id; a later option overrides an earlier one.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithService(), resource.WithAttributes(
		semconv.ServiceName(service), semconv.ServiceVersion(info.Version)), resource.WithFromEnv())
	if err != nil {
		return nil, err
	}
	scraped, err := prometheus.New(prometheus.WithRegisterer(t.Registry), prometheus.WithoutScopeInfo())
	if err != nil {
		return nil, err
	}
	options := []sdkmetric.Option{sdkmetric.WithResource(about), sdkmetric.WithReader(scraped)}
	if s.otlpEndpoint != "" {
		pushed, err := t.push(ctx, s, about, log)
		if err != nil {
			return nil, cli.SettingError("otlp-endpoint", err)
		}
		options = append(options, sdkmetric.WithReader(pushed))
	}
	provider := sdkmetric.NewMeterProvider(options...)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	t.Meters = provider
	return t, observeBuild(t.Meter(), &info)
}

// Meter returns the meter of the command.
func (t *Telemetry) Meter() metric.Meter { return t.Meters.Meter(Scope) }

// Tracer returns the tracer of the command, or nil if no traces are recorded.
func (t *Telemetry) Tracer() trace.Tracer {
	if t.Tracers == nil {
		return nil
	}
	return t.Tracers.Tracer(Scope)
}

// push returns a reader that sends metrics to the endpoint, and sets up the traces. All other options of the exporters,
// such as headers and trusted authorities, come from the environment: OTEL_EXPORTER_OTLP_HEADERS and so on.
func (t *Telemetry) push(ctx context.Context, s *Settings, about *resource.Resource, log *slog.Logger) (sdkmetric.Reader, error) {
	warnLimiter := &rate.Sometimes{Interval: time.Minute}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		warnLimiter.Do(func() { log.Warn("traces or metrics cannot be sent; this does not affect calls", "error", err) })
	}))
	traces, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(s.otlpEndpoint))
	if err != nil {
		return nil, err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithBatcher(traces), sdktrace.WithSampler(sampler(s.traceSampling)))
	// A provider whose shutdown times out leaves its exporter running.
	t.shutdown = append(t.shutdown, provider.Shutdown, traces.Shutdown)
	t.Tracers = provider
	metrics, err := otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpointURL(s.otlpEndpoint))
	if err != nil {
		return nil, err
	}
	return sdkmetric.NewPeriodicReader(metrics), nil
}

// flushTimeout is how long a stopping server tries to send its last data.
const flushTimeout = 3 * time.Second

// Close sends the remaining data.
func (t *Telemetry) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	for _, shutdown := range t.shutdown {
		_ = shutdown(ctx) // data that could not be sent is lost, as when the process is killed
	}
}
