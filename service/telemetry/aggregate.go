package telemetry

import (
	"context"
	"log/slog"
	"sync"
)

// maxCallers is the maximum number of callers whose introspections are aggregated at a time.
const maxCallers = 1000

// introspections aggregates introspection events per caller. A resource server may introspect thousands of tokens per
// second, and an event for each would cost several times as much as the introspection itself. The zero value is ready
// to use. It is safe for concurrent use by multiple goroutines.
type introspections struct {
	mu sync.Mutex
	// byCaller is keyed by the caller as the event describes it.
	byCaller map[Token]counts
	// closed is set once nothing will be flushed any more.
	closed bool
}

// counts holds the number of introspected tokens, and the number of active ones among them.
type counts struct{ tokens, active int }

// Introspected counts the introspected tokens of one request, and the active ones among them. An [EventIntrospected] with
// the sums of the caller is written within a second.
func (r *Recorder) Introspected(ctx context.Context, t Token, tokens, active int) {
	if !r.introspections.add(t, tokens, active) {
		r.auditIntrospections(ctx, t, counts{tokens, active})
	}
}

// add adds to the counts of a caller. It returns false if there are too many callers, or nothing will be flushed any
// more.
func (i *introspections) add(t Token, tokens, active int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	c, known := i.byCaller[t]
	if i.closed || (!known && len(i.byCaller) == maxCallers) {
		return false
	}
	if i.byCaller == nil {
		i.byCaller = make(map[Token]counts)
	}
	i.byCaller[t] = counts{c.tokens + tokens, c.active + active}
	return true
}

// flush returns and clears the counts. If last is true, add counts nothing from then on.
func (i *introspections) flush(last bool) map[Token]counts {
	i.mu.Lock()
	defer i.mu.Unlock()
	flushed := i.byCaller
	i.byCaller, i.closed = nil, last
	return flushed
}

// flushIntrospections writes an [EventIntrospected] for each caller since the last flush.
func (r *Recorder) flushIntrospections(ctx context.Context, last bool) {
	for t, c := range r.introspections.flush(last) {
		r.auditIntrospections(ctx, t, c)
	}
}

func (r *Recorder) auditIntrospections(ctx context.Context, t Token, c counts) {
	r.audit(ctx, EventIntrospected, t.attrs(slog.Int("tokens", c.tokens), slog.Int("active", c.active))...)
}
