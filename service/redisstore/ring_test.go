package redisstore_test

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
)

// openRing opens the ring as a replica does.
func openRing(t *testing.T, k *kit, sealer *keys.Sealer, now func() time.Time) *keys.Ring {
	ring, err := keys.Open(t.Context(), keys.Config{
		Store: k, Sealer: sealer, Algorithms: []jwks.Algorithm{jwks.ES256, jwks.EdDSA},
		Rotation: 24 * time.Hour, MaxAge: time.Hour, Retention: 24 * time.Hour, Now: now,
	})
	if err != nil {
		t.Error(err)
		return nil
	}
	return ring
}

func ids(ring *keys.Ring) []string {
	var ids []string
	for _, key := range ring.Published() {
		ids = append(ids, key.ID())
	}
	return ids
}

func testRingsAgree(t *testing.T, k *kit) {
	sealer := must(keys.NewSealer(keys.NewKEK()))
	rings := make([]*keys.Ring, 10)
	var group sync.WaitGroup
	for i := range rings {
		group.Go(func() { rings[i] = openRing(t, k, sealer, time.Now) })
	}
	group.Wait()
	want := ids(rings[0])
	if len(want) != 2 {
		t.Fatalf("%d keys, want one for each of two algorithms", len(want))
	}
	for _, ring := range rings[1:] {
		if got := ids(ring); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if !bytes.Equal(ring.Pepper(), rings[0].Pepper()) {
			t.Error("two rings have two peppers")
		}
	}
	if got := len(k.feed(t)); got != 1 {
		t.Errorf("the ring was saved %d times, want once", got)
	}
}

func testRingsRotate(t *testing.T, k *kit) {
	var clock atomic.Int64
	now := func() time.Time { return start.Add(time.Duration(clock.Load())) }
	sealer := must(keys.NewSealer(keys.NewKEK()))
	first, second := openRing(t, k, sealer, now), openRing(t, k, sealer, now)
	clock.Store(int64(23 * time.Hour))
	var group sync.WaitGroup
	for _, ring := range []*keys.Ring{first, second} {
		group.Go(func() {
			if err := ring.Maintain(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got, want := ids(first), ids(second); len(got) != 4 || !slices.Equal(got, want) {
		t.Errorf("got %q and %q, want the same, with one successor for each algorithm", got, want)
	}
	if got := len(k.feed(t)); got != 2 {
		t.Errorf("the ring was saved %d times, want twice", got)
	}
}
