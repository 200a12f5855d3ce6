package keys_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
)

// A ring moves from one key-encryption key to another in three steps, and is resealed only by Open.
func TestReseal(t *testing.T) {
	store, c := &memory{}, newClock()
	next := keys.NewKEK()
	start := func(kek []byte, previous ...[]byte) (*keys.Ring, error) {
		cfg := config(store, c, fast...)
		cfg.Sealer = must.Get(keys.NewSealer(kek, previous...))
		return keys.Open(t.Context(), cfg)
	}
	first := must.Get(start(kek))
	sealed := bytes.Clone(store.document)
	expectKept := func(step string, kept bool, rings ...*keys.Ring) {
		t.Helper()
		if bytes.Equal(store.document, sealed) != kept {
			t.Errorf("%s: the stored ring is unchanged: got %v, want %v", step, !kept, kept)
		}
		sealed = bytes.Clone(store.document)
		expectStable(t, store, rings...)
		expectSame(t, append(rings, first)...)
	}
	second := must.Get(start(kek, next))
	expectKept("the new one as previous", true, first, second)
	third := must.Get(start(next, kek))
	expectKept("the new one first", false, second, third)
	if err := first.Maintain(t.Context()); err == nil {
		t.Error("a replica that has only the old key opened the ring")
	}
	expectKept("a replica with the other order restarts", false, must.Get(start(kek, next)), third)
	expectKept("and again with the new one first", false, must.Get(start(next, kek)), second, third)
	expectKept("the old one dropped", true, must.Get(start(next)), second, third)
	// A change for another reason is sealed with the key of the replica that makes it.
	if err := second.Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := start(next); err == nil {
		t.Error("a key that did not seal the ring opened it")
	}
	maintain(t, third)
	last := must.Get(start(next, kek))
	if got := ids(must.Get(start(next))); !slices.Equal(got, ids(last)) || len(got) != 4 {
		t.Errorf("got %q, want %q", got, ids(last))
	}
}

func TestSealerRefusesKeys(t *testing.T) {
	if _, err := keys.NewSealer(kek, kek[:31]); err == nil {
		t.Error("a previous key of 31 bytes was accepted")
	}
	if a, b := keys.RecordKey(kek), keys.RecordKey(kek); len(a) != 32 || !bytes.Equal(a, b) || bytes.Equal(a, kek) || bytes.Equal(a, keys.RecordKey(keys.NewKEK())) {
		t.Errorf("got %x and %x, want the same key of 32 bytes, derived from the pepper", a, b)
	}
}
