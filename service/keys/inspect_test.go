package keys_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
)

// TestInspect inspects an empty store, a ring, a ring that a previous key sealed and a ring that another key sealed.
func TestInspect(t *testing.T) {
	store, c := &memory{}, newClock()
	inspect := func(kek []byte, previous ...[]byte) (*keys.Inspection, error) {
		return keys.Inspect(t.Context(), store, must.Get(keys.NewSealer(kek, previous...)), retention, c.Now())
	}
	if got, err := inspect(kek); got != nil || err != nil {
		t.Errorf("no ring: got %+v, %v, want none", got, err)
	}
	ring := open(t, store, c, jwks.ES256)
	expectError(t, ring.Rotate(t.Context(), ""), nil)
	c.advance(lead)
	saves := store.saves
	got, err := inspect(kek)
	if err != nil || got.Previous || !bytes.Equal(got.Pepper, ring.Pepper()) || len(got.Keys) != 2 || got.Keys[0].State != keys.Retiring ||
		got.Keys[1].State != keys.Active || !got.Keys[1].Public.Equal(ring.List()[1].Public) {
		t.Errorf("got %+v, %v, want the ring", got, err)
	}
	if got, err := inspect(keys.NewKEK(), kek); err != nil || !got.Previous {
		t.Errorf("sealed with the previous key: got %+v, %v, want Previous", got, err)
	}
	if _, err := inspect(keys.NewKEK()); !errors.Is(err, keys.ErrSealed) {
		t.Errorf("another key: got %v, want %v", err, keys.ErrSealed)
	}
	if store.saves != saves {
		t.Error("Inspect saved the ring")
	}
}
