package attach_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/token"
	"github.com/grantorhq/grantor/service/tokentest"
)

const (
	resource = "https://orders.internal"
	renewing = "/grantor.v1.StreamService/RenewStream"
)

// guarded is a server whose verifier follows a real issuer. Its stream answers each message.
type guarded struct {
	testgrpc.UnimplementedTestServiceServer

	issuer   *tokentest.Issuer
	verifier *verify.Verifier
	address  string
	refused  atomic.Int32 // calls with a revoked token
	renewals atomic.Int32 // calls of RenewStream that clients made
}

func (g *guarded) FullDuplexCall(stream grpc.BidiStreamingServer[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(&testgrpc.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

func (g *guarded) UnaryCall(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	return &testgrpc.SimpleResponse{}, nil
}

func newGuarded(t *testing.T, renewal bool) *guarded {
	t.Helper()
	g := &guarded{issuer: tokentest.New(t)}
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

// client calls with the source's tokens; its calls of RenewStream are counted.
func (g *guarded) client(t *testing.T, source *attach.Source) testgrpc.TestServiceClient {
	t.Helper()
	count := func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if method == renewing {
			g.renewals.Add(1)
		}
		return invoke(ctx, method, request, reply, cc, opts...)
	}
	return testgrpc.NewTestServiceClient(dial(t, g.address, attach.DialOptions(source, plaintext, grpc.WithChainUnaryInterceptor(count))...))
}

// brief makes tokens that live for about two seconds, and remembers the last one.
type brief struct {
	t      *testing.T
	issuer *tokentest.Issuer
	scopes []string

	mu     sync.Mutex
	issued []string
}

func (b *brief) source() *attach.Source { return attach.NewSource(b.fetch, 0.5) }

func (b *brief) fetch(context.Context) (string, time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	scope := b.scopes[min(len(b.issued), len(b.scopes)-1)]
	end := time.Now().Add(2 * time.Second).Truncate(time.Second).Add(time.Second)
	raw := b.issuer.Sign(b.t, map[string]any{
		"sub": "billing", "client_id": "billing", "aud": resource, "scope": scope, "jti": token.NewID().String(), "exp": end.Unix(),
	})
	b.issued = append(b.issued, raw)
	return raw, time.Until(end), nil
}

func (b *brief) last() (string, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.issued[len(b.issued)-1], len(b.issued)
}

// converse exchanges messages over a stream until it ends or for some time.
func converse(t *testing.T, client testgrpc.TestServiceClient, d time.Duration) (testgrpc.TestService_FullDuplexCallClient, error) {
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
		_ = stream.Send(&testgrpc.StreamingOutputCallRequest{}) // Recv tells what went wrong
		if _, err := stream.Recv(); err != nil {
			return stream, err
		}
	}
	return stream, nil
}

// revoke takes a token back and waits until the server knows.
func (g *guarded) revoke(t *testing.T, raw string) {
	t.Helper()
	live := g.verifier.Feed().Live
	_, err := grantorv1.NewTokenServiceClient(g.issuer.Conn(t)).RevokeToken(t.Context(), &grantorv1.RevokeTokenRequest{
		ClientId: "billing", ClientSecret: tokentest.Secret, Token: raw,
	})
	if err != nil {
		t.Fatal(err)
	}
	g.known(t, live+1)
}

// revokeAll takes back whatever the client has.
func (g *guarded) revokeAll(t *testing.T, _ string) {
	t.Helper()
	live := g.verifier.Feed().Live
	_, err := grantorv1.NewTokenServiceClient(g.issuer.Conn(t)).RevokeClientTokens(t.Context(),
		&grantorv1.RevokeClientTokensRequest{ClientId: "billing", ClientSecret: tokentest.Secret})
	if err != nil {
		t.Fatal(err)
	}
	g.known(t, live+1)
}

func (g *guarded) known(t *testing.T, live int) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(10 * time.Second); g.verifier.Feed().Live < live; <-ticker.C {
		if time.Now().After(end) {
			t.Fatal("the revocation does not arrive")
		}
	}
}

// A stream outlives its tokens, each presented before the one before ends, and ends when the last one is revoked. The
// source then knows that this one is not to be sent again.
func TestStreamOutlivesItsTokens(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, true)
	b := &brief{t: t, issuer: g.issuer, scopes: []string{"orders.read"}}
	source := b.source()
	stream, err := converse(t, g.client(t, source), 7*time.Second)
	if err != nil {
		t.Fatalf("the stream ended: %v", err)
	}
	renewals := g.renewals.Load()
	if renewals < 2 || renewals > 5 {
		t.Errorf("RenewStream was called %d times, want once for each token", renewals)
	}
	revoked := take(t, source)
	g.revoke(t, revoked)
	began := time.Now()
	if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v, want UNAUTHENTICATED", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("the stream ended after %s, want within a second", took)
	}
	if got := take(t, source); got == revoked {
		t.Error("the source still sends the revoked token")
	}
	if got := g.renewals.Load(); got > renewals+1 {
		t.Errorf("RenewStream was called %d times more", got-renewals)
	}
}

// Where there is nothing to renew by, or the new token is worth less, the stream ends and attach does not insist.
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
			g := newGuarded(t, test.renewal)
			b := &brief{t: t, issuer: g.issuer, scopes: test.scopes}
			_, err := converse(t, g.client(t, b.source()), 7*time.Second)
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("got %v, want UNAUTHENTICATED", err)
			}
			if got := g.renewals.Load(); got != 1 {
				t.Errorf("RenewStream was called %d times, want once", got)
			}
		})
	}
}

// A stream that has ended is not renewed, and asks for no token.
func TestEndedStreamIsNotRenewed(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, true)
	b := &brief{t: t, issuer: g.issuer, scopes: []string{"orders.read"}}
	client := g.client(t, b.source())
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := client.FullDuplexCall(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	<-time.After(3 * time.Second) // the token's whole life
	if _, issued := b.last(); issued != 1 || g.renewals.Load() != 0 {
		t.Errorf("%d tokens and %d renewals, want one token and none", issued, g.renewals.Load())
	}
}

// A call with a token that was revoked succeeds all the same: the server refuses it unseen, and attach gets another.
func TestCallAfterRevocation(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(g *guarded, t *testing.T, raw string){
		"of the token": (*guarded).revoke, "of all the client's tokens": (*guarded).revokeAll,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, true)
			source := attach.ClientCredentials(g.issuer.URL, "billing", tokentest.Secret, attach.Scopes("orders.read"))
			client := g.client(t, source)
			first := take(t, source)
			for range 2 {
				if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); err != nil {
					t.Fatal(err)
				}
				if take(t, source) == first {
					revoke(g, t, first)
				}
			}
			if got := g.refused.Load(); got != 1 || take(t, source) == first {
				t.Errorf("%d refusals, another token %t; want 1 and true", got, take(t, source) != first)
			}
		})
	}
}
