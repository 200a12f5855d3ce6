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
	"github.com/grantorhq/grantor/cmd/grantor/ports"
	"github.com/grantorhq/grantor/service/telemetry"
)

// scope names what measures.
const scope = "github.com/grantorhq/grantor"

// instruments are what the server measures and traces with.
type instruments struct {
	// registry has the metrics for the operations port.
	registry *prometheusclient.Registry
	meter    metric.Meter
	// tracer is nil where nothing is traced.
	tracer    trace.Tracer
	storeCall func(ctx context.Context, command string) (done func(error))
	shutdown  []func(context.Context) error
}

// newInstruments makes the metrics and, where the settings have an endpoint, what sends them and the traces there.
func newInstruments(ctx context.Context, s *Settings, certificate *ports.TLSFiles, log *slog.Logger) (*instruments, error) {
	m := &instruments{registry: prometheusclient.NewRegistry()}
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

// push makes what sends traces and metrics to the endpoint. Whatever else is to be said about that, such as headers and
// trusted authorities, comes from the environment: OTEL_EXPORTER_OTLP_HEADERS and so on.
func (m *instruments) push(ctx context.Context, s *Settings, about *resource.Resource, log *slog.Logger) (sdkmetric.Reader, error) {
	seldom := &rate.Sometimes{Interval: time.Minute}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		seldom.Do(func() { log.Warn("traces or metrics cannot be sent; tokens do not depend on that", "error", err) })
	}))
	traces, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(s.otlpEndpoint))
	if err != nil {
		return nil, err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithBatcher(traces), sdktrace.WithSampler(sampler(s.traceSampling)))
	// A provider that cannot send in time would leave its exporter running.
	m.shutdown = append(m.shutdown, provider.Shutdown, traces.Shutdown)
	m.tracer = provider.Tracer(scope)
	metrics, err := otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpointURL(s.otlpEndpoint))
	if err != nil {
		return nil, err
	}
	return sdkmetric.NewPeriodicReader(metrics), nil
}

// flushTime is how long a stopping server tries to send what it has measured.
const flushTime = 3 * time.Second

// close sends what is left.
func (m *instruments) close() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	for _, shutdown := range m.shutdown {
		_ = shutdown(ctx) // what could not be sent is lost, as when the process is killed
	}
}

// sampler decides which traces are recorded: of those that begin here the share, by chance. One that the caller records is
// recorded here too, so that it is whole, but only some each second: anybody can set that flag, and could choose an id that
// any decision by the id lets through.
func sampler(share float64) sdktrace.Sampler {
	return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(share),
		sdktrace.WithRemoteParentSampled(&limited{rate.NewLimiter(remoteTraces, remoteTraces)}))
}

// remoteTraces is how many calls a second are recorded because their callers record them.
const remoteTraces = 50

// limited samples as long as the limiter lets it.
type limited struct{ limiter *rate.Limiter }

// ShouldSample implements [sdktrace.Sampler].
func (l *limited) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if l.limiter.Allow() {
		return sdktrace.AlwaysSample().ShouldSample(p)
	}
	return sdktrace.NeverSample().ShouldSample(p)
}

// Description implements [sdktrace.Sampler].
func (l *limited) Description() string {
	return fmt.Sprintf("Limited{%g/s}", float64(l.limiter.Limit()))
}

// checkOTLP reports what is wrong with an endpoint; none is in order.
func checkOTLP(endpoint string) error {
	u, err := url.Parse(endpoint)
	if endpoint == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil {
		return nil
	}
	return errors.New("not a URL such as http://localhost:4317 or https://collector.internal:4317")
}
