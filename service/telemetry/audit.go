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

// Token is what the events of a token request tell.
type Token struct {
	// ClientID is the client that asked; for a refusal the id that was claimed, in so far as it could be a client's.
	ClientID string
	// Method is how the client proved who it is, Peer the address it came from.
	Method, Peer string
	// Algorithm is what an issued token was signed with.
	Algorithm jwks.Algorithm
}

// TokenIssued writes an [EventTokenIssued]. details are its further attributes.
func (r *Recorder) TokenIssued(ctx context.Context, t Token, details ...slog.Attr) {
	r.countIssued(ctx, t.Algorithm, 1)
	r.audit(ctx, EventTokenIssued, t.with(details...)...)
}

// TokenRefused writes an [EventTokenRefused].
func (r *Recorder) TokenRefused(ctx context.Context, t Token, refusal *oauth.Error) {
	r.Refused(ctx, EventTokenRefused, t, refusal)
}

// Revoked writes an [EventRevoked]: of one token, by its id, empty where there was nothing to take back; or of all.
func (r *Recorder) Revoked(ctx context.Context, t Token, id string, all bool) {
	r.audit(ctx, EventRevoked, t.with(slog.String("jti", id), slog.Bool("all", all))...)
}

// Refused writes an [EventTokenRefused], [EventIntrospectRefused] or [EventRevokeRefused], unless there are too many of
// that reason. A fault of the server's own is an error in the log as well.
func (r *Recorder) Refused(ctx context.Context, event string, t Token, refusal *oauth.Error) {
	r.countRefused(ctx, event, refusal)
	reason, cause := string(refusal.Why()), string(refusal.Text)
	if refusal.Cause != nil {
		cause = bounded(refusal.Cause.Error())
	}
	if refusal.Code == oauth.ServerError && r.sampled(ctx, fault, event, "") {
		r.log.ErrorContext(ctx, "the server failed to answer", "event", event, "cause", cause)
	}
	if !r.sampled(ctx, event, reason, t.Peer) {
		return
	}
	r.audit(ctx, event, t.with(slog.String("error", string(refusal.Code)), slog.String("reason", reason), slog.String("cause", cause))...)
}

// Administrator is who makes an administrative call: the client of the token, and the address it came from. The zero value
// is the issuer itself, and who runs it.
type Administrator struct{ ClientID, Peer string }

// Changed writes the event of a change that was made. what are its further attributes.
func (r *Recorder) Changed(ctx context.Context, event string, by Administrator, what ...slog.Attr) {
	r.audit(ctx, event, by.with(what...)...)
}

// AdminRefused writes an [EventAdminRefused], unless there are too many of that reason. The reason is one of a few words.
func (r *Recorder) AdminRefused(ctx context.Context, method string, by Administrator, reason string, cause error) {
	if r.sampled(ctx, EventAdminRefused, reason, by.Peer) {
		r.audit(ctx, EventAdminRefused, by.with(slog.String("method", method), slog.String("reason", reason),
			slog.String("cause", bounded(cause.Error())))...)
	}
}

// Fault logs a fault of the server's own as an error, unless there are too many in the method.
func (r *Recorder) Fault(ctx context.Context, msg, method string, details ...slog.Attr) {
	if r.sampled(ctx, fault, method, "") {
		r.log.LogAttrs(ctx, slog.LevelError, msg, append(details, slog.String("method", method))...)
	}
}

// fault is what an [EventLeftOut] calls the errors of [Recorder.Fault].
const fault = "fault"

// Change is a field that was changed, from what to what, as the attribute "changes" has it.
type Change struct {
	Field string `json:"field"`
	From  string `json:"from"`
	To    string `json:"to"`
}

// ChangesOf makes the attribute "changes". Long values are cut.
func ChangesOf(changes []Change) slog.Attr {
	cut := make([]Change, len(changes)) // never nil, which JSON would have as null
	for i, c := range changes {
		cut[i] = Change{c.Field, bounded(c.From), bounded(c.To)}
	}
	return slog.Any("changes", cut)
}

func (t Token) with(more ...slog.Attr) []slog.Attr {
	attrs := append(make([]slog.Attr, 0, 3+len(more)),
		slog.String("client_id", t.ClientID), slog.String("auth_method", t.Method), slog.String("peer", t.Peer))
	return append(attrs, more...)
}

func (a Administrator) with(more ...slog.Attr) []slog.Attr {
	return append([]slog.Attr{slog.String("by", a.ClientID), slog.String("peer", a.Peer)}, more...)
}

// audit writes an event to the log and to the trail.
func (r *Recorder) audit(ctx context.Context, name string, attrs ...slog.Attr) {
	e := event{time.Now(), name, attrs}
	r.logged(ctx, e)
	if stream := declared[name].Stream; !r.queue.put(stream, e) {
		r.countLeftOut(ctx, stream, behind, 1)
	}
}

// logged writes an event to the log. It goes to the handler directly: the logger would look up who calls.
func (r *Recorder) logged(ctx context.Context, e event) {
	if handler := r.log.Handler(); handler.Enabled(ctx, slog.LevelInfo) {
		record := slog.NewRecord(e.at, slog.LevelInfo, "audit", 0)
		record.AddAttrs(slog.String("event", e.name))
		record.AddAttrs(e.attrs...)
		_ = handler.Handle(ctx, record) // the logger would do no more
	}
}

// sampled reports whether an event of the reason, which the peer caused, is written.
func (r *Recorder) sampled(ctx context.Context, event, reason, peer string) bool {
	write, left := r.sampler.admit(kind{event, reason}, peer, time.Now())
	r.tellLeftOut(ctx, left)
	return write
}

// tellLeftOut writes an [EventLeftOut] for each kind of which the sampler left some out.
func (r *Recorder) tellLeftOut(ctx context.Context, all []leftOut) {
	for _, left := range all {
		if left.event != fault {
			r.countLeftOut(ctx, Refusals, "sampled", left.count)
		}
		r.audit(ctx, EventLeftOut, left.attrs()...)
	}
}

// most bounds a text that is not bounded otherwise, in bytes.
const most = 1024

// bounded cuts a text that is too long, and says so.
func bounded(text string) string {
	if len(text) <= most {
		return text
	}
	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s… (%d more bytes)", text[:end], len(text)-end)
}
