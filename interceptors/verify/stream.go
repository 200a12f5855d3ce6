package verify

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// serve runs a stream's handler for as long as its token holds. The handler runs apart, because one that waits for the
// stream's next message is only freed when the stream ends, which is what returning from here does.
func (g *guard) serve(method string, stream *callerStream, handle func(grpc.ServerStream) error) error {
	caller, _ := CallerFrom(stream.ctx)
	running := g.verifier.streams.begin(stream.ctx, caller.Claims)
	defer g.verifier.streams.finish(running)
	ctx, cancel := context.WithCancel(stream.ctx)
	defer cancel()
	done, left := make(chan outcome), make(chan struct{})
	defer close(left)
	go func() {
		o := outcome{err: errExited}
		defer func() {
			if value := recover(); value != nil {
				o.panicked = &panicError{value, debug.Stack()}
			}
			select {
			case done <- o:
			case <-left:
				if o.panicked != nil { // there is nobody any more whom it could be raised to
					slog.Error("verify: the handler of a stream that had ended panicked", "method", method, "error", o.panicked)
				}
			}
		}()
		o.err = handle(&callerStream{ServerStream: stream.ServerStream, ctx: ctx, session: running})
	}()
	select {
	case o := <-done:
		if o.panicked != nil {
			panic(o.panicked)
		}
		if !running.over() {
			return o.err
		}
		// What the handler made of it, perhaps success, is not how the stream ended.
	case <-running.ended:
	}
	refused := refuseToken(running.cause)
	g.verifier.report(ctx, method, refused)
	// Without the challenge: it would tell the client that no handler saw the call.
	return refused.status()
}

// errExited is how a handler ends that neither returns nor panics (runtime.Goexit).
var errExited = status.Error(codes.Internal, "The handler ended its goroutine.")

// outcome is how a handler ended.
type outcome struct {
	err      error
	panicked *panicError
}

// panicError is what a handler panicked with, and where, to be raised where the server's own interceptors see it.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("%v\n\n%s", p.value, p.stack) }

// Unwrap gives the value, if it is an error.
func (p *panicError) Unwrap() error {
	err, _ := p.value.(error)
	return err
}

// callerStream is a stream whose context has the caller. Once its token has ended it does nothing more: the handler may
// still run then, but the stream is no longer its own.
type callerStream struct {
	grpc.ServerStream

	ctx context.Context
	// session is nil where the stream does not end with a token.
	session *guardedStream
}

// Context gives the context with the caller.
func (s *callerStream) Context() context.Context { return s.ctx }

// SetHeader implements [grpc.ServerStream].
func (s *callerStream) SetHeader(md metadata.MD) error {
	if err := s.ended(); err != nil {
		return err
	}
	return s.ServerStream.SetHeader(md)
}

// SendHeader implements [grpc.ServerStream].
func (s *callerStream) SendHeader(md metadata.MD) error {
	if err := s.ended(); err != nil {
		return err
	}
	return s.ServerStream.SendHeader(md)
}

// SetTrailer implements [grpc.ServerStream].
func (s *callerStream) SetTrailer(md metadata.MD) {
	if s.ended() == nil {
		s.ServerStream.SetTrailer(md)
	}
}

// SendMsg implements [grpc.ServerStream].
func (s *callerStream) SendMsg(m any) error {
	if err := s.ended(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

// RecvMsg implements [grpc.ServerStream].
func (s *callerStream) RecvMsg(m any) error {
	if err := s.ended(); err != nil {
		return err
	}
	return s.ServerStream.RecvMsg(m)
}

// ended gives the status that the stream ends with, once its token has ended.
func (s *callerStream) ended() error {
	if s.session == nil || !s.session.over() {
		return nil
	}
	return refuseToken(s.session.cause).status()
}
