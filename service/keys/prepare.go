package keys

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
)

// Peek reads what a program needs of the ring that does not sign: the pepper, and the algorithms of the keys. It writes
// nothing. A store that has no ring gives a nil pepper.
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

// Prepare is [Peek] that makes a ring where the store has none: a pepper and no keys, which the first replica adds. It
// then waits for settle, as [Open] does.
func Prepare(ctx context.Context, store Store, sealer *Sealer, settle time.Duration) (pepper []byte, algorithms []jwks.Algorithm, err error) {
	for range attempts {
		if pepper, algorithms, err = Peek(ctx, store, sealer); err != nil || pepper != nil {
			return pepper, algorithms, err
		}
		made, err := sealer.sealRing(store.Name(), newDocument(time.Now()))
		if err != nil {
			return nil, nil, err
		}
		err = store.SaveRing(ctx, made, 0)
		if err == nil {
			err = pause(ctx, settle)
		}
		if err != nil && !errors.Is(err, ErrConflict) {
			return nil, nil, err
		}
	}
	return nil, nil, ErrConflict
}
