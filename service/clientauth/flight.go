package clientauth

import (
	"context"
	"crypto/sha256"
	"sync"
)

// flights makes concurrent checks of one chosen secret of one client wait for the first of them. A client whose many
// processes start at once, or reach a replica that has just started, then needs one slow hash and one place in the
// queue.
//
// Unlike golang.org/x/sync/singleflight, it shares no result. The error of the first check may concern its caller
// alone: the limits of its source, too many failures, its deadline. And its result need not hold for another request,
// which may use another method, come from another network or have read another version of the client. Only a success is
// shared, through the memory of proven secrets, which validates it for each request. A wrong secret is checked, and
// counted as a failure, for each request. A check also ends with the context of its caller and frees its place in the
// queue, while a call of singleflight continues after all its callers have left.
type flights struct {
	mu sync.Mutex
	// current maps the fingerprint of a secret to a channel that is closed when its first check ends.
	current map[[sha256.Size]byte]chan struct{}
}

// enter returns at once if no check of the secret is in flight: the caller's check is then the first, until it calls
// leave. Otherwise enter returns when the first check or ctx ends. The caller calls leave in both cases.
func (f *flights) enter(ctx context.Context, fingerprint [sha256.Size]byte) (leave func()) {
	f.mu.Lock()
	first, ok := f.current[fingerprint]
	if !ok {
		defer f.mu.Unlock()
		first = make(chan struct{})
		f.current[fingerprint] = first
		return func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.current, fingerprint)
			close(first)
		}
	}
	f.mu.Unlock()
	select {
	case <-first:
	case <-ctx.Done():
	}
	return func() {}
}
