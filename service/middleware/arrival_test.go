package middleware_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/middleware"
	"github.com/grantorhq/grantor/service/must"
)

// begin begins a call of a method without sending its request.
func begin(t testing.TB, ctx context.Context, conn *grpc.ClientConn, method string) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	must.Succeed(t, err)
	return stream
}

// TestHalfSent begins calls whose request does not arrive. Each ends, also where the response is a stream.
func TestHalfSent(t *testing.T) {
	s := &services{}
	chain, _ := newChain(t, s, limit.Limits{}, nil)
	chain.SetReceiveTimeout(200 * time.Millisecond)
	conn := serve(t, s, chain)
	for _, method := range []string{
		grantorv1.TokenService_IssueToken_FullMethodName, grantorv1.ClientService_ListClients_FullMethodName,
		grantorv1.RevocationService_WatchRevocations_FullMethodName,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		err := begin(t, ctx, conn, method).RecvMsg(&grantorv1.GetKeySetResponse{})
		if status.Code(err) != codes.DeadlineExceeded || ctx.Err() != nil {
			t.Errorf("%s: got %v, want %s", method, err, codes.DeadlineExceeded)
		}
	}
}

// TestManyHalfSent begins more calls than may be pending. Those beyond the bound have little time, and whole requests are
// served at the same time. After the first have ended, there is room again.
func TestManyHalfSent(t *testing.T) {
	s := &services{answer: func(context.Context) error { return nil }}
	chain, _ := newChain(t, s, limit.Limits{}, nil)
	chain.SetReceiveTimeout(time.Hour)
	conn := serve(t, s, chain)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	half := func(method string) <-chan error {
		stream := begin(t, ctx, conn, method)
		ended := make(chan error, 1)
		go func() { ended <- stream.RecvMsg(&grantorv1.GetKeySetResponse{}) }()
		return ended
	}
	methods := []string{grantorv1.TokenService_IssueToken_FullMethodName, grantorv1.RevocationService_WatchRevocations_FullMethodName}
	for i := range middleware.MaxPendingPerSource {
		_ = half(methods[i%len(methods)])
	}
	for _, method := range methods {
		select {
		case err := <-half(method):
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("%s: got %v, want %s", method, err, codes.DeadlineExceeded)
			}
		case <-time.After(timeout):
			t.Errorf("%s: its request may still arrive", method)
		}
	}
	for range 2 * middleware.MaxPendingPerSource {
		_, err := grantorv1.NewTokenServiceClient(conn).GetKeySet(t.Context(), &grantorv1.GetKeySetRequest{})
		must.Succeed(t, err)
	}
	if n := chain.Pending(); n != middleware.MaxPendingPerSource {
		t.Errorf("%d calls are pending, want %d", n, middleware.MaxPendingPerSource)
	}
	cancel()
	must.Eventually(t, "no call is pending", func() bool { return chain.Pending() == 0 })
}

// TestSlowAnswer answers after the time in which a request must arrive.
func TestSlowAnswer(t *testing.T) {
	const receive = 200 * time.Millisecond
	answered := make(chan error, 2)
	s := &services{answer: func(ctx context.Context) error {
		select {
		case <-ctx.Done():
		case <-time.After(5 * receive):
		}
		answered <- ctx.Err()
		return nil
	}}
	chain, _ := newChain(t, s, limit.Limits{}, nil)
	chain.SetReceiveTimeout(receive)
	conn := serve(t, s, chain)
	_, err := grantorv1.NewTokenServiceClient(conn).GetKeySet(t.Context(), &grantorv1.GetKeySetRequest{})
	must.Succeed(t, err)
	must.Succeed(t, <-answered)
	stream, err := grantorv1.NewRevocationServiceClient(conn).WatchRevocations(t.Context(), &grantorv1.WatchRevocationsRequest{})
	must.Succeed(t, err)
	_, _ = stream.Recv()
	must.Succeed(t, <-answered)
}
