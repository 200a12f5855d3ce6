package keys_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
)

// changeLog records the calls of OnChange.
type changeLog struct {
	mu      sync.Mutex
	added   []keys.KeyAdded
	removed []keys.KeyRemoved
}

func (l *changeLog) record(_ context.Context, added []keys.KeyAdded, removed []keys.KeyRemoved) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.added, l.removed = append(l.added, added...), append(l.removed, removed...)
}

// TestChanged checks that each key is reported once when it is added and once when it is removed, whichever replica
// made the change and whatever the store lost in between.
func TestChanged(t *testing.T) {
	var log changeLog
	store, c := &memory{}, newClock()
	var rings []*keys.Ring
	for range 3 {
		cfg := config(store, c, jwks.ES256)
		cfg.OnChange = log.record
		ring, err := keys.Open(t.Context(), cfg)
		expectError(t, err, nil)
		rings = append(rings, ring)
	}
	first := active(t, rings[0], jwks.ES256)
	if len(log.added) != 1 || log.added[0].ID != first || log.added[0].Replaces != "" {
		t.Fatalf("got %v, want the first key", log.added)
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
	for i, added := range log.added[1:] {
		if added.Replaces != log.added[i].ID || added.Algorithm != jwks.ES256 || added.Activates.Before(log.added[i].Activates) {
			t.Errorf("key %d: got %v after %v", i+1, added, log.added[i])
		}
	}
	if len(log.removed) < 2 || len(log.removed) >= len(log.added) {
		t.Fatalf("%d keys added and %d removed", len(log.added), len(log.removed))
	}
	for i, removed := range log.removed {
		if removed != (keys.KeyRemoved{Algorithm: jwks.ES256, ID: log.added[i].ID}) {
			t.Errorf("removed: got %v, want %v", removed, log.added[i])
		}
	}
	added, removed := len(log.added), len(log.removed)
	store.document, store.version = nil, 0
	maintain(t, rings...)
	if len(log.added) != added || len(log.removed) != removed {
		t.Errorf("keys restored from memory are reported: %v %v", log.added[added:], log.removed[removed:])
	}
	newest := log.added[added-1].ID
	expectError(t, rings[0].Compromise(t.Context(), newest), nil)
	if len(log.removed) != removed {
		t.Errorf("the compromised key is reported as one that is gone: %v", log.removed[removed:])
	}
}
