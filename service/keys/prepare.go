package keys

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
)

// Peek returns what a program that does not sign needs of the ring: the pepper and the algorithms of the keys. It
// writes nothing. The pepper is nil if the store has no ring.
func Peek(ctx context.Context, store Store, sealer *Sealer) (pepper []byte, algorithms []jwks.Algorithm, err error) {
	data, _, err := store.LoadRing(ctx)
	if err != nil || data == nil {
		return nil, nil, err
	}
	d, _, err := sealer.openRing(store.Name(), data)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range d.Keys {
		if !slices.Contains(algorithms, k.Algorithm) {
			algorithms = append(algorithms, k.Algorithm)
		}
	}
	return d.Pepper, algorithms, nil
}

// Prepare is like [Peek] but creates a ring if the store has none, with a pepper and without keys, which the first
// replica adds. It then waits for startupGrace and reads the ring again, as [Open] does.
func Prepare(ctx context.Context, store Store, sealer *Sealer, startupGrace time.Duration) (pepper []byte, algorithms []jwks.Algorithm, err error) {
	for range maxAttempts {
		if pepper, algorithms, err = Peek(ctx, store, sealer); err != nil || pepper != nil {
			return pepper, algorithms, err
		}
		sealed, err := sealer.sealRing(store.Name(), newDocument(time.Now()))
		if err != nil {
			return nil, nil, err
		}
		err = store.SaveRing(ctx, sealed, 0)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(startupGrace):
		}
	}
	return nil, nil, ErrConflict
}
