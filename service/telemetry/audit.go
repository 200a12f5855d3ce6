package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
)

// Token describes a token request in its events.
type Token struct {
	// ClientID is the client that sent the request. In a refusal it is the id that was claimed, if a client could have it.
	ClientID string
	// Method is the method by which the client authenticated, Peer the address it called from.
	Method, Peer string
	// Identity is what the client is called by the issuer or authority that vouches for it, or the id of its own key that it
	// proved; empty for a secret.
	Identity string
	// Algorithm is the algorithm that signed an issued token.
	Algorithm jwks.Algorithm
}

// TokenIssued writes an [EventTokenIssued] with details as its further attributes.
func (r *Recorder) TokenIssued(ctx context.Context, t Token, details ...slog.Attr) {
	r.countIssued(ctx, t.Algorithm, 1)
	r.audit(ctx, EventTokenIssued, t.attrs(details...)...)
}

// TokenRefused writes an [EventTokenRefused].
func (r *Recorder) TokenRefused(ctx context.Context, t Token, refusal *oauth.Error) {
	r.Refused(ctx, EventTokenRefused, t, refusal)
}

// Revoked writes an [EventRevoked]. If all is true, the client revoked all of its tokens. Otherwise id is the id of the
// token, and empty if there was nothing to revoke.
func (r *Recorder) Revoked(ctx context.Context, t Token, id string, all bool) {
	r.audit(ctx, EventRevoked, t.attrs(slog.String("jti", id), slog.Bool("all", all))...)
}

// Refused writes an [EventTokenRefused], [EventIntrospectRefused] or [EventRevokeRefused], subject to sampling. It also
// logs a fault of the server itself as an error.
func (r *Recorder) Refused(ctx context.Context, event string, t Token, refusal *oauth.Error) {
	r.countRefused(ctx, event, refusal)
	reason, cause := string(refusal.Why()), string(refusal.Text)
	if refusal.Cause != nil {
		cause = truncate(refusal.Cause.Error())
	}
	if refusal.Code == oauth.ServerError && r.admit(ctx, fault, event, "") {
		r.log.ErrorContext(ctx, "the server failed to answer", "event", event, "cause", cause)
	}
	if !r.admit(ctx, event, reason, t.Peer) {
		return
	}
	r.audit(ctx, event, t.attrs(slog.String("error", string(refusal.Code)), slog.String("reason", reason), slog.String("cause", cause))...)
}

// Administrator identifies the caller of an administrative method: the client of its token, and the address it called
// from. The zero value stands for the issuer itself, and for its operator.
type Administrator struct{ ClientID, Peer string }

// Changed writes the event of a change that was made, with details as its further attributes.
func (r *Recorder) Changed(ctx context.Context, event string, by Administrator, details ...slog.Attr) {
	r.audit(ctx, event, by.attrs(details...)...)
}

// AdminRefused writes an [EventAdminRefused], subject to sampling. reason must be one of [Reasons].
func (r *Recorder) AdminRefused(ctx context.Context, method string, by Administrator, reason string, cause error) {
	if r.admit(ctx, EventAdminRefused, reason, by.Peer) {
		r.audit(ctx, EventAdminRefused, by.attrs(slog.String("method", method), slog.String("reason", reason),
			slog.String("cause", truncate(cause.Error())))...)
	}
}

// Fault logs a fault of the server itself as an error, subject to sampling by method.
func (r *Recorder) Fault(ctx context.Context, msg, method string, details ...slog.Attr) {
	if r.admit(ctx, fault, method, "") {
		r.log.LogAttrs(ctx, slog.LevelError, msg, append(details, slog.String("method", method))...)
	}
}

// fault is the value of the attribute "of" in an [EventLeftOut] about errors in the log.
const fault = "fault"

// Change is the change of one field, an element of the attribute "changes".
type Change struct {
	Field string `json:"field"`
	From  string `json:"from"`
	To    string `json:"to"`
}

// ChangesOf returns the attribute "changes" with long values truncated.
func ChangesOf(changes []Change) slog.Attr {
	cut := make([]Change, len(changes)) // never nil, which would be null in JSON
	for i, c := range changes {
		cut[i] = Change{c.Field, truncate(c.From), truncate(c.To)}
	}
	return slog.Any("changes", cut)
}

// attrs returns the attributes of t followed by more.
func (t Token) attrs(more ...slog.Attr) []slog.Attr {
	all := append(make([]slog.Attr, 0, 4+len(more)), slog.String("client_id", t.ClientID), slog.String("auth_method", t.Method),
		slog.String("identity", truncate(t.Identity)), slog.String("peer", t.Peer))
	return append(all, more...)
}

// attrs returns the attributes of a followed by more.
func (a Administrator) attrs(more ...slog.Attr) []slog.Attr {
	return append([]slog.Attr{slog.String("by", a.ClientID), slog.String("peer", a.Peer)}, more...)
}

// audit writes an event to the log and queues it for the sink.
func (r *Recorder) audit(ctx context.Context, name string, attrs ...slog.Attr) {
	e := event{time.Now(), name, attrs}
	r.writeLog(ctx, e)
	if stream := eventsByName[name].Stream; !r.queue.put(stream, e) {
		r.countLeftOut(ctx, stream, streamBehind, 1)
	}
}

// writeLog writes an event to the log. It calls the handler directly, because the logger would look up its caller.
func (r *Recorder) writeLog(ctx context.Context, e event) {
	if handler := r.log.Handler(); handler.Enabled(ctx, slog.LevelInfo) {
		record := slog.NewRecord(e.at, slog.LevelInfo, "audit", 0)
		record.AddAttrs(slog.String("event", e.name))
		record.AddAttrs(e.attrs...)
		_ = handler.Handle(ctx, record) // the logger ignores the error as well
	}
}

// admit reports whether an event that peer caused is written. It also writes what the sampler has left out before.
func (r *Recorder) admit(ctx context.Context, event, reason, peer string) bool {
	write, left := r.sampler.admit(kind{event, reason}, peer, time.Now())
	r.auditLeftOut(ctx, left)
	return write
}

// auditLeftOut writes an [EventLeftOut] for each kind.
func (r *Recorder) auditLeftOut(ctx context.Context, all []leftOut) {
	for _, left := range all {
		if left.event != fault {
			r.countLeftOut(ctx, Refusals, "sampled", left.count)
		}
		r.audit(ctx, EventLeftOut, left.attrs()...)
	}
}

// maxText is the maximum length of an unbounded attribute, in bytes.
const maxText = 1024

// truncate truncates a text to maxText between two characters, and appends the number of bytes that it removed.
func truncate(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for end > maxText-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s… (%d more bytes)", text[:end], len(text)-end)
}
