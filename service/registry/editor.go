package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// Config is the configuration of an [Editor]. The stores, the hasher and the clock are required.
type Config struct {
	Clients   ClientStore
	Resources ResourceStore
	Trust     TrustStore
	Hasher    *clientsecret.Hasher
	// Algorithms are those that the issuer can sign with; empty if they are not known.
	Algorithms []jwks.Algorithm
	// Issuer is the issuer of the tokens, or zero if it is not known. It signs by the first of Algorithms unless a resource
	// chooses another.
	Issuer oauth.Issuer
	Now    func() time.Time
	// TrustDirectories are those below which the replicas read the files that trusted issuers name. A change that names
	// another file is refused. If it is nil, they are not known, and any file is accepted.
	TrustDirectories *trust.Directories
	// Confirm, if not nil, records the revocation of the tokens of a client that was disabled earlier as reliably as
	// disabling it now would: too few replicas of the store may have acknowledged an earlier attempt.
	Confirm func(ctx context.Context, id oauth.ClientID) error
}

// Editor changes clients, resources, trusted issuers and workloads within the authority of a caller: one at a time, or
// all that a manifest lists. Each change is based on the state that is stored at that moment, so that concurrent
// changes do not undo each other. An Editor is safe for concurrent use by multiple goroutines.
type Editor struct {
	// config is shared with the Editors that As and Observe return. It is unexported because its stores check no authority.
	config    *Config
	authority Authority
	// observe is called with the changes of each attempt to write; nil if nothing observes them.
	observe func([]FieldChange)
}

// NewEditor returns an Editor without authority over any client that has an administrative scope; see [Editor.As].
func NewEditor(c Config) *Editor { return &Editor{config: &c} }

// As returns an Editor that acts within the authority.
func (e *Editor) As(a Authority) *Editor { return &Editor{e.config, a, e.observe} }

// Observe returns an Editor that calls fn with the field changes of each attempt to change one client or resource, before
// the write. Applying a manifest does not call it.
func (e *Editor) Observe(fn func([]FieldChange)) *Editor { return &Editor{e.config, e.authority, fn} }

// Authorize returns a [ForbiddenError] if the Editor's authority does not cover the client, with what a workload gives it.
func (e *Editor) Authorize(ctx context.Context, c *Client) error {
	whole, err := e.effective(ctx, c)
	if err != nil {
		return err
	}
	return cmp.Or(e.authority.Check(c), e.authority.Check(whole))
}

// authorizeNew is Authorize for a client that is not stored: its registration shuts out a client with its ID that a
// workload makes.
func (e *Editor) authorizeNew(ctx context.Context, c *Client) error {
	if e.authority.unlimited {
		return nil
	}
	table, err := e.config.Trust.Trust(ctx)
	if err != nil {
		return err
	}
	if w, ok := table.Workload(c.ID); ok {
		if err := e.authority.CheckWorkload(w); err != nil {
			return err
		}
	}
	return e.Authorize(ctx, c)
}

// Client returns the client with the ID, which is stored or made by a workload, whatever the Editor's authority.
func (e *Editor) Client(ctx context.Context, id oauth.ClientID) (*Client, error) {
	stored, err := e.config.Clients.Client(ctx, id)
	return resolve(id, stored, err, func() (*trust.Table, error) { return e.config.Trust.Trust(ctx) })
}

// Clients returns stored clients as [ClientStore] does, whatever the Editor's authority. A client of a workload has the
// scopes and the lifetime of its workload, and is in the list only if a restriction of it is stored.
func (e *Editor) Clients(ctx context.Context, after oauth.ClientID, limit int) ([]*Client, error) {
	clients, err := e.config.Clients.Clients(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	for i, c := range clients {
		if clients[i], err = e.effective(ctx, c); err != nil {
			return nil, err
		}
	}
	return clients, nil
}

// Resources returns the stored resources.
func (e *Editor) Resources(ctx context.Context) (*Resources, error) {
	return e.config.Resources.Resources(ctx)
}

// Confirm calls [Config.Confirm] if it is set.
func (e *Editor) Confirm(ctx context.Context, id oauth.ClientID) error {
	if e.config.Confirm == nil {
		return nil
	}
	return e.config.Confirm(ctx, id)
}

// Target identifies a client, and the state in which a change requires it to be.
type Target struct {
	ID oauth.ClientID
	// Version is that of the state; zero means any.
	Version uint64
	// workload means that the client need not be stored if a workload makes it.
	workload bool
}

// Issued is a client and the secret that it was given.
type Issued struct {
	Client *Client
	// SecretID identifies the new secret; empty if there is none.
	SecretID string
	// Secret is the new secret if it was generated ([clientsecret.New]). It cannot be retrieved again.
	Secret string
}

// CreateClient stores a new client, with the given secret, with a generated one if that is empty, or without any. It
// ignores the Secrets and times of c.
func (e *Editor) CreateClient(ctx context.Context, c Client, secret string, withoutSecret bool) (*Issued, error) {
	switch {
	case withoutSecret && secret != "":
		return nil, &FieldError{Field: "without_secret", Problem: "there is a client_secret"}
	case c.Workload && !withoutSecret:
		return nil, &FieldError{Field: "without_secret", Problem: "is required of a client that a workload makes"}
	}
	table, err := e.config.Resources.Resources(ctx)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(c.Check(table), e.checkTokenSize(&c, table), e.authorizeNew(ctx, &c)); err != nil {
		return nil, err
	}
	added := newSecret{}
	c.Secrets, c.Version = nil, 0
	c.CreatedAt = e.now()
	c.ChangedAt = c.CreatedAt
	if !withoutSecret {
		if added, err = e.newSecret(secret, time.Time{}); err != nil {
			return nil, err
		}
		added.Hash = e.config.Hasher.Hash(added.value)
		c.Secrets = []clientsecret.Secret{added.Secret}
	}
	e.observed(new(Client).changes(&c))
	err = e.config.Clients.SaveClient(ctx, &c)
	if errors.Is(err, ErrConflict) {
		return nil, ErrExists
	}
	if err != nil {
		return nil, err
	}
	return &Issued{e.stored(ctx, &c), added.ID, added.generated}, nil
}

// UpdateClient calls change with a copy of the stored client and stores the result. It may call change several times. The
// ID, secrets and times of the client stay as they are. Of a client that a workload makes, only what restricts it is
// stored. A client that did not change is not stored, unless it is disabled: storing a disabled client revokes its tokens,
// and a caller that did not learn whether that succeeded must be able to retry.
func (e *Editor) UpdateClient(ctx context.Context, t Target, change func(*Client) error) (*Client, error) {
	t.workload = true
	return e.change(ctx, t, func(next, stored *Client) error {
		if err := e.apply(ctx, next, change); err != nil {
			return err
		}
		next.ID, next.Version, next.CreatedAt, next.Secrets = stored.ID, stored.Version, stored.CreatedAt, stored.Secrets
		table, err := e.config.Resources.Resources(ctx)
		if err != nil {
			return err
		}
		if err := next.check(table, stored); err != nil {
			return err
		}
		if slices.Equal(next.Scopes, stored.Scopes) && slices.Equal(next.DefaultScopes, stored.DefaultScopes) {
			return nil // another change, such as disabling the client, is not prevented
		}
		return e.checkTokenSize(next, table)
	})
}

// apply calls change with a copy of a stored client, with what a workload gives it.
func (e *Editor) apply(ctx context.Context, next *Client, change func(*Client) error) error {
	if next.Workload {
		return e.restrict(ctx, next, change)
	}
	return change(next)
}

// DeleteClient deletes the client and revokes its tokens.
func (e *Editor) DeleteClient(ctx context.Context, t Target) error {
	return e.update(ctx, t, func(stored *Client) error {
		e.observed(stored.changes(&Client{}))
		return e.config.Clients.DeleteClient(ctx, stored.ID, stored.Version)
	})
}

// change calls change with a copy of the stored client and stores the result.
func (e *Editor) change(ctx context.Context, t Target, change func(next, stored *Client) error) (*Client, error) {
	var next *Client
	err := e.update(ctx, t, func(stored *Client) error {
		next = stored.clone()
		if err := change(next, stored); err != nil {
			return err
		}
		if err := e.Authorize(ctx, next); err != nil {
			return err
		}
		changed := stored.changes(next)
		e.observed(changed)
		if len(changed) == 0 && !next.Disabled {
			next = stored
			return nil
		}
		next.ChangedAt = e.now()
		return e.config.Clients.SaveClient(ctx, next)
	})
	if err != nil {
		return nil, err
	}
	return e.stored(ctx, next), nil
}

// update calls fn with the stored client, and again after a conflict. It does not retry if t requires a version that the
// client no longer has.
func (e *Editor) update(ctx context.Context, t Target, fn func(stored *Client) error) error {
	return retry(func() error {
		find := e.config.Clients.Client
		if t.workload {
			find = e.restrictable
		}
		stored, err := find(ctx, t.ID)
		if err != nil {
			return err
		}
		if t.Version != 0 && t.Version != stored.Version {
			return errOtherState
		}
		if err := e.Authorize(ctx, stored); err != nil {
			return err
		}
		return fn(stored)
	})
}

func (e *Editor) observed(changes []FieldChange) {
	if e.observe != nil {
		e.observe(changes)
	}
}

// stored returns the client with the version that its write has given it. The write has succeeded: if the store cannot be
// read now, the result is the client as written, and with it a secret that cannot be retrieved again, but without an etag.
func (e *Editor) stored(ctx context.Context, written *Client) *Client {
	stored, err := e.Client(ctx, written.ID)
	if err != nil {
		written.Version = 0
		return written
	}
	return stored
}

// now returns the time as it is stored: in whole seconds.
func (e *Editor) now() time.Time { return e.config.Now().Truncate(time.Second) }

// maxAttempts bounds how often a change is retried because another one, such as that of another replica that applies the
// same manifest, was made between reading and writing.
const maxAttempts = 10

// errOtherState is the [ErrConflict] of a caller that requires a state other than the stored one. No retry cures it.
var errOtherState = fmt.Errorf("%w: the stored state is not the required one", ErrConflict)

// retry calls attempt, at most maxAttempts times, until it returns no [ErrConflict] that another attempt may cure.
func retry(attempt func() error) (err error) {
	for range maxAttempts {
		if err = attempt(); !errors.Is(err, ErrConflict) || errors.Is(err, errOtherState) {
			break
		}
	}
	return err
}
