// Package telemetry names every metric and every audit event of the issuer, once.
//
// An audit event is a log record of level INFO with msg "audit" and the attribute "event"; the attributes of each event
// are listed with its method. No token and no secret is ever an attribute.
package telemetry

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// The audit events.
const (
	EventTokenIssued       = "token.issued"
	EventTokenRefused      = "token.refused"
	EventIntrospected      = "token.introspected"
	EventIntrospectRefused = "token.introspect_refused"
	EventRevoked           = "token.revoked"
	EventRevokeRefused     = "token.revoke_refused"
)

// The audit events of administration.
const (
	EventAdminRefused    = "admin.refused"
	EventApplied         = "admin.applied"
	EventClientCreated   = "client.created"
	EventClientChanged   = "client.changed"
	EventClientDeleted   = "client.deleted"
	EventClientRevoked   = "client.revoked"
	EventSecretCreated   = "client.secret_created"
	EventSecretRotated   = "client.secret_rotated"
	EventSecretChanged   = "client.secret_changed"
	EventSecretDeleted   = "client.secret_deleted"
	EventResourceCreated = "resource.created"
	EventResourceChanged = "resource.changed"
	EventResourceDeleted = "resource.deleted"
	EventKeysRotated     = "key.rotated"
	EventKeyRetired      = "key.retired"
	EventKeyCompromised  = "key.compromised"
)

// Recorder writes audit events and metrics. It may be used by several goroutines.
type Recorder struct {
	log      *slog.Logger
	tokens   metric.Int64Counter
	duration metric.Float64Histogram
}

// New makes a recorder that writes events to log and metrics to meter.
func New(log *slog.Logger, meter metric.Meter) (*Recorder, error) {
	tokens, err := meter.Int64Counter("grantor.token.requests",
		metric.WithDescription("Answers to token requests by result: issued, or the OAuth error code."))
	if err != nil {
		return nil, err
	}
	// The name, unit and attributes are those of OpenTelemetry's semantic conventions for RPC.
	duration, err := meter.Float64Histogram("rpc.server.call.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from the start of a call to its answer."),
		metric.WithExplicitBucketBoundaries(.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5))
	if err != nil {
		return nil, err
	}
	return &Recorder{log, tokens, duration}, nil
}

// RevocationsLive publishes how many revocations are in force.
func RevocationsLive(meter metric.Meter, count func() int) error {
	_, err := meter.Int64ObservableGauge("grantor.revocations.live",
		metric.WithDescription("Revocations that concern tokens which may not have expired."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(count()))
			return nil
		}))
	return err
}

// FeedAge publishes how old this replica's knowledge is, in seconds.
func FeedAge(meter metric.Meter, age func() time.Duration) error {
	_, err := meter.Float64ObservableGauge("grantor.feed.age", metric.WithUnit("s"),
		metric.WithDescription("Every change made longer ago than this is in force on this replica."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(age().Seconds())
			return nil
		}))
	return err
}

// Token is what the events of a token request tell.
type Token struct {
	// ClientID is the client that asked; for a refusal the id that was claimed, in so far as it could be a client's.
	ClientID string
	// Method is how the client proved who it is, Peer the address it came from.
	Method, Peer string
}

// TokenIssued writes an [EventTokenIssued]: client_id, auth_method, peer, jti, scope, aud, lifetime (seconds).
func (r *Recorder) TokenIssued(ctx context.Context, t Token, details ...slog.Attr) {
	r.tokens.Add(ctx, 1, issued)
	r.audit(ctx, EventTokenIssued, t, details)
}

// TokenRefused writes an [EventTokenRefused]: client_id, auth_method, peer, error (the OAuth code), reason (the cause,
// for the operator alone).
func (r *Recorder) TokenRefused(ctx context.Context, t Token, code, reason string) {
	r.tokens.Add(ctx, 1, result(code))
	r.audit(ctx, EventTokenRefused, t, []slog.Attr{slog.String("error", code), slog.String("reason", reason)})
	if code == serverError {
		r.log.ErrorContext(ctx, "a token could not be issued", "reason", reason)
	}
}

// serverError is the one code that tells of a fault of ours (RFC 6749 §4.1.2.1).
const serverError = "server_error"

// Introspected writes an [EventIntrospected]: client_id (who asked), auth_method, peer, tokens (how many), active (how
// many of them were).
func (r *Recorder) Introspected(ctx context.Context, t Token, tokens, active int) {
	r.audit(ctx, EventIntrospected, t, []slog.Attr{slog.Int("tokens", tokens), slog.Int("active", active)})
}

// Revoked writes an [EventRevoked]: client_id, auth_method, peer, and jti (empty where there was nothing to take back) or
// all.
func (r *Recorder) Revoked(ctx context.Context, t Token, what slog.Attr) {
	r.audit(ctx, EventRevoked, t, []slog.Attr{what})
}

// Refused writes an [EventIntrospectRefused] or [EventRevokeRefused]: client_id, auth_method, peer, error, reason.
func (r *Recorder) Refused(ctx context.Context, event string, t Token, code, reason string) {
	r.audit(ctx, event, t, []slog.Attr{slog.String("error", code), slog.String("reason", reason)})
}

// Administrator is who makes an administrative call: the client of the token, and the address it came from.
type Administrator struct{ ClientID, Peer string }

// Changed writes the event of an administrative change that was made: by, peer, and what was changed: id, kid or alg, and
// secret_id, fields, grace_period (nanoseconds), expire_time, action and kind where the event has them.
func (r *Recorder) Changed(ctx context.Context, event string, by Administrator, what ...slog.Attr) {
	r.log.LogAttrs(ctx, slog.LevelInfo, "audit", append([]slog.Attr{
		slog.String("event", event), slog.String("by", by.ClientID), slog.String("peer", by.Peer),
	}, what...)...)
}

// AdminRefused writes an [EventAdminRefused]: method, peer, by (the client of a token that held, or empty), reason (the
// cause, for the operator alone).
func (r *Recorder) AdminRefused(ctx context.Context, method string, by Administrator, reason string) {
	r.log.LogAttrs(ctx, slog.LevelInfo, "audit", slog.String("event", EventAdminRefused), slog.String("method", method),
		slog.String("by", by.ClientID), slog.String("peer", by.Peer), slog.String("reason", reason))
}

func (r *Recorder) audit(ctx context.Context, event string, t Token, details []slog.Attr) {
	if !r.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 4+len(details))
	attrs = append(attrs, slog.String("event", event), slog.String("client_id", t.ClientID),
		slog.String("auth_method", t.Method), slog.String("peer", t.Peer))
	r.log.LogAttrs(ctx, slog.LevelInfo, "audit", append(attrs, details...)...)
}

// issued is prepared once, because building attributes anew costs more than counting.
var issued = result("issued")

func result(name string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("result", name)))
}

// Call records one finished call: method as "grantor.v1.TokenService/IssueToken", code as a gRPC status code's name.
func (r *Recorder) Call(ctx context.Context, method, code string, took time.Duration) {
	r.duration.Record(ctx, took.Seconds(), metric.WithAttributeSet(attribute.NewSet(
		attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", method),
		attribute.String("rpc.response.status_code", code))))
}
