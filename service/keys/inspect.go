package keys

import (
	"context"
	"time"
)

// Inspection is what there is to know about a stored ring for a program that looks whether it is in order.
type Inspection struct {
	// Pepper is as [Peek] gives it.
	Pepper []byte
	// Keys are as [Ring.List] gives them.
	Keys []Info
	// Previous reports that a previous key-encryption key sealed the ring, which is still needed for that.
	Previous bool
}

// Inspect reads the ring and writes nothing. Retention is the longest life of a token. It gives nil for a store that has no
// ring, and [ErrSealed] for a ring that the sealer does not open.
func Inspect(ctx context.Context, store Store, sealer *Sealer, retention time.Duration, now time.Time) (*Inspection, error) {
	data, _, err := store.LoadRing(ctx)
	if err != nil || data == nil {
		return nil, err
	}
	d, previous, err := sealer.openRing(store.Name(), data)
	if err != nil {
		return nil, err
	}
	l, err := newLoaded(d)
	if err != nil {
		return nil, err
	}
	return &Inspection{Pepper: d.Pepper, Keys: l.list(retention, now), Previous: previous}, nil
}
