package keys

import (
	"context"
	"time"
)

// Inspection describes a stored ring, for programs that diagnose it.
type Inspection struct {
	// Pepper is the pepper that [Peek] returns.
	Pepper []byte
	// Keys are the keys that [Ring.List] returns.
	Keys []Info
	// Previous reports whether a previous key-encryption key sealed the ring and is therefore still needed.
	Previous bool
}

// Inspect reads the stored ring and writes nothing. retention is the maximum lifetime of a token. Inspect returns nil
// if the store has no ring, and [ErrSealed] if the sealer cannot open it.
func Inspect(ctx context.Context, store Store, sealer *Sealer, retention time.Duration, now time.Time) (*Inspection, error) {
	data, _, err := store.LoadRing(ctx)
	if err != nil || data == nil {
		return nil, err
	}
	d, previous, err := sealer.openRing(store.Name(), data)
	if err != nil {
		return nil, err
	}
	s, err := newSnapshot(d)
	if err != nil {
		return nil, err
	}
	return &Inspection{Pepper: d.Pepper, Keys: s.list(retention, now), Previous: previous}, nil
}
