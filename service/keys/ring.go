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

// Config says what ring is kept. All fields are required but Now.
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

// Peek reads what a program needs of the ring that does not sign: the pepper, and the algorithms of the keys. It writes
// nothing. A store that has no ring gives a nil pepper.
func Peek(ctx context.Context, store Store, sealer *Sealer) (pepper []byte, algorithms []jwks.Algorithm, err error) {
	data, _, err := store.LoadRing(ctx)
	if err != nil || data == nil {
		return nil, nil, err
	}
	d, err := parseDocument(data)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range d.Keys {
		if !slices.Contains(algorithms, k.Algorithm) {
			algorithms = append(algorithms, k.Algorithm)
		}
	}
	pepper, err = sealer.open(pepperLabel, d.Pepper)
	return pepper, algorithms, err
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

// load makes the stored document the one in force.
func (r *Ring) load(data []byte) error {
	if before := r.loaded.Load(); before != nil && bytes.Equal(before.document, data) {
		return nil
	}
	d, err := parseDocument(data)
	if err != nil {
		return err
	}
	next, err := r.open(d)
	if err != nil {
		return err
	}
	next.document = data
	r.loaded.Store(next)
	return nil
}

// open unseals a document. One part of it that does not open fails it as a whole.
func (r *Ring) open(d *document) (*loaded, error) {
	pepper, err := r.config.Sealer.open(pepperLabel, d.Pepper)
	if err != nil {
		return nil, err
	}
	opened := &loaded{pepper: pepper}
	var public []jwks.Key
	for i := range d.Keys {
		signer, err := d.Keys[i].open(r.config.Sealer)
		if err != nil {
			return nil, err
		}
		opened.entries = append(opened.entries, entry{signer, time.Unix(d.Keys[i].ActivatesAt, 0)})
		public = append(public, signer.Public())
	}
	slices.SortStableFunc(opened.entries, func(a, b entry) int { return a.activates.Compare(b.activates) })
	opened.all = jwks.NewSet(public...)
	return opened, nil
}

// Maintain does what is due: makes a first key for each algorithm, makes successors ahead of time, and removes keys that
// are gone. It is safe to run on all replicas at once: one of them makes the change, the others take it over. What a store
// has lost of the ring, all of it or some, it gets back from memory: a key whose tokens are alive is never given up
// because a document lacks it, and neither is the pepper.
func (r *Ring) Maintain(ctx context.Context) error {
	const attempts = 10
	for range attempts {
		data, version, err := r.config.Store.LoadRing(ctx)
		if err != nil {
			return err
		}
		next, err := r.next(data)
		if err != nil {
			return err
		}
		if bytes.Equal(next, data) {
			return r.load(data)
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
	if stored != nil {
		var err error
		if d, err = parseDocument(stored); err != nil {
			return nil, err
		}
	}
	before := r.loaded.Load()
	if stored != nil && (before == nil || !bytes.Equal(before.document, stored)) {
		// What does not open must not be built upon, or written over.
		if _, err := r.open(d); err != nil {
			return nil, err
		}
	}
	if before != nil {
		if err := r.keep(d, before.document); err != nil {
			return nil, err
		}
	}
	if err := r.due(d); err != nil {
		return nil, err
	}
	return json.Marshal(d)
}

// Compromise removes a key at once and revokes every token that it signed. A key that is not in the ring, any more, is
// revoked all the same. A successor, where one is needed, signs at once.
func (r *Ring) Compromise(ctx context.Context, id string) error {
	const attempts = 10
	had := false
	for range attempts {
		data, version, err := r.config.Store.LoadRing(ctx)
		if err != nil {
			return err
		}
		d, err := parseDocument(data)
		if err != nil {
			return err
		}
		has := slices.ContainsFunc(d.Keys, func(k record) bool { return k.ID == id })
		if had && !has {
			return r.load(data) // another replica did the same meanwhile, and told it
		}
		had = has
		d.Keys = slices.DeleteFunc(d.Keys, func(k record) bool { return k.ID == id })
		if !slices.Contains(d.Removed, id) {
			d.Removed = append(d.Removed, id)
		}
		if err := r.due(d); err != nil {
			return err
		}
		next, err := json.Marshal(d)
		if err != nil {
			return err
		}
		if err := r.config.Store.SaveRing(ctx, next, version, id); err == nil {
			return r.load(next)
		} else if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return ErrConflict
}

// keep puts back into d what memory has and d lacks. A key that is about to go is left out, or two replicas whose clocks
// differ would put it back and take it away in turn.
func (r *Ring) keep(d *document, memory []byte) error {
	before, err := parseDocument(memory)
	if err != nil {
		return err
	}
	d.Pepper = before.Pepper
	var lost []record
	for _, k := range before.Keys {
		stored := slices.ContainsFunc(d.Keys, func(other record) bool { return other.ID == k.ID })
		if !stored && !slices.Contains(d.Removed, k.ID) && !r.goneBy(before, k, r.config.Now().Add(2*skew)) {
			lost = append(lost, k)
		}
	}
	d.Keys = append(d.Keys, lost...)
	return nil
}

// goneBy reports whether at that time every token that the key signed has expired.
func (r *Ring) goneBy(d *document, k record, at time.Time) bool {
	successor := int64(0)
	for _, later := range d.Keys {
		if later.Algorithm == k.Algorithm && later.ActivatesAt > k.ActivatesAt && (successor == 0 || later.ActivatesAt < successor) {
			successor = later.ActivatesAt
		}
	}
	return successor != 0 && at.After(time.Unix(successor, 0).Add(r.config.Retention+skew))
}

// due changes the document as the clock asks.
func (r *Ring) due(d *document) error {
	now := r.config.Now()
	lead := r.config.MaxAge + skew
	for _, algorithm := range r.config.Algorithms {
		newest := time.Time{}
		for _, k := range d.Keys {
			if at := time.Unix(k.ActivatesAt, 0); k.Algorithm == algorithm && at.After(newest) {
				newest = at
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
			return err
		}
	}
	all := *d
	all.Keys = slices.Clone(d.Keys)
	d.Keys = slices.DeleteFunc(d.Keys, func(k record) bool { return r.goneBy(&all, k, now) })
	slices.SortStableFunc(d.Keys, func(a, b record) int { return cmp.Compare(a.ActivatesAt, b.ActivatesAt) })
	return nil
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
