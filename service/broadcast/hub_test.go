package broadcast_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/broadcast"
	"github.com/grantorhq/grantor/service/revocation"
)

// TestInterval checks that a follower gets heartbeats at the interval that it requests, within bounds, and is told which. A
// follower of an earlier release requests none and gets one each second.
func TestInterval(t *testing.T) {
	for _, test := range []struct {
		request int32
		want    time.Duration
	}{
		{0, time.Second},
		{-1, time.Second},
		{1, 500 * time.Millisecond},
		{750, 750 * time.Millisecond},
		{2000, 2 * time.Second},
		{3_600_000, 10 * time.Second},
		{math.MaxInt32, 10 * time.Second},
	} {
		t.Run(fmt.Sprint(test.request), func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *replica) {
				s := r.follow(t, &grantorv1.WatchRevocationsRequest{HeartbeatIntervalMs: test.request}, nil)
				defer s.end()
				advance(0)
				joined, _ := s.received()
				advance(time.Minute)
				first := s.responses[0]
				if want := int32(test.want.Milliseconds()); test.request > 0 && first.GetHeartbeatIntervalMs() != want || test.request <= 0 && first.GetHeartbeatIntervalMs() != 0 {
					t.Errorf("the first response has the interval %d, want %d if one was requested", first.GetHeartbeatIntervalMs(), want)
				}
				want := int(time.Minute / test.want)
				if got := len(s.responses) - joined; got < want || got > want+1 {
					t.Errorf("%d heartbeats in a minute, want %d", got, want)
				}
				for i := 1; i < len(s.times); i++ {
					if gap := s.times[i].Sub(s.times[i-1]); gap > test.want {
						t.Errorf("response %d came after %s, want at most %s", i, gap, test.want)
					}
					if got := s.responses[i]; got.GetHeartbeatIntervalMs() != 0 || i >= joined && (!got.GetComplete() || got.GetAgeMs() > 1010) {
						t.Errorf("response %d: got %v, want a complete one that is at most 1 s old", i, got)
					}
				}
			})
		})
	}
}

// TestHeartbeatsAreSpread checks that the heartbeats of followers that all received a change at once do not come at once.
func TestHeartbeatsAreSpread(t *testing.T) {
	const followers = 500
	inBubble(t, func(t *testing.T, r *replica) {
		var streams []*stream
		for range followers {
			streams = append(streams, r.follow(t, &grantorv1.WatchRevocationsRequest{HeartbeatIntervalMs: 2000}, nil))
		}
		advance(time.Minute)
		r.revoke(1)
		advance(0)
		changed := time.Now()
		advance(2 * time.Second)
		moments := map[time.Duration]int{}
		for _, s := range streams {
			last := s.times[len(s.times)-1]
			if !last.After(changed) {
				t.Error("a follower got no heartbeat within the interval")
			}
			for _, at := range s.times {
				if at.After(changed) {
					moments[at.Sub(changed)]++
				}
			}
			s.end()
		}
		for at, n := range moments {
			if n > followers/10 {
				t.Errorf("%d heartbeats of %d came at once, %s after the change", n, followers, at)
			}
		}
	})
}

// TestChanges checks that the first change after quiet is sent at once, that further ones are gathered, and that each follower
// gets each change once and in order.
func TestChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, r *replica) {
		var streams []*stream
		for range 10 {
			streams = append(streams, r.follow(t, &grantorv1.WatchRevocationsRequest{}, nil))
		}
		advance(90 * time.Millisecond)
		ids, quiet := r.revoke(1), time.Now()
		advance(0)
		for _, s := range streams {
			if got := s.tokens(); !slices.Equal(got, ids) || !s.times[len(s.times)-1].Equal(quiet) {
				t.Fatalf("got %q after %s, want %q at once", got, time.Since(quiet), ids)
			}
		}
		before, _ := streams[0].received()
		const changes = 300
		for range changes {
			ids = append(ids, r.revoke(1)...)
			advance(100 * time.Microsecond)
		}
		advance(10 * time.Millisecond)
		for _, s := range streams {
			if got := s.tokens(); !slices.Equal(got, ids) {
				t.Errorf("got %d revocations, want %d in order", len(got), len(ids))
			}
			if n, _ := s.received(); n-before > changes/20 {
				t.Errorf("%d responses for %d changes within 30 ms, want one each 5 ms", n-before, changes)
			}
			s.end()
		}
	})
}

// TestLongChange has more revoked at once than a response holds.
func TestLongChange(t *testing.T) {
	inBubble(t, func(t *testing.T, r *replica) {
		s := r.follow(t, &grantorv1.WatchRevocationsRequest{}, nil)
		defer s.end()
		advance(time.Second)
		ids := r.revoke(10_000)
		advance(10 * time.Millisecond)
		ids = append(ids, r.revoke(1)...)
		advance(10 * time.Millisecond)
		if _, last := s.received(); !slices.Equal(s.tokens(), ids) || !last.GetComplete() {
			t.Errorf("got %d revocations, want %d in order and a complete response", len(s.tokens()), len(ids))
		}
		n, _ := s.received()
		advance(10 * time.Second)
		if got, _ := s.received(); got != n+10 {
			t.Errorf("%d heartbeats in 10 s, want 10", got-n)
		}
	})
}

// TestSlowFollower checks that followers that accept nothing delay no other, that they are dropped, and that one that accepts
// again in time misses nothing.
func TestSlowFollower(t *testing.T) {
	const slow = 5
	inBubble(t, func(t *testing.T, r *replica) {
		r.SendTimeout = 2 * time.Second
		quick := r.follow(t, &grantorv1.WatchRevocationsRequest{}, nil)
		var streams []*stream
		for range slow {
			s := r.follow(t, &grantorv1.WatchRevocationsRequest{}, make(chan struct{}, 10))
			s.blocked <- struct{}{} // the first response
			streams = append(streams, s)
		}
		advance(100 * time.Millisecond)
		ids := r.revoke(1)
		advance(slow * 60 * time.Millisecond)
		if got := quick.tokens(); !slices.Equal(got, ids) {
			t.Errorf("the quick follower got %q, want %q", got, ids)
		}
		ids = append(ids, r.revoke(3000)...)
		close(streams[0].blocked)
		advance(10 * time.Millisecond)
		for _, s := range []*stream{quick, streams[0]} {
			if got := s.tokens(); !slices.Equal(got, ids) {
				t.Errorf("got %d revocations, want %d", len(got), len(ids))
			}
		}
		advance(3 * time.Second)
		for _, s := range streams[1:] {
			if <-s.done; status.Code(s.err) != codes.ResourceExhausted {
				t.Errorf("a slow follower ended with %v, want RESOURCE_EXHAUSTED", s.err)
			}
		}
		if following, dropped := r.Followers(); following != 2 || dropped != slow-1 {
			t.Errorf("%d followers, %d dropped; want 2 and %d", following, dropped, slow-1)
		}
		if got := senders(); got != 1 {
			t.Errorf("%d goroutines send, want 1", got)
		}
		quick.end()
		streams[0].end()
	})
}

// senders returns the number of goroutines that send to live followers.
func senders() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "broadcast.(*Hub).work(")
}

// TestSlowSnapshot checks that a follower that does not accept the snapshot is dropped, and delays nobody.
func TestSlowSnapshot(t *testing.T) {
	const slow = 100
	inBubble(t, func(t *testing.T, r *replica) {
		ids := r.revoke(5000)
		var streams []*stream
		for range slow {
			streams = append(streams, r.follow(t, &grantorv1.WatchRevocationsRequest{}, make(chan struct{})))
		}
		advance(0)
		quick := r.follow(t, &grantorv1.WatchRevocationsRequest{}, nil)
		advance(200 * time.Millisecond)
		if got := quick.tokens(); !slices.Equal(got, ids) {
			t.Errorf("got %d revocations, want %d", len(got), len(ids))
		}
		advance(broadcast.DefaultSendTimeout)
		for _, s := range streams {
			if <-s.done; status.Code(s.err) != codes.ResourceExhausted {
				t.Errorf("a slow follower ended with %v, want RESOURCE_EXHAUSTED", s.err)
			}
		}
		quick.end()
	})
}

// TestSnapshotIsShared has a thousand followers come at once, as after a restart, at different cursors. Each gets everything,
// and almost all responses are encoded once for all of them.
func TestSnapshotIsShared(t *testing.T) {
	const followers, pages = 1000, 2
	inBubble(t, func(t *testing.T, r *replica) {
		ids := r.revoke(pages * 2000)
		var streams []*stream
		for i := range followers {
			request := &grantorv1.WatchRevocationsRequest{}
			switch i % 4 {
			case 1:
				request.Cursor = "7-7"
			case 2:
				request.Cursor = "malformed"
			case 3:
				request.Cursor = revocation.Cursor{Time: 1, Sequence: 1}.String()
			}
			streams = append(streams, r.follow(t, request, nil))
		}
		advance(time.Second)
		buffers := map[*byte]bool{}
		for i, s := range streams {
			want := ids
			if i%4 == 3 {
				want = ids[1:]
			}
			if got := s.tokens(); !slices.Equal(got, want) {
				t.Fatalf("follower %d got %d revocations, want %d", i, len(got), len(want))
			}
			s.mu.Lock()
			for _, b := range s.buffers[:pages] {
				buffers[b] = true
			}
			s.mu.Unlock()
			s.end()
		}
		if len(buffers) > 2*pages {
			t.Errorf("%d different encodings, want at most %d", len(buffers), 2*pages)
		}
	})
}

// TestGap checks that followers start over when the ledger does, at the pages of the new ledger.
func TestGap(t *testing.T) {
	inBubble(t, func(t *testing.T, r *replica) {
		before := r.revoke(4500)
		s := r.follow(t, &grantorv1.WatchRevocationsRequest{}, nil)
		advance(time.Second)
		if got := s.tokens(); !slices.Equal(got, before) {
			t.Fatalf("got %d revocations, want %d", len(got), len(before))
		}
		r.Ledger.Reset()
		after := r.revoke(3000)
		advance(time.Second)
		_, last := s.received()
		if got := s.tokens()[len(before):]; !slices.Equal(got, after) || last.GetComplete() {
			t.Errorf("got %d revocations after the gap, want %d that are not complete", len(got), len(after))
		}
		fresh := r.follow(t, &grantorv1.WatchRevocationsRequest{}, nil)
		advance(time.Second)
		if got := fresh.tokens(); !slices.Equal(got, after) {
			t.Errorf("a new follower got %d revocations, want %d", len(got), len(after))
		}
		s.end()
		fresh.end()
	})
}

// TestResume has followers leave and continue at another replica while tokens are revoked.
func TestResume(t *testing.T) {
	inBubble(t, func(t *testing.T, a *replica) {
		b := &replica{Hub: broadcast.New(a.Feed, a.Ledger, time.Now)}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = b.Run(ctx) }()
		var want, got []string
		cursor := ""
		for i := range 50 {
			at := a
			if i%2 == 1 {
				at = b
			}
			s := at.follow(t, &grantorv1.WatchRevocationsRequest{Cursor: cursor}, nil)
			for range i % 3 {
				want = append(want, a.revoke(1+i*20)...)
				advance(time.Duration(i%5) * time.Millisecond)
			}
			s.end()
			if n, last := s.received(); n > 0 {
				cursor = last.GetCursor()
			}
			got = append(got, s.tokens()...)
		}
		s := b.follow(t, &grantorv1.WatchRevocationsRequest{Cursor: cursor}, nil)
		advance(time.Second)
		s.end()
		if got = append(got, s.tokens()...); !slices.Equal(got, want) {
			t.Errorf("got %d revocations, want %d, each once and in order", len(got), len(want))
		}
	})
}

// TestReconnecting has a follower that connects and leaves without end. It harms no other.
func TestReconnecting(t *testing.T) {
	inBubble(t, func(t *testing.T, r *replica) {
		r.revoke(3000)
		s := r.follow(t, &grantorv1.WatchRevocationsRequest{}, nil)
		advance(0)
		for range 2000 {
			r.follow(t, &grantorv1.WatchRevocationsRequest{}, nil).end()
			advance(time.Millisecond)
		}
		n, last := s.received()
		if following, dropped := r.Followers(); following != 1 || dropped != 0 || n > 8 || !last.GetComplete() {
			t.Errorf("%d followers, %d dropped, %d responses; want one follower with a response each second", following, dropped, n)
		}
		s.end()
	})
}
