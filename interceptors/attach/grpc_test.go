package attach_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/attach"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// orders is a server that takes one token only. What reaches its handlers is in calls.
type orders struct {
	testgrpc.UnimplementedTestServiceServer

	mu      sync.Mutex
	takes   string   // the token, or "" for any
	silent  bool     // refuses without saying why
	late    bool     // sends its header before it refuses
	fails   error    // what every handler ends with
	ends    bool     // streams end because of the token, after messages
	headers []string // every authorization that came
	calls   int
}

func (o *orders) check(ctx context.Context, header func(metadata.MD) error, trailer func(metadata.MD)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	got := strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ",")
	o.headers = append(o.headers, got)
	trailer(metadata.Pairs("attempt", got))
	if o.takes == "" || got == "Bearer "+o.takes {
		_ = header(metadata.Pairs("attempt", got))
		return nil
	}
	if o.late {
		_ = header(metadata.Pairs("attempt", got))
	}
	if !o.silent {
		trailer(metadata.Pairs("www-authenticate", `Bearer error="invalid_token"`))
	}
	return status.Error(codes.Unauthenticated, "not this one")
}

func (o *orders) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	err := o.check(ctx, func(md metadata.MD) error { return grpc.SetHeader(ctx, md) },
		func(md metadata.MD) { _ = grpc.SetTrailer(ctx, md) })
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

func (o *orders) stream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := o.check(stream.Context(), stream.SendHeader, stream.SetTrailer); err != nil {
		return err
	}
	return handler(service, stream)
}

func (o *orders) called() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls++
	return o.fails
}

func (o *orders) UnaryCall(_ context.Context, request *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	return &testgrpc.SimpleResponse{Payload: request.GetPayload()}, o.called()
}

func (o *orders) StreamingOutputCall(request *testgrpc.StreamingOutputCallRequest,
	stream grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
	for range 2 {
		if err := stream.Send(&testgrpc.StreamingOutputCallResponse{Payload: request.GetPayload()}); err != nil {
			return err
		}
	}
	if o.ends {
		stream.SetTrailer(metadata.Pairs("www-authenticate", `Bearer error="invalid_token"`))
		return errors.Join(o.called(), status.Error(codes.Unauthenticated, "expired"))
	}
	return o.called()
}

func (o *orders) StreamingInputCall(
	stream grpc.ClientStreamingServer[testgrpc.StreamingInputCallRequest, testgrpc.StreamingInputCallResponse]) error {
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return errors.Join(o.called(), stream.SendAndClose(&testgrpc.StreamingInputCallResponse{}))
		} else if err != nil {
			return err
		}
	}
}

// wantSeen checks which tokens came, in order, and how often a handler ran.
func (o *orders) wantSeen(t *testing.T, calls int, tokens ...string) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	want := make([]string, len(tokens))
	for i, token := range tokens {
		want[i] = "Bearer " + token
	}
	if !slices.Equal(o.headers, want) {
		t.Errorf("the server got authorization %q, want %q", o.headers, want)
	}
	if o.calls != calls {
		t.Errorf("a handler ran %d times, want %d", o.calls, calls)
	}
}

// serve starts the server and gives its address.
func (o *orders) serve(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	options = append(options, grpc.UnaryInterceptor(o.unary), grpc.StreamInterceptor(o.stream))
	server := grpc.NewServer(options...)
	testgrpc.RegisterTestServiceServer(server, o)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return listener.Addr().String()
}

var plaintext = grpc.WithTransportCredentials(insecure.NewCredentials())

func dial(t *testing.T, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (o *orders) client(t *testing.T, source *attach.Source) testgrpc.TestServiceClient {
	t.Helper()
	return testgrpc.NewTestServiceClient(dial(t, o.serve(t), attach.DialOptions(source, plaintext)...))
}

// numbered is a source of the tokens "1", "2" and so on.
func numbered() *attach.Source {
	return attach.NewSource((&issuer{lifetime: time.Hour}).fetch, 0.5)
}

var hello = &testgrpc.Payload{Body: []byte("hello")}

func TestUnary(t *testing.T) {
	for _, test := range []struct {
		name   string
		server *orders
		code   codes.Code
		calls  int
		seen   []string
		next   string // the token of the call after
	}{
		{"taken", &orders{takes: "1"}, codes.OK, 1, []string{"1"}, "1"},
		{"refused, then taken", &orders{takes: "2"}, codes.OK, 1, []string{"1", "2"}, "2"},
		{"refused with a header, then taken", &orders{takes: "2", late: true}, codes.OK, 1, []string{"1", "2"}, "2"},
		{"always refused", &orders{takes: "none"}, codes.Unauthenticated, 0, []string{"1", "2"}, "2"},
		{"refused without a reason", &orders{takes: "2", silent: true}, codes.Unauthenticated, 0, []string{"1"}, "2"},
		{"handler fails so", &orders{fails: status.Error(codes.Unauthenticated, "downstream")}, codes.Unauthenticated, 1,
			[]string{"1"}, "2"},
		{"handler fails otherwise", &orders{fails: status.Error(codes.NotFound, "")}, codes.NotFound, 1, []string{"1"}, "1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			source, server := numbered(), test.server
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
			server.wantSeen(t, test.calls, test.seen...)
			counted := []string{"Bearer " + test.seen[len(test.seen)-1]}
			if got := trailer.Get("attempt"); !slices.Equal(got, counted) {
				t.Errorf("got the trailer of %q, want of %q", got, counted)
			}
			if got := header.Get("attempt"); test.code == codes.OK && !slices.Equal(got, counted) {
				t.Errorf("got the header of %q, want of %q", got, counted)
			}
			if got := take(t, source); got != test.next {
				t.Errorf("the next call has token %q, want %q", got, test.next)
			}
		})
	}
}

// A second call that gets no answer must not show the first one's trailer.
func TestUnaryRetryWithoutAnswer(t *testing.T) {
	server := &orders{takes: "2"}
	source := numbered()
	broken := status.Error(codes.Unavailable, "broken")
	attempts := 0
	breaks := func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker,
		opts ...grpc.CallOption) error {
		if attempts++; attempts == 2 {
			return broken
		}
		return invoke(ctx, method, request, reply, cc, opts...)
	}
	conn := dial(t, server.serve(t), plaintext,
		grpc.WithChainUnaryInterceptor(attach.UnaryInterceptor(source), breaks))
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
		{"taken", &orders{takes: "1"}, false, codes.OK, 2, 1, []string{"1"}, "1"},
		{"refused, then taken", &orders{takes: "2"}, false, codes.OK, 2, 1, []string{"1", "2"}, "2"},
		{"refused, then taken, met by Header", &orders{takes: "2"}, true, codes.OK, 2, 1, []string{"1", "2"}, "2"},
		{"refused after a header", &orders{takes: "2", late: true}, false, codes.OK, 2, 1, []string{"1", "2"}, "2"},
		{"refused after a header that was read", &orders{takes: "2", late: true}, true, codes.Unauthenticated, 0, 0,
			[]string{"1"}, "2"},
		{"always refused", &orders{takes: "none"}, false, codes.Unauthenticated, 0, 0, []string{"1", "2"}, "2"},
		{"always refused, met by Header", &orders{takes: "none"}, true, codes.Unauthenticated, 0, 0, []string{"1", "2"}, "2"},
		{"refused without a reason", &orders{takes: "2", silent: true}, false, codes.Unauthenticated, 0, 0,
			[]string{"1"}, "2"},
		{"token ends after messages", &orders{ends: true}, false, codes.Unauthenticated, 2, 1, []string{"1"}, "2"},
		{"fails so after messages", &orders{fails: status.Error(codes.Unauthenticated, "ended")}, false,
			codes.Unauthenticated, 2, 1, []string{"1"}, "2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			source, server := numbered(), test.server
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
			server.wantSeen(t, test.calls, test.seen...)
			want := []string{"Bearer " + test.seen[len(test.seen)-1]}
			if got := stream.Trailer().Get("attempt"); !slices.Equal(got, want) {
				t.Errorf("got the trailer of %q, want of %q", got, want)
			}
			if got := take(t, source); got != test.next {
				t.Errorf("the next call has token %q, want %q", got, test.next)
			}
		})
	}
}

// One goroutine may ask for the header while another receives.
func TestStreamOpenedAgainUnderHeader(t *testing.T) {
	for range 20 {
		server := &orders{takes: "2"}
		stream, err := server.client(t, numbered()).StreamingOutputCall(t.Context(),
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
		server.wantSeen(t, 1, "1", "2")
	}
}

// An issuer that has no other token to give leaves nothing to try again with.
func TestNoRetryWithTheSameToken(t *testing.T) {
	server := &orders{takes: "none"}
	source := attach.NewSource(func(context.Context) (string, time.Duration, error) { return "same", time.Hour, nil }, 0)
	_, err := server.client(t, source).UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v, want the refusal", err)
	}
	server.wantSeen(t, 0, "same")

	website := &site{takes: "none", challenge: `Bearer error="invalid_token"`}
	got, err := send(t, source.Transport(newTransport(t)), newRequest(t, http.MethodGet, website.serve(t), nil))
	if err != nil || got != http.StatusUnauthorized {
		t.Errorf("got %d, %v, want 401", got, err)
	}
	website.wantSeen(t, "Bearer same")
}

func TestClientStreamIsNotOpenedAgain(t *testing.T) {
	server := &orders{takes: "2"}
	client := server.client(t, numbered())
	send := func() error {
		stream, err := client.StreamingInputCall(t.Context())
		if err != nil {
			return err
		}
		for range 3 {
			if err := stream.Send(&testgrpc.StreamingInputCallRequest{Payload: hello}); err != nil {
				break // io.EOF: the status is in what follows
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
	server.wantSeen(t, 1, "1", "2")
}
