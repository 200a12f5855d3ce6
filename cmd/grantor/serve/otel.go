package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
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
	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
	"github.com/grantorhq/grantor/service/telemetry"
)

// scope is the instrumentation scope.
const scope = "github.com/grantorhq/grantor"

// telemetrySetup is the meter and the tracer of a server, and what exports their data.
type telemetrySetup struct {
	// registry has the metrics that the operations port serves.
	registry *prometheusclient.Registry
	meter    metric.Meter
	// tracer is nil if no traces are recorded.
	tracer    trace.Tracer
	storeCall func(ctx context.Context, command string) (done func(error))
	shutdown  []func(context.Context) error
}

// newTelemetry returns the metrics and, if the settings name an endpoint, the exporters that send metrics and traces to
// it.
func newTelemetry(ctx context.Context, s *Settings, certificate *tlsfiles.Files, log *slog.Logger) (*telemetrySetup, error) {
	m := &telemetrySetup{registry: prometheusclient.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := buildinfo.Read()
	// WithService adds a random service.instance.id; a later option overrides an earlier one.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithService(), resource.WithAttributes(
		semconv.ServiceName("grantor"), semconv.ServiceVersion(info.Version)), resource.WithFromEnv())
	if err != nil {
		return nil, err
	}
	scraped, err := prometheus.New(prometheus.WithRegisterer(m.registry), prometheus.WithoutScopeInfo())
	if err != nil {
		return nil, err
	}
	options := []sdkmetric.Option{sdkmetric.WithResource(about), sdkmetric.WithReader(scraped)}
	if s.otlpEndpoint != "" {
		pushed, err := m.push(ctx, s, about, log)
		if err != nil {
			return nil, cli.SettingError("otlp-endpoint", err)
		}
		options = append(options, sdkmetric.WithReader(pushed))
	}
	provider := sdkmetric.NewMeterProvider(options...)
	m.shutdown = append(m.shutdown, provider.Shutdown)
	m.meter = provider.Meter(scope)
	if m.storeCall, err = telemetry.StoreCalls(m.meter, m.tracer); err != nil {
		return nil, err
	}
	if certificate != nil {
		err = telemetry.CertificateRemaining(m.meter, certificate.NotAfter)
	}
	return m, errors.Join(err, telemetry.BuildInfo(m.meter, info.Version, info.Revision, info.Go))
}

// push returns a reader that sends metrics to the endpoint, and sets up the traces. All other options of the exporters,
// such as headers and trusted authorities, come from the environment: OTEL_EXPORTER_OTLP_HEADERS and so on.
func (m *telemetrySetup) push(ctx context.Context, s *Settings, about *resource.Resource, log *slog.Logger) (sdkmetric.Reader, error) {
	warnLimiter := &rate.Sometimes{Interval: time.Minute}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		warnLimiter.Do(func() { log.Warn("traces or metrics cannot be sent; this does not affect tokens", "error", err) })
	}))
	traces, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(s.otlpEndpoint))
	if err != nil {
		return nil, err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithBatcher(traces), sdktrace.WithSampler(sampler(s.traceSampling)))
	// A provider whose shutdown times out leaves its exporter running.
	m.shutdown = append(m.shutdown, provider.Shutdown, traces.Shutdown)
	m.tracer = provider.Tracer(scope)
	metrics, err := otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpointURL(s.otlpEndpoint))
	if err != nil {
		return nil, err
	}
	return sdkmetric.NewPeriodicReader(metrics), nil
}

// flushTimeout is how long a stopping server tries to send its last data.
const flushTimeout = 3 * time.Second

// close sends the remaining data.
func (m *telemetrySetup) close() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	for _, shutdown := range m.shutdown {
		_ = shutdown(ctx) // data that could not be sent is lost, as when the process is killed
	}
}

// sampler returns the sampler of the server's spans. It samples a fraction of the traces that begin here, at random. A
// trace that the caller samples is sampled here too, so that it is complete, but only a limited number each second:
// anyone can set that flag, and could choose a trace ID that passes any decision based on the ID.
func sampler(fraction float64) sdktrace.Sampler {
	return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(fraction),
		sdktrace.WithRemoteParentSampled(&limitedSampler{rate.NewLimiter(remoteTraces, remoteTraces)}))
}

// remoteTraces is how many calls per second are sampled because their callers sample them.
const remoteTraces = 50

// limitedSampler samples while its limiter allows it.
type limitedSampler struct{ limiter *rate.Limiter }

// ShouldSample implements [sdktrace.Sampler].
func (l *limitedSampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if l.limiter.Allow() {
		return sdktrace.AlwaysSample().ShouldSample(p)
	}
	return sdktrace.NeverSample().ShouldSample(p)
}

// Description implements [sdktrace.Sampler].
func (l *limitedSampler) Description() string {
	return fmt.Sprintf("Limited{%g/s}", float64(l.limiter.Limit()))
}

// checkOTLP validates an OTLP endpoint, which may be empty.
func checkOTLP(endpoint string) error {
	u, err := url.Parse(endpoint)
	if endpoint == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil {
		return nil
	}
	return errors.New("not a URL such as http://localhost:4317 or https://collector.internal:4317")
}
