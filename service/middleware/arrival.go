package middleware

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

const (
	// receiveTimeout is how long a request may take to arrive once its call has begun. A call that is partially
	// sent would hold a goroutine, and hold up a server that stops, for the whole life of its connection.
	receiveTimeout = 15 * time.Second
	// crowdedTimeout replaces receiveTimeout once maxPending requests, or maxPendingPerSource of one source, are being
	// received. Each request holds up to the maximum size of a message, so this bounds the memory that a source can hold to
	// what it sends in this time. The calls are not refused, because a caller may begin a few hundred calls at once, which
	// arrive within milliseconds.
	crowdedTimeout      = time.Second
	maxPending          = 96
	maxPendingPerSource = 32
	// maxMessage is the maximum size of a request over gRPC, in bytes. Its actual size is known only when it has arrived.
	maxMessage = 1 << 20
	// sweepInterval is the time between two searches for calls that are late or were canceled.
	sweepInterval = 100 * time.Millisecond
)

// arrivals bounds the time in which requests arrive. It checks all pending calls periodically, because a timer for each
// would cost a twentieth of issuing a token.
type arrivals struct {
	methods Methods
	intake  *limit.Intake
	timeout time.Duration

	mu sync.Mutex
	// first is the first of the calls whose request has not arrived, a list. Those within the bounds of maxPending are counted:
	// counted is their number, sources that of each source.
	first   *pendingCall
	sources limit.Concurrency
	counted int
	// sweeping reports whether a sweep is scheduled.
	sweeping bool
}

func newArrivals(methods Methods, intake *limit.Intake) *arrivals {
	return &arrivals{methods: methods, intake: intake, timeout: receiveTimeout}
}

// pendingCall is the context of a call over gRPC, and what the steps of the chain know of it: one value instead of a context
// for each, which every later lookup would pass. It ends with gRPC's own context, and when the request should
// have arrived and has not.
type pendingCall struct {
	context.Context

	arrivals *arrivals
	// next and previous are the neighbors in the list of arrivals, while listed.
	next, previous *pendingCall
	listed         bool
	// addr is the address that the call originates from, once [clientAddr.resolve] has determined it.
	addr net.Addr
	// cancel ends the context; nil for a stream, which ends with its handler.
	cancel context.CancelFunc
	late   atomic.Bool
	// timeout is how long the request may take, and deadline the end of that.
	timeout  time.Duration
	deadline time.Time
	source   netip.Addr
	counted  bool
	// body is the size of the body with which the call has entered the intake.
	body int
}

// pendingKey is the key of the pendingCall in a context that derives from it.
type pendingKey struct{}

// Value implements [context.Context]. It answers for the keys of the chain alone: gRPC's own context has none of them.
func (p *pendingCall) Value(key any) any {
	switch key.(type) {
	case pendingKey:
		return p
	case remoteaddr.ContextKey:
		return p.addr
	case admittedKey:
		return nil // it is for calls over REST
	}
	return p.Context.Value(key)
}

// pending returns the call of a context; nil if none was begun for it, as for a call over REST.
func pending(ctx context.Context) *pendingCall {
	p, _ := ctx.Value(pendingKey{}).(*pendingCall)
	return p
}

// Err implements [context.Context].
func (p *pendingCall) Err() error {
	if p.late.Load() {
		return context.DeadlineExceeded
	}
	return p.Context.Err()
}

// begin is called when a call begins, before its request arrives. gRPC receives the request in the context that begin
// returns. It is a [tap.ServerInHandle].
func (a *arrivals) begin(ctx context.Context, info *tap.Info) (context.Context, error) {
	shape, ok := a.methods[info.FullMethodName]
	if !ok || shape == clientStream {
		return ctx, nil // there is no such method, or not one request to wait for
	}
	p := &pendingCall{Context: ctx, arrivals: a, timeout: a.timeout, source: sourceOf(ctx)}
	if shape == unary {
		p.Context, p.cancel = context.WithCancel(ctx)
	}
	a.add(p)
	return p, nil
}

// sourceOf returns the address at the other end of the call's connection; zero if it is not known. The tap handle runs
// before the chain, which resolves proxies.
func sourceOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	return remoteaddr.Parse(p.Addr)
}

// add begins to wait for the request of a call.
func (a *arrivals) add(p *pendingCall) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.counted = a.counted < maxPending && a.sources.Enter(p.source, maxPendingPerSource); p.counted {
		p.body = maxMessage
		if ok, _ := a.intake.Enter(p.source, p.body); ok {
			a.counted++
		} else {
			a.sources.Leave(p.source)
			p.counted = false
		}
	}
	if !p.counted {
		// It is not part of the budget, so that half-sent calls cannot exhaust it: it has only crowdedTimeout.
		p.timeout = min(crowdedTimeout, a.timeout)
	}
	p.deadline = time.Now().Add(p.timeout)
	if p.next, p.listed = a.first, true; p.next != nil {
		p.next.previous = p
	}
	a.first = p
	if !a.sweeping {
		a.sweeping = true
		time.AfterFunc(sweepInterval, a.sweep)
	}
}

// intakeRetry is how long a request that did not fit the budget should wait before it is repeated.
const intakeRetry = time.Second

// Receive reserves memory for a request over REST before its body is read; leave releases it. body is the maximum size of
// the body. busy reports that so many requests are under way that the body has only [crowdedTimeout] to arrive.
func (c *Chain) Receive(ctx context.Context, body int) (leave func(), busy bool, err error) {
	source := remoteaddr.FromContext(ctx).IP()
	ok, busy := c.arrivals.intake.Enter(source, body)
	if !ok {
		return nil, busy, tooMany("Too many requests are under way; try again later.", intakeRetry)
	}
	return func() { c.arrivals.intake.Leave(source, body) }, busy, nil
}

// remove forgets a call. a.mu must be held.
func (a *arrivals) remove(p *pendingCall) {
	if !p.listed {
		return
	}
	if p.listed = false; p.previous == nil {
		a.first = p.next
	} else {
		p.previous.next = p.next
	}
	if p.next != nil {
		p.next.previous = p.previous
	}
	p.next, p.previous = nil, nil // a long stream must not hold the calls that were its neighbors
	if p.counted {
		a.intake.Leave(p.source, p.body)
		a.counted--
		a.sources.Leave(p.source)
	}
}

// sweep ends the calls that are late and forgets those that were canceled, and schedules itself again while calls are
// pending.
func (a *arrivals) sweep() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	var next *pendingCall
	for p := a.first; p != nil; p = next {
		next = p.next
		if late := now.After(p.deadline); late && p.cancel != nil {
			p.late.Store(true)
			p.cancel()
		} else if !late && p.Context.Err() == nil {
			continue
		}
		a.remove(p)
	}
	if a.sweeping = a.first != nil; a.sweeping {
		time.AfterFunc(sweepInterval, a.sweep)
	}
}

// received is called when the request of the call has arrived: from then on the call may take its time.
func (p *pendingCall) received() {
	p.arrivals.mu.Lock()
	defer p.arrivals.mu.Unlock()
	p.arrivals.remove(p)
}

// arrived notes that the request of a unary call has arrived.
func (*arrivals) arrived(p *pendingCall) {
	if p != nil {
		p.received()
	}
}

// bound returns a stream whose one request must arrive in time.
func (*arrivals) bound(s grpc.ServerStream, p *pendingCall) grpc.ServerStream {
	if p == nil {
		return s
	}
	return &pendingStream{s, p}
}

// pendingStream is a stream of one request, which must arrive in time.
type pendingStream struct {
	grpc.ServerStream

	call *pendingCall
}

// RecvMsg implements [grpc.ServerStream]. A receive that it gives up on ends with the stream, which ends with the error.
func (s *pendingStream) RecvMsg(m any) error {
	done := make(chan error, 1)
	go func() { done <- s.ServerStream.RecvMsg(m) }()
	select {
	case err := <-done:
		s.call.received()
		return err
	case <-time.After(s.call.timeout):
		return status.Error(codes.DeadlineExceeded, "the request did not arrive in time")
	}
}
