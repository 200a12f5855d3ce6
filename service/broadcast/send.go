package broadcast

import (
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

const (
	// maxCatchingUp is the number of pages that are being sent at once to followers that have not reached the end of the feed.
	// Followers beyond it wait for their turn, so that a thousand that start together leave the processor to others.
	maxCatchingUp = 16
	// slotTimeout is how long a follower keeps others waiting by not accepting a page.
	slotTimeout = 5 * time.Millisecond
	// sendsPerTurn is the number of responses after which the sender lets other goroutines run, such as those that write what it
	// has sent.
	sendsPerTurn = 32
)

// line is the queue of the live followers to send to, and the sender that takes them from it. The mu of the hub guards it.
type line struct {
	// waiting are the followers from first on.
	waiting []*follower
	first   int
	// changed is signaled when the line is no longer empty, and when it is closed.
	changed sync.Cond
	closed  bool
	// sending is the follower to which the sender is sending its response number begun, and seen that number at the last call
	// of stuck.
	sending     *follower
	begun, seen uint64
}

func (l *line) empty() bool { return l.first == len(l.waiting) }

// push adds a follower, unless it waits already.
func (l *line) push(f *follower) {
	if f.queued {
		return
	}
	f.queued = true
	switch {
	case l.empty():
		l.waiting, l.first = l.waiting[:0], 0
		l.changed.Signal()
	case l.first > len(l.waiting)/2: // it may never be empty
		n := copy(l.waiting, l.waiting[l.first:])
		clear(l.waiting[n:])
		l.waiting, l.first = l.waiting[:n], 0
	}
	l.waiting = append(l.waiting, f)
}

// pop waits for the next live follower, to which the sender then sends. It returns nil once the line is closed.
func (l *line) pop() *follower {
	for !l.closed {
		if l.empty() {
			l.changed.Wait()
			continue
		}
		f := l.waiting[l.first]
		l.waiting[l.first] = nil
		l.first++
		f.queued = false
		if f.live {
			l.sending = f
			l.begun++
			return f
		}
	}
	return nil
}

// stuck returns the follower to which the sender has been sending since the last call, or nil. The line then needs another
// sender.
func (l *line) stuck() *follower {
	f := l.sending
	if f == nil || l.begun != l.seen {
		l.seen = l.begun
		return nil
	}
	l.sending = nil
	return f
}

// work sends to the live followers in the line until the hub ends, or until one of them holds it up. It then stays with that
// one.
func (h *Hub) work() {
	for n := 1; ; n++ {
		f, stream := h.next()
		if f == nil {
			return
		}
		p, err := h.pages.after(f.cursor, false)
		if err == nil {
			err = stream.SendMsg(p.message)
		}
		if err != nil {
			f.end(err)
			p = nil
		}
		switch h.sent(f, p) {
		case alone:
			if p != nil {
				h.catchUp(f, stream)
			}
			return
		case behind:
			go h.catchUp(f, stream)
		}
		if n%sendsPerTurn == 0 {
			runtime.Gosched()
		}
	}
}

// next returns the next follower to send to, or nil once the hub has ended.
func (h *Hub) next() (*follower, grpc.ServerStream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.line.pop()
	if f == nil {
		return nil, nil
	}
	return f, f.stream
}

// outcome is what follows for a sender and its follower from a response.
type outcome int

const (
	// current means that the follower has reached the end of the feed, or has ended.
	current outcome = iota
	// behind means that the follower needs more pages than one.
	behind
	// alone means that the follower has held up the sender, which was replaced.
	alone
)

// sent records that a page was sent to a live follower. The page is nil if that failed.
func (h *Hub) sent(f *follower, p *page) outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	replaced := h.line.sending != f
	if replaced {
		f.timeout.Stop()
	} else {
		h.line.sending = nil
	}
	if p != nil {
		f.cursor = p.next
	}
	switch {
	case replaced:
		return alone
	case p == nil:
		h.remove(f)
	case !p.last:
		h.remove(f)
		return behind
	case !p.empty:
		f.due = h.wheel.now + ticks(f.interval/2+f.phase)
	}
	return current
}

// catchUp sends pages to a follower, however long it takes to accept them, until it has reached the end of the feed.
func (h *Hub) catchUp(f *follower, stream grpc.ServerStream) {
	for h.enter(f, stream) {
		leave := sync.OnceFunc(func() { <-h.slots })
		sweeps := h.swept()
		p, err := h.pages.after(f.cursor, true)
		if err != nil {
			leave()
			f.end(err)
			return
		}
		timer := time.AfterFunc(slotTimeout, leave)
		ok := h.sendAlone(f, stream, p.message)
		timer.Stop()
		leave()
		if !ok {
			return
		}
		f.cursor = p.next
		if p.last {
			h.join(f, sweeps)
			return
		}
	}
}

// enter waits for a slot to send a page to a follower, which gets heartbeats until then. It reports false if the stream has
// ended.
func (h *Hub) enter(f *follower, stream grpc.ServerStream) bool {
	select {
	case h.slots <- struct{}{}:
		return true
	default:
	}
	for {
		select {
		case h.slots <- struct{}{}:
			return true
		case <-stream.Context().Done():
			return false
		case <-time.After(f.interval):
			if !h.sendAlone(f, stream, &grantorv1.WatchRevocationsResponse{Cursor: cursorText(f.cursor)}) {
				return false
			}
		}
	}
}

// sendAlone sends a response to a follower from a goroutine that sends to no other. It reports false if the stream has ended.
func (h *Hub) sendAlone(f *follower, stream grpc.ServerStream, m any) bool {
	timeout := time.AfterFunc(h.SendTimeout, func() { h.drop(f) })
	defer timeout.Stop()
	err := stream.SendMsg(m)
	if err != nil {
		f.end(err)
	}
	return err == nil
}

// swept returns the number of sweeps so far.
func (h *Hub) swept() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sweeps
}
