package attach_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
)

var errDown = attach.Unavailable(errors.New("connection refused"))

// issuer issues the tokens "1", "2" and so on, and records the times of requests.
type issuer struct {
	mu       sync.Mutex
	lifetime time.Duration
	down     error         // the answer instead of a token
	slow     time.Duration // how long an answer accepts
	asked    []time.Time
	issued   int
}

func (i *issuer) fetch(ctx context.Context) (string, time.Duration, error) {
	i.mu.Lock()
	i.asked = append(i.asked, time.Now())
	slow := i.slow
	i.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return "", 0, attach.Unavailable(ctx.Err())
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.down != nil {
		return "", 0, i.down
	}
	i.issued++
	return fmt.Sprint(i.issued), i.lifetime, nil
}

func (i *issuer) set(down error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

func (i *issuer) requests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

// advance advances the bubble's clock.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// accessToken returns the source's current token.
func accessToken(t *testing.T, source *attach.Source) string {
	t.Helper()
	token, err := source.TokenContext(t.Context())
	if err != nil {
		t.Fatalf("no token: %v", err)
	}
	return token.AccessToken
}

func wantToken(t *testing.T, source *attach.Source, want string) {
	t.Helper()
	if got := accessToken(t, source); got != want {
		t.Fatalf("got token %q, want %q", got, want)
	}
	synctest.Wait() // for the background request
}

func wantRequests(t *testing.T, i *issuer, want int) {
	t.Helper()
	if got := i.requests(); got != want {
		t.Fatalf("got %d token requests, want %d", got, want)
	}
}

// tokenServer is an HTTP issuer of "token-1", "token-2" and so on.
type tokenServer struct {
	*httptest.Server

	mu      sync.Mutex
	forms   []string
	id      string
	secret  string
	lookups int
}

// newTokenServer starts an issuer. A non-nil answer replaces its token endpoint.
func newTokenServer(t testing.TB, answer http.HandlerFunc) *tokenServer {
	t.Helper()
	s := &tokenServer{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lookups++
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q}`, s.URL, s.URL+"/connect/token")
	})
	mux.HandleFunc("POST /connect/token", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = r.ParseForm()
		s.id, s.secret, _ = r.BasicAuth()
		s.forms = append(s.forms, r.PostForm.Encode())
		if answer != nil {
			answer(w, r)
			return
		}
		_, _ = fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}`, len(s.forms))
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		s.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return s
}

// requestForms returns the forms of the token requests.
func (s *tokenServer) requestForms() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.forms)
}

// wantNoSecret checks that no value prints the secret, whatever the verb.
func wantNoSecret(t *testing.T, secret string, values ...any) {
	t.Helper()
	for _, value := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
			text := fmt.Sprintf(verb, value)
			if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
				t.Errorf("the secret is in %s of a %T: %s", verb, value, text)
			}
		}
	}
}

// grantor is a grantor.v1.TokenService.
type grantor struct {
	grantorv1.UnimplementedTokenServiceServer

	got   *grantorv1.IssueTokenRequest
	reply *grantorv1.IssueTokenResponse
	err   error
}

func (g *grantor) IssueToken(_ context.Context, request *grantorv1.IssueTokenRequest) (*grantorv1.IssueTokenResponse, error) {
	g.got = request
	if g.reply == nil {
		g.reply = &grantorv1.IssueTokenResponse{AccessToken: "over-grpc", TokenType: "Bearer", ExpiresIn: 60}
	}
	return g.reply, g.err
}

func (g *grantor) serve(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	grantorv1.RegisterTokenServiceServer(server, g)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return listener.Addr().String()
}

func tokenService(t *testing.T, g *grantor) *grpc.ClientConn {
	t.Helper()
	return dial(t, g.serve(t), plaintext)
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// orders is a server that accepts one token only. It counts the calls that reach its handlers.
type orders struct {
	testgrpc.UnimplementedTestServiceServer

	mu            sync.Mutex
	accepts       string   // the accepted token, or "" for any
	silent        bool     // refuses without a challenge
	lateRefusal   bool     // sends its header before the refusal
	handlerErr    error    // result of every handler
	endsWithToken bool     // streams end because of the token, after their messages
	headers       []string // every Authorization value received
	calls         int
}

func (o *orders) check(ctx context.Context, header func(metadata.MD) error, trailer func(metadata.MD)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	got := strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ",")
	o.headers = append(o.headers, got)
	trailer(metadata.Pairs("attempt", got))
	if o.accepts == "" || got == "Bearer "+o.accepts {
		_ = header(metadata.Pairs("attempt", got))
		return nil
	}
	if o.lateRefusal {
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
	return o.handlerErr
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
	if o.endsWithToken {
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

// wantTokens checks which tokens the server received, in order, and how often a handler ran.
func (o *orders) wantTokens(t *testing.T, calls int, tokens ...string) {
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

// serve starts the server and returns its address.
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

// numberedSource returns a source of the tokens "1", "2" and so on.
func numberedSource() *attach.Source {
	return attach.NewSource((&issuer{lifetime: time.Hour}).fetch, 0.5)
}

var hello = &testgrpc.Payload{Body: []byte("hello")}
