package telemetry

import (
	"context"
	"log/slog"
	"sync"
)

// mostAskers bounds the callers whose introspections are being added up.
const mostAskers = 1000

// told adds up what clients are told about tokens. A resource server may introspect thousands of tokens in a second, and an
// event for each would cost several times what the introspection does. Its zero value is ready.
type told struct {
	mu sync.Mutex
	// by has who asked, as the event says it → of how many tokens, and how many of those are active.
	by map[Token]counts
	// over is set when nobody will write any more what is added up.
	over bool
}

type counts struct{ tokens, active int }

// Introspected has an [EventIntrospected] written within a second: a client was told about so many tokens, and so many of
// them are active.
func (r *Recorder) Introspected(ctx context.Context, t Token, tokens, active int) {
	if !r.told.add(t, tokens, active) {
		r.introspected(ctx, t, counts{tokens, active})
	}
}

// add reports whether there was room.
func (a *told) add(t Token, tokens, active int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, known := a.by[t]
	if a.over || (!known && len(a.by) == mostAskers) {
		return false
	}
	if a.by == nil {
		a.by = make(map[Token]counts)
	}
	a.by[t] = counts{c.tokens + tokens, c.active + active}
	return true
}

// take gives what was added up. over says that it is the last time.
func (a *told) take(over bool) map[Token]counts {
	a.mu.Lock()
	defer a.mu.Unlock()
	by := a.by
	a.by, a.over = nil, over
	return by
}

// tellIntrospected writes an [EventIntrospected] for each caller since the last time. over says that it is the last time.
func (r *Recorder) tellIntrospected(ctx context.Context, over bool) {
	for t, c := range r.told.take(over) {
		r.introspected(ctx, t, c)
	}
}

func (r *Recorder) introspected(ctx context.Context, t Token, c counts) {
	r.audit(ctx, EventIntrospected, t.with(slog.Int("tokens", c.tokens), slog.Int("active", c.active))...)
}
