package keys_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
)

// told is what rings told of their changes.
type told struct {
	mu   sync.Mutex
	made []keys.KeyAdded
	gone []keys.KeyRemoved
}

func (l *told) note(_ context.Context, made []keys.KeyAdded, gone []keys.KeyRemoved) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made, l.gone = append(l.made, made...), append(l.gone, gone...)
}

// TestChanged has each key told of once when it is made and once when it is gone, whichever of the replicas did it, and
// whatever the store has lost meanwhile.
func TestChanged(t *testing.T) {
	var log told
	store, c := &memory{}, newClock()
	var rings []*keys.Ring
	for range 3 {
		with := config(store, c, jwks.ES256)
		with.OnChange = log.note
		ring, err := keys.Open(t.Context(), with)
		expectError(t, err, nil)
		rings = append(rings, ring)
	}
	first := active(t, rings[0], jwks.ES256)
	if len(log.made) != 1 || log.made[0].ID != first || log.made[0].Replaces != "" {
		t.Fatalf("got %v, want the first key", log.made)
	}
	for range 3 {
		c.advance(rotation)
		var running sync.WaitGroup
		for _, ring := range rings {
			running.Go(func() { _ = ring.Maintain(t.Context()) })
		}
		running.Wait()
		maintain(t, rings...)
		c.advance(retention + time.Hour)
		maintain(t, rings...)
	}
	for i, made := range log.made[1:] {
		if made.Replaces != log.made[i].ID || made.Algorithm != jwks.ES256 || made.Activates.Before(log.made[i].Activates) {
			t.Errorf("key %d is %v, after %v", i+1, made, log.made[i])
		}
	}
	if len(log.gone) < 2 || len(log.gone) >= len(log.made) {
		t.Fatalf("%d keys were made and %d are gone", len(log.made), len(log.gone))
	}
	for i, gone := range log.gone {
		if gone != (keys.KeyRemoved{Algorithm: jwks.ES256, ID: log.made[i].ID}) {
			t.Errorf("gone is %v, want %v", gone, log.made[i])
		}
	}
	made, gone := len(log.made), len(log.gone)
	store.document, store.version = nil, 0
	maintain(t, rings...)
	if len(log.made) != made || len(log.gone) != gone {
		t.Errorf("what memory put back into the store was told of: %v %v", log.made[made:], log.gone[gone:])
	}
	newest := log.made[made-1].ID
	expectError(t, rings[0].Compromise(t.Context(), newest), nil)
	if len(log.gone) != gone {
		t.Errorf("the key that was removed by hand is told of as one whose time was over: %v", log.gone[gone:])
	}
}
