package limit

import "context"

// MaxKeys is the maximum number of keys of one window.
const MaxKeys = maxKeys

// The intervals of Run.
const (
	ShareInterval = shareInterval
	ShareBackoff  = shareBackoff
)

// Held returns how many keys the windows of failures hold, and how many of these are to be sent.
func (l *Limiter) Held() (keys, unsent int) {
	l.failures.mu.Lock()
	defer l.failures.mu.Unlock()
	for _, w := range []*window{&l.failures.current, &l.failures.previous} {
		keys, unsent = keys+len(w.tallies), unsent+len(w.unsent)
	}
	return keys, unsent
}

// Share exchanges all new counts with the store.
func (l *Limiter) Share(ctx context.Context) error { return l.share(ctx) }
