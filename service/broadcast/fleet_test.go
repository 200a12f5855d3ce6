package broadcast_test

import (
	"slices"
	"testing"
	"time"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/revocation"
)

// TestLargeFleet simulates one of nine replicas of 100,000 verifiers, one of which restarts: its verifiers come to the others within
// 50 ms, with their cursors. The replica sends them what they lack, and goes on to spread its heartbeats.
func TestLargeFleet(t *testing.T) {
	const replicas, verifiers = 9, 100_000
	const here, more = verifiers / replicas, verifiers / replicas / (replicas - 1)
	inBubble(t, func(t *testing.T, r *replica) {
		r.revoke(4000)
		cursor := revocation.Cursor{Time: 1, Sequence: r.last}.String()
		request := &grantorv1.WatchRevocationsRequest{HeartbeatIntervalMs: 2000, Cursor: cursor}
		var streams []*stream
		for range here {
			streams = append(streams, r.follow(t, request, nil))
			if len(streams)%100 == 0 {
				advance(10 * time.Millisecond) // they did not all come at once
			}
		}
		advance(10 * time.Second)
		missed := r.revoke(3)
		for i := range more {
			streams = append(streams, r.follow(t, request, nil))
			if i%(more/50) == 0 {
				advance(time.Millisecond)
			}
		}
		advance(10 * time.Millisecond)
		for _, s := range streams {
			if got := s.tokens(); !slices.Equal(got, missed) {
				t.Fatalf("a verifier got %d revocations, want the %d that it lacked", len(got), len(missed))
			}
		}
		advance(10 * time.Second)
		began := time.Now()
		advance(10 * time.Second)
		ticks := map[time.Duration]int{}
		heartbeats := 0
		for _, s := range streams {
			for _, at := range s.times {
				if at.After(began) {
					ticks[at.Sub(began).Truncate(20*time.Millisecond)]++
					heartbeats++
				}
			}
			s.cancel()
		}
		for _, s := range streams {
			<-s.done
		}
		const intervals = 5
		if want := intervals * (here + more); heartbeats < want || heartbeats > want+want/10 {
			t.Errorf("%d heartbeats, want %d", heartbeats, want)
		}
		for at, n := range ticks {
			if mean := (here + more) / 100; n > 4*mean {
				t.Errorf("%d heartbeats within 20 ms after %s, want about %d", n, at, mean)
			}
		}
	})
}
