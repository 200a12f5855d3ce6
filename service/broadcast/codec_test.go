package broadcast_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/broadcast"
	"github.com/grantorhq/grantor/service/must"
)

// server is a RevocationService.
type server struct {
	grantorv1.UnimplementedRevocationServiceServer

	*replica
}

func (s server) WatchRevocations(request *grantorv1.WatchRevocationsRequest, stream grpc.ServerStreamingServer[grantorv1.WatchRevocationsResponse]) error {
	return s.Follow(request, stream)
}

// serve serves a replica over gRPC and returns its address.
func serve(t testing.TB, r *replica, options ...grpc.ServerOption) string {
	listener := must.Get((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))
	s := grpc.NewServer(options...)
	grantorv1.RegisterRevocationServiceServer(s, server{replica: r})
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(s.Stop)
	return listener.Addr().String()
}

// TestOverGRPC follows a hub over gRPC, with and without its codec and with a client that compresses.
func TestOverGRPC(t *testing.T) {
	for name, test := range map[string]struct {
		server []grpc.ServerOption
		client []grpc.CallOption
	}{
		"with the codec":   {[]grpc.ServerOption{broadcast.ServerOption()}, nil},
		"without it":       {nil, nil},
		"compressing":      {[]grpc.ServerOption{broadcast.ServerOption()}, []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
		"a named encoding": {[]grpc.ServerOption{broadcast.ServerOption()}, []grpc.CallOption{grpc.CallContentSubtype("proto")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplica(t)
			defer r.stop()
			ids := r.revoke(4500)
			address := serve(t, r, test.server...)
			for range 3 {
				conn := must.Get(grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials())))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				stream := must.Get(grantorv1.NewRevocationServiceClient(conn).WatchRevocations(ctx, &grantorv1.WatchRevocationsRequest{}, test.client...))
				received := 0
				for complete := false; !complete; {
					response := must.Get(stream.Recv())
					for _, revoked := range response.GetTokens() {
						if revoked.GetJti() != ids[received] {
							t.Fatalf("revocation %d: got %q, want %q", received, revoked.GetJti(), ids[received])
						}
						received++
					}
					complete = response.GetComplete()
				}
				if received != len(ids) {
					t.Errorf("got %d revocations, want %d", received, len(ids))
				}
				if encoding := must.Get(stream.Header()).Get("grpc-encoding"); len(encoding) > 0 && encoding[0] != "identity" {
					t.Errorf("the responses are encoded by %q, want them as they are", encoding)
				}
				cancel()
				_ = conn.Close()
			}
		})
	}
}
