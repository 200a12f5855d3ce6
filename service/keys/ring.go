// Package keys manages the private signing keys: the key ring, its rotation and its encryption at rest. Public keys are
// in package jwks; no type here exposes a private key, only the means to sign with it.
//
// A key is upcoming (published, not signing yet), then active (signing), then retiring (published until the last token
// it signed has expired), then gone. The state follows from the times in the ring and the clock, so that replicas agree
// on it without communicating.
package keys

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/token"
)

// Store stores the key ring as opaque bytes. Every change is announced to all replicas in the same step that makes it.
// Implementations are safe for concurrent use by multiple goroutines.
type Store interface {
	// Name identifies the store among those that use the same key-encryption key: a ring sealed for one store cannot be
	// opened from another.
	Name() string
	// LoadRing returns the stored ring and its version, or nil and zero if there is none.
	LoadRing(ctx context.Context) (sealed []byte, version uint64, err error)
	// SaveRing replaces the ring and revokes the tokens of the keys with the IDs in revoked, in one step. If the stored
	// version is not the given one it changes nothing and returns [ErrConflict].
	SaveRing(ctx context.Context, sealed []byte, version uint64, revoked ...string) error
}

// ErrConflict means that the ring was changed concurrently.
var ErrConflict = errors.New("the key ring was changed concurrently")

// ErrReplaced means that another replica restored an older ring, which the store had lost when this replica created its
// own. Whatever was built with the pepper of this ring is no longer valid.
var ErrReplaced = errors.New("another replica restored the key ring that the store had lost; this replica must restart to use it")

// Config configures a [Ring]. All fields but StartupGrace, Now, OnChange and OnCreate are required.
type Config struct {
	Store  Store
	Sealer *Sealer
	// Algorithms are those that tokens can be signed with.
	Algorithms []jwks.Algorithm
	// Rotation is how long a key signs.
	Rotation time.Duration
	// MaxAge is how long a verifier may cache the published keys. A successor is published for that time, and a minute
	// more for clock skew, before it signs.
	MaxAge time.Duration
	// Retention is the maximum lifetime of a token. A key stays published for that time after it last signed.
	Retention time.Duration
	// StartupGrace is how long [Open] waits after it created a ring in an empty store, so that a running replica can
	// restore the ring that the store has lost. Zero does not wait.
	StartupGrace time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// OnChange, if not nil, is called with the keys that a change by this replica added and removed, and with the context
	// of the caller that requested the change. A change that was merely due has the context of [Open] or [Ring.Run].
	// OnChange must not block.
	OnChange func(ctx context.Context, added []KeyAdded, removed []KeyRemoved)
	// OnCreate, if not nil, is called when [Open] has created a ring because the store had none.
	OnCreate func()
}

// KeyAdded is a key that was added to the ring.
type KeyAdded struct {
	Algorithm jwks.Algorithm
	ID        string
	// Replaces is the ID of the key that signs until Activates, or empty if there is none.
	Replaces  string
	Activates time.Time
}

// KeyRemoved is a key that was removed from the ring because every token that it signed has expired.
type KeyRemoved struct {
	Algorithm jwks.Algorithm
	ID        string
}

// skewMargin is added to the time for which a key is published before it signs, and to that for which it is kept after the
// last token that it signed has expired. It allows for the difference between the clocks of replicas and verifiers, with
// room to spare: the margin delays no request, while a key that a verifier lacks makes it refuse tokens.
const skewMargin = time.Minute

// Ring holds the keys in memory. It is safe for concurrent use by multiple goroutines.
type Ring struct {
	config  Config
	current atomic.Pointer[snapshot]
	// sem serializes changes of the ring, and the adoption of stored changes, so that the ring in memory never regresses.
	sem chan struct{}
	// created reports whether this replica found no ring and created one. It is guarded by sem.
	created bool
	// reload wakes Run.
	reload chan struct{}
	// outdated reports whether a newer release wrote the stored ring.
	outdated atomic.Bool
}

// snapshot is one stored state of the ring. It is immutable.
type snapshot struct {
	// sealed is the stored form, plain the form that was sealed.
	sealed, plain []byte
	// previous reports whether a previous key-encryption key sealed the ring, rather than the one that seals now.
	previous bool
	document *document
	// signers holds the signers of the document's keys, in the same order.
	signers []*token.Signer
	all     *jwks.Set
}

// Open loads the ring and creates what is missing. Replicas that open an empty store concurrently agree on one ring. A
// ring that a previous key-encryption key sealed is sealed again with the current one. If no key-encryption key opens
// the ring the error is [ErrSealed], and nothing is overwritten.
func Open(ctx context.Context, config Config) (*Ring, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	r := &Ring{config: config, sem: make(chan struct{}, 1), reload: make(chan struct{}, 1)}
	// The ring is resealed only here, not by Maintain: during the rollout of another key-encryption key, replicas that
	// have it and replicas that do not would otherwise reseal the ring alternately.
	err := r.change(ctx, func(d *document) ([]string, error) {
		d.reseal = true
		return nil, nil
	})
	if err == nil && r.created && config.OnCreate != nil {
		config.OnCreate()
	}
	if err == nil && r.created && config.StartupGrace > 0 {
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(config.StartupGrace):
			err = r.Maintain(ctx)
		}
	}
	return r, err
}

// Pepper returns the key under which generated client secrets are hashed.
func (r *Ring) Pepper() []byte { return r.current.Load().document.Pepper }

// RecordKey derives, from the pepper, the key that authenticates the other records in the store of the ring.
func RecordKey(pepper []byte) []byte {
	key, err := hkdf.Key(sha256.New, pepper, nil, "grantor records 1", sha256.Size)
	if err != nil {
		panic(err) // it fails only for keys longer than 255 hashes
	}
	return key
}

// MaxAge returns how long a verifier may cache the published keys.
func (r *Ring) MaxAge() time.Duration { return r.config.MaxAge }

// Algorithms returns the algorithms that tokens can be signed with.
func (r *Ring) Algorithms() []jwks.Algorithm { return r.config.Algorithms }

// Signer returns the signer of the algorithm's active key.
func (r *Ring) Signer(algorithm jwks.Algorithm) (*token.Signer, error) {
	s := r.current.Load()
	if i := s.document.signing(algorithm, r.config.Now()); i >= 0 {
		return s.signers[i], nil
	}
	return nil, fmt.Errorf("no signing key for %s", algorithm)
}

// Published returns the public keys that a verifier needs: those of all keys that are not gone.
func (r *Ring) Published() []jwks.Key {
	s, now := r.current.Load(), r.config.Now()
	var keys []jwks.Key
	for i, signer := range s.signers {
		if !s.document.gone(i, r.config.Retention, now) {
			keys = append(keys, signer.Public())
		}
	}
	return keys
}

// Find returns the key with the ID, or [jwks.ErrUnknownKey].
func (r *Ring) Find(ctx context.Context, id string) (jwks.Key, error) {
	return r.current.Load().all.Find(ctx, id)
}

// Trusts reports whether the key is in the ring.
func (r *Ring) Trusts(key jwks.Key) bool { return r.current.Load().all.Trusts(key) }

// Reload makes [Ring.Run] load the stored ring, which another replica has changed. It does not wait for that.
func (r *Ring) Reload() {
	select {
	case r.reload <- struct{}{}:
	default: // already pending
	}
}

// Outdated reports whether a newer release wrote the stored ring in a format that this release does not know. The ring
// in memory then stays in use, without the changes made since.
func (r *Ring) Outdated() bool { return r.outdated.Load() }

// Run maintains the ring until ctx ends, every minute and after each call of [Ring.Reload]. It calls report with each
// error and retries. It returns [ErrReplaced] when the pepper is no longer the one that the ring had when Run was
// called.
func (r *Ring) Run(ctx context.Context, report func(error)) error {
	const (
		interval      = time.Minute
		retryInterval = time.Second
	)
	pepper := r.Pepper()
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-r.reload:
		}
		timer.Reset(interval)
		if err := r.Maintain(ctx); err != nil && ctx.Err() == nil {
			report(fmt.Errorf("maintaining the key ring: %w", err))
			if !errors.Is(err, ErrNewer) { // which only an upgrade resolves
				timer.Reset(retryInterval)
			}
		}
		if !bytes.Equal(r.Pepper(), pepper) {
			return ErrReplaced
		}
	}
}
