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

// RPC measures and traces the gRPC calls that a server answers, or those that a client makes. It is safe for concurrent
// use by multiple goroutines.
type RPC struct {
	duration metric.Float64Histogram
	tracer   trace.Tracer
	client   bool
	// methods is keyed by the name of the method.
	methods cache[string, *methodSeries]
}

// NewRPCServer returns an RPC for a server. It records rpc.server.call.duration.
func NewRPCServer(meter metric.Meter, tracer trace.Tracer) (*RPC, error) {
	convention := rpcconv.ServerCallDuration{}
	duration, err := Durations(meter, convention.Name(), convention.Description())
	return &RPC{duration: duration, tracer: tracer}, err
}

// NewRPCClient returns an RPC for a client. It records rpc.client.call.duration.
func NewRPCClient(meter metric.Meter, tracer trace.Tracer) (*RPC, error) {
	convention := rpcconv.ClientCallDuration{}
	duration, err := Durations(meter, convention.Name(), convention.Description())
	return &RPC{duration: duration, tracer: tracer, client: true}, err
}

// methodSeries holds the series of a method, one for each status code.
type methodSeries struct {
	name     string
	outcomes [int(codes.Unauthenticated) + 1]outcome
}

// outcome holds the attributes of the calls of a method that end with one status code.
type outcome struct {
	record []metric.RecordOption
	// span are the attributes that the span gets at its end. failed reports whether the call counts as an error.
	span   []attribute.KeyValue
	failed bool
}

// newMethod builds the series of a method.
func (r *RPC) newMethod(name string) *methodSeries {
	m := &methodSeries{name: name}
	for c := range m.outcomes {
		word := code.Code_name[int32(c)]
		o := &m.outcomes[c]
		o.failed = r.failed(codes.Code(c))
		o.span = []attribute.KeyValue{semconv.RPCResponseStatusCode(word)}
		if o.failed {
			o.span = append(o.span, semconv.ErrorTypeKey.String(word))
		}
		set := attribute.NewSet(append([]attribute.KeyValue{semconv.RPCSystemNameGRPC, semconv.RPCMethod(name)}, o.span...)...)
		o.record = []metric.RecordOption{metric.WithAttributeSet(set)}
	}
	return m
}

// failed reports whether a code counts as an error. To a client every code except OK does, to a server only those that
// are the fault of the server.
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

// Call is a call in progress. The zero Call is not measured.
type Call struct {
	rpc    *RPC
	ctx    context.Context
	method *methodSeries
	span   trace.Span
	start  time.Time
}

// Start starts the measurement of a call. method is of the form "/package.Service/Method"; known reports whether it is
// from a fixed set. The context that Start returns is the one for the call. The parent of a server's span is the span
// in ctx or in the metadata of the caller. A client passes its new span on in the outgoing metadata.
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

// startSpan starts the span of a call whose method is original. The span and its attributes use name.
func (r *RPC) startSpan(ctx context.Context, name, original string) (context.Context, trace.Span) {
	kind := trace.SpanKindServer
	switch parent := trace.SpanContextFromContext(ctx); {
	case r.client:
		kind = trace.SpanKindClient
	case !parent.IsValid():
		ctx = traceContext.Extract(ctx, carrier{get: func(key string) []string { return metadata.ValueFromIncomingContext(ctx, key) }})
	case !parent.IsRemote():
		kind = trace.SpanKindInternal // the server span is that of the HTTP request
	}
	ctx, span := startSpan(ctx, r.tracer, name, kind)
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

// clip truncates a name that a caller chose to 200 bytes of valid UTF-8.
func clip(name string) string { return strings.ToValidUTF8(name[:min(len(name), 200)], "") }

// End records that the call has ended with err.
func (c *Call) End(err error) {
	if c.rpc == nil {
		return
	}
	ended := status.Code(err)
	if ended > codes.Unauthenticated {
		ended = codes.Unknown // gRPC has no such code; a handler or a server invented it
	}
	o := &c.method.outcomes[ended]
	c.rpc.duration.Record(c.ctx, time.Since(c.start).Seconds(), o.record...)
	if c.span == nil {
		return
	}
	if c.span.IsRecording() {
		c.span.SetAttributes(o.span...)
		if o.failed {
			c.span.SetStatus(otelcodes.Error, "")
		}
	}
	c.span.End()
}
