// Package broadcast sends the feed of revocations to the followers of a replica (grantor.v1.RevocationService). Its cost for
// each follower is that of writing to a connection: what is sent is encoded once for all followers, one clock sends all
// heartbeats, and a follower that waits holds no timer and no goroutine except that of its call.
package broadcast

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/revocation"
)

const (
	// DefaultInterval is the heartbeat interval of a follower that requests none, as those of earlier releases do.
	DefaultInterval = time.Second
	// MinInterval is the minimum interval that a follower can request.
	MinInterval = 500 * time.Millisecond
	// MaxInterval is the maximum interval that a follower can request.
	MaxInterval = 10 * time.Second
	// DefaultSendTimeout is how long a follower may take to accept a response.
	DefaultSendTimeout = 10 * time.Second
)

// Hub sends the feed to its followers. It has three parts. Each new follower has a goroutine that sends it one page after
// another until it has reached the end of the feed. Its call then only waits: the hub sends it each change and each heartbeat
// from one goroutine for all followers. That goroutine is replaced when a follower does not accept a response at once, and from
// then on serves that follower alone. A follower that accepts nothing within SendTimeout is dropped, so that nothing queues
// for it. Hub is safe for concurrent use by multiple goroutines.
type Hub struct {
	// Feed is followed into Ledger.
	Feed   *revocation.Tail
	Ledger *revocation.Ledger
	Now    func() time.Time
	// SendTimeout is how long a follower may take to accept a response. It is set before the first follower.
	SendTimeout time.Duration

	pages *pages
	// slots has a value for each page that is being sent to a follower that has not reached the end of the feed.
	slots chan struct{}
	// joined has a value when there may be a first follower.
	joined chan struct{}

	following atomic.Int64
	dropped   atomic.Uint64

	mu sync.Mutex
	// live are the followers at the end of the feed.
	live  map[*follower]struct{}
	wheel wheel
	line  line
	// sweeps is the number of changes that have been passed to line.
	sweeps uint64
}

// New returns a hub that sends the feed that is followed into ledger. now is the clock of the tokens.
func New(feed *revocation.Tail, ledger *revocation.Ledger, now func() time.Time) *Hub {
	h := &Hub{
		Feed: feed, Ledger: ledger, Now: now, SendTimeout: DefaultSendTimeout,
		slots: make(chan struct{}, maxCatchingUp), joined: make(chan struct{}, 1), live: make(map[*follower]struct{}),
	}
	h.pages = newPages(h)
	h.line.changed.L = &h.mu
	return h
}

// Followers returns how many streams follow the feed now, and how many were dropped because they were too slow.
func (h *Hub) Followers() (following int64, dropped uint64) {
	return h.following.Load(), h.dropped.Load()
}

// follower is a stream that follows the feed.
type follower struct {
	interval time.Duration
	// phase spreads the heartbeats that follow a change, which all followers receive at once. It is less than half of
	// interval.
	phase time.Duration
	// cursor is the end of what was sent. Only the goroutine that sends to the follower uses it.
	cursor revocation.Cursor
	// ended has the error with which the stream ends.
	ended chan error

	// The mu of the hub guards the fields below. stream is nil once the call has ended, so that what still refers to the
	// follower does not keep its stream in memory.
	stream grpc.ServerStream
	// live reports whether the follower is in live of the hub.
	live bool
	// due is the tick of the next heartbeat, and inWheel reports whether the wheel has the follower.
	due     int64
	inWheel bool
	// queued reports whether the line has the follower.
	queued bool
	// timeout drops the follower. It is set when the follower holds up the sender.
	timeout *time.Timer
}

// end ends the stream with an error, unless it has ended.
func (f *follower) end(err error) {
	select {
	case f.ended <- err:
	default:
	}
}

// Follow sends the live revocations, and then each new one, until the stream ends or is too slow. Responses after the first few
// are sent only while [Hub.Run] runs.
func (h *Hub) Follow(request *grantorv1.WatchRevocationsRequest, stream grpc.ServerStream) error {
	h.following.Add(1)
	defer h.following.Add(-1)
	select {
	case h.joined <- struct{}{}:
	default:
	}
	ctx := stream.Context()
	// Responses are encoded for all followers, and random IDs hardly compress. Fails for streams of tests alone.
	_ = grpc.SetSendCompressor(ctx, encoding.Identity)
	f := &follower{interval: interval(request.GetHeartbeatIntervalMs()), ended: make(chan error, 1), stream: stream}
	f.phase = rand.N(f.interval / 2) //nolint:gosec // only spreads load
	// A cursor that cannot be parsed stands for the beginning: sending everything loses nothing.
	f.cursor, _ = revocation.ParseCursor(request.GetCursor())
	defer h.leave(f)
	go func() {
		if request.GetHeartbeatIntervalMs() > 0 && !h.sendAlone(f, stream, &grantorv1.WatchRevocationsResponse{
			Cursor: cursorText(f.cursor), HeartbeatIntervalMs: int32(f.interval.Milliseconds()), //nolint:gosec // at most MaxInterval
		}) {
			return
		}
		h.catchUp(f, stream)
	}()
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case err := <-f.ended:
		return err
	}
}

// interval returns the heartbeat interval for a request of milliseconds.
func interval(milliseconds int32) time.Duration {
	if milliseconds <= 0 {
		return DefaultInterval
	}
	return min(max(time.Duration(milliseconds)*time.Millisecond, MinInterval), MaxInterval)
}

// join makes a follower that has been sent everything up to f.cursor live. sweeps is the number of sweeps before that was read.
func (h *Hub) join(f *follower, sweeps uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.stream == nil {
		return
	}
	h.live[f], f.live = struct{}{}, true
	f.due = h.wheel.tick(time.Now()) + ticks(f.interval/2+f.phase)
	h.wheel.add(f)
	if h.sweeps != sweeps {
		h.line.push(f)
	}
}

// leave forgets a follower whose call ends.
func (h *Hub) leave(f *follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(f)
	f.stream = nil
}

// remove makes a follower no longer live. h.mu must be held.
func (h *Hub) remove(f *follower) {
	delete(h.live, f)
	f.live = false
}

// drop ends the stream of a follower that is too slow.
func (h *Hub) drop(f *follower) {
	h.dropped.Add(1)
	f.end(status.Errorf(codes.ResourceExhausted, "an answer was not taken within %s; go on from the last cursor", h.SendTimeout))
}

const (
	// gatherInterval is the minimum time between two changes that are sent, in which further changes are gathered.
	gatherInterval = 5 * time.Millisecond
	// trimInterval is the interval, in ticks, at which unused pages are forgotten.
	trimInterval = 256
)

// Run sends changes and heartbeats until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	go h.work()
	defer h.close()
	ticker, gather := time.NewTicker(tickInterval), time.NewTimer(0)
	defer ticker.Stop()
	defer gather.Stop()
	changed, swept := h.Ledger.Changed(), time.Time{}
	for {
		ticks := ticker.C
		if h.following.Load() == 0 {
			ticks = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-h.joined:
			continue
		case now := <-ticks:
			h.beat(now)
			continue
		case <-changed:
			changed = nil // until what has changed is sent
		case <-gather.C:
		}
		if changed != nil {
			continue
		}
		// The channel is taken before the change is read, so that no later change is overlooked.
		next := h.Ledger.Changed()
		if now := time.Now(); now.Sub(swept) >= gatherInterval && h.sweep() {
			changed, swept = next, now
		} else {
			gather.Reset(gatherInterval)
		}
	}
}

// sweep has what has changed sent to all live followers. It reports false if the previous change is still being sent.
func (h *Hub) sweep() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.line.empty() {
		return false
	}
	h.sweeps++
	h.pages.changed()
	for f := range h.live {
		h.line.push(f)
	}
	return true
}

// beat has heartbeats sent to the followers for which they are due, and replaces the sender if a follower holds it up.
func (h *Hub) beat(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wheel.advance(now, h.line.push)
	if h.wheel.now%trimInterval == 0 {
		h.pages.trim()
	}
	if f := h.line.stuck(); f != nil {
		h.remove(f)
		f.timeout = time.AfterFunc(h.SendTimeout, func() { h.drop(f) })
		go h.work()
	}
}

// close ends the sender.
func (h *Hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.closed = true
	h.line.changed.Broadcast()
}
