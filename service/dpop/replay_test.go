package dpop_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/grantorhq/grantor/service/dpop"
)

func TestReplaysForgetsWithTime(t *testing.T) {
	replays := dpop.NewReplays(dpop.DefaultReplays)
	for second := int64(1000); second < 2000; second++ {
		for i := range 10 {
			if err := replays.Use("key", fmt.Sprint(second, i), second, second-90); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Each of the parts forgets when it is used next, so that some have a second more.
	if got := replays.Len(); got < 910 || got > 1100 {
		t.Errorf("got %d proofs in memory, want those of 91 seconds, 10 each", got)
	}
}

// TestFullReplaysRefusesOldProofs checks that an attacker who fills the memory makes no proof acceptable again, and that
// proofs of the current second are still accepted.
func TestFullReplaysRefusesOldProofs(t *testing.T) {
	const capacity = 10 * dpop.ReplayShards
	replays := dpop.NewReplays(capacity)
	if err := replays.Use("victim", "1", 100, 10); err != nil {
		t.Fatal(err)
	}
	for i := range 100 * capacity { // at most 5 proofs of each second for each part, on average
		second := 101 + int64(i/(5*dpop.ReplayShards))
		_ = replays.Use("attacker", fmt.Sprint(i), second, second-90)
		if replays.Len() > capacity {
			t.Fatalf("got %d proofs in memory, more than %d", replays.Len(), capacity)
		}
		if i == 5*capacity {
			if err := replays.Use("victim", "1", 100, 10); err == nil {
				t.Error("a used proof was accepted again")
			}
			if err := replays.Use("victim", "2", second+1, second-90); err != nil {
				t.Errorf("a proof of this moment: %v", err)
			}
		}
	}
}

func TestReplaysIsSafeForConcurrentUse(t *testing.T) {
	replays := dpop.NewReplays(dpop.DefaultReplays)
	var accepted atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 1000 {
				if replays.Use("key", fmt.Sprint(i), 100, 10) == nil {
					accepted.Add(1)
				}
			}
		})
	}
	all.Wait()
	if got := accepted.Load(); got != 1000 {
		t.Errorf("got %d accepted proofs, want each of 1000 once", got)
	}
}
