package service_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// BenchmarkRevokeToken revokes tokens through a whole replica. Each is a new one, whose issue is not timed.
func BenchmarkRevokeToken(b *testing.B) {
	c := newCluster(b)
	r := c.start(b)
	r.apply(b, manifest())
	for b.Loop() {
		b.StopTimer()
		raw := r.token(b)
		b.StartTimer()
		check(b, r.revoke(context.Background(), raw))
	}
}

// BenchmarkSnapshot has a fresh follower take over 100,000 revocations, over gRPC and from a replica that knows them.
func BenchmarkSnapshot(b *testing.B) {
	const revocations = 100_000
	c := newCluster(b)
	r := c.start(b)
	publish(b, r.store, revocations)
	check(b, r.CatchUp(b.Context()))
	b.Run(fmt.Sprint(revocations), func(b *testing.B) {
		for b.Loop() {
			ctx, cancel := context.WithCancel(b.Context())
			stream, err := r.revocations.WatchRevocations(ctx, &grantorv1.WatchRevocationsRequest{})
			check(b, err)
			told := 0
			for complete := false; !complete; {
				answer, err := stream.Recv()
				check(b, err)
				told, complete = told+len(answer.GetTokens()), answer.GetComplete()
			}
			cancel()
			if told != revocations {
				b.Fatalf("got %d revocations", told)
			}
		}
		b.ReportMetric(revocations*float64(b.N)/b.Elapsed().Seconds(), "revocations/s")
	})
	b.Run("fresh replica", func(b *testing.B) {
		for b.Loop() {
			fresh := c.start(b)
			b.StopTimer()
			fresh.stop()
			b.StartTimer()
		}
	})
}

// BenchmarkReach revokes at one replica and waits until a follower of another has it.
func BenchmarkReach(b *testing.B) {
	c := newCluster(b)
	near, far := c.start(b), c.start(b)
	w := far.watch(b, "")
	w.complete()
	var longest time.Duration
	for b.Loop() {
		began := time.Now()
		id := publish(b, near.store, 1)[0]
		w.until(func() bool { return w.known["token:"+id] })
		longest = max(longest, time.Since(began))
	}
	b.ReportMetric(float64(longest.Microseconds())/1000, "longest-ms")
}

// echo answers every introspection with the same answer.
type echo struct {
	grantorv1.UnimplementedTokenServiceServer
	answer *grantorv1.IntrospectTokenResponse
}

func (e *echo) IntrospectToken(context.Context, *grantorv1.IntrospectTokenRequest) (*grantorv1.IntrospectTokenResponse, error) {
	return e.answer, nil
}

// BenchmarkIntrospection asks a whole replica about a token that it has seen, by many callers on one connection over
// loopback. The echo beside it does nothing between the same messages, on a server with the same workers.
func BenchmarkIntrospection(b *testing.B) {
	c := newCluster(b)
	c.log = io.Discard // the audit events are written, as in production, but not kept
	r := c.start(b)
	r.apply(b, manifest())
	request := &grantorv1.IntrospectTokenRequest{ClientId: "res1", ClientSecret: secret, Token: r.token(b)}
	answer, err := r.tokens.IntrospectToken(b.Context(), request)
	check(b, err)

	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	server := grpc.NewServer(grpc.NumStreamWorkers(64))
	grantorv1.RegisterTokenServiceServer(server, &echo{answer: answer})
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	conn := must(grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))
	b.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		running.Wait()
	})
	for _, s := range []struct {
		name string
		of   grantorv1.TokenServiceClient
	}{{"introspection", r.tokens}, {"echo", grantorv1.NewTokenServiceClient(conn)}} {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if got, err := s.of.IntrospectToken(b.Context(), request); err != nil || !got.GetActive() {
						b.Errorf("got %v, %v", got, err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}
