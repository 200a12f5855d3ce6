package service

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/limit"
)

const (
	// arrival is how long a request may take to arrive once its call has begun. A call that is sent by half would hold a
	// goroutine, and hold up a server that stops, for as long as its connection lives.
	arrival = 15 * time.Second
	// hurried is what remains of it while arriving calls, or arrivingPerSource of one source, are on their way: each holds
	// up to maxMessage, and what a source can fill so is what it sends in this time. They are not refused, since a caller
	// may begin a few hundred calls at once, which arrive within milliseconds.
	hurried           = time.Second
	arriving          = 128
	arrivingPerSource = 32
	// lookEvery is how often somebody looks which calls are late, or were given up by their callers.
	lookEvery = 100 * time.Millisecond
)

// oneRequest has the methods of one request, as "/package.Service/Method", and whether they have one answer too.
var oneRequest = func() map[string]bool {
	methods := make(map[string]bool)
	for _, desc := range []*grpc.ServiceDesc{
		&grantorv1.TokenService_ServiceDesc, &grantorv1.RevocationService_ServiceDesc, &grantorv1.ClientService_ServiceDesc,
		&grantorv1.ResourceService_ServiceDesc, &grantorv1.KeyService_ServiceDesc, &healthpb.Health_ServiceDesc,
	} {
		for _, m := range desc.Methods {
			methods["/"+desc.ServiceName+"/"+m.MethodName] = true
		}
		for _, m := range desc.Streams {
			if !m.ClientStreams {
				methods["/"+desc.ServiceName+"/"+m.StreamName] = false
			}
		}
	}
	return methods
}()

// arrivals bounds the calls whose request has not arrived. It looks at all of them now and then, since a timer for each
// would be a twentieth of what a token costs.
type arrivals struct {
	// patience is how long a request may take.
	patience time.Duration

	mu sync.Mutex
	// waiting has the calls, sources how many of each source are not hurried, and all how many of all sources.
	waiting map[*incoming]struct{}
	sources limit.Concurrency
	all     int
	// looking says that somebody looks at them.
	looking bool
}

func newArrivals() *arrivals {
	return &arrivals{patience: arrival, waiting: make(map[*incoming]struct{})}
}

// incoming is the context of a call: that of gRPC, which also ends when the request should have arrived and has not.
type incoming struct {
	context.Context

	// cancel ends the context; nil for a stream, which ends by its handler.
	cancel context.CancelFunc
	late   atomic.Bool
	// patience is how long the request may take, until.
	patience time.Duration
	until    time.Time
	// counted says that the call is counted with its source.
	counted  bool
	source   netip.Addr
	arrivals *arrivals
}

// incomingKey finds the incoming in a context that is made from it.
type incomingKey struct{}

// Value implements [context.Context].
func (i *incoming) Value(key any) any {
	if key == (incomingKey{}) {
		return i
	}
	return i.Context.Value(key)
}

// Err implements [context.Context].
func (i *incoming) Err() error {
	if i.late.Load() {
		return context.DeadlineExceeded
	}
	return i.Context.Err()
}

// begin notes that a call has begun. gRPC waits for its request in the context. It is a [tap.ServerInHandle].
func (a *arrivals) begin(call context.Context, info *tap.Info) (context.Context, error) {
	oneAnswer, ok := oneRequest[info.FullMethodName]
	if !ok {
		return call, nil // it does not exist, or is a stream of requests
	}
	i := &incoming{Context: call, patience: a.patience, source: sourceOf(call), arrivals: a}
	if oneAnswer {
		i.Context, i.cancel = context.WithCancel(call)
	}
	a.enter(i)
	return i, nil
}

func (a *arrivals) enter(i *incoming) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i.counted = a.all < arriving && a.sources.Enter(i.source, arrivingPerSource)
	if i.counted {
		a.all++
	} else {
		i.patience = min(hurried, a.patience)
	}
	i.until = time.Now().Add(i.patience)
	a.waiting[i] = struct{}{}
	if !a.looking {
		a.looking = true
		time.AfterFunc(lookEvery, a.look)
	}
}

// leave counts a call no longer. The caller has the lock.
func (a *arrivals) leave(i *incoming) {
	if _, waits := a.waiting[i]; !waits {
		return
	}
	delete(a.waiting, i)
	if i.counted {
		a.all--
		a.sources.Leave(i.source)
	}
}

// look ends the calls that are late and forgets those that were given up, again and again while calls wait.
func (a *arrivals) look() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for i := range a.waiting {
		if late := now.After(i.until); late && i.cancel != nil {
			i.late.Store(true)
			i.cancel()
		} else if !late && i.Context.Err() == nil {
			continue
		}
		a.leave(i)
	}
	if len(a.waiting) < arriving {
		// A map keeps the room that it ever had, and looking through it takes as long.
		waiting := make(map[*incoming]struct{}, arriving)
		maps.Copy(waiting, a.waiting)
		a.waiting = waiting
	}
	if a.looking = len(a.waiting) > 0; a.looking {
		time.AfterFunc(lookEvery, a.look)
	}
}

// arrived says that the request has arrived: the call may now take its time.
func arrived(ctx context.Context) {
	if i, ok := ctx.Value(incomingKey{}).(*incoming); ok {
		i.arrived()
	}
}

func (i *incoming) arrived() {
	i.arrivals.mu.Lock()
	defer i.arrivals.mu.Unlock()
	i.arrivals.leave(i)
}

// arrivingStream is a stream of one request, which must arrive in time.
type arrivingStream struct {
	grpc.ServerStream

	incoming *incoming
}

// RecvMsg implements [grpc.ServerStream]. Receiving that is left behind ends with the stream, which ends with the error.
func (s *arrivingStream) RecvMsg(m any) error {
	done := make(chan error, 1)
	go func() { done <- s.ServerStream.RecvMsg(m) }()
	timer := time.NewTimer(s.incoming.patience)
	defer timer.Stop()
	select {
	case err := <-done:
		s.incoming.arrived()
		return err
	case <-timer.C:
		return status.Error(codes.DeadlineExceeded, "the request did not arrive in time")
	}
}
