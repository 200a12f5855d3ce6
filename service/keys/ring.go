// Package keys has the private signing keys: the ring, its rotation and its encryption at rest. Public keys are in
// package jwks; no type here gives a private key away, only the means to sign.
//
// A key is upcoming (published, not signing yet), then active (signing), then retiring (published until the last token
// it signed has expired), then gone. The state follows from the times in the ring and the clock, so replicas agree on it
// without telling each other.
package keys

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/token"
)

// Config says what ring is kept. All fields are required but Now; a program that needs the pepper alone gives a store and
// a sealer, and changes no keys.
type Config struct {
	Store  Store
	Sealer *Sealer
	// Algorithms are those that tokens can be signed with.
	Algorithms []jwks.Algorithm
	// Rotation is how long a key signs.
	Rotation time.Duration
	// MaxAge is how long a verifier may keep the published keys. A successor is published that long, and a minute for
	// clocks that differ, before it signs.
	MaxAge time.Duration
	// Retention is the longest life of a token: a key is published so long after it ceased to sign.
	Retention time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// skew is how far apart the clocks of replicas and verifiers may be.
const skew = time.Minute

// Ring has the keys in memory. It may be used by several goroutines.
type Ring struct {
	config Config
	loaded atomic.Pointer[loaded]
	// renew wakes Run.
	renew chan struct{}
}

// loaded is the ring as one stored document says.
type loaded struct {
	document []byte
	pepper   []byte
	// entries are in the order in which they become active.
	entries []entry
	all     *jwks.Set
}

type entry struct {
	signer    *token.Signer
	activates time.Time
}

// Open loads the ring and makes what is missing. Replicas that open an empty store at once agree on one ring. A ring that
// the key-encryption key does not open is [ErrSealed]; nothing is overwritten then.
func Open(ctx context.Context, config Config) (*Ring, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	r := &Ring{config: config, renew: make(chan struct{}, 1)}
	return r, r.Maintain(ctx)
}

// Pepper gives the key under which generated client secrets are hashed.
func (r *Ring) Pepper() []byte { return r.loaded.Load().pepper }

// MaxAge is how long the published keys may be kept.
func (r *Ring) MaxAge() time.Duration { return r.config.MaxAge }

// Algorithms gives the algorithms that tokens can be signed with.
func (r *Ring) Algorithms() []jwks.Algorithm { return r.config.Algorithms }

// Signer gives the active key for the algorithm.
func (r *Ring) Signer(algorithm jwks.Algorithm) (*token.Signer, error) {
	now := r.config.Now()
	entries := r.loaded.Load().entries
	var first *token.Signer
	for i := len(entries) - 1; i >= 0; i-- {
		if e := &entries[i]; e.signer.Public().Algorithm() == algorithm {
			if !e.activates.After(now) {
				return e.signer, nil
			}
			first = e.signer
		}
	}
	if first == nil {
		return nil, fmt.Errorf("there is no signing key for %s", algorithm)
	}
	// Only a clock behind the one that made the ring gets here. The key is published, so it may sign.
	return first, nil
}

// Published gives the public keys that a verifier needs: of all keys but those that are gone.
func (r *Ring) Published() []jwks.Key {
	entries := r.loaded.Load().entries
	now := r.config.Now()
	var keys []jwks.Key
	for i := range entries {
		if !r.gone(entries, i, now) {
			keys = append(keys, entries[i].signer.Public())
		}
	}
	return keys
}

// Find gives the published key with the id, or [jwks.ErrUnknownKey].
func (r *Ring) Find(ctx context.Context, id string) (jwks.Key, error) {
	return r.loaded.Load().all.Find(ctx, id)
}

// Trusts reports whether the key is in the ring.
func (r *Ring) Trusts(key jwks.Key) bool { return r.loaded.Load().all.Trusts(key) }

// gone reports whether every token that the key signed has expired.
func (r *Ring) gone(entries []entry, i int, now time.Time) bool {
	for _, later := range entries[i+1:] {
		if later.signer.Public().Algorithm() == entries[i].signer.Public().Algorithm() {
			return now.After(later.activates.Add(r.config.Retention + skew))
		}
	}
	return false
}

// Renew asks [Ring.Run] to take over the ring as stored: for when another replica changed it.
func (r *Ring) Renew() {
	select {
	case r.renew <- struct{}{}:
	default: // it is asked already
	}
}

func (r *Ring) load(data []byte) error {
	if before := r.loaded.Load(); before != nil && bytes.Equal(before.document, data) {
		return nil
	}
	d, err := parseDocument(data)
	if err != nil {
		return err
	}
	pepper, err := r.config.Sealer.open(pepperLabel, d.Pepper)
	if err != nil {
		return err
	}
	next := &loaded{document: data, pepper: pepper}
	var public []jwks.Key
	for i := range d.Keys {
		signer, err := d.Keys[i].open(r.config.Sealer)
		if err != nil {
			return err
		}
		next.entries = append(next.entries, entry{signer, time.Unix(d.Keys[i].ActivatesAt, 0)})
		public = append(public, signer.Public())
	}
	slices.SortStableFunc(next.entries, func(a, b entry) int { return a.activates.Compare(b.activates) })
	next.all = jwks.NewSet(public...)
	r.loaded.Store(next)
	return nil
}

// Maintain does what is due: makes a first key for each algorithm, makes successors ahead of time, and removes keys that
// are gone. It is safe to run on all replicas at once: one of them makes the change, the others take it over. A store that
// has lost the ring gets back the one in memory.
func (r *Ring) Maintain(ctx context.Context) error {
	const attempts = 10
	for range attempts {
		data, version, err := r.config.Store.LoadRing(ctx)
		if err != nil {
			return err
		}
		next, err := r.next(data)
		if err != nil || bytes.Equal(next, data) {
			return err
		}
		err = r.config.Store.SaveRing(ctx, next, version)
		if err == nil {
			return r.load(next)
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return ErrConflict
}

// next gives the document that should follow the stored one: the same where nothing is due.
func (r *Ring) next(stored []byte) ([]byte, error) {
	d := newDocument(r.config.Sealer)
	current := stored
	if before := r.loaded.Load(); stored == nil && before != nil {
		current = before.document
	}
	if current != nil {
		if err := r.load(current); err != nil {
			return nil, err
		}
		var err error
		if d, err = parseDocument(current); err != nil {
			return nil, err
		}
	}
	changed, err := r.due(d)
	if err != nil || (!changed && current != nil) {
		return current, err
	}
	return json.Marshal(d)
}

// due changes the document as the clock asks and reports whether it did.
func (r *Ring) due(d *document) (changed bool, err error) {
	if len(r.config.Algorithms) == 0 {
		return false, nil // this program does not sign, so it has no say in what does
	}
	now := r.config.Now()
	lead := r.config.MaxAge + skew
	slices.SortStableFunc(d.Keys, func(a, b record) int { return cmp.Compare(a.ActivatesAt, b.ActivatesAt) })
	for _, algorithm := range r.config.Algorithms {
		newest := time.Time{}
		for _, k := range d.Keys {
			if k.Algorithm == algorithm {
				newest = time.Unix(k.ActivatesAt, 0)
			}
		}
		activates := now
		if !newest.IsZero() {
			end := newest.Add(r.config.Rotation)
			if now.Before(end.Add(-lead)) {
				continue
			}
			if activates = now.Add(lead); activates.Before(end) {
				activates = end
			}
		}
		if err := d.add(r.config.Sealer, algorithm, now, activates); err != nil {
			return false, err
		}
		changed = true
	}
	kept := slices.DeleteFunc(slices.Clone(d.Keys), func(k record) bool {
		i := slices.IndexFunc(d.Keys, func(later record) bool {
			return later.Algorithm == k.Algorithm && later.ActivatesAt > k.ActivatesAt
		})
		return i >= 0 && now.After(time.Unix(d.Keys[i].ActivatesAt, 0).Add(r.config.Retention+skew))
	})
	changed = changed || len(kept) < len(d.Keys)
	d.Keys = kept
	return changed, nil
}

// Run maintains the ring until ctx ends: every minute, and when [Ring.Renew] asks. What fails is told to report and tried
// again.
func (r *Ring) Run(ctx context.Context, report func(error)) error {
	const (
		usual = time.Minute
		again = time.Second
	)
	timer := time.NewTimer(usual)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-r.renew:
		}
		timer.Reset(usual)
		if err := r.Maintain(ctx); err != nil && ctx.Err() == nil {
			report(fmt.Errorf("maintaining the key ring: %w", err))
			timer.Reset(again)
		}
	}
}
