package dpop_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
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

// TestThiefCannotFillReplays checks that proofs with another key than that of the token take no place: with proofs of the near
// future, whoever has stolen a token would otherwise crowd out those of its owner.
func TestThiefCannotFillReplays(t *testing.T) {
	owner, thief := jwstest.NewSigner(jwks.ES256), must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	verifier := newVerifier()
	verifier.Replays = dpop.NewReplays(dpop.ReplayShards)
	bound := request()
	bound.KeyThumbprint = owner.Key().Thumbprint()
	for range 10 * dpop.ReplayShards {
		raw := must.Get(thief.Sign(dpop.Claims{Method: "GET", URL: target, Token: accessToken, Time: now.Add(20 * time.Second)}))
		if _, err := verifier.Verify(raw, bound); !errors.Is(err, dpop.ErrKey) {
			t.Fatalf("got %v, want ErrKey", err)
		}
	}
	if _, err := verifier.Verify(owner.Sign(header(owner), payload()), bound); err != nil {
		t.Errorf("a proof by the owner of the token: %v", err)
	}
}
