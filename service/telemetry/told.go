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
	// by has who asked, as its event says it → of how many tokens, and how many of those are active.
	by map[Token]counts
}

type counts struct{ tokens, active int }

// Introspected counts for an [EventIntrospected] that a client was told about so many tokens, and how many of them are active.
func (r *Recorder) Introspected(ctx context.Context, t Token, tokens, active int) {
	if r.told.add(t, tokens, active) > mostAskers {
		r.tellIntrospected(ctx)
	}
}

// add gives how many callers there are.
func (a *told) add(t Token, tokens, active int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by == nil {
		a.by = make(map[Token]counts)
	}
	c := a.by[t]
	a.by[t] = counts{c.tokens + tokens, c.active + active}
	return len(a.by)
}

// tellIntrospected writes an [EventIntrospected] for each caller since the last time.
func (r *Recorder) tellIntrospected(ctx context.Context) {
	r.told.mu.Lock()
	by := r.told.by
	r.told.by = nil
	r.told.mu.Unlock()
	for t, c := range by {
		r.audit(ctx, EventIntrospected, t.with(slog.Int("tokens", c.tokens), slog.Int("active", c.active))...)
	}
}
