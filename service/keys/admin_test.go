package keys_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
)

// unknownID has the form of a key ID.
var unknownID = base64.RawURLEncoding.EncodeToString([]byte("an id of thirty-two bytes exactly"[:32]))

// lead is how long a successor is published before it signs.
const lead = maxAge + slack

// expectStates checks the states of the keys of an algorithm, in the order in which they sign.
func expectStates(t *testing.T, ring *keys.Ring, algorithm jwks.Algorithm, want ...keys.State) []keys.Info {
	t.Helper()
	var got []keys.State
	var list []keys.Info
	for _, info := range ring.List() {
		if info.Public.Algorithm() == algorithm {
			got, list = append(got, info.State), append(list, info)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the keys of %s are %q, want %q", algorithm, got, want)
	}
	return list
}

func TestList(t *testing.T) {
	store, c := &memory{}, newClock()
	ring := open(t, store, c, jwks.ES256)
	expect := func(name string, i int, retires, removed time.Time, states ...keys.State) {
		t.Helper()
		got := expectStates(t, ring, jwks.ES256, states...)[i]
		if !got.Retires.Equal(retires) || !got.Removed.Equal(removed) {
			t.Errorf("%s: retires %s, removed %s, want %s, %s", name, got.Retires, got.Removed, retires, removed)
		}
	}
	expect("alone", 0, time.Time{}, time.Time{}, keys.Active)
	first := ring.List()[0]
	if key := ring.Published()[0]; !first.Public.Equal(key) || !first.Created.Equal(start) || !first.Activates.Equal(start) {
		t.Errorf("got %+v, want the key %s, created and active at %s", first, key.ID(), start)
	}
	end := start.Add(rotation)
	expectNext := func(name string, at time.Time) {
		t.Helper()
		if got := ring.NextRotation(jwks.ES256); !got.Equal(at) {
			t.Errorf("%s: got the next rotation at %s, want %s", name, got, at)
		}
	}
	expectNext("alone", end)
	c.advance(rotation - lead)
	maintain(t, ring)
	expectNext("with a successor", end)
	if got := ring.NextRotation(jwks.EdDSA); !got.IsZero() {
		t.Errorf("without a key: got %s, want the zero time", got)
	}
	expect("with a successor", 0, end, end.Add(retention+slack), keys.Active, keys.Upcoming)
	expect("the successor", 1, time.Time{}, time.Time{}, keys.Active, keys.Upcoming)
	if next := ring.List()[1]; !next.Created.Equal(c.Now()) || !next.Activates.Equal(end) {
		t.Errorf("got %+v, want a key created now that signs from %s", next, end)
	}
	c.advance(lead)
	expectNext("rotated", end.Add(rotation))
	expect("retiring", 0, end, end.Add(retention+slack), keys.Retiring, keys.Active)
	c.advance(retention + slack + time.Second)
	expect("gone", 0, time.Time{}, time.Time{}, keys.Active)
}

func TestRotate(t *testing.T) {
	store, c := &memory{}, newClock()
	ring := open(t, store, c, fast...)
	old := ids(ring)
	if err := ring.Rotate(t.Context(), jwks.ES256); err != nil {
		t.Fatal(err)
	}
	// The other algorithm is not rotated.
	next := expectStates(t, ring, jwks.ES256, keys.Active, keys.Upcoming)[1]
	expectStates(t, ring, jwks.EdDSA, keys.Active)
	if !next.Activates.Equal(c.Now().Add(lead)) || !slices.Contains(ids(ring), next.Public.ID()) {
		t.Errorf("the successor signs from %s, want %s, and to be published", next.Activates, c.Now().Add(lead))
	}
	// Another rotation, of the algorithm or of all, creates no second successor.
	for _, algorithm := range []jwks.Algorithm{jwks.ES256, "", ""} {
		if err := ring.Rotate(t.Context(), algorithm); err != nil {
			t.Fatal(err)
		}
	}
	expectStates(t, ring, jwks.ES256, keys.Active, keys.Upcoming)
	expectStates(t, ring, jwks.EdDSA, keys.Active, keys.Upcoming)
	if store.saves != 3 {
		t.Errorf("%d saves, want 1 by Open and 1 for each algorithm", store.saves)
	}
	c.advance(lead - time.Second)
	if got := active(t, ring, jwks.ES256); got != old[0] {
		t.Error("the successor signs too early")
	}
	c.advance(time.Second)
	if got := active(t, ring, jwks.ES256); got != next.Public.ID() {
		t.Error("the successor does not sign")
	}
	if err := ring.Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	expectStates(t, ring, jwks.ES256, keys.Retiring, keys.Active, keys.Upcoming)
	// Automatic rotation is due one period after the last key became active.
	c.advance(rotation - time.Second)
	maintain(t, ring)
	expectStates(t, ring, jwks.ES256, keys.Active)
	c.advance(time.Second)
	maintain(t, ring)
	expectStates(t, ring, jwks.ES256, keys.Active, keys.Upcoming)
	for _, algorithm := range []jwks.Algorithm{jwks.RS256, "none"} {
		expectError(t, ring.Rotate(t.Context(), algorithm), keys.ErrAlgorithm)
	}
}

// Ten concurrent rotations create one key for each algorithm.
func TestRotateAtOnce(t *testing.T) {
	store, c := &memory{}, newClock()
	rings := []*keys.Ring{open(t, store, c, fast...), open(t, store, c, fast...)}
	var group sync.WaitGroup
	for i := range 10 {
		group.Go(func() {
			if err := rings[i%2].Rotate(t.Context(), ""); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	expectSame(t, rings...)
	if len(ids(rings[0])) != 4 || store.saves != 2 {
		t.Errorf("%d keys after %d saves, want 4 after 2", len(ids(rings[0])), store.saves)
	}
}

func TestRetire(t *testing.T) {
	store, c := &memory{}, newClock()
	ring, other := open(t, store, c, fast...), open(t, store, c, fast...)
	old := active(t, ring, jwks.ES256)
	retire := func(id string) error { return ring.Retire(t.Context(), id) }
	if err := retire(old); err != nil {
		t.Fatal(err)
	}
	upcoming := expectStates(t, ring, jwks.ES256, keys.Active, keys.Upcoming)[1].Public.ID()
	expectStates(t, ring, jwks.EdDSA, keys.Active)
	expectError(t, retire(old), nil) // it has its successor already
	expectStates(t, ring, jwks.ES256, keys.Active, keys.Upcoming)
	// The upcoming key is removed, and not restored from the memory of another replica.
	maintain(t, other)
	if err := retire(upcoming); err != nil {
		t.Fatal(err)
	}
	maintain(t, other, ring)
	expectSame(t, ring, other)
	expectStates(t, other, jwks.ES256, keys.Active)
	expectError(t, retire(upcoming), keys.ErrNotFound)
	if _, err := other.Find(t.Context(), upcoming); err == nil {
		t.Error("the key is still trusted")
	}
	if err := retire(old); err != nil {
		t.Fatal(err)
	}
	c.advance(lead)
	before := store.saves
	expectError(t, retire(old), keys.ErrRetiring)
	expectError(t, retire(unknownID), keys.ErrNotFound)
	if store.saves != before || len(store.revoked) > 0 {
		t.Errorf("%d saves and %q revoked, want none of either", store.saves-before, store.revoked)
	}
}

// An upcoming key that is due is replaced when it is retired, and its replacement waits for the full lead.
func TestRetireWhenDue(t *testing.T) {
	store, c := &memory{}, newClock()
	ring := open(t, store, c, jwks.ES256)
	c.advance(rotation - time.Minute)
	maintain(t, ring)
	upcoming := expectStates(t, ring, jwks.ES256, keys.Active, keys.Upcoming)[1]
	if err := ring.Retire(t.Context(), upcoming.Public.ID()); err != nil {
		t.Fatal(err)
	}
	next := expectStates(t, ring, jwks.ES256, keys.Active, keys.Upcoming)[1]
	if next.Public.ID() == upcoming.Public.ID() || !next.Activates.Equal(c.Now().Add(lead)) {
		t.Errorf("got %+v, want another key that signs in %s", next, lead)
	}
}

// A compromised key in any state is removed and its tokens revoked. If it was active its successor signs at once.
func TestCompromise(t *testing.T) {
	for name, test := range map[string]struct {
		before func(t *testing.T, ring *keys.Ring, c *clock)
		index  int
		want   []keys.State
		// signs is the index, before, of the key that signs afterwards, or -1 for a new one.
		signs int
	}{
		"active, alone": {func(*testing.T, *keys.Ring, *clock) {}, 0, []keys.State{keys.Active}, -1},
		"active, with a successor": {func(t *testing.T, ring *keys.Ring, _ *clock) {
			expectError(t, ring.Rotate(t.Context(), ""), nil)
		}, 0, []keys.State{keys.Active}, 1},
		"upcoming": {func(t *testing.T, ring *keys.Ring, _ *clock) {
			expectError(t, ring.Rotate(t.Context(), ""), nil)
		}, 1, []keys.State{keys.Active}, 0},
		// A retiring key does not sign again.
		"active, with one retiring": {func(t *testing.T, ring *keys.Ring, c *clock) {
			expectError(t, ring.Rotate(t.Context(), ""), nil)
			c.advance(lead)
		}, 1, []keys.State{keys.Retiring, keys.Active}, -1},
		"active, with one retiring and one upcoming": {func(t *testing.T, ring *keys.Ring, c *clock) {
			expectError(t, ring.Rotate(t.Context(), ""), nil)
			c.advance(lead)
			expectError(t, ring.Rotate(t.Context(), ""), nil)
		}, 1, []keys.State{keys.Retiring, keys.Active}, 2},
		"retiring": {func(t *testing.T, ring *keys.Ring, c *clock) {
			expectError(t, ring.Rotate(t.Context(), ""), nil)
			c.advance(lead)
		}, 0, []keys.State{keys.Active}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			store, c := &memory{}, newClock()
			ring, other := open(t, store, c, jwks.ES256), open(t, store, c, jwks.ES256)
			test.before(t, ring, c)
			maintain(t, other)
			list := ring.List()
			id := list[test.index].Public.ID()
			if err := ring.Compromise(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			maintain(t, other, ring)
			expectSame(t, ring, other)
			expectStates(t, ring, jwks.ES256, test.want...)
			if !slices.Equal(store.revoked, []string{id}) {
				t.Errorf("revoked %q, want %q", store.revoked, id)
			}
			known := slices.IndexFunc(list, func(i keys.Info) bool { return i.Public.ID() == active(t, other, jwks.ES256) })
			if known != test.signs {
				t.Errorf("key %d signs, want key %d", known, test.signs)
			}
			if other.Trusts(list[test.index].Public) {
				t.Error("the key is still trusted")
			}
			// A second call revokes it again and does not change the ring.
			want := ids(ring)
			if err := ring.Compromise(t.Context(), id); err != nil || len(store.revoked) != 2 || !slices.Equal(ids(ring), want) {
				t.Errorf("again: got %v, revoked %q", err, store.revoked)
			}
		})
	}
}

// An older ring, restored from a backup, does not restore the removed key: a running replica knows of its removal.
func TestCompromisedStaysAway(t *testing.T) {
	store, c := &memory{}, newClock()
	ring := open(t, store, c, fast...)
	id, older := active(t, ring, jwks.ES256), store.document
	if err := ring.Compromise(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	store.document = older
	maintain(t, ring)
	fresh := open(t, store, c, fast...)
	expectSame(t, ring, fresh)
	if slices.Contains(ids(fresh), id) {
		t.Error("the key was restored")
	}
	expectStable(t, store, ring, fresh)
	// Nor is it restored after the store lost the ring altogether.
	store.document, store.version = nil, 0
	if err := ring.Compromise(t.Context(), active(t, ring, jwks.EdDSA)); err != nil {
		t.Fatal(err)
	}
	if got := ids(open(t, store, c, fast...)); len(got) != 2 || slices.Contains(got, id) {
		t.Errorf("got %q, want two other keys", got)
	}
}

func TestMalformedID(t *testing.T) {
	store, c := &memory{}, newClock()
	ring := open(t, store, c, fast...)
	known := ids(ring)[0]
	for _, id := range []string{
		"", "x", known[1:], known + "A", known + "=", known + "\n", " " + known, known[:42] + "+", known[:42] + "/", known[:42] + "é",
		known[:20] + "\n" + known[21:], unknownID[:42] + "B", strings.Repeat("A", 1<<20),
	} {
		if err := errors.Join(ring.Compromise(t.Context(), id), ring.Retire(t.Context(), id)); err == nil || strings.Contains(err.Error(), known[1:20]) {
			t.Errorf("%.60q: got %v, want an error that does not quote it", id, err)
		}
		expectError(t, ring.Compromise(t.Context(), id), keys.ErrID)
		expectError(t, ring.Retire(t.Context(), id), keys.ErrID)
	}
	if store.saves != 1 || len(store.revoked) > 0 {
		t.Errorf("%d saves, revoked %q", store.saves, store.revoked)
	}
}

// Concurrent changes of one ring leave memory and store in the same state.
func TestManyAtOnce(t *testing.T) {
	store, c := &memory{}, newClock()
	ring := open(t, store, c, fast...)
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			var err error
			switch i % 4 {
			case 0:
				err = ring.Maintain(t.Context())
			case 1:
				err = ring.Rotate(t.Context(), "")
			case 2:
				list := ring.List()
				err = ring.Compromise(t.Context(), list[i%len(list)].Public.ID())
			case 3:
				list := ring.List()
				if err = ring.Retire(t.Context(), list[i%len(list)].Public.ID()); errors.Is(err, keys.ErrNotFound) || errors.Is(err, keys.ErrRetiring) {
					err = nil
				}
			}
			if err != nil {
				t.Error(err)
			}
			for _, algorithm := range fast {
				active(t, ring, algorithm)
			}
		})
	}
	group.Wait()
	expectSame(t, ring, open(t, store, c, fast...))
	for _, id := range store.revoked {
		if slices.Contains(ids(ring), id) {
			t.Errorf("the revoked key %s is in the ring", id)
		}
	}
}
