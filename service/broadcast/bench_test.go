package broadcast_test

import (
	"context"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// BenchmarkSend sends one revocation after another to 20,000 followers without a network. Its unit is the processor time for each
// follower and revocation. The floor encodes a message for each of them.
func BenchmarkSend(b *testing.B) {
	const followers = 20_000
	b.Run("grantor", func(b *testing.B) {
		r := newReplica(b)
		defer r.stop()
		var sent atomic.Int64
		ctx, cancel := context.WithCancel(b.Context())
		for range followers {
			go func() { _ = r.Follow(&grantorv1.WatchRevocationsRequest{}, &counter{ctx: ctx, sent: &sent}) }()
		}
		await := func(n int64) {
			for sent.Load() < n {
				time.Sleep(time.Millisecond)
			}
		}
		await(followers)
		measureCPU(b, followers, func() {
			before := sent.Load()
			r.revoke(1)
			await(before + followers)
		})
		cancel()
		for following := int64(1); following > 0; following, _ = r.Followers() {
			time.Sleep(time.Millisecond)
		}
	})
	b.Run("floor", func(b *testing.B) {
		codec := encoding.GetCodecV2(proto.Name)
		response := &grantorv1.WatchRevocationsResponse{Complete: true, Cursor: "1-1", AgeMs: 500, Tokens: []*grantorv1.RevokedToken{
			{Jti: token.NewID().String(), Exp: time.Now().Unix()},
		}}
		measureCPU(b, followers, func() {
			for range followers {
				must.Get(codec.Marshal(response)).Free()
			}
		})
	})
}

// measureCPU reports the processor time that each call of send uses for each follower.
func measureCPU(b *testing.B, followers int, send func()) {
	b.Helper()
	before := processorTime(b)
	for b.Loop() {
		send()
	}
	b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(followers)/float64(b.N), "cpu-ns/follower")
}

// processorTime returns the processor time that this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	must.Succeed(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// counter is a follower that counts what is sent to it.
type counter struct {
	grpc.ServerStream

	ctx  context.Context
	sent *atomic.Int64
}

func (c *counter) Context() context.Context { return c.ctx }

func (c *counter) SendMsg(any) error {
	c.sent.Add(1)
	return nil
}
