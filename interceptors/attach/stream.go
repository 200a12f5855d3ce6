package attach

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// StreamInterceptor does for streams what [UnaryInterceptor] does for unary calls. A stream whose method takes a single
// message is opened once more, with that message, if the server refused the token before it answered anything. Where
// the client streams, the messages sent are gone: the caller gets the error, and the next stream a new token.
//
// A stream outlives its token where the server lets streams be renewed: the source's new token is then presented before
// the old one expires.
func StreamInterceptor(source *Source) grpc.StreamClientInterceptor {
	a := &attacher{source: source}
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer,
		opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if err := unidentified(ctx, opts); err != nil {
			return nil, err
		}
		if source.instruments != nil {
			open = source.instruments.stream(open)
		}
		e, err := source.get(ctx)
		if err != nil {
			return nil, err
		}
		s := &stream{attacher: a, cc: cc, entry: e, single: !desc.ClientStreams}
		s.open = func(e *entry) (grpc.ClientStream, error) {
			renewal := newRenewal(source, cc, s.renewed)
			opened, err := open(renewal.name(ctx), desc, cc, method, a.options(cc, e, opts, grpc.OnFinish(renewal.finish))...)
			if err != nil {
				renewal.finish(err)
				return nil, err
			}
			renewal.await(e)
			return opened, nil
		}
		s.another = func(e *entry) *entry { return a.another(ctx, e) }
		if s.current, err = s.open(e); err != nil {
			if plain := plaintextRefused(cc, err); plain != nil {
				err = plain
			}
			return nil, err
		}
		return s, nil
	}
}

// stream is a stream that can be opened once more until the server has answered. As with any [grpc.ClientStream], one
// goroutine may send while another receives.
type stream struct {
	attacher *attacher
	cc       *grpc.ClientConn
	open     func(*entry) (grpc.ClientStream, error)
	another  func(refused *entry) *entry
	single   bool // the method takes one message

	// receiving is held while a message is awaited, so that Header may look for the end of the same stream.
	receiving sync.Mutex

	mu      sync.Mutex
	current grpc.ClientStream
	entry   *entry // what current runs by
	message any    // what was sent, as long as it may have to be sent once more
}

func (s *stream) inner() grpc.ClientStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *stream) Context() context.Context { return s.inner().Context() }
func (s *stream) Trailer() metadata.MD     { return s.inner().Trailer() }
func (s *stream) CloseSend() error         { return s.inner().CloseSend() }

func (s *stream) SendMsg(m any) error {
	s.mu.Lock()
	if s.single {
		s.message = m
	}
	inner := s.current
	s.mu.Unlock()
	return inner.SendMsg(m)
}

func (s *stream) RecvMsg(m any) error {
	s.receiving.Lock()
	defer s.receiving.Unlock()
	inner := s.inner()
	err := inner.RecvMsg(m)
	if err == nil {
		s.answered()
		return nil
	}
	next, err := s.after(inner, err)
	if next == nil {
		return err
	}
	return next.RecvMsg(m)
}

func (s *stream) Header() (metadata.MD, error) {
	inner := s.inner()
	header, err := inner.Header()
	if header != nil || err != nil {
		s.answered()
		return header, err
	}
	// The stream has ended without a header. Receiving tells its status, and tells it again to the caller.
	s.receiving.Lock()
	defer s.receiving.Unlock()
	next := s.inner()
	if next == inner {
		if err = inner.RecvMsg(&emptypb.Empty{}); err != nil {
			next, _ = s.after(inner, err)
		}
	}
	if next == nil || next == inner {
		return nil, nil
	}
	return next.Header()
}

// answered ends the time in which the stream could be opened once more.
func (s *stream) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.message = nil
}

// renewed notes the token that the stream goes on with: if that is refused, it is the one to drop.
func (s *stream) renewed(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entry = e
}

// after gives the stream to go on with when failed ended with err, or nil and the error for the caller.
func (s *stream) after(failed grpc.ClientStream, err error) (grpc.ClientStream, error) {
	if status.Code(err) != codes.Unauthenticated {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	may, err := s.attacher.refused(s.cc, s.entry, err, failed.Trailer())
	if !may || s.message == nil {
		return nil, err
	}
	next := s.another(s.entry)
	if next == nil {
		return nil, err
	}
	message := s.message
	s.message = nil
	again, failure := s.open(next)
	if failure != nil {
		return nil, failure
	}
	s.current, s.entry = again, next
	if failure := again.SendMsg(message); failure != nil {
		return nil, failure
	}
	// There is no further message, whether the caller has said so yet or not.
	if failure := again.CloseSend(); failure != nil {
		return nil, failure
	}
	return again, nil
}
