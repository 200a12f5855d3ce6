package registry

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
)

// Registrar changes one thing at a time for somebody whose authority bounds it. Each change is based on the state that
// is stored at that moment, so that two who change the same lose nothing of each other's. It may be used by several
// goroutines.
type Registrar struct {
	Clients   ClientStore
	Resources ResourceStore
	Hasher    *clientsecret.Hasher
	// Algorithms are those that the issuer can sign with; empty where that is not known.
	Algorithms []jwks.Algorithm
	Now        func() time.Time
	// Authority is that of who asks.
	Authority Authority
	// Planned is told what a change is about to make different, each time that it is tried. It may be nil.
	Planned func([]FieldChange)
}

// Target is the client that is meant, and the state that it must be in.
type Target struct {
	ID oauth.ClientID
	// Version is that of the state; zero means whichever there is.
	Version uint64
}

// Issued is a client and the secret that it was given.
type Issued struct {
	Client *Client
	// SecretID names the new secret; empty where there is none.
	SecretID string
	// Secret is the new secret where [clientsecret.New] made it. It cannot be had again.
	Secret string
}

// CreateClient stores a new client, with a secret of the caller's choice, a generated one where that is empty, or
// without any. The client's own Secrets and times are not looked at.
func (r *Registrar) CreateClient(ctx context.Context, c Client, secret string, without bool) (*Issued, error) {
	if without && secret != "" {
		return nil, &FieldError{"without_secret", "there is a client_secret"}
	}
	table, err := r.Resources.Resources(ctx)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(c.Check(table), r.Authority.Over(&c)); err != nil {
		return nil, err
	}
	made := newSecret{}
	c.Secrets, c.Version = nil, 0
	c.CreatedAt = r.now()
	c.ChangedAt = c.CreatedAt
	if !without {
		if made, err = r.newSecret(secret, time.Time{}); err != nil {
			return nil, err
		}
		made.Hash = r.Hasher.Hash(made.value)
		c.Secrets = []clientsecret.Secret{made.Secret}
	}
	r.plan(new(Client).differences(&c))
	err = r.Clients.SaveClient(ctx, &c)
	if errors.Is(err, ErrConflict) {
		return nil, ErrExists
	}
	if err != nil {
		return nil, err
	}
	return &Issued{r.stored(ctx, &c), made.ID, made.generated}, nil
}

// UpdateClient makes a change of a copy of the client and stores that. The change may be asked for several times; it
// cannot touch id, secrets and times. A client that comes out as it was is stored all the same: storing a disabled one
// revokes its tokens, and who did not hear whether that was done must be able to ask again.
func (r *Registrar) UpdateClient(ctx context.Context, t Target, change func(*Client) error) (*Client, error) {
	return r.change(ctx, t, func(next, stored *Client) error {
		if err := change(next); err != nil {
			return err
		}
		next.ID, next.Version, next.CreatedAt, next.Secrets = stored.ID, stored.Version, stored.CreatedAt, stored.Secrets
		table, err := r.Resources.Resources(ctx)
		if err != nil {
			return err
		}
		return next.check(table, stored)
	})
}

// DeleteClient removes the client and revokes its tokens.
func (r *Registrar) DeleteClient(ctx context.Context, t Target) error {
	return r.with(ctx, t, func(stored *Client) error {
		r.plan(stored.differences(&Client{}))
		return r.Clients.DeleteClient(ctx, stored.ID, stored.Version)
	})
}

// change stores what change makes of a copy of the client.
func (r *Registrar) change(ctx context.Context, t Target, change func(next, stored *Client) error) (*Client, error) {
	var next *Client
	err := r.with(ctx, t, func(stored *Client) error {
		next = stored.clone()
		if err := change(next, stored); err != nil {
			return err
		}
		if err := r.Authority.Over(next); err != nil {
			return err
		}
		next.ChangedAt = r.now()
		r.plan(stored.differences(next))
		return r.Clients.SaveClient(ctx, next)
	})
	if err != nil {
		return nil, err
	}
	return r.stored(ctx, next), nil
}

// with does something that depends on the client as it is stored, and does it anew where somebody else was quicker,
// unless it was meant for one state alone.
func (r *Registrar) with(ctx context.Context, t Target, do func(stored *Client) error) error {
	for range attempts {
		stored, err := r.Clients.Client(ctx, t.ID)
		if err != nil {
			return err
		}
		if t.Version != 0 && t.Version != stored.Version {
			return ErrConflict
		}
		if err := r.Authority.Over(stored); err != nil {
			return err
		}
		if err := do(stored); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return ErrConflict
}

func (r *Registrar) plan(differences []FieldChange) {
	if r.Planned != nil {
		r.Planned(differences)
	}
}

// stored gives the client with the version that writing it has given it. It is written already: if the store cannot be
// read now, the caller gets what was written, and with it a secret that cannot be had again, only without an etag.
func (r *Registrar) stored(ctx context.Context, written *Client) *Client {
	stored, err := r.Clients.Client(ctx, written.ID)
	if err != nil {
		written.Version = 0
		return written
	}
	return stored
}

// now is the present as it is stored: in whole seconds.
func (r *Registrar) now() time.Time { return r.Now().Truncate(time.Second) }
