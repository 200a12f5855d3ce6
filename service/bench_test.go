package service_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
)

// BenchmarkRevokeToken revokes tokens through a whole replica. Each token is new, and issuing it is not timed.
func BenchmarkRevokeToken(b *testing.B) {
	c := newCluster(b)
	r := c.start(b)
	r.apply(b, manifest())
	for b.Loop() {
		b.StopTimer()
		raw := r.token(b)
		b.StartTimer()
		must.Succeed(b, r.revoke(context.Background(), raw))
	}
}

// BenchmarkSnapshot has a fresh follower receive 100,000 revocations, over gRPC from a replica that knows them, and a fresh
// replica read them from the Redis.
func BenchmarkSnapshot(b *testing.B) {
	const revocations = 100_000
	c := newCluster(b)
	r := c.start(b)
	publish(b, r.store, revocations)
	must.Succeed(b, r.CatchUp(b.Context()))
	b.Run(fmt.Sprint(revocations), func(b *testing.B) {
		for b.Loop() {
			ctx, cancel := context.WithCancel(b.Context())
			stream, err := r.revocations.WatchRevocations(ctx, &grantorv1.WatchRevocationsRequest{})
			must.Succeed(b, err)
			received := 0
			for complete := false; !complete; {
				answer, err := stream.Recv()
				must.Succeed(b, err)
				received, complete = received+len(answer.GetTokens()), answer.GetComplete()
			}
			cancel()
			if received != revocations {
				b.Fatalf("got %d revocations", received)
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

// BenchmarkReach revokes at one replica and waits until a follower of another receives the revocation.
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
