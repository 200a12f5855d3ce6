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

// StreamInterceptor returns an interceptor that does for streams what [UnaryInterceptor] does for unary calls. If the
// server refuses the token before it answers, a stream whose method takes a single request message is opened once more
// and that message is sent again. A client-streaming call is not repeated, because its messages are gone: the caller
// gets the error, and the next stream a new token.
//
// A stream outlives its token if the server offers to renew it (verify.RegisterStreamRenewal): the source's new token
// is presented to the server before the old one expires.
func StreamInterceptor(source *Source) grpc.StreamClientInterceptor {
	a := newAttacher(source)
	source = a.source
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer,
		opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if err := source.checkNoCredentials(ctx, opts); err != nil {
			return nil, err
		}
		if desc == nil {
			return nil, status.Error(codes.Internal, "attach: the description of the stream is nil")
		}
		if source.instruments != nil {
			open = source.instruments.stream(open)
		}
		e, err := source.get(ctx)
		if err != nil {
			return nil, err
		}
		s := &stream{attacher: a, cc: cc, unaryRequest: !desc.ClientStreams}
		attempt := func(e *entry) (_ grpc.ClientStream, used *entry, again bool, _ error) {
			renewal := newRenewal(cc, s.setEntry)
			token := a.token(cc, e)
			s.proven = token.prover()
			opened, err := open(renewal.withStreamID(ctx), desc, cc, method, token.callOptions(opts, grpc.OnFinish(renewal.stop))...)
			if err == nil && opened == nil {
				err = status.Error(codes.Internal, "attach: a further interceptor returned no stream and no error")
			}
			if err != nil {
				renewal.stop(err)
				return nil, nil, token.ended(), err
			}
			renewal.schedule(token.entry())
			return opened, token.entry(), false, nil
		}
		s.open = func(e *entry) (grpc.ClientStream, *entry, error) {
			opened, used, again, err := attempt(e)
			if again {
				opened, used, _, err = attempt(e)
			}
			return opened, used, err
		}
		s.replacement = func(e *entry) *entry { return a.replacement(ctx, e) }
		if s.current, s.entry, err = s.open(e); err != nil {
			if plain := plaintextError(cc, err); plain != nil {
				err = plain
			}
			return nil, err
		}
		return s, nil
	}
}

// stream is a client stream that can be opened once more until the server has answered. As with any
// [grpc.ClientStream], one goroutine may send while another receives.
type stream struct {
	attacher     *attacher
	cc           *grpc.ClientConn
	open         func(*entry) (_ grpc.ClientStream, used *entry, _ error)
	replacement  func(refused *entry) *entry
	unaryRequest bool // the method takes a single request message

	// recvMu is held while a message is received, so that Header may wait for the end of the same stream.
	recvMu sync.Mutex

	mu      sync.Mutex
	current grpc.ClientStream
	entry   *entry            // the token of current
	proven  *provenCredential // makes the DPoP proof of current; nil for a bearer token
	message any               // the request message, while it may have to be sent again
	again   bool              // the stream was opened again for a nonce
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
	if s.unaryRequest {
		s.message = m
	}
	inner := s.current
	s.mu.Unlock()
	return inner.SendMsg(m)
}

func (s *stream) RecvMsg(m any) error {
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	inner := s.inner()
	err := inner.RecvMsg(m)
	if err == nil {
		s.commit()
		return nil
	}
	for {
		next, final, failure := s.retry(inner, err)
		if next == nil {
			return failure
		}
		if err = next.RecvMsg(m); err == nil || final {
			return err
		}
		inner = next
	}
}

func (s *stream) Header() (metadata.MD, error) {
	inner := s.inner()
	header, err := inner.Header()
	if header != nil || err != nil {
		s.commit()
		return header, err
	}
	// The stream has ended without a header. RecvMsg returns its status, and returns it again to the caller.
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	next := s.inner()
	if next == inner {
		if err = inner.RecvMsg(&emptypb.Empty{}); err != nil {
			next, _, _ = s.retry(inner, err)
		}
	}
	if next == nil || next == inner {
		return nil, nil
	}
	return next.Header()
}

// commit rules out that the stream is opened once more, and remembers the nonce that the server provided, if any.
func (s *stream) commit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.message = nil
	if s.proven != nil {
		if header, err := s.current.Header(); err == nil { // does not wait: a message has arrived
			s.proven.learn(header)
		}
		s.proven = nil
	}
}

// setEntry records the token under which the stream continues: if that token is refused, it is the one to drop.
func (s *stream) setEntry(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entry = e
}

// retry returns the stream that replaces failed, which ended with err, or nil and the error for the caller. The stream
// may be replaced once with a nonce for its DPoP proof, and then once more, which is final, with another token.
func (s *stream) retry(failed grpc.ClientStream, err error) (_ grpc.ClientStream, final bool, _ error) {
	if status.Code(err) != codes.Unauthenticated {
		return nil, true, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next, message := s.entry, s.message
	if s.attacher.nonceDemanded(s.proven, err, nil, failed.Trailer()) && !s.again && message != nil {
		s.again = true
	} else {
		retry, err := s.attacher.handleRefusal(s.cc, s.entry, err, failed.Trailer())
		if !retry || message == nil {
			return nil, true, err
		}
		if next = s.replacement(s.entry); next == nil {
			return nil, true, err
		}
		s.message, final = nil, true
	}
	opened, used, failure := s.open(next)
	if failure != nil {
		return nil, true, failure
	}
	s.current, s.entry = opened, used
	if failure := opened.SendMsg(message); failure != nil {
		return nil, true, failure
	}
	// There is no further message, even if the caller has not called CloseSend yet.
	if failure := opened.CloseSend(); failure != nil {
		return nil, true, failure
	}
	return opened, final, nil
}
