package clientauth

import (
	"context"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

const (
	// maxPerSource is the maximum number of queued requests of one source, and maxPerSite that of one IPv6 network of 48
	// bits, which is what one subscriber may have (RFC 6177 §2). Neither can keep all other callers out.
	maxPerSource = 32
	maxPerSite   = 2 * maxPerSource
	siteBits     = 48
)

// maxQueued is the maximum number of queued requests. A processor computes about 40 slow hashes a second, so that the
// last request in a full queue waits for about 3 s. maxSuspects is the maximum number of queued requests of all sources
// from which authentications failed recently, which leaves the other half to the other sources.
var (
	maxQueued   = 128 * runtime.GOMAXPROCS(0)
	maxSuspects = maxQueued / 2
)

// queue bounds the slow hashes: how many are computed at once, by the number of processors, and how many requests wait
// for one, in total, per source and per site. It is safe for concurrent use by multiple goroutines.
type queue struct {
	processors *semaphore.Weighted
	running    atomic.Int64

	mu sync.Mutex
	// queued counts the requests in the queue, running ones included; suspects counts those of suspect sources.
	queued, suspects int
	// sources and sites count the queued requests, keyed by source and by site.
	sources, sites map[netip.Addr]int
	rejected       uint64
}

func newQueue() *queue {
	return &queue{
		processors: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
		sources:    make(map[netip.Addr]int),
		sites:      make(map[netip.Addr]int),
	}
}

// do enters the queue, waits for a processor and calls f. It returns the error of f, or a limit if the queue has no
// place left for the source or ctx ends first.
func (q *queue) do(ctx context.Context, source netip.Addr, suspect bool, f func() error) error {
	source = remoteaddr.RateLimitKey(source)
	if !q.enter(source, suspect) {
		return tooManySecrets("Too many client secrets are being checked; try again.", nil)
	}
	defer q.leave(source, suspect)
	if err := q.processors.Acquire(ctx, 1); err != nil {
		return tooManySecrets("The client secret was not checked in time; try again.", err)
	}
	defer q.processors.Release(1)
	q.running.Add(1)
	defer q.running.Add(-1)
	return f()
}

// tryNow calls f if a processor is idle and no request waits for one.
func (q *queue) tryNow(f func()) {
	if !q.processors.TryAcquire(1) {
		return
	}
	defer q.processors.Release(1)
	q.running.Add(1)
	defer q.running.Add(-1)
	f()
}

func tooManySecrets(text oauth.Text, cause error) error {
	return &oauth.Error{
		Code: oauth.TemporarilyUnavailable, Reason: oauth.TooManySecrets, Limited: true, RetryAfter: time.Second,
		Text: text, Cause: cause,
	}
}

// enter takes a place for a request of source and reports whether there was one. After a true result, the caller calls
// leave exactly once. An unknown source, the zero address, has no limit of its own.
func (q *queue) enter(source netip.Addr, suspect bool) bool {
	site := siteOf(source)
	q.mu.Lock()
	defer q.mu.Unlock()
	full := q.queued >= maxQueued
	overShare := source.IsValid() && (q.sources[source] >= maxPerSource || q.sites[site] >= maxPerSite)
	if full || overShare || suspect && q.suspects >= maxSuspects {
		q.rejected++
		return false
	}
	q.queued++
	if suspect {
		q.suspects++
	}
	q.sources[source]++
	q.sites[site]++
	return true
}

func (q *queue) leave(source netip.Addr, suspect bool) {
	site := siteOf(source)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queued--
	if suspect {
		q.suspects--
	}
	if q.sources[source]--; q.sources[source] == 0 {
		delete(q.sources, source)
	}
	if q.sites[site]--; q.sites[site] == 0 {
		delete(q.sites, site)
	}
}

// counts returns the number of requests in the queue and of those turned away since it was made.
func (q *queue) counts() (queued int, rejected uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.queued, q.rejected
}

// siteOf returns the first address of the IPv6 network of siteBits that contains source. Any other source is its own
// site.
func siteOf(source netip.Addr) netip.Addr {
	if !source.Is6() {
		return source
	}
	site, _ := source.Prefix(siteBits) // it never fails: an IPv6 address has 128 bits
	return site.Addr()
}
