package limit

import "context"

// MostKeys is how many keys one window has at the most.
const MostKeys = mostKeys

// The times of Run.
const (
	ShareEvery = shareEvery
	SharePause = sharePause
)

// Held gives how many keys the windows of the failures hold, and how many of them are to be sent.
func (l *Limiter) Held() (keys, unsent int) {
	l.failures.mu.Lock()
	defer l.failures.mu.Unlock()
	for _, w := range []*window{&l.failures.current, &l.failures.previous} {
		keys, unsent = keys+len(w.tallies), unsent+len(w.unsent)
	}
	return keys, unsent
}

// Share exchanges everything that is counted with the store.
func (l *Limiter) Share(ctx context.Context) error { return l.share(ctx) }
