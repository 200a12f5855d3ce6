package telemetry

import (
	"context"
	"log/slog"

	"github.com/grantorhq/grantor/service/oauth"
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

// TokenRefused writes an [EventTokenRefused]: client_id, auth_method, peer, error (the OAuth code), reason (a word of
// [oauth.Reason]), cause (for the operator alone).
func (r *Recorder) TokenRefused(ctx context.Context, t Token, refusal *oauth.Error) {
	r.tokens.Add(ctx, 1, result(string(refusal.Code)))
	r.Refused(ctx, EventTokenRefused, t, refusal)
	if refusal.Code == oauth.ServerError {
		r.log.ErrorContext(ctx, "a token could not be issued", "cause", refusal)
	}
}

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

// Refused writes an [EventIntrospectRefused] or [EventRevokeRefused]: client_id, auth_method, peer, error, reason, cause.
func (r *Recorder) Refused(ctx context.Context, event string, t Token, refusal *oauth.Error) {
	r.audit(ctx, event, t, []slog.Attr{
		slog.String("error", string(refusal.Code)), slog.String("reason", string(refusal.Why())),
		slog.String("cause", refusal.Error()),
	})
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

// AdminRefused writes an [EventAdminRefused]: method, peer, by (the client of a token that held, or empty), cause (for
// the operator alone).
func (r *Recorder) AdminRefused(ctx context.Context, method string, by Administrator, cause error) {
	r.log.LogAttrs(ctx, slog.LevelInfo, "audit", slog.String("event", EventAdminRefused), slog.String("method", method),
		slog.String("by", by.ClientID), slog.String("peer", by.Peer), slog.String("cause", cause.Error()))
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
