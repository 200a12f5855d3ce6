package keys_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
)

// TestPrepare checks that concurrent calls create one ring with a pepper alone, to which the first replica adds its
// keys.
func TestPrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, sealer := &memory{}, must.Get(keys.NewSealer(kek))
		const grace = time.Second
		begin := time.Now()
		peppers := make([][]byte, 5)
		var group sync.WaitGroup
		for i := range peppers {
			group.Go(func() {
				pepper, algorithms, err := keys.Prepare(t.Context(), store, sealer, grace)
				if peppers[i] = pepper; len(algorithms) > 0 || err != nil {
					t.Errorf("got %v, %v, want no algorithms", algorithms, err)
				}
			})
		}
		group.Wait()
		if took := time.Since(begin); took != grace || store.saves != 1 {
			t.Errorf("%d saves in %s, want 1 in %s", store.saves, took, grace)
		}
		cfg := config(store, newClock(), fast...)
		cfg.StartupGrace = grace
		begin = time.Now()
		ring := must.Get(keys.Open(t.Context(), cfg))
		last, _, err := keys.Prepare(t.Context(), store, sealer, grace)
		expectError(t, err, nil)
		for _, pepper := range append(peppers, last) {
			if len(pepper) != 32 || !bytes.Equal(pepper, ring.Pepper()) {
				t.Error("one of the calls returned another pepper")
			}
		}
		if took := time.Since(begin); took != 0 || len(ids(ring)) != 2 {
			t.Errorf("%d keys after %s, want 2 at once", len(ids(ring)), took)
		}
		// The context ends during the wait.
		ctx, cancel := context.WithTimeout(t.Context(), grace/2)
		defer cancel()
		_, _, err = keys.Prepare(ctx, &memory{}, sealer, grace)
		expectError(t, err, context.DeadlineExceeded)
		_, _, err = keys.Prepare(t.Context(), &memory{conflict: true}, sealer, grace)
		expectError(t, err, keys.ErrConflict)
	})
}

// A replica that starts on a store that has just lost everything waits for a running one to restore the ring.
func TestStartupGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, c := &memory{}, newClock()
		old := open(t, store, c, fast...)
		c.advance(time.Second)
		store.document, store.version = nil, 0
		cfg := config(store, c, fast...)
		cfg.StartupGrace = time.Second
		var fresh *keys.Ring
		opened := make(chan struct{})
		go func() {
			defer close(opened)
			fresh = must.Get(keys.Open(t.Context(), cfg))
		}()
		synctest.Wait() // it has created a ring
		maintain(t, old)
		<-opened
		expectSame(t, old, fresh)
		expectStable(t, store, old, fresh)
	})
}

// Of two rings, the second created after the store lost the first, both replicas keep the older pepper.
func TestTwoPeppers(t *testing.T) {
	for name, order := range map[string][]int{"the old one first": {0, 1}, "the new one first": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, c := &memory{}, newClock()
				rings := []*keys.Ring{open(t, store, c, fast...), nil}
				pepper := bytes.Clone(rings[0].Pepper())
				store.document, store.version = nil, 0
				c.advance(time.Millisecond)
				rings[1] = open(t, store, c, fast...)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := [2]chan error{make(chan error, 1), make(chan error, 1)}
				for i, ring := range rings {
					go func() { ended[i] <- ring.Run(ctx, func(err error) { t.Error(err) }) }()
				}
				synctest.Wait() // both have read the pepper that they start with
				for _, i := range append(order, order...) {
					maintain(t, rings[i])
				}
				expectSame(t, rings...)
				if !bytes.Equal(rings[0].Pepper(), pepper) {
					t.Error("the newer pepper was kept")
				}
				expectStable(t, store, rings...)
				// The replica whose pepper was replaced ends.
				rings[0].Reload()
				rings[1].Reload()
				expectError(t, <-ended[1], keys.ErrReplaced)
				cancel()
				expectError(t, <-ended[0], nil)
			})
		})
	}
}

// expectStable checks that the rings do not keep changing the store.
func expectStable(t *testing.T, store *memory, rings ...*keys.Ring) {
	t.Helper()
	saves := store.saves
	maintain(t, rings...)
	maintain(t, rings...)
	if store.saves != saves {
		t.Errorf("the rings keep changing the store: %d more saves", store.saves-saves)
	}
}
