package guard_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
)

// TestUnknownRevocations checks that requests are refused with 503 until the feed was read for the first time, and not when it is
// lost later.
func TestUnknownRevocations(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	feed := &feed{}
	verifier := must.Get(verify.New(ctx, testIssuer, verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public())),
		verify.OverGRPC(feed), verify.MaxStaleness(time.Nanosecond)))
	defer verifier.Close()
	g := must.Get(guard.New(verifier, must.Get(guard.NewTable(routes(testRoutes...))), guard.Config{}))
	order := get("/orders/1", "authorization", "Bearer "+newToken("orders.read"))
	d := g.Decide(t.Context(), order)
	if d.Refusal == nil || d.Refusal.Status != http.StatusServiceUnavailable || d.Refusal.Code != codes.Unavailable || guard.Reason(d.Refusal.Cause) != "stale" {
		t.Errorf("before the feed: got %+v", d.Refusal)
	}
	if d := g.Decide(t.Context(), get("/public")); d.Refusal != nil {
		t.Errorf("public: got %+v", d.Refusal)
	}
	feed.there.Store(true)
	must.Eventually(t, "the feed is read", func() bool { return outcome(g.Decide(t.Context(), order)) == "OK" })
	feed.there.Store(false)
	if got := outcome(g.Decide(t.Context(), order)); got != "OK" {
		t.Errorf("after the feed: got %s", got)
	}
}

// feed is a connection to an issuer whose feed, once it is there, has no revocation, and ends.
type feed struct {
	grpc.ClientStream

	there atomic.Bool
}

func (f *feed) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return status.Error(codes.Unavailable, "away")
}

func (f *feed) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	if !f.there.Load() {
		return nil, status.Error(codes.Unavailable, "away")
	}
	return f, nil
}

func (f *feed) SendMsg(any) error { return nil }

func (f *feed) CloseSend() error { return nil }

func (f *feed) RecvMsg(m any) error {
	if update, ok := m.(*grantorv1.WatchRevocationsResponse); ok && f.there.Load() {
		f.there.Store(false)
		update.Complete = true
		return nil
	}
	return status.Error(codes.Unavailable, "away")
}
