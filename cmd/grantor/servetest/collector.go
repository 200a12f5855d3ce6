package servetest

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/grpc"
)

// Collector receives traces and metrics by OTLP over gRPC.
type Collector struct {
	tracepb.UnimplementedTraceServiceServer
	URL string

	Mu      sync.Mutex
	Spans   []string // "service: name"
	Traces  map[string]bool
	Metrics map[string]bool
	// all has everything that was received, as text.
	all strings.Builder
}

// metricsCollector is the metrics service of a collector. Both services have a method Export.
type metricsCollector struct {
	metricspb.UnimplementedMetricsServiceServer
	*Collector
}

// NewCollector starts a collector, which stops when the test ends.
func NewCollector(t testing.TB) *Collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{URL: "http://" + listener.Addr().String(), Traces: make(map[string]bool), Metrics: make(map[string]bool)}
	server := grpc.NewServer()
	tracepb.RegisterTraceServiceServer(server, c)
	metricspb.RegisterMetricsServiceServer(server, &metricsCollector{Collector: c})
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); running.Wait() })
	return c
}

// Export receives spans.
func (c *Collector) Export(_ context.Context, m *tracepb.ExportTraceServiceRequest) (*tracepb.ExportTraceServiceResponse, error) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	c.all.WriteString(m.String())
	for _, from := range m.GetResourceSpans() {
		for _, scope := range from.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.Spans = append(c.Spans, serviceName(from.GetResource().GetAttributes())+": "+span.GetName())
				c.Traces[string(span.GetTraceId())] = true
			}
		}
	}
	return &tracepb.ExportTraceServiceResponse{}, nil
}

// Export receives metrics.
func (c *metricsCollector) Export(_ context.Context, m *metricspb.ExportMetricsServiceRequest) (*metricspb.ExportMetricsServiceResponse, error) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	c.all.WriteString(m.String())
	for _, from := range m.GetResourceMetrics() {
		for _, scope := range from.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				c.Metrics[serviceName(from.GetResource().GetAttributes())+": "+metric.GetName()] = true
			}
		}
	}
	return &metricspb.ExportMetricsServiceResponse{}, nil
}

func serviceName(attributes []*commonpb.KeyValue) string {
	for _, a := range attributes {
		if a.GetKey() == "service.name" {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// Text returns everything that was received.
func (c *Collector) Text() string {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	return c.all.String()
}

// Tracers returns a provider of a service, which records every span and sends it to the collector.
func (c *Collector) Tracers(t testing.TB, service string) *sdktrace.TracerProvider {
	t.Helper()
	exporter, err := otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpointURL(c.URL))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", service))))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider
}
