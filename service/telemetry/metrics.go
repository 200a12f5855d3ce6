package telemetry

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/grantorhq/grantor/service/instrument"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
)

// metrics holds the synchronous instruments of a [Recorder]. The observable ones are in observe.go.
type metrics struct {
	// RPC measures every gRPC call, those that REST makes included. HTTP measures every request to the REST port.
	RPC  *instrument.RPC
	HTTP *instrument.HTTP

	issued, refused, lost, leftOut, unreadable metric.Int64Counter
	slowHash                                   metric.Float64Histogram
	// The options are built once for each series, because building them costs more than counting.
	issuedBy  map[jwks.Algorithm][]metric.AddOption
	refusedBy sync.Map // maps a refusalKey to []metric.AddOption
}

// refusalKey is what refusals are counted by. The values of every field are from a fixed list, which bounds the series.
type refusalKey struct {
	event  string
	code   oauth.Code
	reason oauth.Reason
}

// requests maps the event of a refusal to the kind of request that was refused.
var requests = map[string]string{
	EventTokenRefused: "issue", EventIntrospectRefused: "introspect", EventRevokeRefused: "revoke",
}

func newMetrics(meter metric.Meter, tracer trace.Tracer, algorithms []jwks.Algorithm) (*metrics, error) {
	var m metrics
	var errs [8]error
	m.RPC, errs[0] = instrument.NewRPCServer(meter, tracer)
	m.HTTP, errs[1] = instrument.NewHTTPServer(meter, tracer)
	m.issued, errs[2] = meter.Int64Counter("grantor.token.issued", metric.WithUnit("{token}"),
		metric.WithDescription("Tokens that were issued, by the algorithm that signed them."))
	m.refused, errs[3] = meter.Int64Counter("grantor.request.refused", metric.WithUnit("{request}"),
		metric.WithDescription("Requests for a token, an introspection or a revocation that were refused, by OAuth error and reason."))
	m.slowHash, errs[4] = instrument.Durations(meter, "grantor.argon2id.duration",
		"Time that the slow hash of a chosen or imported secret takes.")
	m.lost, errs[5] = meter.Int64Counter("grantor.store.lost", metric.WithUnit("{loss}"),
		metric.WithDescription("Times that the store was found to have lost data."))
	m.leftOut, errs[6] = meter.Int64Counter("grantor.audit.left_out", metric.WithUnit("{event}"),
		metric.WithDescription("Audit events that are missing in a stream: sampled ones, and those that it could not take in time."))
	m.unreadable, errs[7] = meter.Int64Counter("grantor.store.unreadable", metric.WithUnit("{record}"),
		metric.WithDescription("Records and entries of the store that could not be read, each time that they were met."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	m.issuedBy = make(map[jwks.Algorithm][]metric.AddOption)
	for _, algorithm := range algorithms {
		m.issuedBy[algorithm] = []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("alg", string(algorithm))))}
		m.countIssued(context.Background(), algorithm, 0) // so that the series exists from the start, as a rate requires
	}
	m.lost.Add(context.Background(), 0)
	for _, record := range []string{"client", "resources", "uses", "counts", "feed"} {
		m.countUnreadable(record, 0)
	}
	for _, stream := range Streams {
		m.countLeftOut(context.Background(), stream, streamBehind, 0)
	}
	m.countLeftOut(context.Background(), Refusals, "sampled", 0)
	return &m, nil
}

func (m *metrics) countIssued(ctx context.Context, algorithm jwks.Algorithm, tokens int64) {
	m.issued.Add(ctx, tokens, m.issuedBy[algorithm]...)
}

func (m *metrics) countRefused(ctx context.Context, event string, refusal *oauth.Error) {
	key := refusalKey{event, refusal.Code, refusal.Why()}
	options, ok := m.refusedBy.Load(key)
	if !ok {
		options, _ = m.refusedBy.LoadOrStore(key, []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(
			attribute.String("request", requests[event]), attribute.String("error", string(key.code)), attribute.String("reason", string(key.reason)),
		))})
	}
	m.refused.Add(ctx, 1, options.([]metric.AddOption)...) //nolint:forcetypeassert // the map has no other values
}

// countLeftOut counts events that are missing in a stream.
func (m *metrics) countLeftOut(ctx context.Context, stream Stream, reason string, events int) {
	m.leftOut.Add(ctx, int64(events), metric.WithAttributes(attribute.String("stream", string(stream)), attribute.String("reason", reason)))
}

// StoreLost counts one detected loss of data in the store.
func (m *metrics) StoreLost() { m.lost.Add(context.Background(), 1) }

// countUnreadable counts records of the store that could not be read, by what they hold.
func (m *metrics) countUnreadable(record string, records int64) {
	m.unreadable.Add(context.Background(), records, metric.WithAttributes(attribute.String("record", record)))
}

// SlowHash starts to measure a slow hash. The measurement ends with the call of done; see [clientauth.Config].
func (r *Recorder) SlowHash(ctx context.Context) (done func()) {
	start := time.Now()
	span := child(ctx, r.tracer, "argon2id", trace.SpanKindInternal)
	return func() {
		r.slowHash.Record(ctx, time.Since(start).Seconds())
		span.End()
	}
}
