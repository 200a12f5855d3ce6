package broadcast_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/broadcast"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// idle is a log without entries. What a test revokes, it appends to the ledger.
type idle struct{}

func (idle) Read(ctx context.Context, _ revocation.Cursor, wait time.Duration) ([]revocation.Entry, bool, error) {
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
	return nil, false, ctx.Err()
}

func (idle) End(context.Context) (revocation.Cursor, error) { return revocation.Cursor{}, nil }

func (idle) Skim(context.Context, revocation.Cursor) ([]revocation.Entry, revocation.Cursor, error) {
	return nil, revocation.Cursor{}, nil
}

func (idle) Checkpoint(context.Context) error { return nil }

type ignore struct{}

func (ignore) Apply(revocation.Entry) {}
func (ignore) Lost(bool)              {}
func (ignore) Skimmed()               {}
func (ignore) Failed(error)           {}

// replica is a hub with a feed.
type replica struct {
	*broadcast.Hub

	last uint64
	stop func()
	// decoded are the responses that were decoded, keyed by the address of their encoding.
	decoded sync.Map
}

// newReplica returns a replica that runs until stop is called.
func newReplica(t testing.TB) *replica {
	ctx, cancel := context.WithCancel(t.Context())
	tail := revocation.NewTail(idle{}, ignore{})
	r := &replica{Hub: broadcast.New(tail, revocation.NewLedger(), time.Now)}
	var group sync.WaitGroup
	group.Go(func() { _ = tail.Run(ctx) })
	group.Go(func() { must.Succeed(t, r.Run(ctx)) })
	must.Succeed(t, tail.CatchUp(ctx))
	r.stop = func() {
		cancel()
		group.Wait()
	}
	return r
}

// inBubble runs a test with a replica in the time of a bubble.
func inBubble(t *testing.T, test func(t *testing.T, r *replica)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t)
		defer r.stop()
		test(t, r)
	})
}

// advance lets time pass.
func advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// revoke revokes n tokens and returns their IDs.
func (r *replica) revoke(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		id := token.NewID()
		ids[i] = id.String()
		r.last++
		r.Ledger.Append(revocation.Entry{
			Cursor: revocation.Cursor{Time: 1, Sequence: r.last},
			Change: revocation.Change{Kind: revocation.TokenRevoked, ID: ids[i], At: time.Now().Add(24 * time.Hour)},
		})
	}
	return ids
}

// stream is a follower. Its sends wait while blocked is not nil.
type stream struct {
	grpc.ServerStream

	replica *replica
	ctx     context.Context
	cancel  context.CancelFunc
	blocked chan struct{}
	// err is the error with which the call has ended.
	err  error
	done chan struct{}

	mu sync.Mutex
	// responses are those that were received, and times when.
	responses []*grantorv1.WatchRevocationsResponse
	times     []time.Time
	// buffers are the addresses of the encodings of the responses, nil for those that are not shared.
	buffers []*byte
}

// follow begins to follow the hub.
func (r *replica) follow(t testing.TB, request *grantorv1.WatchRevocationsRequest, blocked chan struct{}) *stream {
	s := &stream{replica: r, blocked: blocked, done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(t.Context())
	go func() {
		s.err = r.Follow(request, s)
		s.cancel()
		close(s.done)
	}()
	return s
}

func (s *stream) end() {
	s.cancel()
	<-s.done
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) SendMsg(m any) error {
	if s.blocked != nil {
		select {
		case <-s.blocked:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	response, buffer, err := s.replica.decode(m.(proto.Message))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.responses, s.times, s.buffers = append(s.responses, response), append(s.times, time.Now()), append(s.buffers, buffer)
	return err
}

// decode returns a response as a client receives it, and the address of its encoding if that is shared.
func (r *replica) decode(message proto.Message) (response *grantorv1.WatchRevocationsResponse, buffer *byte, err error) {
	if shared := message.ProtoReflect().GetUnknown(); len(shared) > 0 {
		buffer = &shared[0]
		if known, ok := r.decoded.Load(buffer); ok {
			return known.(*grantorv1.WatchRevocationsResponse), buffer, nil
		}
	}
	encoded, err := proto.Marshal(message)
	if err != nil {
		return nil, nil, err
	}
	response = &grantorv1.WatchRevocationsResponse{}
	err = proto.Unmarshal(encoded, response)
	if buffer != nil {
		r.decoded.Store(buffer, response)
	}
	return response, buffer, err
}

// tokens returns the IDs of the revoked tokens in the order in which they were received.
func (s *stream) tokens() (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, response := range s.responses {
		for _, revoked := range response.GetTokens() {
			ids = append(ids, revoked.GetJti())
		}
	}
	return ids
}

// received returns the number of responses, and the last one.
func (s *stream) received() (int, *grantorv1.WatchRevocationsResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.responses) == 0 {
		return 0, &grantorv1.WatchRevocationsResponse{}
	}
	return len(s.responses), s.responses[len(s.responses)-1]
}
