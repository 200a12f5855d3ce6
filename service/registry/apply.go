package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/revocation"
)

// ApplyOptions are the options of [Editor.Apply].
type ApplyOptions struct {
	// DryRun computes the changes without writing them.
	DryRun bool
	// Prune removes the clients, resources, trusted issuers and workloads that the manifest does not list. PruneResources
	// removes resources only, and PruneTrust trusted issuers and workloads only.
	Prune, PruneResources, PruneTrust bool
}

// Apply validates the whole manifest and then makes the registry equal to it; applying it again changes nothing. It does
// not undo concurrent changes by others: after a conflict it computes the difference again. It returns the changes of
// resources, then of trusted issuers, workloads and clients, each in the order of the manifest and followed by what was removed.
// Errors in the manifest, as [ManifestError], [ResourceError] or [trust.EntryError], and a [ForbiddenError] are returned before
// anything is written. The one exception is a client that has no room for another secret, which is reported as a
// [ManifestError] in its turn. The authority of the Editor must cover every client that the manifest lists, even one that
// does not change.
//
// A secret in the manifest replaces those that earlier manifests set, and leaves those that were added individually. A
// secret that the client has already, even if it has expired, changes nothing: an old manifest does not restore what was
// rotated away. Without a secret in the manifest, all stay as they are.
func (e *Editor) Apply(ctx context.Context, m Manifest, options ApplyOptions) ([]Change, error) {
	a := &application{Editor: e, manifest: m, options: options}
	if err := m.Check(); err != nil {
		return nil, err
	}
	if err := a.authorize(ctx); err != nil {
		return nil, err
	}
	steps := []func() ([]Change, error){
		func() ([]Change, error) { return a.applyResources(ctx) },
		func() ([]Change, error) { return a.applyTrust(ctx) },
	}
	for i := range m.Clients {
		steps = append(steps, func() ([]Change, error) { return a.applyClient(ctx, &m.Clients[i]) })
	}
	if options.Prune {
		steps = append(steps, func() ([]Change, error) { return a.pruneClients(ctx) })
	}
	var changes []Change
	for _, step := range steps {
		err := retry(func() error {
			made, err := step()
			changes = append(changes, made...)
			return err
		})
		if err != nil {
			return changes, err
		}
	}
	return changes, nil
}

// application is one application of a manifest.
type application struct {
	*Editor

	manifest Manifest
	options  ApplyOptions
	// resources are the resources that the manifest makes; nil until they have been checked.
	resources *Resources
}

// authorize checks the authority over every client that the manifest affects, both as stored and as specified.
func (a *application) authorize(ctx context.Context) error {
	if a.authority.unlimited {
		return nil
	}
	for i := range a.manifest.Clients {
		spec := &a.manifest.Clients[i].Client
		if err := a.Authorize(ctx, spec); err != nil {
			return err
		}
		stored, err := a.config.Clients.Client(ctx, spec.ID)
		if errors.Is(err, ErrNotFound) {
			if err := a.authorizeNew(ctx, spec); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := a.Authorize(ctx, stored); err != nil {
			return err
		}
	}
	if !a.options.Prune {
		return nil
	}
	return a.forEachUnlisted(ctx, func(c *Client) error { return a.Authorize(ctx, c) })
}

// applyResources stores the table of resources in one write, if it differs, and checks the clients against it.
func (a *application) applyResources(ctx context.Context) ([]Change, error) {
	stored, err := a.config.Resources.Resources(ctx)
	if err != nil {
		return nil, err
	}
	list, changes, err := a.mergeResources(stored.List())
	if err != nil {
		return nil, err
	}
	table, err := NewResources(stored.Version(), list)
	if err != nil {
		return nil, err
	}
	for i := range a.manifest.Clients {
		spec := &a.manifest.Clients[i]
		if err := cmp.Or(spec.Check(table), a.checkTokenSize(&spec.Client, table)); err != nil {
			return nil, &ManifestError{spec.ID, err}
		}
	}
	if err := a.checkTrust(ctx, table); err != nil {
		return nil, err
	}
	if a.options.DryRun || !slices.ContainsFunc(changes, func(c Change) bool { return c.Action != Unchanged }) {
		return changes, nil
	}
	if err := a.config.Resources.SaveResources(ctx, table); err != nil {
		return nil, err
	}
	return changes, nil
}

// mergeResources returns the resources that should be stored, and how they differ from those that are.
func (a *application) mergeResources(stored []Resource) (list []Resource, changes []Change, err error) {
	prune := a.options.Prune || a.options.PruneResources
	var removed []Change
	for _, r := range stored {
		if !prune || slices.ContainsFunc(a.manifest.Resources, func(spec Resource) bool { return spec.ID == r.ID }) {
			list = append(list, r)
		} else {
			removed = append(removed, Change{Removed, "resource", r.ID.String(), r.changes(&Resource{})})
		}
	}
	for _, spec := range a.manifest.Resources {
		if err := spec.check(a.config.Algorithms); err != nil {
			return nil, nil, &ResourceError{spec.ID, err}
		}
		change := Change{Created, "resource", spec.ID.String(), nil}
		if i := slices.IndexFunc(list, func(r Resource) bool { return r.ID == spec.ID }); i >= 0 {
			change.Differences = list[i].changes(&spec)
			change.Action = changedOrUnchanged(change.Differences)
			list[i] = spec
		} else {
			change.Differences = new(Resource).changes(&spec)
			list = append(list, spec)
		}
		changes = append(changes, change)
	}
	return list, append(changes, removed...), nil
}

// applyClient creates the client, or changes the fields that differ.
func (a *application) applyClient(ctx context.Context, spec *ClientSpec) ([]Change, error) {
	stored, err := a.config.Clients.Client(ctx, spec.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		stored = nil
	case err != nil:
		return nil, err
	default:
		// The client may have changed since the manifest was authorized.
		if err := a.Authorize(ctx, stored); err != nil {
			return nil, err
		}
	}
	next, err := a.merge(spec, stored)
	if err != nil {
		return nil, err
	}
	change := Change{Action: Created, Kind: "client", ID: spec.ID.String()}
	if stored == nil {
		change.Differences = new(Client).changes(next)
	} else {
		change.Differences = stored.changes(next)
		change.Action = changedOrUnchanged(change.Differences)
	}
	switch {
	case a.options.DryRun:
		return []Change{change}, nil
	case change.Action == Unchanged && next.Disabled:
		return []Change{change}, a.Confirm(ctx, spec.ID)
	case change.Action == Unchanged:
		return []Change{change}, nil
	}
	if err = a.config.Clients.SaveClient(ctx, next); notApplied(err) {
		return nil, err
	}
	return []Change{change}, err
}

// merge returns the client that should be stored. stored is nil if there is none yet.
func (a *application) merge(spec *ClientSpec, stored *Client) (*Client, error) {
	now := a.now()
	next := spec.Client
	next.CreatedAt, next.ChangedAt, next.Version, next.Secrets = now, now, 0, nil
	if stored != nil {
		next.CreatedAt, next.Version, next.Secrets = stored.CreatedAt, stored.Version, stored.Secrets
		for i := range clientFields {
			if f := &clientFields[i]; f.omitted != nil && f.omitted(spec) {
				f.copy(&next, stored)
			}
		}
	}
	secrets, err := a.mergeSecrets(spec, next.Secrets, now)
	if err != nil {
		return nil, &ManifestError{spec.ID, err}
	}
	next.Secrets = secrets
	return &next, nil
}

// mergeSecrets returns the secrets that the client should have, given those that are stored.
func (a *application) mergeSecrets(spec *ClientSpec, secrets []clientsecret.Secret, now time.Time) (_ []clientsecret.Secret, err error) {
	imported := make([]clientsecret.Secret, len(spec.Hashes))
	for i, hash := range spec.Hashes {
		imported[i] = clientsecret.Secret{ID: clientsecret.ImportID(hash), Hash: hash, CreatedAt: now, FromFile: true}
	}
	hasID := func(id string) func(clientsecret.Secret) bool {
		return func(s clientsecret.Secret) bool { return s.ID == id }
	}
	if spec.Secret != "" && a.config.Hasher.Match(secrets, spec.Secret, time.Time{}) < 0 {
		secrets = slices.DeleteFunc(slices.Clone(secrets), func(s clientsecret.Secret) bool {
			return s.FromFile && !slices.ContainsFunc(imported, hasID(s.ID))
		})
		added := clientsecret.Secret{
			ID: clientsecret.NewID(), Hash: a.config.Hasher.Hash(spec.Secret, secrets...), CreatedAt: now, FromFile: true,
		}
		if secrets, err = addSecret(secrets, added, now); err != nil {
			return nil, err
		}
	}
	for _, added := range imported {
		if slices.ContainsFunc(secrets, hasID(added.ID)) {
			continue
		}
		if secrets, err = addSecret(secrets, added, now); err != nil {
			return nil, err
		}
	}
	return secrets, nil
}

// pruneClients removes the clients that the manifest does not list.
func (a *application) pruneClients(ctx context.Context) ([]Change, error) {
	var changes []Change
	err := a.forEachUnlisted(ctx, func(c *Client) error {
		if err := a.Authorize(ctx, c); err != nil {
			return err
		}
		var err error
		if !a.options.DryRun {
			if err = a.config.Clients.DeleteClient(ctx, c.ID, c.Version); notApplied(err) {
				return err
			}
		}
		changes = append(changes, Change{Removed, "client", c.ID.String(), c.changes(&Client{})})
		return err
	})
	return changes, err
}

// forEachUnlisted calls fn for each registered client that the manifest does not list. What is stored of clients that a workload
// makes is not a registration.
func (a *application) forEachUnlisted(ctx context.Context, fn func(*Client) error) error {
	const pageSize = 500
	listed := make(map[oauth.ClientID]bool, len(a.manifest.Clients))
	for i := range a.manifest.Clients {
		listed[a.manifest.Clients[i].ID] = true
	}
	var after oauth.ClientID
	for {
		clients, err := a.config.Clients.Clients(ctx, after, pageSize)
		if err != nil {
			return err
		}
		for _, c := range clients {
			after = c.ID
			// A manifest must not accidentally lift a restriction that was made in an emergency.
			if listed[c.ID] || c.Workload {
				continue
			}
			if c.Err != nil {
				return fmt.Errorf("client %q: %w", c.ID, c.Err)
			}
			if err := fn(c); err != nil {
				return err
			}
		}
		if len(clients) < pageSize {
			return nil
		}
	}
}

// notApplied reports whether a write was not applied. [revocation.ErrNotReplicated] means that it was.
func notApplied(err error) bool { return err != nil && !errors.Is(err, revocation.ErrNotReplicated) }

func changedOrUnchanged(changes []FieldChange) Action {
	if len(changes) > 0 {
		return Changed
	}
	return Unchanged
}
