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

// serve runs a stream's handler until its token is no longer valid. The handler runs in its own goroutine, because a
// handler that waits for the next message is released only when the stream ends, which happens when serve returns.
func (g *guard) serve(method string, stream *callerStream, handle func(grpc.ServerStream) error) error {
	caller, _ := CallerFrom(stream.ctx)
	streams := g.verifier.member(caller.Claims).streams
	running := streams.add(stream.ctx, caller.Claims)
	defer streams.remove(running)
	ctx, cancel := context.WithCancel(stream.ctx)
	defer cancel()
	done, abandoned := make(chan outcome), make(chan struct{})
	defer close(abandoned)
	go func() {
		o := outcome{err: errExited}
		defer func() {
			if value := recover(); value != nil {
				o.panicked = &panicError{value, debug.Stack()}
			}
			select {
			case done <- o:
			case <-abandoned:
				if o.panicked != nil { // serve has returned, so no caller can recover it
					logRecord(slog.LevelError, "verify: a handler panicked after its stream had ended",
						"method", method, "error", o.panicked)
				}
			}
		}()
		o.err = handle(&callerStream{ServerStream: stream.ServerStream, ctx: ctx, guarded: running})
	}()
	select {
	case o := <-done:
		if o.panicked != nil {
			panic(o.panicked)
		}
		if !running.over() {
			return o.err
		}
		// The stream ended because of its token, whatever the handler returned.
	case <-running.ended:
	}
	refused := refuseToken(running.cause)
	g.verifier.report(ctx, method, refused)
	// The challenge is omitted: it would claim that no handler saw the call.
	return refused.GRPCStatus().Err()
}

// errExited is the result of a handler that neither returns nor panics (runtime.Goexit).
var errExited = status.Error(codes.Internal, "The handler ended its goroutine.")

// outcome is the result of a handler.
type outcome struct {
	err      error
	panicked *panicError
}

// panicError is the value and the stack of a handler's panic. serve panics with it again in the goroutine in which the
// server's own interceptors can recover it.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("%v\n\n%s", p.value, p.stack) }

// Unwrap returns the value if it is an error.
func (p *panicError) Unwrap() error {
	err, _ := p.value.(error)
	return err
}

// callerStream is a stream whose context carries the caller. Once the token is no longer valid, every operation fails:
// the handler may still run then, but the stream no longer belongs to it.
type callerStream struct {
	grpc.ServerStream

	ctx context.Context
	// guarded is nil if the stream does not end with a token.
	guarded *guardedStream
}

// Context returns the context with the caller.
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

// ended returns the status with which the stream ends if its token is no longer valid, and nil otherwise.
func (s *callerStream) ended() error {
	if s.guarded == nil || !s.guarded.over() {
		return nil
	}
	return refuseToken(s.guarded.cause).GRPCStatus().Err()
}
