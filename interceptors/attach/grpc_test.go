package attach_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/attach"
)

func TestUnary(t *testing.T) {
	for _, test := range []struct {
		name   string
		server *orders
		code   codes.Code
		calls  int
		seen   []string
		next   string // the token of the next call
	}{
		{"taken", &orders{accepts: "1"}, codes.OK, 1, []string{"1"}, "1"},
		{"refused, then taken", &orders{accepts: "2"}, codes.OK, 1, []string{"1", "2"}, "2"},
		{"refused with a header, then taken", &orders{accepts: "2", lateRefusal: true}, codes.OK, 1, []string{"1", "2"}, "2"},
		{"always refused", &orders{accepts: "none"}, codes.Unauthenticated, 0, []string{"1", "2"}, "2"},
		{"refused without a reason", &orders{accepts: "2", silent: true}, codes.Unauthenticated, 0, []string{"1"}, "2"},
		{"handler fails with UNAUTHENTICATED", &orders{handlerErr: status.Error(codes.Unauthenticated, "downstream")}, codes.Unauthenticated, 1,
			[]string{"1"}, "2"},
		{"handler fails otherwise", &orders{handlerErr: status.Error(codes.NotFound, "")}, codes.NotFound, 1, []string{"1"}, "1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			source, server := numberedSource(), test.server
			client := server.client(t, source)
			var header, trailer metadata.MD
			reply, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{Payload: hello}, grpc.Header(&header),
				grpc.Trailer(&trailer))
			if status.Code(err) != test.code {
				t.Fatalf("got %v, want code %v", err, test.code)
			}
			if err == nil && string(reply.GetPayload().GetBody()) != "hello" {
				t.Errorf("got reply %v, want hello", reply)
			}
			server.wantTokens(t, test.calls, test.seen...)
			counted := []string{"Bearer " + test.seen[len(test.seen)-1]}
			if got := trailer.Get("attempt"); !slices.Equal(got, counted) {
				t.Errorf("got the trailer of %q, want of %q", got, counted)
			}
			if got := header.Get("attempt"); test.code == codes.OK && !slices.Equal(got, counted) {
				t.Errorf("got the header of %q, want of %q", got, counted)
			}
			if got := accessToken(t, source); got != test.next {
				t.Errorf("the next call has token %q, want %q", got, test.next)
			}
		})
	}
}

// A second call without an answer must not show the trailer of the first.
func TestUnaryRetryWithoutAnswer(t *testing.T) {
	server := &orders{accepts: "2"}
	source := numberedSource()
	broken := status.Error(codes.Unavailable, "broken")
	attempts := 0
	failSecond := func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker,
		opts ...grpc.CallOption) error {
		if attempts++; attempts == 2 {
			return broken
		}
		return invoke(ctx, method, request, reply, cc, opts...)
	}
	conn := dial(t, server.serve(t), plaintext,
		grpc.WithChainUnaryInterceptor(attach.UnaryInterceptor(source), failSecond))
	var header, trailer metadata.MD
	_, err := testgrpc.NewTestServiceClient(conn).UnaryCall(t.Context(), &testgrpc.SimpleRequest{}, grpc.Header(&header),
		grpc.Trailer(&trailer))
	if !errors.Is(err, broken) {
		t.Errorf("got error %v, want %v", err, broken)
	}
	if header != nil || trailer != nil {
		t.Errorf("got header %v and trailer %v of the first attempt, want none", header, trailer)
	}
}

func TestServerStream(t *testing.T) {
	for _, test := range []struct {
		name        string
		server      *orders
		headerFirst bool
		code        codes.Code
		messages    int
		calls       int
		seen        []string
		next        string
	}{
		{"taken", &orders{accepts: "1"}, false, codes.OK, 2, 1, []string{"1"}, "1"},
		{"refused, then taken", &orders{accepts: "2"}, false, codes.OK, 2, 1, []string{"1", "2"}, "2"},
		{"refused, then taken, met by Header", &orders{accepts: "2"}, true, codes.OK, 2, 1, []string{"1", "2"}, "2"},
		{"refused after a header", &orders{accepts: "2", lateRefusal: true}, false, codes.OK, 2, 1, []string{"1", "2"}, "2"},
		{"refused after a header that was read", &orders{accepts: "2", lateRefusal: true}, true, codes.Unauthenticated, 0, 0,
			[]string{"1"}, "2"},
		{"always refused", &orders{accepts: "none"}, false, codes.Unauthenticated, 0, 0, []string{"1", "2"}, "2"},
		{"always refused, met by Header", &orders{accepts: "none"}, true, codes.Unauthenticated, 0, 0, []string{"1", "2"}, "2"},
		{"refused without a reason", &orders{accepts: "2", silent: true}, false, codes.Unauthenticated, 0, 0,
			[]string{"1"}, "2"},
		{"token ends after messages", &orders{endsWithToken: true}, false, codes.Unauthenticated, 2, 1, []string{"1"}, "2"},
		{"fails with UNAUTHENTICATED after messages", &orders{handlerErr: status.Error(codes.Unauthenticated, "ended")}, false,
			codes.Unauthenticated, 2, 1, []string{"1"}, "2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			source, server := numberedSource(), test.server
			stream, err := server.client(t, source).StreamingOutputCall(t.Context(),
				&testgrpc.StreamingOutputCallRequest{Payload: hello})
			if err != nil {
				t.Fatal(err)
			}
			if test.headerFirst {
				header, err := stream.Header()
				counted := []string{"Bearer " + test.seen[len(test.seen)-1]}
				if got := header.Get("attempt"); err != nil || test.code == codes.OK && !slices.Equal(got, counted) {
					t.Errorf("got header of %q, %v, want of %q", got, err, counted)
				}
			}
			messages := 0
			for {
				var message *testgrpc.StreamingOutputCallResponse
				if message, err = stream.Recv(); err != nil {
					break
				}
				messages++
				if string(message.GetPayload().GetBody()) != "hello" {
					t.Errorf("got message %v, want hello", message)
				}
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			if status.Code(err) != test.code || messages != test.messages {
				t.Errorf("got %d messages and %v, want %d and code %v", messages, err, test.messages, test.code)
			}
			server.wantTokens(t, test.calls, test.seen...)
			want := []string{"Bearer " + test.seen[len(test.seen)-1]}
			if got := stream.Trailer().Get("attempt"); !slices.Equal(got, want) {
				t.Errorf("got the trailer of %q, want of %q", got, want)
			}
			if got := accessToken(t, source); got != test.next {
				t.Errorf("the next call has token %q, want %q", got, test.next)
			}
		})
	}
}

// One goroutine may call Header while another receives.
func TestStreamOpenedAgainUnderHeader(t *testing.T) {
	for range 20 {
		server := &orders{accepts: "2"}
		stream, err := server.client(t, numberedSource()).StreamingOutputCall(t.Context(),
			&testgrpc.StreamingOutputCallRequest{Payload: hello})
		if err != nil {
			t.Fatal(err)
		}
		header := make(chan metadata.MD)
		go func() {
			md, _ := stream.Header()
			header <- md
		}()
		_, err = stream.Recv()
		if got := (<-header).Get("attempt"); err != nil || !slices.Equal(got, []string{"Bearer 2"}) {
			t.Errorf("got %v and header of %q, want of the second attempt", err, got)
		}
		for err == nil {
			_, err = stream.Recv()
		}
		server.wantTokens(t, 1, "1", "2")
	}
}

// Without another token, the call is not repeated.
func TestNoRetryWithTheSameToken(t *testing.T) {
	server := &orders{accepts: "none"}
	source := attach.NewSource(func(context.Context) (string, time.Duration, error) { return "same", time.Hour, nil }, 0)
	_, err := server.client(t, source).UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v, want the refusal", err)
	}
	server.wantTokens(t, 0, "same")

	website := &site{accepts: "none", challenge: `Bearer error="invalid_token"`}
	got, err := send(t, source.Transport(newTransport(t)), newRequest(t, http.MethodGet, website.serve(t), nil))
	if err != nil || got != http.StatusUnauthorized {
		t.Errorf("got %d, %v, want 401", got, err)
	}
	website.wantTokens(t, "Bearer same")
}

func TestClientStreamIsNotOpenedAgain(t *testing.T) {
	server := &orders{accepts: "2"}
	client := server.client(t, numberedSource())
	send := func() error {
		stream, err := client.StreamingInputCall(t.Context())
		if err != nil {
			return err
		}
		for range 3 {
			if err := stream.Send(&testgrpc.StreamingInputCallRequest{Payload: hello}); err != nil {
				break // io.EOF: CloseAndRecv returns the status
			}
		}
		_, err = stream.CloseAndRecv()
		return err
	}
	if err := send(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v, want the refusal", err)
	}
	if err := send(); err != nil {
		t.Errorf("the next stream: %v", err)
	}
	server.wantTokens(t, 1, "1", "2")
}
