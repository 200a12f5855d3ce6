package attach_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// provenServer is a server of all kinds of calls that admits bound tokens alone. It counts the refusals by reason.
type provenServer struct {
	testgrpc.UnimplementedTestServiceServer

	issuer   *tokentest.Issuer
	verifier *verify.Verifier
	url      string
	want     verify.Proof // of the callers

	mu      sync.Mutex
	refused map[string]int
}

func (s *provenServer) UnaryCall(ctx context.Context, request *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	return &testgrpc.SimpleResponse{Payload: request.GetPayload()}, s.check(ctx)
}

func (s *provenServer) StreamingOutputCall(_ *testgrpc.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
	if err := s.check(stream.Context()); err != nil {
		return err
	}
	return stream.Send(&testgrpc.StreamingOutputCallResponse{})
}

func (s *provenServer) FullDuplexCall(stream grpc.BidiStreamingServer[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(&testgrpc.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

func (s *provenServer) check(ctx context.Context) error {
	if caller, _ := verify.CallerFrom(ctx); caller.Proof != s.want {
		return fmt.Errorf("the caller has the proof %q", caller.Proof)
	}
	return nil
}

// take returns the refusals since the last time.
func (s *provenServer) take() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	refused := s.refused
	s.refused = map[string]int{}
	return refused
}

func newProvenServer(t *testing.T, issuer *tokentest.Issuer, options ...verify.Option) *provenServer {
	t.Helper()
	s := &provenServer{issuer: issuer, want: verify.ProofDPoP, refused: map[string]int{}}
	issuer.AddClient(t, "billing", resource, "orders.read")
	options = append([]verify.Option{
		verify.Audience(resource), verify.RequireBoundTokens(), verify.OnRefusal(func(_ context.Context, _ string, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refused[verify.Reason(err)]++
		}),
	}, options...)
	s.verifier = must.Get(verify.New(t.Context(), issuer.URL, options...))
	t.Cleanup(s.verifier.Close)
	web := httptest.NewServer(verify.HTTP(s.verifier, verify.Scopes("orders.read"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.check(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
		}
		_, _ = io.Copy(w, r.Body)
	})))
	t.Cleanup(web.Close)
	s.url = web.URL
	return s
}

// serve serves gRPC on the listener until the test ends.
func (s *provenServer) serve(t *testing.T, listener net.Listener, options ...grpc.ServerOption) {
	t.Helper()
	rule := verify.Scopes("orders.read")
	server := grpc.NewServer(append(options, verify.ServerOptions(s.verifier, verify.Policy{
		"/grpc.testing.TestService/UnaryCall":           rule,
		"/grpc.testing.TestService/StreamingOutputCall": rule,
		"/grpc.testing.TestService/FullDuplexCall":      rule,
	})...)...)
	testgrpc.RegisterTestServiceServer(server, s)
	verify.RegisterStreamRenewal(server, s.verifier)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
}

func (s *provenServer) listen(t *testing.T) string {
	t.Helper()
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	s.serve(t, listener)
	return listener.Addr().String()
}

// source returns a source of bound tokens that requests them over gRPC if conn is not nil.
func (s *provenServer) source(conn *grpc.ClientConn, options ...attach.Option) *attach.Source {
	options = append([]attach.Option{attach.DPoP()}, options...)
	if conn != nil {
		options = append(options, attach.OverGRPC(conn))
	}
	return attach.ClientCredentials(s.issuer.URL, "billing", tokentest.Secret, options...)
}

// call calls the server in every way, and returns the first failure.
func call(t *testing.T, s *provenServer, source *attach.Source, client testgrpc.TestServiceClient) error {
	t.Helper()
	var header metadata.MD
	if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}, grpc.Header(&header)); err != nil {
		return fmt.Errorf("unary: %w", err)
	}
	stream, err := client.StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		return fmt.Errorf("server-streaming: %w", err)
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		request := must.Get(http.NewRequestWithContext(t.Context(), method, s.url+"/orders?page=1", strings.NewReader("body")))
		answer, err := (&http.Client{Transport: source}).Do(request)
		if err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		body := must.Get(io.ReadAll(answer.Body))
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK || string(body) != "body" {
			return fmt.Errorf("%s: %s: %s", method, answer.Status, body)
		}
	}
	return nil
}
