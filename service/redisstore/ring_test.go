package redisstore_test

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/token"
)

// openRing opens the ring like a replica.
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
	sealer := must.Get(keys.NewSealer(keys.NewKEK()))
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
			t.Error("two rings have different peppers")
		}
	}
	if got := len(k.feed(t)); got != 1 {
		t.Errorf("the ring was saved %d times, want once", got)
	}
}

func testRingsRotate(t *testing.T, k *kit) {
	var clock atomic.Int64
	now := func() time.Time { return start.Add(time.Duration(clock.Load())) }
	sealer := must.Get(keys.NewSealer(keys.NewKEK()))
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

// testRotatedByMany checks that concurrent rotations at two replicas create one new key.
func testRotatedByMany(t *testing.T, k *kit) {
	sealer := must.Get(keys.NewSealer(keys.NewKEK()))
	rings := []*keys.Ring{openRing(t, k, sealer, time.Now), openRing(t, k, sealer, time.Now)}
	var group sync.WaitGroup
	for i := range 10 {
		group.Go(func() {
			if err := rings[i%2].Rotate(t.Context(), jwks.ES256); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got, want := ids(rings[0]), ids(rings[1]); len(got) != 3 || !slices.Equal(got, want) {
		t.Errorf("got %q and %q, want the same, with one successor", got, want)
	}
	if got := len(k.feed(t)); got != 2 {
		t.Errorf("the ring was saved %d times, want twice", got)
	}
}

// testMovedRing checks that a ring copied to another prefix does not open, even with the same key-encryption key.
func testMovedRing(t *testing.T, k *kit) {
	sealer := must.Get(keys.NewSealer(keys.NewKEK()))
	openRing(t, k, sealer, time.Now)
	other := newKit(k.client)
	record, err := k.client.HGetAll(t.Context(), k.base+"ring").Result()
	must.Succeed(t, err)
	must.Succeed(t, k.client.HSet(t.Context(), other.base+"ring", record).Err())
	if _, _, err := keys.Peek(t.Context(), other, sealer); !errors.Is(err, keys.ErrSealed) {
		t.Errorf("got %v, want %v", err, keys.ErrSealed)
	}
	if _, _, err := keys.Peek(t.Context(), k, sealer); err != nil {
		t.Error(err)
	}
}

// TestRotationSeenByVerifiers rotates keys several times a second, with a clock that the test advances, while two replicas
// sign tokens and verifiers that cache the key set for its maximum age verify them. No verifier may encounter an unknown
// key.
func TestRotationSeenByVerifiers(t *testing.T) {
	k := newKit(redistest.New(t).Client())
	var passed atomic.Int64
	now := func() time.Time { return start.Add(time.Duration(passed.Load())) }
	sealer := must.Get(keys.NewSealer(keys.NewKEK()))
	const (
		age  = time.Minute
		life = 10 * time.Minute
		step = 15 * time.Second // less than the allowed clock skew
	)
	rings := make([]*keys.Ring, 2)
	for i := range rings {
		rings[i] = must.Get(keys.Open(t.Context(), keys.Config{
			Store: k, Sealer: sealer, Algorithms: []jwks.Algorithm{jwks.ES256, jwks.EdDSA},
			Rotation: 5 * time.Minute, MaxAge: age, Retention: life, Now: now,
		}))
	}
	// Each verifier checks one token at each step of the clock, concurrently with the maintenance of the rings.
	const steps = 400
	turns := make([]chan struct{}, 4)
	var group sync.WaitGroup
	for i := range turns {
		turns[i] = make(chan struct{})
		v := &cachedSet{ring: rings[i%2], now: now}
		group.Go(func() {
			n := 0
			for range turns[i] {
				n++
				if err := v.check(t, rings[n%2], rings[n%2].Algorithms()[n/2%2], life); err != nil {
					t.Errorf("after %s: %v", now().Sub(start), err)
				}
			}
		})
	}
	began, seen := time.Now(), map[string]bool{}
	for range steps {
		var both sync.WaitGroup
		for _, turn := range turns {
			turn <- struct{}{}
		}
		for _, ring := range rings {
			both.Go(func() {
				if err := ring.Maintain(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		for _, id := range ids(rings[0]) {
			seen[id] = true
		}
		passed.Add(int64(step))
	}
	took := time.Since(began)
	for _, turn := range turns {
		close(turn)
	}
	group.Wait()
	t.Logf("%d keys in %s, %d tokens checked", len(seen), took, steps*len(turns))
	if len(seen) < 2*15 {
		t.Errorf("got %d keys, want at least 30", len(seen))
	}
}

// cachedSet is a verifier's cached copy of a replica's key set.
type cachedSet struct {
	ring    *keys.Ring
	now     func() time.Time
	set     *jwks.Set
	fetched time.Time
}

// check signs a token and verifies it with the set, which it fetches again after its maximum age.
func (v *cachedSet) check(t *testing.T, by *keys.Ring, algorithm jwks.Algorithm, life time.Duration) error {
	signer, err := by.Signer(algorithm)
	if err != nil {
		return err
	}
	at := v.now()
	raw, err := signer.Sign(&token.Claims{
		Issuer: "https://issuer.test", Subject: "a", ClientID: "a", Audience: []string{"https://a.internal"},
		IssuedAt: at, ExpiresAt: at.Add(life), ID: token.NewID().String(),
	})
	if err != nil {
		return err
	}
	if v.set == nil || v.now().Sub(v.fetched) > v.ring.MaxAge() {
		v.fetched = v.now()
		v.set = jwks.NewSet(v.ring.Published()...)
	}
	_, err = (&token.Verifier{
		Issuer: "https://issuer.test", Audience: []string{"https://a.internal"}, Keys: v.set, Leeway: time.Minute, Now: v.now,
	}).Verify(t.Context(), raw)
	return err
}
