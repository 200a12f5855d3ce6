package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
)

// Manifest is what a person wants to be registered.
type Manifest struct {
	Resources []Resource
	Clients   []Wanted
}

// Wanted is a client that a person wants, with its one secret in the clear; empty for a client that gets none here.
type Wanted struct {
	Client
	Secret string
}

// WantedError says which client of a manifest is wrong, and how.
type WantedError struct {
	ID  oauth.ClientID
	Err error
}

func (e *WantedError) Error() string { return fmt.Sprintf("client %s: %v", e.ID, e.Err) }

// Unwrap gives the [FieldError].
func (e *WantedError) Unwrap() error { return e.Err }

// Action is what applying a manifest did, or would do, to one client or resource.
type Action string

// The actions.
const (
	Created Action = "created"
	Changed Action = "changed"
	Left    Action = "unchanged"
	Removed Action = "removed"
)

// Change is one line of the account of applying a manifest.
type Change struct {
	Action Action
	// Kind is "client" or "resource".
	Kind string
	ID   string
	// Fields names what differs, as on the wire; empty unless the Action is [Changed].
	Fields []string
}

// Applier makes what is registered equal to a manifest.
type Applier struct {
	Clients   ClientStore
	Resources ResourceStore
	Hasher    *Hasher
	// Algorithms are those that the issuer can sign with; empty where that is not known.
	Algorithms []jwks.Algorithm
	Now        func() time.Time
	// DryRun writes nothing.
	DryRun bool
	// Prune removes what the manifest does not name.
	Prune bool
}

// Apply checks the whole manifest and then makes each difference vanish; applying it again finds none. Changes of others
// meanwhile are not lost: the difference is then worked out anew. The account lists resources, then clients, in the order
// of the manifest, then what was removed. An error in the manifest, as [WantedError] or [ResourceError], comes before
// anything is written.
func (a *Applier) Apply(ctx context.Context, m Manifest) ([]Change, error) {
	if err := m.check(); err != nil {
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
			return &WantedError{id, &FieldError{"client_id", fmt.Sprintf("%q is there twice", id)}}
		}
		seen[id] = true
	}
	return nil
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
	var list []Resource
	var removed []Change
	for _, r := range stored.List() {
		if !a.Prune || slices.ContainsFunc(m.Resources, func(w Resource) bool { return w.ID == r.ID }) {
			list = append(list, r)
		} else {
			removed = append(removed, Change{Action: Removed, Kind: "resource", ID: r.ID.String()})
		}
	}
	var changes []Change
	for _, wanted := range m.Resources {
		if alg := wanted.SigningAlg; alg != "" && len(a.Algorithms) > 0 && !slices.Contains(a.Algorithms, alg) {
			return nil, &ResourceError{wanted.ID, &FieldError{"signing_alg", fmt.Sprintf("the issuer has no key for %s; add it to signing-algorithms first", alg)}}
		}
		change := Change{Action: Created, Kind: "resource", ID: wanted.ID.String()}
		if i := slices.IndexFunc(list, func(r Resource) bool { return r.ID == wanted.ID }); i >= 0 {
			change.Fields = list[i].differences(&wanted)
			change.Action = changedOrLeft(change.Fields)
			list[i] = wanted
		} else {
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
			return nil, &WantedError{m.Clients[i].ID, err}
		}
	}
	if a.DryRun || !slices.ContainsFunc(changes, func(c Change) bool { return c.Action != Left }) {
		return changes, nil
	}
	if err := a.Resources.SaveResources(ctx, table); err != nil {
		return nil, err
	}
	return changes, nil
}

// applyClient creates the client or changes what differs.
func (a *Applier) applyClient(ctx context.Context, wanted *Wanted) ([]Change, error) {
	change := Change{Action: Created, Kind: "client", ID: wanted.ID.String()}
	now := a.Now()
	next := wanted.Client
	next.CreatedAt, next.ChangedAt = now, now
	stored, err := a.Clients.Client(ctx, wanted.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		next.Secrets = a.secrets(wanted.Secret, now)
	case err != nil:
		return nil, err
	default:
		next.Version, next.CreatedAt, next.Secrets = stored.Version, stored.CreatedAt, stored.Secrets
		change.Fields = stored.differences(&next)
		if wanted.Secret != "" && !a.current(stored, wanted.Secret, now) {
			next.Secrets = a.secrets(wanted.Secret, now)
			change.Fields = append(change.Fields, "client_secret")
		}
		change.Action = changedOrLeft(change.Fields)
	}
	if !a.DryRun && change.Action != Left {
		if err := a.Clients.SaveClient(ctx, &next); err != nil {
			return nil, err
		}
	}
	return []Change{change}, nil
}

// secrets makes the one secret that a manifest gives a client.
func (a *Applier) secrets(secret string, now time.Time) []Secret {
	if secret == "" {
		return nil
	}
	return []Secret{{ID: "1", Hash: a.Hasher.Hash(secret), CreatedAt: now}}
}

// current reports whether secret is one that the client has already.
func (a *Applier) current(client *Client, secret string, now time.Time) bool {
	return slices.ContainsFunc(client.Secrets, func(s Secret) bool {
		return !s.Expired(now) && a.Hasher.Matches(s.Hash, secret)
	})
}

// pruneClients removes the clients that the manifest does not name.
func (a *Applier) pruneClients(ctx context.Context, m Manifest) ([]Change, error) {
	const page = 500
	keep := make(map[oauth.ClientID]bool, len(m.Clients))
	for i := range m.Clients {
		keep[m.Clients[i].ID] = true
	}
	var changes []Change
	var after oauth.ClientID
	for {
		clients, err := a.Clients.Clients(ctx, after, page)
		if err != nil {
			return changes, err
		}
		for _, c := range clients {
			after = c.ID
			if keep[c.ID] {
				continue
			}
			if !a.DryRun {
				if err := a.Clients.DeleteClient(ctx, c.ID, c.Version); err != nil {
					return changes, err
				}
			}
			changes = append(changes, Change{Action: Removed, Kind: "client", ID: c.ID.String()})
		}
		if len(clients) < page {
			return changes, nil
		}
	}
}

func changedOrLeft(fields []string) Action {
	if len(fields) > 0 {
		return Changed
	}
	return Left
}

// differences names the fields in which wanted is another, secrets aside.
func (c *Client) differences(wanted *Client) []string {
	return differing([]comparison{
		{"client_name", c.Name == wanted.Name},
		{"auth_methods", slices.Equal(c.AuthMethods, wanted.AuthMethods)},
		{"grant_types", slices.Equal(c.GrantTypes, wanted.GrantTypes)},
		{"scopes", slices.Equal(c.Scopes, wanted.Scopes)},
		{"default_scopes", slices.Equal(c.DefaultScopes, wanted.DefaultScopes)},
		{"resources", slices.Equal(c.Resources, wanted.Resources)},
		{"access_token_lifetime", c.AccessTokenLifetime == wanted.AccessTokenLifetime},
		{"disabled", c.Disabled == wanted.Disabled},
	})
}

// differences names the fields in which wanted is another.
func (r *Resource) differences(wanted *Resource) []string {
	return differing([]comparison{
		{"name", r.Name == wanted.Name},
		{"scopes", slices.Equal(r.Scopes, wanted.Scopes)},
		{"access_token_lifetime", r.AccessTokenLifetime == wanted.AccessTokenLifetime},
		{"signing_alg", r.SigningAlg == wanted.SigningAlg},
	})
}

type comparison struct {
	field string
	equal bool
}

func differing(fields []comparison) []string {
	var names []string
	for _, f := range fields {
		if !f.equal {
			names = append(names, f.field)
		}
	}
	return names
}
