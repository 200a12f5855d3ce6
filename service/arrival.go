package service

import (
	"context"
	"net/netip"
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

// arrivals bounds the calls whose request has not arrived.
type arrivals struct {
	// patience is how long a request may take.
	patience time.Duration
	// sources has those that are not hurried, all is how many they are.
	sources limit.Gauge
	all     atomic.Int64
}

// incoming is the context of a call whose request has not arrived. For a call of one answer it ends when the request
// should have arrived.
type incoming struct {
	context.Context

	// call is the context of the call.
	call context.Context
	// patience is how long the request may take.
	patience time.Duration
	// stop says that the request has arrived; nil where the call is not counted.
	stop func() bool
	// source is counted with arrivals until then.
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

// begin notes that a call has begun. gRPC waits for its request in the context; from then on what arrived gives is in
// force. It is a [tap.ServerInHandle].
func (a *arrivals) begin(call context.Context, info *tap.Info) (context.Context, error) {
	oneAnswer, ok := oneRequest[info.FullMethodName]
	if !ok {
		return call, nil // it does not exist, or is a stream of requests
	}
	i := &incoming{Context: call, call: call, patience: a.patience, source: sourceOf(call), arrivals: a}
	counted := a.enter(i.source)
	if !counted {
		i.patience = min(hurried, a.patience)
	}
	if deadline, ok := call.Deadline(); oneAnswer && (!ok || time.Until(deadline) > i.patience) {
		ctx, cancel := context.WithTimeout(call, i.patience) //nolint:gosec // see the next line
		_ = cancel                                           // it ends with the call, and its timer too
		i.Context = ctx
	}
	if counted {
		i.stop = context.AfterFunc(i.Context, i.leave)
	}
	return i, nil
}

// enter reports whether one more call may take its time.
func (a *arrivals) enter(source netip.Addr) bool {
	if a.all.Add(1) <= arriving && a.sources.Enter(source, arrivingPerSource) {
		return true
	}
	a.all.Add(-1)
	return false
}

func (i *incoming) leave() {
	i.arrivals.sources.Leave(i.source)
	i.arrivals.all.Add(-1)
}

// arrived counts the call no longer.
func (i *incoming) arrived() {
	if i.stop != nil && i.stop() {
		i.leave()
	}
}

// received is the context of a call whose request has arrived: it ends with the call, however long that takes.
type received struct {
	context.Context

	call context.Context
}

// arrived takes away what begin put on a call of one answer.
func arrived(ctx context.Context) context.Context {
	if i, ok := ctx.Value(incomingKey{}).(*incoming); ok {
		i.arrived()
		return &received{ctx, i.call}
	}
	return ctx
}

// Deadline implements [context.Context].
func (r *received) Deadline() (time.Time, bool) { return r.call.Deadline() }

// Done implements [context.Context].
func (r *received) Done() <-chan struct{} { return r.call.Done() }

// Err implements [context.Context].
func (r *received) Err() error { return r.call.Err() }

// AfterFunc spares what is derived from the context a goroutine of its own; see [context.AfterFunc].
func (r *received) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(r.call, f) }

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
