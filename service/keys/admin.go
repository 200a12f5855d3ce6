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

// What administering a ring can be refused for.
var (
	// ErrNotFound says that no key of the ring has the id.
	ErrNotFound = errors.New("no key of the ring has this id")
	// ErrRetiring says that the key signs no more as it is.
	ErrRetiring = errors.New("the key is retiring already")
	// ErrID says that a text cannot be the id of a key.
	ErrID = errors.New("a key's id is 43 characters of base64url")
	// ErrAlgorithm says that the ring signs with no such algorithm.
	ErrAlgorithm = errors.New("no token is signed with this algorithm")
)

// State is what a key is used for.
type State string

// The states, in the order in which a key goes through them.
const (
	// Upcoming keys are published and do not sign yet.
	Upcoming State = "upcoming"
	// Active keys sign.
	Active State = "active"
	// Retiring keys are published and sign no more.
	Retiring State = "retiring"
)

// Info describes a key.
type Info struct {
	// Public is the public key, with its id and algorithm.
	Public jwks.Key
	State  State
	// Created is when it was made, Activates when it began to sign, or will.
	Created, Activates time.Time
	// Retires is when its successor begins to sign, Removed when no token is left that it signed and it ceases to be
	// published. Both are zero while it has no successor.
	Retires, Removed time.Time
}

// List describes the keys of the ring, in the order in which they sign.
func (r *Ring) List() []Info {
	return r.loaded.Load().list(r.config.Retention, r.config.Now())
}

func (l *loaded) list(retention time.Duration, now time.Time) []Info {
	var list []Info
	for i := range l.document.Keys {
		if l.document.gone(i, retention, now) {
			continue
		}
		k := &l.document.Keys[i]
		info := Info{
			Public: l.signers[i].Public(), State: l.document.state(i, now),
			Created: time.Unix(k.CreatedAt, 0), Activates: k.activates(),
		}
		if successor := l.document.successor(i); successor != nil {
			info.Retires = successor.activates()
			info.Removed = info.Retires.Add(retention + skew)
		}
		list = append(list, info)
	}
	return list
}

// NextRotation gives when another key will sign for the algorithm, or was to: where the ring is not maintained that lies in
// the past. It is zero where there is no key.
func (r *Ring) NextRotation(algorithm jwks.Algorithm) time.Time {
	d := r.loaded.Load().document
	i := d.signing(algorithm, r.config.Now())
	if i < 0 {
		return time.Time{}
	}
	if successor := d.successor(i); successor != nil {
		return successor.activates()
	}
	return d.Keys[i].activates().Add(r.config.Rotation)
}

// state says what the key at a place is used for.
func (d *document) state(i int, now time.Time) State {
	switch signing := d.signing(d.Keys[i].Algorithm, now); {
	case i > signing:
		return Upcoming
	case i < signing:
		return Retiring
	}
	return Active
}

// Rotate makes a successor of the algorithm's active key, or with no algorithm of each one's. It is published at once, and
// signs when every verifier can know it. Where a key is upcoming already no other is made, so that two who rotate at once
// make one.
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
			continue // the first key is made where it is due, and an upcoming one is there
		}
		if err := d.add(algorithm, now, now.Add(r.lead())); err != nil {
			return err
		}
	}
	return nil
}

// lead is how long a successor is published before it signs.
func (r *Ring) lead() time.Duration { return r.config.MaxAge + skew }

// Retire takes a key out of use. An active one gets a successor, as by [Ring.Rotate]. An upcoming one has signed nothing
// and is removed. A retiring one is [ErrRetiring], an id that is not in the ring [ErrNotFound].
func (r *Ring) Retire(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	had := false
	return r.change(ctx, func(d *document) ([]string, error) {
		i := d.index(id)
		if i < 0 && had {
			return nil, nil // another replica removed it meanwhile
		}
		if i < 0 {
			return nil, ErrNotFound
		}
		had = true
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

// Compromise removes a key at once and revokes every token that it signed. A key that is not in the ring, any more, is
// revoked all the same. Where the key was active its successor signs at once.
func (r *Ring) Compromise(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	had := false
	return r.change(ctx, func(d *document) ([]string, error) {
		i := d.index(id)
		if i < 0 && had {
			return nil, nil // another replica did the same meanwhile, and told it
		}
		if i < 0 {
			d.remove(id)
			return []string{id}, nil
		}
		had = true
		now := r.config.Now()
		algorithm, state := d.Keys[i].Algorithm, d.state(i, now)
		d.remove(id)
		if state != Active {
			return []string{id}, nil
		}
		return []string{id}, r.succeed(d, algorithm, i, now)
	})
}

// succeed lets the key sign at once that stood behind the one taken away from a place, or a new one.
func (r *Ring) succeed(d *document, algorithm jwks.Algorithm, place int, now time.Time) error {
	for i := place; i < len(d.Keys); i++ {
		if d.Keys[i].Algorithm == algorithm {
			d.Keys[i].ActivatesAt = now.Unix()
			d.sort()
			return nil
		}
	}
	return d.add(algorithm, now, now)
}

// checkID refuses what is no SHA-256 thumbprint in base64url (RFC 7638).
func checkID(id string) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(raw) != 32 || len(id) != base64.RawURLEncoding.EncodedLen(32) {
		return ErrID // what it is may be anything, even a secret in the wrong place
	}
	return nil
}
