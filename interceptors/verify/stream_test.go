package verify_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// streamServer is a server with the guarded streams Down, where only the server sends, and Both, and the public stream
// Open. All run handle.
type streamServer struct {
	signer   *token.Signer
	verifier *verify.Verifier
	now      *clock
	conn     *grpc.ClientConn
	// returned gets a value when handle has returned, reasons each error passed to OnRefusal.
	returned chan struct{}
	reasons  chan error
}

var streams = map[string]*grpc.StreamDesc{
	"Down": {StreamName: "Down", ServerStreams: true},
	"Both": {StreamName: "Both", ServerStreams: true, ClientStreams: true},
	"Open": {StreamName: "Open", ServerStreams: true, ClientStreams: true},
}

func newStreamServer(t testing.TB, handle func(grpc.ServerStream) error, options ...grpc.ServerOption) *streamServer {
	t.Helper()
	s := &streamServer{signer: newSigner(), now: &clock{}, returned: make(chan struct{}, 10), reasons: make(chan error, 10)}
	s.verifier = newVerifier(s.signer, verify.Audience("https://stock.internal"), verify.Now(s.now.Now), verify.OnRefusal(func(_ context.Context, method string, err error) {
		s.reasons <- fmt.Errorf("%s: %w", method, err)
	}))
	server := verify.NewServer(s.verifier, verify.Policy{
		"/test.v1.Stream/Down": verify.Scopes("orders.read"), "/test.v1.Stream/Both": verify.Scopes("orders.read"),
		"/test.v1.Stream/Open": verify.Public(),
	}, options...)
	desc := &grpc.ServiceDesc{ServiceName: "test.v1.Stream", HandlerType: (*any)(nil)}
	for _, stream := range streams {
		described := *stream
		described.Handler = func(_ any, stream grpc.ServerStream) error {
			defer func() { s.returned <- struct{}{} }()
			return handle(stream)
		}
		desc.Streams = append(desc.Streams, described)
	}
	server.RegisterService(desc, nil)
	verify.RegisterStreamRenewal(server, s.verifier)
	s.conn = listen(t, server)
	return s
}

// token returns a token of a client with scopes, and its id.
func (s *streamServer) token(client, scope string) (raw, id string) {
	id = token.NewID().String()
	return must.Get(s.signer.Sign(claims(testIssuer, scope, func(c *token.Claims) {
		c.ID, c.ClientID, c.Subject = id, client, client
		c.IssuedAt = s.now.Now().Truncate(time.Second)
		c.ExpiresAt = c.IssuedAt.Add(time.Hour)
	}))), id
}

func (s *streamServer) revoke(id string) {
	verify.Deny(s.verifier, revocation.Change{Kind: revocation.TokenRevoked, ID: id, At: s.now.Now().Add(time.Hour)})
}

// open opens a stream and waits until its handler has sent a message.
func (s *streamServer) open(t testing.TB, method, raw, name string) grpc.ClientStream {
	t.Helper()
	ctx := outgoing(t.Context(), "Bearer "+raw)
	if name != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "grantor-stream", name)
	}
	stream := must.Get(s.conn.NewStream(ctx, streams[method], "/test.v1.Stream/"+method))
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	if method == "Down" {
		_ = stream.CloseSend()
	}
	if err := stream.RecvMsg(&wrapperspb.StringValue{}); err != nil {
		t.Fatal(err)
	}
	return stream
}

// echoOnce receives one message and answers it.
func echoOnce(stream grpc.ServerStream) error {
	if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	return stream.SendMsg(callerName(stream.Context()))
}

// drain receives until the stream ends, and returns its error.
func drain(stream grpc.ClientStream) error {
	for {
		if err := stream.RecvMsg(&wrapperspb.StringValue{}); err != nil {
			return err
		}
	}
}

// wantEnd waits for a stream to end because of its token, within a second.
func (s *streamServer) wantEnd(t *testing.T, stream grpc.ClientStream, began time.Time, reason error) {
	t.Helper()
	// Wait for the handler first: a client that does not read must not hold it up.
	select {
	case <-s.returned:
	case <-time.After(5 * time.Second):
		t.Error("the handler still runs")
	}
	err := drain(stream)
	if got := outcome(err, stream.Trailer()); got != "Unauthenticated invalid_token" {
		t.Errorf("got %s, %v, want UNAUTHENTICATED without a challenge", got, err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("the stream ended after %s, want within a second", took)
	}
	if got := <-s.reasons; !errors.Is(got, reason) || !strings.HasPrefix(got.Error(), "/test.v1.Stream/") {
		t.Errorf("OnRefusal: got %v, want the method and %v", got, reason)
	}
}

// A stream ends with its token whatever its handler is waiting for, and the handler is released.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	handlers := map[string]func(grpc.ServerStream) error{
		"waiting": func(stream grpc.ServerStream) error {
			<-stream.Context().Done()
			return stream.Context().Err()
		},
		"receiving": func(stream grpc.ServerStream) error { return stream.RecvMsg(&emptypb.Empty{}) },
		"sending": func(stream grpc.ServerStream) error {
			for { // blocks: the client reads only when the token has expired
				if err := stream.SendMsg(wrapperspb.String(strings.Repeat("x", 1<<18))); err != nil {
					return err
				}
			}
		},
		"returning nil on failure": func(stream grpc.ServerStream) error {
			ticker := time.NewTicker(time.Millisecond)
			defer ticker.Stop()
			for stream.SendMsg(wrapperspb.String("x")) == nil {
				<-ticker.C
			}
			return nil
		},
		"meddling": func(stream grpc.ServerStream) error {
			<-stream.Context().Done()
			for range 100 {
				stream.SetTrailer(metadata.Pairs("late", "yes"))
				_ = stream.SetHeader(metadata.Pairs("late", "yes"))
				_ = stream.SendHeader(metadata.Pairs("late", "yes"))
				if stream.SendMsg(wrapperspb.String("late")) == nil || stream.RecvMsg(&emptypb.Empty{}) == nil {
					return errors.New("the stream went on")
				}
			}
			return status.Error(codes.DataLoss, "late")
		},
	}
	for name, handle := range handlers {
		for _, method := range []string{"Down", "Both"} {
			if name == "receiving" && method == "Down" {
				continue // no further message to wait for
			}
			for _, end := range []error{token.ErrExpired, token.ErrRevoked} {
				t.Run(fmt.Sprintf("%s, %s, %v", name, method, end), func(t *testing.T) {
					t.Parallel()
					s := newStreamServer(t, func(stream grpc.ServerStream) error {
						if err := echoOnce(stream); err != nil {
							return err
						}
						return handle(stream)
					})
					raw, id := s.token("billing", "orders.read")
					stream := s.open(t, method, raw, "")
					if errors.Is(end, token.ErrExpired) {
						s.now.advance(time.Hour)
					} else {
						s.revoke(id)
					}
					s.wantEnd(t, stream, time.Now(), end)
					if len(stream.Trailer().Get("late")) > 0 {
						t.Error("the trailer has what the handler set after the end")
					}
					if got := call(s.conn, "/test.v1.Stream/"+method, true, "Bearer "+raw); got != refusedToken {
						t.Errorf("the next call: got %s, want %s", got, refusedToken)
					}
					if got := verify.Open(s.verifier); got != 0 {
						t.Errorf("%d streams are still watched", got)
					}
				})
			}
		}
	}
}

// If the token stays valid, the handler's result is the stream's result.
func TestStreamUnaffected(t *testing.T) {
	sentinel := errors.New("sentinel")
	recovered := make(chan any, 1)
	outer := grpc.StreamInterceptor(func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer func() {
			if p := recover(); p != nil {
				recovered <- p
				err = status.Error(codes.Internal, "recovered")
			}
		}()
		return handler(server, stream)
	})
	tests := map[string]struct {
		end  func() error
		code codes.Code
	}{
		"success": {func() error { return nil }, codes.OK},
		"failure": {func() error { return status.Error(codes.NotFound, "") }, codes.NotFound},
		"panic":   {func() error { panic(sentinel) }, codes.Internal},
		"goexit":  {func() error { runtime.Goexit(); return nil }, codes.Internal},
		"its own": {func() error { return status.Error(codes.Unauthenticated, "downstream") }, codes.Unauthenticated},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStreamServer(t, func(stream grpc.ServerStream) error {
				if err := stream.SetHeader(metadata.Pairs("header", "1")); err != nil {
					return err
				}
				if err := echoOnce(stream); err != nil {
					return err
				}
				stream.SetTrailer(metadata.Pairs("trailer", "2"))
				return test.end()
			}, outer)
			raw, _ := s.token("billing", "orders.read")
			stream := s.open(t, "Both", raw, "")
			err := drain(stream)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			header, _ := stream.Header()
			if status.Code(err) != test.code || len(header.Get("header")) != 1 || len(stream.Trailer().Get("trailer")) != 1 {
				t.Errorf("got %v, header %v, trailer %v, want %v and both", err, header, stream.Trailer(), test.code)
			}
			if name == "panic" {
				p, _ := (<-recovered).(error)
				if !errors.Is(p, sentinel) || !strings.Contains(p.Error(), "stream_test.go") {
					t.Errorf("an outer interceptor recovered %v, want the handler's value and where it was raised", p)
				}
			}
			if len(s.reasons) > 0 {
				t.Errorf("OnRefusal: got %v, want nothing", <-s.reasons)
			}
		})
	}
}

// The stream of a public method does not end with a token.
func TestPublicStream(t *testing.T) {
	s := newStreamServer(t, func(stream grpc.ServerStream) error {
		for {
			if err := echoOnce(stream); err != nil {
				return err
			}
		}
	})
	raw, id := s.token("billing", "orders.read")
	stream := s.open(t, "Open", raw, "")
	guarded := s.open(t, "Both", raw, "")
	s.revoke(id)
	s.now.advance(2 * time.Hour)
	s.wantEnd(t, guarded, time.Now(), token.ErrExpired)
	for range 3 {
		if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&wrapperspb.StringValue{}); err != nil {
			t.Errorf("the public stream ended: %v", err)
		}
	}
	_ = stream.CloseSend()
	_ = drain(stream)
}

// fakeServerStream is a server stream without a network.
type fakeServerStream struct {
	grpc.ServerStream

	ctx context.Context
}

func (p fakeServerStream) Context() context.Context { return p.ctx }

// One goroutine watches all streams and ends with the last of them. It detects the expiry of a token at the next tick.
func TestStreamsWatched(t *testing.T) {
	signer := newSigner()
	synctest.Test(t, func(t *testing.T) {
		verifier := newVerifier(signer)
		guard := verify.StreamInterceptor(verifier, nil)
		raw := must.Get(signer.Sign(claims(testIssuer, "orders.read", func(c *token.Claims) { c.ExpiresAt = c.IssuedAt.Add(time.Minute) })))
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+raw))
		run := func(handle grpc.StreamHandler) error {
			return guard(nil, fakeServerStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: "/test.v1.Proto/Chat"}, handle)
		}
		for range 100 {
			if err := run(func(any, grpc.ServerStream) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() {
				err := run(func(_ any, stream grpc.ServerStream) error { <-stream.Context().Done(); return nil })
				if took := time.Since(began); status.Code(err) != codes.Unauthenticated || took < 59*time.Second || took > time.Minute+500*time.Millisecond {
					t.Errorf("got %v after %s, want UNAUTHENTICATED at a minute", err, took)
				}
			})
		}
		advance(time.Second)
		if got := running("(*guardedStreams).watch"); got != 1 {
			t.Errorf("%d goroutines watch the streams, want 1", got)
		}
		group.Wait()
		synctest.Wait()
		if got := running("(*guardedStreams).watch"); got != 0 {
			t.Errorf("%d goroutines run without streams", got)
		}
	})
}
