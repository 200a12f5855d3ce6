package registry

import (
	"context"
	"errors"
	"slices"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// WorkloadClient returns the client with the ID that the workload makes. stored is what is stored to restrict it; nil if nothing
// is.
func WorkloadClient(w *trust.Workload, id oauth.ClientID, stored *Client) *Client {
	c := &Client{
		ID: id, Workload: true, GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: w.Scopes, DefaultScopes: w.DefaultScopes,
		AccessTokenLifetime: w.AccessTokenLifetime,
	}
	if stored == nil {
		return c
	}
	c.Name, c.Disabled, c.AllowedNetworks = stored.Name, stored.Disabled, stored.AllowedNetworks
	c.CreatedAt, c.ChangedAt, c.Version = stored.CreatedAt, stored.ChangedAt, stored.Version
	if own := stored.AccessTokenLifetime; own != 0 && (c.AccessTokenLifetime == 0 || own < c.AccessTokenLifetime) {
		c.AccessTokenLifetime = own
	}
	return c
}

// resolve returns the client with the ID, given the stored one or the error of reading it: one that a workload makes has its
// scopes from there. table is called only if the ID is not that of a registered client.
func resolve(id oauth.ClientID, stored *Client, err error, table func() (*trust.Table, error)) (*Client, error) {
	missing := errors.Is(err, ErrNotFound)
	if !missing && (err != nil || !stored.Workload) {
		return stored, err
	}
	trusted, tableErr := table()
	if tableErr != nil {
		return nil, tableErr
	}
	if w, ok := trusted.Workload(id); ok {
		if missing {
			stored = nil
		}
		return WorkloadClient(w, id, stored), nil
	}
	return stored, err
}

// Lookup returns the client with the ID, which is registered or made by a workload; otherwise [ErrNotFound].
func (d *Directory) Lookup(ctx context.Context, id oauth.ClientID) (*Client, error) {
	stored, err := d.Client(ctx, id)
	return resolve(id, stored, err, func() (*trust.Table, error) { return d.Trust(ctx) })
}

// effective returns a client as it is with what a workload gives it.
func (e *Editor) effective(ctx context.Context, c *Client) (*Client, error) {
	return resolve(c.ID, c, nil, func() (*trust.Table, error) { return e.config.Trust.Trust(ctx) })
}

// restrictable returns the stored client, or an empty restriction of the client with the ID that a workload makes.
func (e *Editor) restrictable(ctx context.Context, id oauth.ClientID) (*Client, error) {
	stored, err := e.config.Clients.Client(ctx, id)
	if !errors.Is(err, ErrNotFound) {
		return stored, err
	}
	made, err := e.Client(ctx, id)
	if err != nil {
		return nil, err
	}
	return &Client{ID: made.ID, Workload: true, CreatedAt: e.now()}, nil
}

// restrict calls change with a client that a workload makes, and makes of the result what is stored of it: what the workload
// gives the client is left out.
func (e *Editor) restrict(ctx context.Context, next *Client, change func(*Client) error) error {
	whole, err := e.effective(ctx, next)
	if err != nil {
		return err
	}
	changed := whole.clone()
	if err := change(changed); err != nil {
		return err
	}
	own := next.AccessTokenLifetime
	*next = *changed
	if !next.Workload {
		return nil
	}
	for _, given := range [...]struct {
		now, before []string
		clear       func()
	}{
		{changed.Scopes.Strings(), whole.Scopes.Strings(), func() { next.Scopes = nil }},
		{changed.DefaultScopes.Strings(), whole.DefaultScopes.Strings(), func() { next.DefaultScopes = nil }},
		{changed.GrantTypes, whole.GrantTypes, func() { next.GrantTypes = nil }},
	} {
		if slices.Equal(given.now, given.before) {
			given.clear()
		}
	}
	if changed.AccessTokenLifetime == whole.AccessTokenLifetime {
		next.AccessTokenLifetime = own
	}
	return nil
}
