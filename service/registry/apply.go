package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/revocation"
)

// Manifest is what a person wants to be registered.
type Manifest struct {
	Resources []Resource
	Clients   []ClientSpec
}

// ClientSpec is a client that a person wants. Its own Secrets and times are not looked at. Without AllowedNetworks those that are
// stored stay, so that no manifest lifts by accident what was bound in an emergency.
type ClientSpec struct {
	Client
	// Secret is one in the clear; empty where the manifest gives none. See [Applier.Apply] for what becomes of others.
	Secret string
	// LeaveDisabled leaves a client that is disabled so, and one that is not: the manifest does not say. What was disabled
	// in an emergency would otherwise be enabled by the next replica that applies its file.
	LeaveDisabled bool
	// Hashes are of secrets that the client brings from another server. Each is salted, and added once.
	Hashes []clientsecret.Hash
}

// ManifestError says which client of a manifest is wrong, and how.
type ManifestError struct {
	ID  oauth.ClientID
	Err error
}

func (e *ManifestError) Error() string { return fmt.Sprintf("client %s: %v", e.ID, e.Err) }

// Unwrap gives the [FieldError].
func (e *ManifestError) Unwrap() error { return e.Err }

// Action is what applying a manifest did, or would do, to one client or resource.
type Action string

// The actions.
const (
	Created   Action = "created"
	Changed   Action = "changed"
	Unchanged Action = "unchanged"
	Removed   Action = "removed"
)

// Change is one line of the account of applying a manifest.
type Change struct {
	Action Action
	// Kind is "client" or "resource".
	Kind string
	ID   string
	// Differences are from nothing for what is [Created], to nothing for what is [Removed].
	Differences []FieldChange
}

// Fields names what is [Changed], as on the wire; for other actions nothing.
func (c *Change) Fields() []string {
	if c.Action != Changed {
		return nil
	}
	names := make([]string, len(c.Differences))
	for i, d := range c.Differences {
		names[i] = d.Field
	}
	return names
}

// Applier makes what is registered equal to a manifest.
type Applier struct {
	Clients   ClientStore
	Resources ResourceStore
	Hasher    *clientsecret.Hasher
	// Algorithms are those that the issuer can sign with; empty where that is not known.
	Algorithms []jwks.Algorithm
	Now        func() time.Time
	// Authority is that of who asks. One that has no authority over a client may not name it either, even as it is.
	Authority Authority
	// Confirm revokes the tokens of a client that was disabled before as reliably as disabling it would now: an earlier try
	// may have been heard by too few. It may be nil.
	Confirm func(ctx context.Context, id oauth.ClientID) error
	// DryRun writes nothing.
	DryRun bool
	// Prune removes what the manifest does not name; PruneResources does so with resources alone.
	Prune, PruneResources bool
}

// Apply checks the whole manifest and then makes each difference vanish; applying it again finds none. Changes of
// others meanwhile are not lost: the difference is then worked out anew. The account lists resources, then clients, in
// the order of the manifest, then what was removed. An error in the manifest, as [ManifestError] or [ResourceError], and
// a [ForbiddenError] come before anything is written; only a client that has no room for one more secret is told, as a
// [ManifestError], when its turn comes.
//
// A secret in the manifest takes the place of those that manifests gave the client before, and leaves those that a
// [Registrar] made. One that the client has already, even if it has ended, changes nothing: an old manifest does not
// give back what was rotated away. No secret in the manifest leaves all as they are.
func (a *Applier) Apply(ctx context.Context, m Manifest) ([]Change, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if err := a.authorize(ctx, m); err != nil {
		return nil, err
	}
	var account []Change
	steps := []func() ([]Change, error){func() ([]Change, error) { return a.applyResources(ctx, m) }}
	for i := range m.Clients {
		steps = append(steps, func() ([]Change, error) { return a.applyClient(ctx, &m.Clients[i]) })
	}
	if a.Prune {
		steps = append(steps, func() ([]Change, error) { return a.pruneClients(ctx, m) })
	}
	for _, step := range steps {
		err := retry(func() error {
			changes, err := step()
			account = append(account, changes...)
			return err
		})
		if err != nil {
			return account, err
		}
	}
	return account, nil
}

// check refuses what could not be applied twice to the same effect: one thing wanted in two ways.
func (m *Manifest) check() error {
	if _, err := NewResources(0, m.Resources); err != nil {
		return err
	}
	seen := make(map[oauth.ClientID]bool, len(m.Clients))
	for i := range m.Clients {
		id := m.Clients[i].ID
		if seen[id] {
			return &ManifestError{id, &FieldError{"client_id", fmt.Sprintf("%q is there twice", id)}}
		}
		seen[id] = true
		if n := len(m.Clients[i].Hashes); n > MaxSecrets || (n == MaxSecrets && m.Clients[i].Secret != "") {
			return &ManifestError{id, &FieldError{"client_secret", fmt.Sprintf("there are more than %d", MaxSecrets)}}
		}
	}
	return nil
}

// authorize looks at every client that the manifest touches, both as it is and as it is to be.
func (a *Applier) authorize(ctx context.Context, m Manifest) error {
	if a.Authority.everything {
		return nil
	}
	for i := range m.Clients {
		if err := a.Authority.Over(&m.Clients[i].Client); err != nil {
			return err
		}
		stored, err := a.Clients.Client(ctx, m.Clients[i].ID)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if err := a.Authority.Over(stored); err != nil {
			return err
		}
	}
	if !a.Prune {
		return nil
	}
	return a.unnamed(ctx, m, a.Authority.Over)
}

// attempts bounds how often a step is planned anew because somebody else, such as another replica that applies the same
// manifest, made a change meanwhile.
const attempts = 10

func retry(step func() error) (err error) {
	for range attempts {
		if err = step(); !errors.Is(err, ErrConflict) {
			break
		}
	}
	return err
}

// applyResources saves the table as the manifest wants it, in one write.
func (a *Applier) applyResources(ctx context.Context, m Manifest) ([]Change, error) {
	stored, err := a.Resources.Resources(ctx)
	if err != nil {
		return nil, err
	}
	prune := a.Prune || a.PruneResources
	var list []Resource
	var removed []Change
	for _, r := range stored.List() {
		if !prune || slices.ContainsFunc(m.Resources, func(w Resource) bool { return w.ID == r.ID }) {
			list = append(list, r)
		} else {
			removed = append(removed, Change{Removed, "resource", r.ID.String(), r.differences(&Resource{})})
		}
	}
	var changes []Change
	for _, wanted := range m.Resources {
		if err := wanted.check(a.Algorithms); err != nil {
			return nil, &ResourceError{wanted.ID, err}
		}
		change := Change{Created, "resource", wanted.ID.String(), nil}
		if i := slices.IndexFunc(list, func(r Resource) bool { return r.ID == wanted.ID }); i >= 0 {
			change.Differences = list[i].differences(&wanted)
			change.Action = changedOrLeft(change.Differences)
			list[i] = wanted
		} else {
			change.Differences = new(Resource).differences(&wanted)
			list = append(list, wanted)
		}
		changes = append(changes, change)
	}
	changes = append(changes, removed...)
	table, err := NewResources(stored.Version(), list)
	if err != nil {
		return nil, err
	}
	for i := range m.Clients {
		if err := m.Clients[i].Check(table); err != nil {
			return nil, &ManifestError{m.Clients[i].ID, err}
		}
	}
	if a.DryRun || !slices.ContainsFunc(changes, func(c Change) bool { return c.Action != Unchanged }) {
		return changes, nil
	}
	if err := a.Resources.SaveResources(ctx, table); err != nil {
		return nil, err
	}
	return changes, nil
}

// applyClient creates the client or changes what differs.
func (a *Applier) applyClient(ctx context.Context, wanted *ClientSpec) ([]Change, error) {
	change := Change{Action: Created, Kind: "client", ID: wanted.ID.String()}
	before := &Client{}
	now := a.Now().Truncate(time.Second)
	next := wanted.Client
	next.CreatedAt, next.ChangedAt, next.Version, next.Secrets = now, now, 0, nil
	stored, err := a.Clients.Client(ctx, wanted.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	if err == nil {
		// It may have become another since the manifest was checked.
		if err := a.Authority.Over(stored); err != nil {
			return nil, err
		}
		next.Version, next.CreatedAt, next.Secrets = stored.Version, stored.CreatedAt, stored.Secrets
		if wanted.LeaveDisabled {
			next.Disabled = stored.Disabled
		}
		if len(wanted.AllowedNetworks) == 0 {
			next.AllowedNetworks = stored.AllowedNetworks
		}
		before = stored
	}
	secrets, err := a.secrets(wanted, next.Secrets, now)
	if err != nil {
		return nil, &ManifestError{wanted.ID, err}
	}
	next.Secrets = secrets
	change.Differences = before.differences(&next)
	if stored != nil {
		change.Action = changedOrLeft(change.Differences)
	}
	if a.DryRun {
		return []Change{change}, nil
	}
	if change.Action == Unchanged && next.Disabled && a.Confirm != nil {
		return []Change{change}, a.Confirm(ctx, wanted.ID)
	}
	if change.Action == Unchanged {
		return []Change{change}, nil
	}
	if err = a.Clients.SaveClient(ctx, &next); unmade(err) {
		return nil, err
	}
	return []Change{change}, err
}

// unmade reports whether the store did not make a change. One that too few of its replicas have yet it has made.
func unmade(err error) bool { return err != nil && !errors.Is(err, revocation.ErrNotReplicated) }

// secrets gives what becomes of the secrets that the client has.
func (a *Applier) secrets(wanted *ClientSpec, secrets []clientsecret.Secret, now time.Time) (_ []clientsecret.Secret, err error) {
	imported := make([]clientsecret.Secret, len(wanted.Hashes))
	for i, hash := range wanted.Hashes {
		imported[i] = clientsecret.Secret{ID: clientsecret.ImportID(hash), Hash: hash, CreatedAt: now, FromFile: true}
	}
	has := func(id string) func(clientsecret.Secret) bool {
		return func(s clientsecret.Secret) bool { return s.ID == id }
	}
	if wanted.Secret != "" && a.Hasher.Match(secrets, wanted.Secret, time.Time{}) < 0 {
		secrets = slices.DeleteFunc(slices.Clone(secrets), func(s clientsecret.Secret) bool {
			return s.FromFile && !slices.ContainsFunc(imported, has(s.ID))
		})
		added := clientsecret.Secret{ID: clientsecret.NewID(), Hash: a.Hasher.Hash(wanted.Secret, secrets...), CreatedAt: now, FromFile: true}
		if secrets, err = addSecret(secrets, added, now); err != nil {
			return nil, err
		}
	}
	for _, one := range imported {
		if slices.ContainsFunc(secrets, has(one.ID)) {
			continue
		}
		if secrets, err = addSecret(secrets, one, now); err != nil {
			return nil, err
		}
	}
	return secrets, nil
}

// pruneClients removes the clients that the manifest does not name.
func (a *Applier) pruneClients(ctx context.Context, m Manifest) ([]Change, error) {
	var changes []Change
	err := a.unnamed(ctx, m, func(c *Client) error {
		if err := a.Authority.Over(c); err != nil {
			return err
		}
		var err error
		if !a.DryRun {
			if err = a.Clients.DeleteClient(ctx, c.ID, c.Version); unmade(err) {
				return err
			}
		}
		changes = append(changes, Change{Removed, "client", c.ID.String(), c.differences(&Client{})})
		return err
	})
	return changes, err
}

// unnamed does something with each client that the manifest does not name.
func (a *Applier) unnamed(ctx context.Context, m Manifest, do func(*Client) error) error {
	const page = 500
	named := make(map[oauth.ClientID]bool, len(m.Clients))
	for i := range m.Clients {
		named[m.Clients[i].ID] = true
	}
	var after oauth.ClientID
	for {
		clients, err := a.Clients.Clients(ctx, after, page)
		if err != nil {
			return err
		}
		for _, c := range clients {
			after = c.ID
			if named[c.ID] {
				continue
			}
			if c.Newer {
				return fmt.Errorf("client %q: %w", c.ID, ErrNewer)
			}
			if err := do(c); err != nil {
				return err
			}
		}
		if len(clients) < page {
			return nil
		}
	}
}

func changedOrLeft(differences []FieldChange) Action {
	if len(differences) > 0 {
		return Changed
	}
	return Unchanged
}
