package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// attempts bounds how often a change is made anew because somebody else made another one meanwhile.
const attempts = 10

// Maintain does what is due: makes a first key for each algorithm, makes successors ahead of time, and removes keys that
// are gone. It is safe to run on all replicas at once: one of them makes the change, the others take it over. What a store
// has lost of the ring, all of it or some, it gets back from memory: a key whose tokens are alive is never given up
// because a document lacks it, and neither is the pepper.
func (r *Ring) Maintain(ctx context.Context) error {
	return r.change(ctx, func(*document) ([]string, error) { return nil, nil })
}

// change makes the stored ring what edit and the clock make of it, and takes it over. What edit gives is the keys to
// revoke. It is called anew, with a document that it may change again, when somebody else changed the ring meanwhile.
func (r *Ring) change(ctx context.Context, edit func(d *document) (revoked []string, err error)) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for range attempts {
		data, version, err := r.config.Store.LoadRing(ctx)
		if err != nil {
			return err
		}
		// What does not open must not be built upon, or written over.
		stored, err := r.read(data)
		r.outdated.Store(errors.Is(err, ErrNewer))
		if err != nil {
			return err
		}
		d, revoked, err := r.next(stored, edit)
		if err != nil {
			return err
		}
		plain, err := json.Marshal(d)
		if err != nil {
			return err
		}
		reseal := d.reseal && stored != nil && stored.previous
		if stored != nil && !reseal && len(revoked) == 0 && bytes.Equal(plain, stored.plain) {
			r.loaded.Store(stored)
			return nil
		}
		made, gone := r.turnover(stored, d)
		err = r.save(ctx, d, version, revoked)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if r.config.OnChange != nil && (err == nil || errors.Is(err, revocation.ErrNotReplicated)) {
			r.config.OnChange(ctx, made, gone)
		}
		return err
	}
	return ErrConflict
}

// turnover gives what a document adds to the stored one, and what it lacks because its time is over. What memory puts back
// was told of when it was made.
func (r *Ring) turnover(stored *loaded, d *document) (made []KeyAdded, gone []KeyRemoved) {
	known := make(map[string]bool)
	for _, l := range []*loaded{stored, r.loaded.Load()} {
		if l == nil {
			continue
		}
		for _, k := range l.document.Keys {
			known[k.ID] = true
		}
	}
	last := make(map[jwks.Algorithm]string)
	for i := range d.Keys {
		k := &d.Keys[i]
		if !known[k.ID] {
			made = append(made, KeyAdded{k.Algorithm, k.ID, last[k.Algorithm], k.activates()})
		}
		last[k.Algorithm] = k.ID
	}
	if stored == nil {
		return made, nil
	}
	for _, k := range stored.document.Keys {
		if d.index(k.ID) < 0 && !slices.Contains(d.Removed, k.ID) {
			gone = append(gone, KeyRemoved{k.Algorithm, k.ID})
		}
	}
	return made, gone
}

// save stores a document and takes it over.
func (r *Ring) save(ctx context.Context, d *document, version uint64, revoked []string) error {
	next, err := newLoaded(d)
	if err != nil {
		return err
	}
	if next.sealed, err = r.config.Sealer.sealRing(r.config.Store.Name(), d); err != nil {
		return err
	}
	if err := r.config.Store.SaveRing(ctx, next.sealed, version, revoked...); err != nil {
		return err
	}
	r.made = version == 0 && r.loaded.Load() == nil
	r.loaded.Store(next)
	return nil
}

// read opens a stored ring: nil where there is none. What is in memory already is not opened again.
func (r *Ring) read(data []byte) (*loaded, error) {
	if data == nil {
		return nil, nil
	}
	if memory := r.loaded.Load(); memory != nil && bytes.Equal(memory.sealed, data) {
		return memory, nil
	}
	d, previous, err := r.config.Sealer.openRing(r.config.Store.Name(), data)
	if err != nil {
		return nil, err
	}
	opened, err := newLoaded(d)
	if err != nil {
		return nil, err
	}
	opened.sealed, opened.previous = data, previous
	return opened, nil
}

// newLoaded makes what is needed to use a document.
func newLoaded(d *document) (*loaded, error) {
	plain, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	l := &loaded{plain: plain, document: d, signers: make([]*token.Signer, len(d.Keys))}
	public := make([]jwks.Key, len(d.Keys))
	for i := range d.Keys {
		if l.signers[i], err = d.Keys[i].signer(); err != nil {
			return nil, err
		}
		public[i] = l.signers[i].Public()
	}
	l.all = jwks.NewSet(public...)
	return l, nil
}

// next gives the document that should follow the stored one, and the keys to revoke.
func (r *Ring) next(stored *loaded, edit func(*document) ([]string, error)) (*document, []string, error) {
	d := newDocument(r.config.Now())
	memory := r.loaded.Load()
	switch {
	case stored != nil:
		d = stored.document.clone()
	case memory != nil:
		d = memory.document.clone()
	}
	if memory != nil {
		r.keep(d, memory.document)
	}
	revoked, err := edit(d)
	if err != nil {
		return nil, nil, err
	}
	return d, revoked, r.due(d)
}

func (d *document) clone() *document {
	return &document{
		MadeAt: d.MadeAt, Pepper: d.Pepper, Keys: slices.Clone(d.Keys), Removed: slices.Clone(d.Removed),
	}
}

// keep puts back into d what memory has and d lacks. A key that is about to go is left out, or two replicas whose clocks
// differ would put it back and take it away in turn.
func (r *Ring) keep(d, memory *document) {
	// Of two peppers the older one stays, whichever replica looks: else they would write over each other's for ever.
	if memory.MadeAt < d.MadeAt || memory.MadeAt == d.MadeAt && bytes.Compare(memory.Pepper, d.Pepper) < 0 {
		d.MadeAt, d.Pepper = memory.MadeAt, memory.Pepper
	}
	for i, k := range memory.Keys {
		if d.index(k.ID) < 0 && !memory.gone(i, r.config.Retention, r.config.Now().Add(2*skew)) {
			d.Keys = append(d.Keys, k)
		}
	}
	// An older document, put back from a snapshot, has keys that were taken away since.
	for _, id := range memory.Removed {
		if !slices.Contains(d.Removed, id) {
			d.Removed = append(d.Removed, id)
		}
	}
	d.Keys = slices.DeleteFunc(d.Keys, func(k record) bool { return slices.Contains(d.Removed, k.ID) })
	d.sort()
}

// due changes the document as the clock asks.
func (r *Ring) due(d *document) error {
	now := r.config.Now()
	for _, algorithm := range r.config.Algorithms {
		activates := now
		if newest := d.newest(algorithm); newest != nil {
			end := newest.activates().Add(r.config.Rotation)
			if now.Before(end.Add(-r.lead())) {
				continue
			}
			if activates = now.Add(r.lead()); activates.Before(end) {
				activates = end
			}
		}
		if err := d.add(algorithm, now, activates); err != nil {
			return err
		}
	}
	all := d.clone()
	d.Keys = d.Keys[:0]
	for i, k := range all.Keys {
		if !all.gone(i, r.config.Retention, now) {
			d.Keys = append(d.Keys, k)
		}
	}
	return nil
}
