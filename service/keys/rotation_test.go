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

// history is what a watcher saw of each key, by its id.
type history struct {
	published, signs map[string]time.Time
	// until is when the last token that the key signed expires.
	until map[string]time.Time
}

func newHistory() *history {
	return &history{map[string]time.Time{}, map[string]time.Time{}, map[string]time.Time{}}
}

// watch has the ring sign tokens of the longest life, and checks what a verifier relies on.
func (h *history) watch(t *testing.T, ring *keys.Ring, now time.Time) {
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
			t.Fatalf("after %s: the key of a token that lives another %s is not published", now.Sub(start), until.Sub(now))
		}
		if _, err := ring.Find(t.Context(), id); now.Before(until) && err != nil {
			t.Fatalf("after %s: %v", now.Sub(start), err)
		}
	}
}

// expectLead checks that every key but the first ones was published for MaxAge when it began to sign.
func (h *history) expectLead(t *testing.T, first []string) {
	t.Helper()
	for id, signs := range h.signs {
		if lead := signs.Sub(h.published[id]); lead < maxAge && !slices.Contains(first, id) {
			t.Errorf("a key signs %s after it was published, want %s at least", lead, maxAge)
		}
	}
}

// Seven weeks of two replicas, which maintain the ring now and then.
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
			seen.watch(t, ring, c.Now())
		}
		// What is stored does not grow with the years.
		if i < int(2*rotation/step) {
			size = max(size, len(store.document))
		} else if len(store.document) > size+100 {
			t.Fatalf("after %s: %d bytes are stored, after two weeks it was %d", c.Now().Sub(start), len(store.document), size)
		}
		// The active one, its successor, and the one before: never more.
		if got := len(ids(rings[0])); got > 2*2 {
			t.Fatalf("after %s: %d keys are published", c.Now().Sub(start), got)
		}
		c.advance(step)
	}
	seen.expectLead(t, first)
	if got := len(seen.signs); got != 2*weeks {
		t.Errorf("%d keys signed in %d weeks, want one for each week and algorithm", got, weeks)
	}
	for _, id := range first {
		if _, err := rings[0].Find(t.Context(), id); err == nil {
			t.Error("the first key is still there")
		}
	}
}

// Rotation of a day or an hour, shorter than a token lives, keeps several old keys.
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
				seen.watch(t, ring, c.Now())
				c.advance(step)
			}
			seen.expectLead(t, first)
			if len(seen.signs) < 2*6 {
				t.Errorf("%d keys signed, want six for each algorithm at least", len(seen.signs))
			}
		})
	}
}

// Replicas that were all down past the end of a key let its successor wait all the same.
func TestLateRotation(t *testing.T) {
	store, c := &memory{}, newClock()
	first := ids(open(t, store, c, fast...))
	c.advance(10 * rotation)
	ring, seen := open(t, store, c, fast...), newHistory()
	for range 60 {
		maintain(t, ring)
		seen.watch(t, ring, c.Now())
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
		old  bool // whether the first key signs
	}{
		{"before a successor is due", rotation - lead - time.Second, 1, true},
		{"with the successor upcoming", rotation - lead, 2, true},
		{"just before it signs", rotation - time.Second, 2, true},
		{"when it signs", rotation, 2, false},
		{"while old tokens live", rotation + retention, 2, false},
		{"as long as clocks may differ", rotation + retention + slack, 2, false},
		{"when all old tokens have expired", rotation + retention + slack + time.Second, 1, false},
	} {
		c.advance(start.Add(test.at).Sub(c.Now()))
		maintain(t, ring)
		if got := ids(ring); len(got) != test.keys || (active(t, ring, jwks.ES256) == old) != test.old {
			t.Errorf("%s: %d keys, the first signs: %v, want %d, %v", test.name, len(got), active(t, ring, jwks.ES256) == old, test.keys, test.old)
		}
	}
}

// Without maintenance the clock alone changes who signs, and what is gone is not published.
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
		t.Errorf("got %q, want the new key alone", got)
	}
}

func TestClockBehind(t *testing.T) {
	store, c := &memory{}, newClock()
	open(t, store, c, jwks.ES256)
	behind := newClock()
	behind.advance(-time.Minute)
	ring := open(t, store, behind, jwks.ES256)
	if got := active(t, ring, jwks.ES256); len(ids(ring)) != 1 || got != ids(ring)[0] || store.saves != 1 {
		t.Errorf("got %s of %q after %d saves, want the one key", got, ids(ring), store.saves)
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
