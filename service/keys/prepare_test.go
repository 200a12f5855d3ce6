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

// TestPrepare makes a ring of a pepper alone, once, to which the first replica adds its keys.
func TestPrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, sealer := &memory{}, must.Get(keys.NewSealer(kek))
		const settle = time.Second
		began := time.Now()
		peppers := make([][]byte, 5)
		var group sync.WaitGroup
		for i := range peppers {
			group.Go(func() {
				pepper, algorithms, err := keys.Prepare(t.Context(), store, sealer, settle)
				if peppers[i] = pepper; len(algorithms) > 0 || err != nil {
					t.Errorf("got %v, %v, want no algorithms", algorithms, err)
				}
			})
		}
		group.Wait()
		if took := time.Since(began); took != settle || store.saves != 1 {
			t.Errorf("%d saves in %s, want one, and %s to settle", store.saves, took, settle)
		}
		cfg := config(store, newClock(), fast...)
		cfg.StartupGrace = settle
		began = time.Now()
		ring := must.Get(keys.Open(t.Context(), cfg))
		last, _, err := keys.Prepare(t.Context(), store, sealer, settle)
		expectError(t, err, nil)
		for _, pepper := range append(peppers, last) {
			if len(pepper) != 32 || !bytes.Equal(pepper, ring.Pepper()) {
				t.Error("one of them has another pepper")
			}
		}
		if took := time.Since(began); took != 0 || len(ids(ring)) != 2 {
			t.Errorf("%d keys after %s, want two at once", len(ids(ring)), took)
		}
		// Given up while it waits.
		ctx, cancel := context.WithTimeout(t.Context(), settle/2)
		defer cancel()
		_, _, err = keys.Prepare(ctx, &memory{}, sealer, settle)
		expectError(t, err, context.DeadlineExceeded)
		_, _, err = keys.Prepare(t.Context(), &memory{conflict: true}, sealer, settle)
		expectError(t, err, keys.ErrConflict)
	})
}

// A replica that starts on a store which has just lost everything waits for one that holds what was lost.
func TestSettle(t *testing.T) {
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
		synctest.Wait() // it has made a ring
		maintain(t, old)
		<-opened
		expectSame(t, old, fresh)
		expectPeace(t, store, old, fresh)
	})
}

// Two rings that were made one after the other in a store that lost the first come to one pepper, the older.
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
				synctest.Wait() // both know the pepper that they began with
				for _, i := range append(order, order...) {
					maintain(t, rings[i])
				}
				expectSame(t, rings...)
				if !bytes.Equal(rings[0].Pepper(), pepper) {
					t.Error("the younger pepper stays")
				}
				expectPeace(t, store, rings...)
				// The one whose pepper is gone ends.
				rings[0].Reload()
				rings[1].Reload()
				expectError(t, <-ended[1], keys.ErrReplaced)
				cancel()
				expectError(t, <-ended[0], nil)
			})
		})
	}
}

// expectPeace checks that the rings do not go on changing the store.
func expectPeace(t *testing.T, store *memory, rings ...*keys.Ring) {
	t.Helper()
	saves := store.saves
	maintain(t, rings...)
	maintain(t, rings...)
	if store.saves != saves {
		t.Errorf("the rings go on changing the store: %d saves", store.saves-saves)
	}
}
