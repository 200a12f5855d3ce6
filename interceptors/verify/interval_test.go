package verify_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/token"
)

// A verifier requests heartbeats so often that its age stays below MaxStaleness, although the issuer's own knowledge is up to a
// second old.
func TestFeedInterval(t *testing.T) {
	for maxStaleness, want := range map[time.Duration]time.Duration{
		0:                500 * time.Millisecond,
		2 * time.Second:  500 * time.Millisecond,
		4 * time.Second:  1500 * time.Millisecond,
		5 * time.Second:  2 * time.Second,
		30 * time.Second: 2 * time.Second,
		math.MaxInt64:    2 * time.Second,
	} {
		t.Run(fmt.Sprint(maxStaleness), func(t *testing.T) {
			var interval time.Duration
			s := &scriptedFeed{}
			s.watch = func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
				interval = time.Duration(s.intervals[0]) * time.Millisecond
				send(&grantorv1.WatchRevocationsResponse{HeartbeatIntervalMs: s.intervals[0]})
				for {
					send(&grantorv1.WatchRevocationsResponse{Complete: true, AgeMs: 1000})
					select {
					case <-time.After(interval):
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}
			runInBubble(t, s, func(t *testing.T, verifier *verify.Verifier, _ *token.Signer) {
				if interval != want {
					t.Errorf("requested %s, want %s", interval, want)
				}
				for range 1000 {
					if age := verifier.Feed().Age; age > max(maxStaleness, 2*time.Second) {
						t.Fatalf("the age is %s, want at most %s", age, maxStaleness)
					}
					advance(20 * time.Millisecond)
				}
			}, verify.MaxStaleness(maxStaleness))
		})
	}
}

// A feed is given up after two intervals and a second of silence, but in no case later than after 5 s: an issuer of an earlier
// release agrees to no interval, and sends an answer each second.
func TestFeedSilence(t *testing.T) {
	for agreed, want := range map[int32]time.Duration{
		500: 2 * time.Second, 1500: 4 * time.Second, 2000: 5 * time.Second, 10_000: 5 * time.Second, math.MaxInt32: 5 * time.Second,
		0: 5 * time.Second, -1: 5 * time.Second,
	} {
		t.Run(fmt.Sprint(agreed), func(t *testing.T) {
			s := &scriptedFeed{watch: func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
				send(&grantorv1.WatchRevocationsResponse{HeartbeatIntervalMs: agreed})
				send(complete)
				<-ctx.Done()
				return ctx.Err()
			}}
			runInBubble(t, s, func(t *testing.T, _ *verify.Verifier, _ *token.Signer) {
				advance(want + 150*time.Millisecond)
				_, times := s.attempts()
				if len(times) != 2 {
					t.Fatalf("%d attempts, want 2", len(times))
				}
				if gap := times[1].Sub(times[0]); gap < want || gap > want+100*time.Millisecond {
					t.Errorf("the second attempt came after %s, want soon after %s", gap, want)
				}
			})
		})
	}
}
