// Package keys has the private signing keys: the ring, its rotation and its encryption at rest. Public keys are in
// package jwks; no type here gives a private key away, only the means to sign.
//
// A key is upcoming (published, not signing yet), then active (signing), then retiring (published until the last token
// it signed has expired), then gone. The state follows from the times in the ring and the clock, so replicas agree on it
// without telling each other.
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

// Store keeps the key ring, as bytes that it need not understand. Every change is announced to all replicas in the same
// step that makes it. It may be used by several goroutines.
type Store interface {
	// Name tells the store from others that one key-encryption key may seal for: what is sealed for one opens from no
	// other.
	Name() string
	// LoadRing gives the ring as last saved and its version; nil and zero where none was.
	LoadRing(ctx context.Context) (sealed []byte, version uint64, err error)
	// SaveRing replaces the ring, and revokes the tokens of the keys whose ids are given, if the ring's version is still
	// the one given; else it gives [ErrConflict].
	SaveRing(ctx context.Context, sealed []byte, version uint64, revoked ...string) error
}

// ErrConflict says that the ring was changed by somebody else meanwhile.
var ErrConflict = errors.New("the key ring was changed by somebody else meanwhile")

// ErrReplaced says that another replica put back an older ring, which the store had lost when this one made its own: what
// was built with this ring's pepper is of no use any more.
var ErrReplaced = errors.New("another replica put back the key ring that the store had lost; this one starts anew with it")

// Config says what ring is kept. All fields are required but Settle, Now, Changed and Empty.
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
	// StartupGrace is how long [Open] waits after it made a ring in an empty store: time for a running replica to put back the
	// ring that the store has lost.
	StartupGrace time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// OnChange is told what a change that this replica made has added and taken away, with the context of who asked for it.
	// What no one asked for, because it was due, has the context of [Open] or [Ring.Run]. It must answer at once.
	OnChange func(ctx context.Context, made []KeyAdded, gone []KeyRemoved)
	// OnCreate is told that [Open] has made a ring because the store had none; nil tells nobody.
	OnCreate func()
}

// KeyAdded is a key that was added to the ring.
type KeyAdded struct {
	Algorithm jwks.Algorithm
	ID        string
	// Replaces is the id of the key that signs until then; empty where there is none.
	Replaces  string
	Activates time.Time
}

// KeyRemoved is a key that was taken away because no token is left that it signed.
type KeyRemoved struct {
	Algorithm jwks.Algorithm
	ID        string
}

// skew is how far apart the clocks of replicas and verifiers may be.
const skew = time.Minute

// Ring has the keys in memory. It may be used by several goroutines.
type Ring struct {
	config Config
	loaded atomic.Pointer[loaded]
	// turn has one place: for whoever changes the ring, or takes over a change, so that memory never goes back.
	turn chan struct{}
	// made reports that this ring was the first in the store, as far as could be seen. Who has the turn may use it.
	made bool
	// renew wakes Run.
	renew chan struct{}
	// outdated is set while the stored ring is one that a newer release wrote.
	outdated atomic.Bool
}

// loaded is the ring as one stored document says.
type loaded struct {
	// sealed is what the store has; plain is what was sealed.
	sealed, plain []byte
	// previous reports that the key which seals now did not seal it.
	previous bool
	document *document
	// signers are those of the document's keys, in the same order.
	signers []*token.Signer
	all     *jwks.Set
}

// Open loads the ring and makes what is missing. Replicas that open an empty store at once agree on one ring. One that a
// previous key-encryption key sealed is sealed anew. A ring that no key-encryption key opens is [ErrSealed]; nothing is
// overwritten then.
func Open(ctx context.Context, config Config) (*Ring, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	r := &Ring{config: config, turn: make(chan struct{}, 1), renew: make(chan struct{}, 1)}
	// Only here, and not when Maintain runs: while the replicas are given another key one by one, those that have it and
	// those that do not would seal the ring in turn.
	err := r.change(ctx, func(d *document) ([]string, error) {
		d.reseal = true
		return nil, nil
	})
	if err == nil && r.made && config.OnCreate != nil {
		config.OnCreate()
	}
	if err == nil && r.made && config.StartupGrace > 0 {
		if err = pause(ctx, config.StartupGrace); err == nil {
			err = r.Maintain(ctx)
		}
	}
	return r, err
}

// Pepper gives the key under which generated client secrets are hashed.
func (r *Ring) Pepper() []byte { return r.loaded.Load().document.Pepper }

// RecordKey derives from the pepper the key that authenticates what a store keeps beside the ring.
func RecordKey(pepper []byte) []byte {
	key, err := hkdf.Key(sha256.New, pepper, nil, "grantor records 1", sha256.Size)
	if err != nil {
		panic(err) // it fails for keys longer than 255 hashes alone
	}
	return key
}

// MaxAge is how long the published keys may be kept.
func (r *Ring) MaxAge() time.Duration { return r.config.MaxAge }

// Algorithms gives the algorithms that tokens can be signed with.
func (r *Ring) Algorithms() []jwks.Algorithm { return r.config.Algorithms }

// Signer gives the active key for the algorithm.
func (r *Ring) Signer(algorithm jwks.Algorithm) (*token.Signer, error) {
	l := r.loaded.Load()
	if i := l.document.signing(algorithm, r.config.Now()); i >= 0 {
		return l.signers[i], nil
	}
	return nil, fmt.Errorf("there is no signing key for %s", algorithm)
}

// Published gives the public keys that a verifier needs: of all keys but those that are gone.
func (r *Ring) Published() []jwks.Key {
	l, now := r.loaded.Load(), r.config.Now()
	var keys []jwks.Key
	for i, signer := range l.signers {
		if !l.document.gone(i, r.config.Retention, now) {
			keys = append(keys, signer.Public())
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

// Renew asks [Ring.Run] to take over the ring as stored: for when another replica changed it.
func (r *Ring) Renew() {
	select {
	case r.renew <- struct{}{}:
	default: // it is asked already
	}
}

// Outdated reports whether a newer release has written the stored ring, in a form that this one does not know. What is in
// memory stays in use, and nothing that was changed since counts here.
func (r *Ring) Outdated() bool { return r.outdated.Load() }

// Run maintains the ring until ctx ends: every minute, and when [Ring.Renew] asks. What fails is told to report and tried
// again. It ends with [ErrReplaced] when the pepper is not the one that [Ring.Pepper] gave at the start.
func (r *Ring) Run(ctx context.Context, report func(error)) error {
	const (
		usual = time.Minute
		again = time.Second
	)
	pepper := r.Pepper()
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
			if !errors.Is(err, ErrNewer) { // which passes with an upgrade
				timer.Reset(again)
			}
		}
		if !bytes.Equal(r.Pepper(), pepper) {
			return ErrReplaced
		}
	}
}

// pause waits, or gives up with ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
