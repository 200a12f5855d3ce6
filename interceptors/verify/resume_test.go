package verify_test

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// feedServer is an issuer's RevocationService at its own address. It can be stopped and started again.
type feedServer struct {
	grantorv1.UnimplementedRevocationServiceServer

	watch func(cursor string, stream grpc.ServerStreamingServer[grantorv1.WatchRevocationsResponse]) error

	address string
	server  *grpc.Server
	served  sync.WaitGroup
}

func (f *feedServer) WatchRevocations(m *grantorv1.WatchRevocationsRequest, stream grpc.ServerStreamingServer[grantorv1.WatchRevocationsResponse]) error {
	return f.watch(m.GetCursor(), stream)
}

func (f *feedServer) start(t testing.TB) {
	t.Helper()
	if f.address == "" {
		f.address = freeport.Address(t)
	}
	listener := must.Get((&net.ListenConfig{}).Listen(t.Context(), "tcp", f.address))
	f.server = grpc.NewServer()
	grantorv1.RegisterRevocationServiceServer(f.server, f)
	server := f.server
	f.served.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(f.stop)
}

func (f *feedServer) stop() {
	f.server.Stop()
	f.served.Wait()
}

func (f *feedServer) dial(t testing.TB) *grpc.ClientConn { return dial(t, f.address) }

// history is a feed that grows. A cursor is the number of entries that its holder has received.
type history struct {
	mu      sync.Mutex
	entries []string
	grown   chan struct{}
	cursors []string
}

func (h *history) add(ids ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entries = append(h.entries, ids...)
	if h.grown != nil {
		close(h.grown)
	}
	h.grown = make(chan struct{})
}

// watch sends all entries after the cursor, one by one, until it has sent limit.
func (h *history) watch(cursor string, stream grpc.ServerStreamingServer[grantorv1.WatchRevocationsResponse], limit int) error {
	h.mu.Lock()
	h.cursors = append(h.cursors, cursor)
	h.mu.Unlock()
	at, _ := strconv.Atoi(cursor)
	for ; ; at++ {
		h.mu.Lock()
		for at == len(h.entries) {
			grown := h.grown
			h.mu.Unlock()
			select {
			case <-grown:
			case <-stream.Context().Done():
				return nil
			}
			h.mu.Lock()
		}
		id := h.entries[at]
		h.mu.Unlock()
		if at == limit {
			return status.Error(codes.ResourceExhausted, "go on from the cursor")
		}
		err := stream.Send(&grantorv1.WatchRevocationsResponse{
			Tokens: revoked(id), Cursor: strconv.Itoa(at + 1), Complete: true,
		})
		if err != nil {
			return err
		}
	}
}

// However the feed breaks off, it is continued at the cursor, and no revocation in between is lost.
func TestFeedResumes(t *testing.T) {
	const before, after = 3, 4
	for name, disrupt := range map[string]func(t *testing.T, i *issuer, f *feedServer, between *proxy, revoke func()){
		"server gone": func(t *testing.T, _ *issuer, f *feedServer, _ *proxy, revoke func()) {
			f.stop()
			revoke()
			f.start(t)
		},
		"issuer gone": func(t *testing.T, i *issuer, f *feedServer, _ *proxy, revoke func()) {
			i.down.Store(true)
			f.stop()
			revoke()
			f.start(t)
			i.down.Store(false)
		},
		"connection cut": func(_ *testing.T, _ *issuer, _ *feedServer, between *proxy, revoke func()) {
			between.cut()
			revoke()
		},
		"broken off by the server": func(_ *testing.T, _ *issuer, _ *feedServer, _ *proxy, revoke func()) { revoke() },
	} {
		for _, over := range []string{"HTTP", "gRPC"} {
			t.Run(name+", found over "+over, func(t *testing.T) {
				h, limit := &history{}, before
				if name != "broken off by the server" {
					limit = -1
				}
				ids := make([]string, before+after)
				for i := range ids {
					ids[i] = token.NewID().String()
				}
				h.add(ids[:before]...)
				f := &feedServer{watch: func(cursor string, stream grpc.ServerStreamingServer[grantorv1.WatchRevocationsResponse]) error {
					bound := limit
					if cursor != "" {
						bound = -1
					}
					return h.watch(cursor, stream, bound)
				}}
				f.start(t)
				between := newProxy(t, f.address)
				i := newIssuer(t)
				i.grpc = between.address
				option := verify.HTTPClient(i.client)
				if over == "gRPC" {
					option = verify.OverGRPC(dial(t, between.address))
				}
				verifier := startVerifier(t.Context(), t, i.url, option)
				must.Eventually(t, "what was revoked before is known", func() bool { return verifier.Feed().Live == before })
				disrupt(t, i, f, between, func() { h.add(ids[before:]...) })
				must.Eventually(t, "all is known", func() bool { return verifier.Feed().Live == before+after })
				h.mu.Lock()
				defer h.mu.Unlock()
				if len(h.cursors) < 2 || h.cursors[0] != "" || h.cursors[1] != strconv.Itoa(before) {
					t.Errorf("got cursors %q, want the empty one and then %d", h.cursors, before)
				}
			})
		}
	}
}

// If the issuer's metadata offer no feed, no goroutine is left running even if the verifier is not closed.
func TestNoFeed(t *testing.T) {
	i := newIssuer(t)
	verifier := must.Get(verify.New(t.Context(), i.url, verify.Audience(orders), verify.HTTPClient(i.client), verify.RefuseWhenStale()))
	if got := verifier.Feed(); got != (verify.FeedStatus{}) {
		t.Errorf("got %+v, want no feed", got)
	}
	must.Eventually(t, "nothing runs", func() bool { return running("verify.(*") == 0 })
	if got := statusFor(verifier, must.Get(i.Sign(claims(i.url, "")))); got != http.StatusOK {
		t.Errorf("got %d, want 200", got)
	}
	verifier.Close()
	verifier.Close()
}

// A revocation is removed once its token has expired.
func TestFeedForgets(t *testing.T) {
	s := &scriptedFeed{watch: func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
		send(&grantorv1.WatchRevocationsResponse{Tokens: revoked(token.NewID().String())})
		return sendEverySecond(ctx, send, complete, forever)
	}}
	runInBubble(t, s, func(t *testing.T, verifier *verify.Verifier, _ *token.Signer) {
		if got := verifier.Feed().Live; got != 1 {
			t.Errorf("%d live revocations, want 1", got)
		}
		advance(time.Hour + 2*time.Minute)
		if got := verifier.Feed().Live; got != 0 {
			t.Errorf("%d live revocations after the token's end, want 0", got)
		}
	})
}

// Plaintext connections go to loopback only, whatever the issuer's metadata says.
func TestFeedInPlaintext(t *testing.T) {
	i := newIssuer(t)
	i.grpc = "192.0.2.1:8081"
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	verifier := startVerifier(ctx, t, i.url, verify.HTTPClient(i.client))
	if got := verifier.Feed(); !got.Followed || got.Complete {
		t.Errorf("got %+v, want a feed that cannot be reached", got)
	}
}
