package keys

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
)

// The errors of the administration of a ring.
var (
	// ErrNotFound means that no key in the ring has the ID.
	ErrNotFound = errors.New("no key in the ring has this ID")
	// ErrRetiring means that the key to be retired no longer signs.
	ErrRetiring = errors.New("the key is already retiring")
	// ErrID means that a text cannot be the ID of a key.
	ErrID = errors.New("a key ID has 43 characters of base64url")
	// ErrAlgorithm means that the ring does not sign with the algorithm.
	ErrAlgorithm = errors.New("the key ring does not sign with this algorithm")
)

// State is the state of a key.
type State string

// The states, in the order in which a key goes through them.
const (
	// Upcoming keys are published but do not sign yet.
	Upcoming State = "upcoming"
	// Active keys sign.
	Active State = "active"
	// Retiring keys are published but no longer sign.
	Retiring State = "retiring"
)

// Info describes a key.
type Info struct {
	// Public is the public key, with its ID and algorithm.
	Public jwks.Key
	State  State
	// Created is when the key was created, Activates when it started or will start to sign.
	Created, Activates time.Time
	// Retires is when its successor starts to sign, and Removed when every token that it signed has expired and it is no
	// longer published. Both are zero while the key has no successor.
	Retires, Removed time.Time
}

// List returns the keys in the ring, in the order in which they sign.
func (r *Ring) List() []Info {
	return r.current.Load().list(r.config.Retention, r.config.Now())
}

func (s *snapshot) list(retention time.Duration, now time.Time) []Info {
	var list []Info
	for i := range s.document.Keys {
		if s.document.gone(i, retention, now) {
			continue
		}
		k := &s.document.Keys[i]
		info := Info{
			Public: s.signers[i].Public(), State: s.document.state(i, now),
			Created: time.Unix(k.CreatedAt, 0), Activates: k.activates(),
		}
		if successor := s.document.successor(i); successor != nil {
			info.Retires = successor.activates()
			info.Removed = info.Retires.Add(retention + skewMargin)
		}
		list = append(list, info)
	}
	return list
}

// NextRotation returns when the next key is due to sign for the algorithm, which is in the past if the ring is not
// maintained, or the zero time if there is no key.
func (r *Ring) NextRotation(algorithm jwks.Algorithm) time.Time {
	d := r.current.Load().document
	i := d.signing(algorithm, r.config.Now())
	if i < 0 {
		return time.Time{}
	}
	if successor := d.successor(i); successor != nil {
		return successor.activates()
	}
	return d.Keys[i].activates().Add(r.config.Rotation)
}

// state returns the state of the i-th key.
func (d *document) state(i int, now time.Time) State {
	switch signing := d.signing(d.Keys[i].Algorithm, now); {
	case i > signing:
		return Upcoming
	case i < signing:
		return Retiring
	}
	return Active
}

// Rotate creates a successor of the algorithm's active key, or of every active key if algorithm is empty. The successor
// is published at once and signs when every verifier can have it. If a key is upcoming already no other is created, so
// that two concurrent calls create one.
func (r *Ring) Rotate(ctx context.Context, algorithm jwks.Algorithm) error {
	algorithms := r.config.Algorithms
	if algorithm != "" {
		if !slices.Contains(algorithms, algorithm) {
			return fmt.Errorf("%w: %q", ErrAlgorithm, algorithm)
		}
		algorithms = []jwks.Algorithm{algorithm}
	}
	return r.change(ctx, func(d *document) ([]string, error) { return nil, r.rotate(d, algorithms...) })
}

func (r *Ring) rotate(d *document, algorithms ...jwks.Algorithm) error {
	now := r.config.Now()
	for _, algorithm := range algorithms {
		signing := d.signing(algorithm, now)
		if signing < 0 || d.successor(signing) != nil {
			continue // rotateDue creates the first key; an upcoming one exists
		}
		if err := d.add(algorithm, now, now.Add(r.publishLead())); err != nil {
			return err
		}
	}
	return nil
}

// publishLead returns how long a successor is published before it signs.
func (r *Ring) publishLead() time.Duration { return r.config.MaxAge + skewMargin }

// Retire retires a key. An active key gets a successor, as by [Ring.Rotate]. An upcoming key has signed nothing and is
// removed. The error is [ErrRetiring] for a retiring key and [ErrNotFound] for an ID that is not in the ring.
func (r *Ring) Retire(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	seen := false
	return r.change(ctx, func(d *document) ([]string, error) {
		i := d.index(id)
		if i < 0 && seen {
			return nil, nil // another replica removed it concurrently
		}
		if i < 0 {
			return nil, ErrNotFound
		}
		seen = true
		switch d.state(i, r.config.Now()) {
		case Upcoming:
			d.remove(id)
		case Active:
			return nil, r.rotate(d, d.Keys[i].Algorithm)
		case Retiring:
			return nil, ErrRetiring
		}
		return nil, nil
	})
}

// Compromise removes a compromised key at once and revokes every token that it signed. The tokens are revoked even if
// the key is not, or no longer, in the ring. If the key was active its successor signs at once.
func (r *Ring) Compromise(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	seen := false
	return r.change(ctx, func(d *document) ([]string, error) {
		i := d.index(id)
		if i < 0 && seen {
			return nil, nil // another replica removed and revoked it concurrently
		}
		if i < 0 {
			d.remove(id)
			return []string{id}, nil
		}
		seen = true
		now := r.config.Now()
		algorithm, state := d.Keys[i].Algorithm, d.state(i, now)
		d.remove(id)
		if state != Active {
			return []string{id}, nil
		}
		return []string{id}, r.promote(d, algorithm, i, now)
	})
}

// promote activates the key that followed the one removed from index i, or a new one if there was none.
func (r *Ring) promote(d *document, algorithm jwks.Algorithm, i int, now time.Time) error {
	for ; i < len(d.Keys); i++ {
		if d.Keys[i].Algorithm == algorithm {
			d.Keys[i].ActivatesAt = now.Unix()
			d.sort()
			return nil
		}
	}
	return d.add(algorithm, now, now)
}

// checkID returns [ErrID] unless id is a SHA-256 thumbprint in base64url (RFC 7638).
func checkID(id string) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(raw) != 32 || len(id) != base64.RawURLEncoding.EncodedLen(32) {
		return ErrID // it does not quote id, which may be a misplaced secret
	}
	return nil
}
