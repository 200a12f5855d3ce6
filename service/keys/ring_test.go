package keys_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
)

func TestOpenEmpty(t *testing.T) {
	algorithms := []jwks.Algorithm{jwks.ES256, jwks.RS256, jwks.PS256, jwks.EdDSA}
	store, c := &memory{}, newClock()
	ring := open(t, store, c, algorithms...)
	published := ring.Published()
	if len(published) != len(algorithms) || len(ring.Pepper()) != 32 || store.saves != 1 {
		t.Fatalf("%d keys, a pepper of %d bytes, %d saves", len(published), len(ring.Pepper()), store.saves)
	}
	for i, key := range published {
		if key.Algorithm() != algorithms[i] || active(t, ring, algorithms[i]) != key.ID() || !ring.Trusts(key) {
			t.Errorf("key %d: %s, active: %v, trusted: %v", i, key.Algorithm(), active(t, ring, algorithms[i]) == key.ID(), ring.Trusts(key))
		}
		if found, err := ring.Find(t.Context(), key.ID()); err != nil || !found.Equal(key) {
			t.Errorf("finding %s: %v", key.ID(), err)
		}
	}
	if _, err := ring.Find(t.Context(), "other"); !errors.Is(err, jwks.ErrUnknownKey) {
		t.Errorf("got %v, want %v", err, jwks.ErrUnknownKey)
	}
	if signer, err := ring.Signer("ES512"); err == nil {
		t.Errorf("got %v, want an error", signer)
	}
	if ring.MaxAge() != maxAge || !slices.Equal(ring.Algorithms(), algorithms) {
		t.Errorf("got %s, %v", ring.MaxAge(), ring.Algorithms())
	}
	// A second Open changes nothing.
	expectSame(t, ring, open(t, store, c, algorithms...))
	if store.saves != 1 {
		t.Errorf("%d saves, want 1", store.saves)
	}
}

func TestUnknownAlgorithm(t *testing.T) {
	store := &memory{}
	if _, err := keys.Open(t.Context(), config(store, newClock(), "none")); err == nil || store.saves > 0 {
		t.Errorf("got %v after %d saves, want an error and 0", err, store.saves)
	}
}

func TestOpenAtOnce(t *testing.T) {
	store, c := &memory{}, newClock()
	rings := make([]*keys.Ring, 10)
	var group sync.WaitGroup
	for i := range rings {
		group.Go(func() {
			var err error
			if rings[i], err = keys.Open(t.Context(), config(store, c, fast...)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	expectSame(t, rings...)
	if len(ids(rings[0])) != 2 || store.saves != 1 {
		t.Errorf("%d keys after %d saves, want 2 after 1", len(ids(rings[0])), store.saves)
	}
}

// A program that applies a manifest opens the ring for its pepper alone; the server that starts later adds the keys.
func TestWithoutAlgorithms(t *testing.T) {
	store, c := &memory{}, newClock()
	bare := open(t, store, c)
	if len(bare.Published()) != 0 || len(bare.Pepper()) != 32 {
		t.Errorf("%d keys, a pepper of %d bytes, want 0 and 32", len(bare.Published()), len(bare.Pepper()))
	}
	if signer, err := bare.Signer(jwks.ES256); err == nil {
		t.Errorf("got %v, want an error", signer)
	}
	first := open(t, store, c, jwks.ES256)
	second := open(t, store, c, fast...)
	maintain(t, bare, first)
	expectSame(t, second, first, bare)
	if got := len(ids(second)); got != 2 {
		t.Errorf("%d keys, want 2", got)
	}
}

func TestConflictForEver(t *testing.T) {
	store := &memory{conflict: true}
	_, err := keys.Open(t.Context(), config(store, newClock(), fast...))
	expectError(t, err, keys.ErrConflict)
}

func TestWrongKey(t *testing.T) {
	store, c := &memory{}, newClock()
	open(t, store, c, fast...)
	before := bytes.Clone(store.document)
	other := config(store, c, jwks.ES256, jwks.RS256)
	other.Sealer = must.Get(keys.NewSealer(keys.NewKEK()))
	// Nothing is changed when a rotation is due either.
	for range 2 {
		_, err := keys.Open(t.Context(), other)
		expectError(t, err, keys.ErrSealed)
		if !bytes.Equal(store.document, before) || store.saves != 1 {
			t.Error("the stored ring was changed")
		}
		c.advance(10 * rotation)
	}
}

// A writer of the store can neither alter the ring nor replace it by another one.
func TestAlteredRing(t *testing.T) {
	type envelope struct {
		Format int    `json:"format"`
		Sealed []byte `json:"sealed"`
	}
	foreign := &memory{name: "other"}
	open(t, foreign, newClock(), fast...)
	for name, test := range map[string]struct {
		alter func(e *envelope)
		want  error // nil for any error
	}{
		"first bit":           {func(e *envelope) { e.Sealed[0] ^= 1 }, keys.ErrSealed},
		"a bit in the middle": {func(e *envelope) { e.Sealed[len(e.Sealed)/2] ^= 1 }, keys.ErrSealed},
		"last bit":            {func(e *envelope) { e.Sealed[len(e.Sealed)-1] ^= 1 }, keys.ErrSealed},
		"cut off":             {func(e *envelope) { e.Sealed = e.Sealed[:len(e.Sealed)-1] }, keys.ErrSealed},
		"a byte":              {func(e *envelope) { e.Sealed = e.Sealed[:1] }, keys.ErrSealed},
		"nothing":             {func(e *envelope) { e.Sealed = nil }, keys.ErrSealed},
		"that of another store": {func(e *envelope) {
			if err := json.Unmarshal(foreign.document, e); err != nil {
				t.Error(err)
			}
		}, keys.ErrSealed},
		"later format": {func(e *envelope) { e.Format = 2 }, nil},
		"no format":    {func(e *envelope) { e.Format = 0 }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			store, c := &memory{name: "own"}, newClock()
			ring := open(t, store, c, fast...)
			want := ids(ring)
			var e envelope
			if err := json.Unmarshal(store.document, &e); err != nil {
				t.Fatal(err)
			}
			test.alter(&e)
			expectRefused(t, ring, store, c, refusal{must.Get(json.Marshal(e)), want, test.want})
		})
	}
	t.Run("no JSON", func(t *testing.T) {
		store, c := &memory{}, newClock()
		ring := open(t, store, c, fast...)
		expectRefused(t, ring, store, c, refusal{[]byte("x"), ids(ring), nil})
	})
}

// refusal is an altered stored ring, the keys of the running ring and the expected error.
type refusal struct {
	altered []byte
	keys    []string
	want    error // nil for any error
}

// expectRefused checks that neither a fresh ring nor the running one adopts the altered ring or overwrites it.
func expectRefused(t *testing.T, ring *keys.Ring, store *memory, c *clock, r refusal) {
	t.Helper()
	store.document = r.altered
	for what, err := range map[string]error{
		"opened": func() error { _, err := keys.Open(t.Context(), config(store, c, fast...)); return err }(),
		"peeked": func() error { _, _, err := keys.Peek(t.Context(), store, must.Get(keys.NewSealer(kek))); return err }(),
		"prepared": func() error {
			_, _, err := keys.Prepare(t.Context(), store, must.Get(keys.NewSealer(kek)), 0)
			return err
		}(),
		"maintained":             ring.Maintain(t.Context()),
		"rotated":                ring.Rotate(t.Context(), ""),
		"retired":                ring.Retire(t.Context(), r.keys[0]),
		"compromised":            ring.Compromise(t.Context(), r.keys[0]),
		"compromised, of no key": ring.Compromise(t.Context(), unknownID),
	} {
		if err == nil || (r.want != nil && !errors.Is(err, r.want)) {
			t.Errorf("%s: got %v, want %v", what, err, r.want)
		}
	}
	if got := ids(ring); !slices.Equal(got, r.keys) {
		t.Errorf("the running ring has the keys %q, want %q", got, r.keys)
	}
	if !bytes.Equal(store.document, r.altered) {
		t.Error("the stored ring was overwritten")
	}
}

// The first replica to maintain the ring restores it unchanged in a store that lost everything.
func TestLostRing(t *testing.T) {
	store, c := &memory{}, newClock()
	first, second := open(t, store, c, fast...), open(t, store, c, fast...)
	want := ids(first)
	store.document, store.version = nil, 0
	maintain(t, second, first)
	expectSame(t, first, second, open(t, store, c, fast...))
	if got := ids(first); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if store.saves != 2 {
		t.Errorf("%d saves, want 1 by Open and 1 after the loss", store.saves)
	}
}

// A store that lost the ring may have another one before a replica loads it again, or an older one from a backup. The
// replica then restores what it has in memory, and keeps its pepper.
func TestReplacedRing(t *testing.T) {
	for name, replace := range map[string]func(t *testing.T, store *memory, c *clock){
		"by a new one": func(t *testing.T, store *memory, c *clock) {
			store.document, store.version = nil, 0
			open(t, store, c, fast...)
		},
		"by one without keys": func(t *testing.T, store *memory, c *clock) {
			store.document, store.version = nil, 0
			open(t, store, c)
		},
		"by an older one": func(t *testing.T, store *memory, c *clock) {
			older := bytes.Clone(store.document)
			c.advance(rotation - maxAge)
			maintain(t, open(t, store, c, fast...))
			store.document = older
		},
	} {
		t.Run(name, func(t *testing.T) {
			store, c := &memory{}, newClock()
			ring := open(t, store, c, fast...)
			want, pepper := ids(ring), bytes.Clone(ring.Pepper())
			c.advance(time.Millisecond)
			replace(t, store, c)
			maintain(t, ring)
			for _, id := range want {
				if !slices.Contains(ids(ring), id) {
					t.Errorf("the key %s is no longer in memory", id)
				}
			}
			if !bytes.Equal(ring.Pepper(), pepper) {
				t.Error("the pepper has changed")
			}
			fresh := open(t, store, c, fast...)
			maintain(t, ring)
			expectSame(t, ring, fresh)
			if !bytes.Equal(fresh.Pepper(), pepper) {
				t.Error("a fresh replica has another pepper")
			}
			saves := store.saves
			maintain(t, ring, fresh, ring, fresh)
			if store.saves != saves {
				t.Errorf("the replicas keep changing the ring: %d more saves", store.saves-saves)
			}
		})
	}
}

// TestPeek checks that Peek writes nothing and fails with another key-encryption key.
func TestPeek(t *testing.T) {
	store, c := &memory{}, newClock()
	if pepper, algorithms, err := keys.Peek(t.Context(), store, must.Get(keys.NewSealer(kek))); pepper != nil || algorithms != nil || err != nil || store.saves != 0 {
		t.Errorf("an empty store: got %x, %v, %v after %d saves, want nothing", pepper, algorithms, err, store.saves)
	}
	ring := open(t, store, c, fast...)
	pepper, algorithms, err := keys.Peek(t.Context(), store, must.Get(keys.NewSealer(kek)))
	if err != nil || !bytes.Equal(pepper, ring.Pepper()) || !slices.Equal(algorithms, fast) {
		t.Errorf("got %v and %v, want the ring's pepper and %v", algorithms, err, fast)
	}
	if _, _, err := keys.Peek(t.Context(), store, must.Get(keys.NewSealer(keys.NewKEK()))); !errors.Is(err, keys.ErrSealed) {
		t.Errorf("another key: got %v, want %v", err, keys.ErrSealed)
	}
}

func TestKeysStayWhenStoreFails(t *testing.T) {
	store, c := &memory{}, newClock()
	ring := open(t, store, c, fast...)
	want := active(t, ring, jwks.ES256)
	store.setErr(errors.New("down"))
	if err := ring.Maintain(t.Context()); !errors.Is(err, store.err) {
		t.Errorf("got %v, want %v", err, store.err)
	}
	if got := active(t, ring, jwks.ES256); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRunAdoptsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, c := &memory{}, newClock()
		ring, other := open(t, store, c, fast...), open(t, store, c, fast...)
		var reports []error
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error)
		go func() { stopped <- ring.Run(ctx, func(err error) { reports = append(reports, err) }) }()
		synctest.Wait()
		c.advance(rotation)
		maintain(t, other)
		if len(ids(ring)) != 2 {
			t.Fatal("the ring adopted a change before Reload")
		}
		ring.Reload()
		ring.Reload()
		synctest.Wait()
		expectSame(t, ring, other)
		// Without Reload, it loads the ring every minute.
		c.advance(2 * rotation)
		maintain(t, other)
		<-time.After(time.Minute + time.Second)
		synctest.Wait()
		expectSame(t, ring, other)
		// A failure is reported, and retried soon.
		store.setErr(errors.New("down"))
		ring.Reload()
		synctest.Wait()
		if len(reports) != 1 || !strings.Contains(reports[0].Error(), "down") {
			t.Errorf("got the reports %v, want 1", reports)
		}
		store.setErr(nil)
		c.advance(rotation)
		maintain(t, other)
		<-time.After(2 * time.Second)
		synctest.Wait()
		expectSame(t, ring, other)
		if len(reports) != 1 {
			t.Errorf("got the reports %v, want 1", reports)
		}
		cancel()
		if err := <-stopped; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// Neither the stored ring nor a printed one contains a secret.
func TestNothingSecretShows(t *testing.T) {
	store := &memory{}
	cfg := config(store, newClock(), fast...)
	ring := must.Get(keys.Open(t.Context(), cfg))
	printed := fmt.Sprintf("%v %+v %#v %v %+v %#v %v %+v", ring, ring, ring, cfg.Sealer, cfg.Sealer, cfg.Sealer, cfg, cfg) +
		string(must.Get(json.Marshal(ring))) + string(must.Get(json.Marshal(cfg.Sealer)))
	for name, secret := range map[string][]byte{
		"pepper": ring.Pepper(), "record key": keys.RecordKey(ring.Pepper()), "key-encryption key": kek,
	} {
		for _, form := range []string{
			string(secret), base64.StdEncoding.EncodeToString(secret), fmt.Sprintf("%x", secret),
			strings.Trim(fmt.Sprint(secret), "[]"), strings.Trim(fmt.Sprintf("%#v", secret), "[]byte{}"),
		} {
			if strings.Contains(printed, form) {
				t.Errorf("the printed ring contains the %s", name)
			}
			if bytes.Contains(store.document, []byte(form)) {
				t.Errorf("the stored ring contains the %s", name)
			}
		}
	}
}

// TestOnCreate checks that OnCreate is called for a store without a ring, and for no other.
func TestOnCreate(t *testing.T) {
	store, calls := &memory{}, 0
	for range 2 {
		_, err := keys.Open(t.Context(), keys.Config{
			Store: store, Sealer: must.Get(keys.NewSealer(kek)), Algorithms: []jwks.Algorithm{jwks.ES256}, Rotation: 24 * time.Hour,
			MaxAge: time.Minute, Retention: time.Hour, OnCreate: func() { calls++ },
		})
		if err != nil {
			t.Fatal(err)
		}
		if calls != 1 {
			t.Errorf("OnCreate was called %d times, want once", calls)
		}
	}
}
