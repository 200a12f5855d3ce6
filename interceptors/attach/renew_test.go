package attach_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
	"github.com/grantorhq/grantor/service/tokentest"
)

const (
	resource          = "https://orders.internal"
	renewStreamMethod = "/grantor.v1.StreamService/RenewStream"
)

// guardedServer is a server whose verifier follows a real issuer. Its stream answers each message.
type guardedServer struct {
	testgrpc.UnimplementedTestServiceServer

	issuer   *tokentest.Issuer
	verifier *verify.Verifier
	address  string
	refused  atomic.Int32 // calls refused for a revoked token
	renewals atomic.Int32 // answered calls of RenewStream by clients
}

func (g *guardedServer) FullDuplexCall(stream grpc.BidiStreamingServer[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(&testgrpc.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

func (g *guardedServer) UnaryCall(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	return &testgrpc.SimpleResponse{}, nil
}

func newGuardedServer(t *testing.T, renewal bool) *guardedServer {
	t.Helper()
	g := &guardedServer{issuer: tokentest.New(t)}
	g.issuer.AddClient(t, "billing", resource, "orders.read")
	verifier, err := verify.New(t.Context(), g.issuer.URL, verify.Audience(resource),
		verify.OnRefusal(func(_ context.Context, _ string, err error) {
			if errors.Is(err, token.ErrRevoked) {
				g.refused.Add(1)
			}
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	g.verifier = verifier
	server := grpc.NewServer(verify.ServerOptions(verifier, verify.Policy{
		"/grpc.testing.TestService/UnaryCall":      verify.Scopes("orders.read"),
		"/grpc.testing.TestService/FullDuplexCall": verify.Scopes("orders.read"),
	})...)
	testgrpc.RegisterTestServiceServer(server, g)
	if renewal {
		verify.RegisterStreamRenewal(server, verifier)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.address = listener.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return g
}

// client returns a client that sends the source's tokens. Its calls of RenewStream are counted.
func (g *guardedServer) client(t *testing.T, source *attach.Source) testgrpc.TestServiceClient {
	t.Helper()
	count := func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if method == renewStreamMethod {
			defer g.renewals.Add(1)
		}
		return invoke(ctx, method, request, reply, cc, opts...)
	}
	return testgrpc.NewTestServiceClient(dial(t, g.address, attach.DialOptions(source, plaintext, grpc.WithChainUnaryInterceptor(count))...))
}

// shortLived issues tokens that live for six to seven seconds, and records them. Their sources renew them early: of the fifth
// that usually remains for the renewal of a stream, a busy machine can let more pass.
type shortLived struct {
	t      *testing.T
	issuer *tokentest.Issuer
	scopes []string

	mu     sync.Mutex
	issued []string
	long   bool // from now on tokens live for an hour
}

func (b *shortLived) source() *attach.Source {
	source := attach.NewSource(b.fetch, 0.5)
	attach.RenewEarly(source)
	return source
}

func (b *shortLived) fetch(context.Context) (string, time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	raw, lifetime := b.issue(nil)
	return raw, lifetime, nil
}

// issue returns a token with further claims, and its lifetime. b.mu must be held.
func (b *shortLived) issue(further map[string]any) (string, time.Duration) {
	scope := b.scopes[min(len(b.issued), len(b.scopes)-1)]
	end := time.Now().Add(6 * time.Second).Truncate(time.Second).Add(time.Second)
	if b.long {
		end = end.Add(time.Hour)
	}
	claims := map[string]any{
		"sub": "billing", "client_id": "billing", "aud": resource, "scope": scope, "jti": token.NewID().String(), "exp": end.Unix(),
	}
	maps.Copy(claims, further)
	raw := b.issuer.Sign(b.t, claims)
	b.issued = append(b.issued, raw)
	return raw, time.Until(end)
}

// lengthen makes further tokens live for an hour, and returns how many were issued before.
func (b *shortLived) lengthen() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.long = true
	return len(b.issued)
}

func (b *shortLived) last() (string, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.issued[len(b.issued)-1], len(b.issued)
}

// exchange exchanges messages over a stream until the stream ends or d has passed.
func exchange(t *testing.T, client testgrpc.TestServiceClient, d time.Duration) (testgrpc.TestService_FullDuplexCallClient, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-ticker.C {
		_ = stream.Send(&testgrpc.StreamingOutputCallRequest{}) // Recv returns the error
		if _, err := stream.Recv(); err != nil {
			return stream, err
		}
	}
	return stream, nil
}

// revoke revokes a token and waits until the server knows.
func (g *guardedServer) revoke(t *testing.T, raw string) {
	t.Helper()
	live := g.verifier.Feed().Live
	_, err := grantorv1.NewTokenServiceClient(g.issuer.Conn(t)).RevokeToken(t.Context(), &grantorv1.RevokeTokenRequest{
		ClientId: "billing", ClientSecret: tokentest.Secret, Token: raw,
	})
	if err != nil {
		t.Fatal(err)
	}
	g.awaitRevocations(t, live+1)
}

// revokeAll revokes all tokens of the client and waits until the server knows.
func (g *guardedServer) revokeAll(t *testing.T, _ string) {
	t.Helper()
	live := g.verifier.Feed().Live
	_, err := grantorv1.NewTokenServiceClient(g.issuer.Conn(t)).RevokeClientTokens(t.Context(),
		&grantorv1.RevokeClientTokensRequest{ClientId: "billing", ClientSecret: tokentest.Secret})
	if err != nil {
		t.Fatal(err)
	}
	g.awaitRevocations(t, live+1)
}

// awaitRevocations waits until the server knows the given number of revocations.
func (g *guardedServer) awaitRevocations(t *testing.T, live int) {
	t.Helper()
	must.Eventually(t, "the revocation arrives", func() bool { return g.verifier.Feed().Live >= live })
}

// A stream outlives its tokens, each of which is presented before its predecessor expires, and ends when the last one
// is revoked. The source then no longer sends that token.
func TestStreamOutlivesItsTokens(t *testing.T) {
	t.Parallel()
	g := newGuardedServer(t, true)
	b := &shortLived{t: t, issuer: g.issuer, scopes: []string{"orders.read"}}
	source := b.source()
	stream, err := exchange(t, g.client(t, source), 9*time.Second)
	if err != nil {
		t.Fatalf("the stream ended: %v", err)
	}
	renewals := g.renewals.Load()
	if renewals < 2 || renewals > 5 {
		t.Errorf("RenewStream was called %d times, want once for each token", renewals)
	}
	// The next token lives for an hour, so that it is the stream's and has not expired when it is revoked.
	short := b.lengthen()
	must.Eventually(t, "a renewal with that token", func() bool {
		_, issued := b.last()
		return issued > short && int(g.renewals.Load()) >= issued-1
	})
	revoked, _ := b.last()
	renewals = g.renewals.Load()
	g.revoke(t, revoked)
	if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated || g.refused.Load() != 1 {
		t.Errorf("got %v and %d refusals of a revoked token, want UNAUTHENTICATED and 1", err, g.refused.Load())
	}
	if got := accessToken(t, source); got == revoked {
		t.Error("the source still sends the revoked token")
	}
	if got := g.renewals.Load(); got > renewals+1 {
		t.Errorf("RenewStream was called %d times more", got-renewals)
	}
}

// If the server does not offer renewal, or the new token has fewer scopes, the stream ends and attach does not retry.
func TestStreamNotRenewed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		renewal bool
		scopes  []string
	}{
		"no service":   {false, []string{"orders.read"}},
		"fewer scopes": {true, []string{"orders.read orders.write", "orders.read"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuardedServer(t, test.renewal)
			b := &shortLived{t: t, issuer: g.issuer, scopes: test.scopes}
			_, err := exchange(t, g.client(t, b.source()), 9*time.Second)
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("got %v, want UNAUTHENTICATED", err)
			}
			must.Eventually(t, "the answer of RenewStream", func() bool { return g.renewals.Load() > 0 }) // the stream can end before it
			if got := g.renewals.Load(); got != 1 {
				t.Errorf("RenewStream was called %d times, want once", got)
			}
		})
	}
}

// A stream that has ended is not renewed, and no token is requested for it.
func TestEndedStreamIsNotRenewed(t *testing.T) {
	t.Parallel()
	g := newGuardedServer(t, true)
	b := &shortLived{t: t, issuer: g.issuer, scopes: []string{"orders.read"}}
	client := g.client(t, b.source())
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := client.FullDuplexCall(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	<-time.After(7 * time.Second) // the token's whole lifetime
	if _, issued := b.last(); issued != 1 || g.renewals.Load() != 0 {
		t.Errorf("%d tokens and %d renewals, want one token and none", issued, g.renewals.Load())
	}
}

// A call with a revoked token succeeds nevertheless: the server refuses it before the handler runs, and attach gets
// another token.
func TestCallAfterRevocation(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(g *guardedServer, t *testing.T, raw string){
		"of the token": (*guardedServer).revoke, "of all the client's tokens": (*guardedServer).revokeAll,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuardedServer(t, true)
			source := attach.ClientCredentials(g.issuer.URL, "billing", tokentest.Secret, attach.Scopes("orders.read"))
			client := g.client(t, source)
			first := accessToken(t, source)
			for range 2 {
				if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); err != nil {
					t.Fatal(err)
				}
				if accessToken(t, source) == first {
					revoke(g, t, first)
				}
			}
			if got := g.refused.Load(); got != 1 || accessToken(t, source) == first {
				t.Errorf("%d refusals, another token %t; want 1 and true", got, accessToken(t, source) != first)
			}
		})
	}
}

// statusError is an error whose method panics.
type statusError struct{}

func (statusError) Error() string              { return "faulty" }
func (statusError) GRPCStatus() *status.Status { panic("s3cret") }

// A program's interceptor that returns a faulty error, or panics, when a stream is renewed does not end the program. The
// test runs in a bubble: a busy machine can let the part of a short lifetime pass that remains for the renewal.
func TestFaultyRenewal(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func() error{
		"faulty error": func() error { return statusError{} },
		"panic":        func() error { panic("s3cret") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var renewals atomic.Int32
				conn := dial(t, "passthrough:///127.0.0.1:1", plaintext, grpc.WithUnaryInterceptor(
					func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
						renewals.Add(1)
						return fault()
					}))
				open := func(_ context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
					for _, option := range opts {
						if finish, ok := option.(grpc.OnFinishCallOption); ok {
							t.Cleanup(func() { finish.OnFinish(nil) }) // as gRPC does when the stream ends
						}
					}
					return idleStream{}, nil
				}
				source := attach.NewSource((&issuer{lifetime: time.Minute}).fetch, 0.5)
				if _, err := attach.StreamInterceptor(source)(t.Context(), &grpc.StreamDesc{}, conn, "/a/b", open); err != nil {
					t.Fatal(err)
				}
				advance(time.Minute)
				if renewals.Load() == 0 {
					t.Error("the stream was not renewed before its token expired")
				}
			})
		})
	}
}
