package instrument

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/rpcconv"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// RPC measures the gRPC calls that a server answers, or that a client makes. It may be used by several goroutines.
type RPC struct {
	duration metric.Float64Histogram
	tracer   trace.Tracer
	client   bool
	// methods has method → its series.
	methods cache[string, *methodSeries]
}

// NewRPCServer makes what measures the calls that a server answers: rpc.server.call.duration.
func NewRPCServer(meter metric.Meter, tracer trace.Tracer) (*RPC, error) {
	of := rpcconv.ServerCallDuration{}
	duration, err := Durations(meter, of.Name(), of.Description())
	return &RPC{duration: duration, tracer: tracer}, err
}

// NewRPCClient makes what measures the calls that a client makes: rpc.client.call.duration.
func NewRPCClient(meter metric.Meter, tracer trace.Tracer) (*RPC, error) {
	of := rpcconv.ClientCallDuration{}
	duration, err := Durations(meter, of.Name(), of.Description())
	return &RPC{duration: duration, tracer: tracer, client: true}, err
}

// methodSeries is a method with what its calls are counted by, for each status code.
type methodSeries struct {
	name     string
	outcomes [int(codes.Unauthenticated) + 1]outcome
}

// outcome is how a call can end.
type outcome struct {
	record []metric.RecordOption
	// end is what the span is told; failed says that the call counts as an error.
	end    []attribute.KeyValue
	failed bool
}

func (r *RPC) newMethod(name string) *methodSeries {
	m := &methodSeries{name: name}
	for c := range m.outcomes {
		word := code.Code_name[int32(c)]
		o := &m.outcomes[c]
		o.failed = r.failed(codes.Code(c))
		o.end = []attribute.KeyValue{semconv.RPCResponseStatusCode(word)}
		if o.failed {
			o.end = append(o.end, semconv.ErrorTypeKey.String(word))
		}
		set := attribute.NewSet(append([]attribute.KeyValue{semconv.RPCSystemNameGRPC, semconv.RPCMethod(name)}, o.end...)...)
		o.record = []metric.RecordOption{metric.WithAttributeSet(set)}
	}
	return m
}

// failed reports whether a code is an error on this side: to a server it is one where the server is at fault.
func (r *RPC) failed(c codes.Code) bool {
	if r.client {
		return c != codes.OK
	}
	switch c {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	}
	return false
}

// Call is a call under way. The zero Call is not measured.
type Call struct {
	rpc    *RPC
	ctx    context.Context
	method *methodSeries
	span   trace.Span
	start  time.Time
}

// Start begins a call of a method, "/package.Service/Method" as gRPC gives it; known says that the name is one of a fixed
// set. A server's span follows the one that the caller's metadata or ctx names, a client's metadata names the new one. The
// context is the one to go on with.
func (r *RPC) Start(ctx context.Context, method string, known bool) (context.Context, Call) {
	original := strings.TrimPrefix(method, "/")
	name := original
	if !known {
		name = other
	}
	call := Call{rpc: r, start: time.Now()}
	call.method = r.methods.get(name, func() *methodSeries { return r.newMethod(name) })
	if r.tracer != nil {
		ctx, call.span = r.startSpan(ctx, name, original)
	}
	call.ctx = ctx
	return ctx, call
}

func (r *RPC) startSpan(ctx context.Context, name, original string) (context.Context, trace.Span) {
	kind := trace.SpanKindServer
	switch parent := trace.SpanContextFromContext(ctx); {
	case r.client:
		kind = trace.SpanKindClient
	case !parent.IsValid():
		ctx = traceContext.Extract(ctx, carrier{get: func(key string) []string { return metadata.ValueFromIncomingContext(ctx, key) }})
	case !parent.IsRemote():
		kind = trace.SpanKindInternal // the span of the HTTP request is the server's
	}
	ctx, span := r.tracer.Start(ctx, name, trace.WithSpanKind(kind))
	if span.IsRecording() {
		span.SetAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(name))
		if name != original {
			span.SetAttributes(semconv.RPCMethodOriginal(clip(original)))
		}
	}
	if r.client {
		var pairs []string
		traceContext.Inject(ctx, carrier{set: func(key, value string) { pairs = append(pairs, key, value) }})
		ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
	}
	return ctx, span
}

// clip bounds what a span says of a name that a caller chose.
func clip(name string) string { return strings.ToValidUTF8(name[:min(len(name), 200)], "") }

// End says that the call has ended with err.
func (c *Call) End(err error) {
	if c.rpc == nil {
		return
	}
	ended := status.Code(err)
	if int(ended) >= len(c.method.outcomes) {
		ended = codes.Unknown // gRPC has no such code; a handler or a server made it up
	}
	o := &c.method.outcomes[ended]
	c.rpc.duration.Record(c.ctx, time.Since(c.start).Seconds(), o.record...)
	if c.span == nil {
		return
	}
	if c.span.IsRecording() {
		c.span.SetAttributes(o.end...)
		if o.failed {
			c.span.SetStatus(otelcodes.Error, "")
		}
	}
	c.span.End()
}
