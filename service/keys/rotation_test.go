package keys_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
)

// history is what an observer saw of each key. The maps are keyed by key ID.
type history struct {
	// published and signs are when the key was first seen published and signing.
	published, signs map[string]time.Time
	// until is when the last token that the key signed expires.
	until map[string]time.Time
}

func newHistory() *history {
	return &history{map[string]time.Time{}, map[string]time.Time{}, map[string]time.Time{}}
}

// observe records the keys of the ring, as if it signed tokens of maximum lifetime, and checks what a verifier relies
// on.
func (h *history) observe(t *testing.T, ring *keys.Ring, now time.Time) {
	t.Helper()
	published := ids(ring)
	for _, id := range published {
		if _, seen := h.published[id]; !seen {
			h.published[id] = now
		}
	}
	for _, algorithm := range fast {
		id := active(t, ring, algorithm)
		if _, seen := h.signs[id]; !seen {
			h.signs[id] = now
		}
		h.until[id] = now.Add(retention)
	}
	for id, until := range h.until {
		if now.Before(until) && !slices.Contains(published, id) {
			t.Fatalf("after %s: the key of a token that expires in %s is not published", now.Sub(start), until.Sub(now))
		}
		if _, err := ring.Find(t.Context(), id); now.Before(until) && err != nil {
			t.Fatalf("after %s: %v", now.Sub(start), err)
		}
	}
}

// expectLead checks that every key but the first ones was published for at least MaxAge when it started to sign.
func (h *history) expectLead(t *testing.T, first []string) {
	t.Helper()
	for id, signs := range h.signs {
		if lead := signs.Sub(h.published[id]); lead < maxAge && !slices.Contains(first, id) {
			t.Errorf("a key signs %s after it was published, want at least %s", lead, maxAge)
		}
	}
}

// TestRotation simulates seven weeks of two replicas that maintain the ring every ten minutes.
func TestRotation(t *testing.T) {
	store, c := &memory{}, newClock()
	rings := []*keys.Ring{open(t, store, c, fast...), open(t, store, c, fast...)}
	first, size := ids(rings[0]), 0
	seen := newHistory()
	const step, weeks = 10 * time.Minute, 7
	for i := range int(weeks * 7 * 24 * time.Hour / step) {
		maintain(t, rings[i%2])
		maintain(t, rings[1-i%2])
		expectSame(t, rings...)
		for _, ring := range rings {
			seen.observe(t, ring, c.Now())
		}
		// The size of the stored ring stays bounded.
		if i < int(2*rotation/step) {
			size = max(size, len(store.document))
		} else if len(store.document) > size+100 {
			t.Fatalf("after %s: %d bytes are stored, want at most 100 more than the %d of the first two weeks", c.Now().Sub(start), len(store.document), size)
		}
		// Each algorithm has at most two keys: the active one, and its successor or its predecessor.
		if got := len(ids(rings[0])); got > 2*2 {
			t.Fatalf("after %s: %d keys are published", c.Now().Sub(start), got)
		}
		c.advance(step)
	}
	seen.expectLead(t, first)
	if got := len(seen.signs); got != 2*weeks {
		t.Errorf("%d keys signed in %d weeks, want 1 for each week and algorithm", got, weeks)
	}
	for _, id := range first {
		if _, err := rings[0].Find(t.Context(), id); err == nil {
			t.Error("the first key is still in the ring")
		}
	}
}

// Rotation within the lifetime of a token, after a day or less, keeps several retiring keys.
func TestShortRotation(t *testing.T) {
	for name, rotation := range map[string]time.Duration{"a day": 24 * time.Hour, "an hour": time.Hour, "half an hour": 30 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			store, c := &memory{}, newClock()
			cfg := config(store, c, fast...)
			cfg.Rotation = rotation
			ring := must.Get(keys.Open(t.Context(), cfg))
			first, seen := ids(ring), newHistory()
			const step = 10 * time.Minute
			for range int((retention + 6*rotation) / step) {
				maintain(t, ring)
				seen.observe(t, ring, c.Now())
				c.advance(step)
			}
			seen.expectLead(t, first)
			if len(seen.signs) < 2*6 {
				t.Errorf("%d keys signed, want at least 6 for each algorithm", len(seen.signs))
			}
		})
	}
}

// After all replicas were down past the end of a key, its successor is still published for the full lead.
func TestLateRotation(t *testing.T) {
	store, c := &memory{}, newClock()
	first := ids(open(t, store, c, fast...))
	c.advance(10 * rotation)
	ring, seen := open(t, store, c, fast...), newHistory()
	for range 60 {
		maintain(t, ring)
		seen.observe(t, ring, c.Now())
		c.advance(5 * time.Minute)
	}
	seen.expectLead(t, first)
	if got := len(seen.signs); got != 4 {
		t.Errorf("%d keys signed, want the first two and their successors", got)
	}
}

func TestStates(t *testing.T) {
	store, c := &memory{}, newClock()
	ring := open(t, store, c, jwks.ES256)
	old := active(t, ring, jwks.ES256)
	lead := maxAge + slack
	for _, test := range []struct {
		name string
		at   time.Duration
		keys int
		old  bool // whether the first key still signs
	}{
		{"before a successor is due", rotation - lead - time.Second, 1, true},
		{"with the successor upcoming", rotation - lead, 2, true},
		{"just before it signs", rotation - time.Second, 2, true},
		{"when it signs", rotation, 2, false},
		{"while old tokens live", rotation + retention, 2, false},
		{"within the clock skew", rotation + retention + slack, 2, false},
		{"when all old tokens have expired", rotation + retention + slack + time.Second, 1, false},
	} {
		c.advance(start.Add(test.at).Sub(c.Now()))
		maintain(t, ring)
		if got := ids(ring); len(got) != test.keys || (active(t, ring, jwks.ES256) == old) != test.old {
			t.Errorf("%s: got %d keys, the first active: %v, want %d, %v", test.name, len(got), active(t, ring, jwks.ES256) == old, test.keys, test.old)
		}
	}
}

// Without maintenance, the clock alone changes the active key, and a key that is gone is not published.
func TestStatesFollowTheClock(t *testing.T) {
	store, c := &memory{}, newClock()
	ring := open(t, store, c, jwks.ES256)
	old := active(t, ring, jwks.ES256)
	c.advance(rotation - maxAge)
	maintain(t, ring)
	c.advance(2 * maxAge)
	if active(t, ring, jwks.ES256) == old {
		t.Error("the old key still signs")
	}
	c.advance(2 * retention)
	if got := ids(ring); len(got) != 1 || got[0] == old {
		t.Errorf("got the keys %q, want the new one alone", got)
	}
}

func TestClockBehind(t *testing.T) {
	store, c := &memory{}, newClock()
	open(t, store, c, jwks.ES256)
	behind := newClock()
	behind.advance(-time.Minute)
	ring := open(t, store, behind, jwks.ES256)
	if got := active(t, ring, jwks.ES256); len(ids(ring)) != 1 || got != ids(ring)[0] || store.saves != 1 {
		t.Errorf("got %s of %q after %d saves, want the one key after 1", got, ids(ring), store.saves)
	}
}

func TestOneSuccessor(t *testing.T) {
	store, c := &memory{}, newClock()
	rings := make([]*keys.Ring, 10)
	for i := range rings {
		rings[i] = open(t, store, c, fast...)
	}
	c.advance(rotation)
	var group sync.WaitGroup
	for _, ring := range rings {
		group.Go(func() {
			if err := ring.Maintain(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	expectSame(t, rings...)
	if got := len(ids(rings[0])); got != 4 || store.saves != 2 {
		t.Errorf("%d keys after %d saves, want 4 after 2", got, store.saves)
	}
}
