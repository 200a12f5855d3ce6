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

// maxAttempts is the maximum number of attempts at a change that conflicts with concurrent ones.
const maxAttempts = 10

// Maintain makes the changes that are due: it creates the first key of each algorithm, creates successors ahead of time
// and removes keys that are gone. All replicas may run it at once: one of them makes the change, the others adopt it.
// Whatever the store has lost of the ring, in whole or in part, is restored from memory: neither a key with live tokens
// nor the pepper is ever dropped because the stored document lacks it.
func (r *Ring) Maintain(ctx context.Context) error {
	return r.change(ctx, func(*document) ([]string, error) { return nil, nil })
}

// change applies edit and the changes that are due to the stored ring, saves the result and adopts it. edit returns the
// IDs of the keys whose tokens are to be revoked. It is called again, with a fresh document, after a conflict with a
// concurrent change.
func (r *Ring) change(ctx context.Context, edit func(d *document) (revoked []string, err error)) error {
	select {
	case r.sem <- struct{}{}:
		defer func() { <-r.sem }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for range maxAttempts {
		data, version, err := r.config.Store.LoadRing(ctx)
		if err != nil {
			return err
		}
		// A ring that does not open must be neither built upon nor overwritten.
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
			r.current.Store(stored)
			return nil
		}
		added, removed := r.diff(stored, d)
		err = r.save(ctx, d, version, revoked)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if r.config.OnChange != nil && (err == nil || errors.Is(err, revocation.ErrNotReplicated)) {
			r.config.OnChange(ctx, added, removed)
		}
		return err
	}
	return ErrConflict
}

// diff returns the keys that d adds to the stored document, and those that it lacks because they are gone. Keys
// restored from memory do not count as added: they were when they were created. Keys removed by an administrator do not
// count as removed.
func (r *Ring) diff(stored *snapshot, d *document) (added []KeyAdded, removed []KeyRemoved) {
	known := make(map[string]bool)
	for _, s := range []*snapshot{stored, r.current.Load()} {
		if s == nil {
			continue
		}
		for _, k := range s.document.Keys {
			known[k.ID] = true
		}
	}
	last := make(map[jwks.Algorithm]string)
	for i := range d.Keys {
		k := &d.Keys[i]
		if !known[k.ID] {
			added = append(added, KeyAdded{k.Algorithm, k.ID, last[k.Algorithm], k.activates()})
		}
		last[k.Algorithm] = k.ID
	}
	if stored == nil {
		return added, nil
	}
	for _, k := range stored.document.Keys {
		if d.index(k.ID) < 0 && !slices.Contains(d.Removed, k.ID) {
			removed = append(removed, KeyRemoved{k.Algorithm, k.ID})
		}
	}
	return added, removed
}

// save stores the document and adopts it.
func (r *Ring) save(ctx context.Context, d *document, version uint64, revoked []string) error {
	next, err := newSnapshot(d)
	if err != nil {
		return err
	}
	if next.sealed, err = r.config.Sealer.sealRing(r.config.Store.Name(), d); err != nil {
		return err
	}
	if err := r.config.Store.SaveRing(ctx, next.sealed, version, revoked...); err != nil {
		return err
	}
	r.created = version == 0 && r.current.Load() == nil
	r.current.Store(next)
	return nil
}

// read opens the stored ring, or returns nil if there is none. A ring that is in memory already is not opened again.
func (r *Ring) read(data []byte) (*snapshot, error) {
	if data == nil {
		return nil, nil
	}
	if memory := r.current.Load(); memory != nil && bytes.Equal(memory.sealed, data) {
		return memory, nil
	}
	d, previous, err := r.config.Sealer.openRing(r.config.Store.Name(), data)
	if err != nil {
		return nil, err
	}
	opened, err := newSnapshot(d)
	if err != nil {
		return nil, err
	}
	opened.sealed, opened.previous = data, previous
	return opened, nil
}

// newSnapshot returns the snapshot of the document, without its sealed form.
func newSnapshot(d *document) (*snapshot, error) {
	plain, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	s := &snapshot{plain: plain, document: d, signers: make([]*token.Signer, len(d.Keys))}
	public := make([]jwks.Key, len(d.Keys))
	for i := range d.Keys {
		if s.signers[i], err = d.Keys[i].signer(); err != nil {
			return nil, err
		}
		public[i] = s.signers[i].Public()
	}
	s.all = jwks.NewSet(public...)
	return s, nil
}

// next returns the document that is to replace the stored one, and the IDs of the keys to revoke.
func (r *Ring) next(stored *snapshot, edit func(*document) ([]string, error)) (*document, []string, error) {
	d := newDocument(r.config.Now())
	memory := r.current.Load()
	switch {
	case stored != nil:
		d = stored.document.clone()
	case memory != nil:
		d = memory.document.clone()
	}
	if memory != nil {
		r.mergeMemory(d, memory.document)
	}
	revoked, err := edit(d)
	if err != nil {
		return nil, nil, err
	}
	return d, revoked, r.rotateDue(d)
}

func (d *document) clone() *document {
	return &document{
		MadeAt: d.MadeAt, Pepper: d.Pepper, Keys: slices.Clone(d.Keys), Removed: slices.Clone(d.Removed),
	}
}

// mergeMemory restores in d what memory has and d lacks. A key that is about to be gone is left out, because two
// replicas whose clocks differ would otherwise restore and remove it alternately.
func (r *Ring) mergeMemory(d, memory *document) {
	// Of two peppers all replicas keep the older one. They would otherwise overwrite each other's forever.
	if memory.MadeAt < d.MadeAt || memory.MadeAt == d.MadeAt && bytes.Compare(memory.Pepper, d.Pepper) < 0 {
		d.MadeAt, d.Pepper = memory.MadeAt, memory.Pepper
	}
	for i, k := range memory.Keys {
		if d.index(k.ID) < 0 && !memory.gone(i, r.config.Retention, r.config.Now().Add(2*skewMargin)) {
			d.Keys = append(d.Keys, k)
		}
	}
	// An older document, restored from a backup of the store, has keys that were removed since.
	for _, id := range memory.Removed {
		if !slices.Contains(d.Removed, id) {
			d.Removed = append(d.Removed, id)
		}
	}
	d.Keys = slices.DeleteFunc(d.Keys, func(k record) bool { return slices.Contains(d.Removed, k.ID) })
	d.sort()
}

// rotateDue adds the keys that are due to d, and removes those that are gone.
func (r *Ring) rotateDue(d *document) error {
	now := r.config.Now()
	for _, algorithm := range r.config.Algorithms {
		activates := now
		if newest := d.newest(algorithm); newest != nil {
			end := newest.activates().Add(r.config.Rotation)
			if now.Before(end.Add(-r.publishLead())) {
				continue
			}
			if activates = now.Add(r.publishLead()); activates.Before(end) {
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
