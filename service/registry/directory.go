package registry

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// Directory caches the clients, the resources and the trust table of a store, so that a repeated request reads nothing.
// Concurrent misses of the same entry share one read. The Forget methods invalidate what has changed in the store; a read
// that an invalidation overtakes is not cached. A Directory is safe for concurrent use by multiple goroutines.
type Directory struct {
	clientStore   ClientStore
	resourceStore ResourceStore
	trustStore    TrustStore
	size          int
	caches        atomic.Pointer[caches]
	hits, misses  atomic.Uint64
}

// caches are the caches of a directory. They are replaced as one, so that reads in progress are dropped with them.
type caches struct {
	// clients maps an id to its client, or to nil if no client has the id.
	clients   *otter.Cache[oauth.ClientID, *Client]
	resources *otter.Cache[struct{}, *Resources]
	trust     *otter.Cache[struct{}, *trust.Table]
}

// NewDirectory returns a directory that caches at most size clients; size must be positive.
func NewDirectory(clients ClientStore, resources ResourceStore, trusted TrustStore, size int) *Directory {
	d := &Directory{clientStore: clients, resourceStore: resources, trustStore: trusted, size: size}
	d.ForgetAll()
	return d
}

// Client returns the client with the id, or [ErrNotFound].
func (d *Directory) Client(ctx context.Context, id oauth.ClientID) (*Client, error) {
	clients := d.caches.Load().clients
	client, ok := clients.GetIfPresent(id)
	if ok {
		d.hits.Add(1)
	} else {
		d.misses.Add(1)
		var err error
		client, err = clients.Get(ctx, id, otter.LoaderFunc[oauth.ClientID, *Client](d.loadClient))
		if err != nil {
			return nil, err
		}
	}
	if client == nil {
		return nil, ErrNotFound
	}
	return client, nil
}

// Lookups returns how many clients were found in the cache, including ids known to be unused, and how many were not.
func (d *Directory) Lookups() (hits, misses uint64) { return d.hits.Load(), d.misses.Load() }

func (d *Directory) loadClient(ctx context.Context, id oauth.ClientID) (*Client, error) {
	client, err := d.clientStore.Client(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return client, err
}

// Resources returns the table of all resources.
func (d *Directory) Resources(ctx context.Context) (*Resources, error) {
	resources := d.caches.Load().resources
	if table, ok := resources.GetIfPresent(struct{}{}); ok {
		return table, nil
	}
	return resources.Get(ctx, struct{}{}, otter.LoaderFunc[struct{}, *Resources](
		func(ctx context.Context, _ struct{}) (*Resources, error) { return d.resourceStore.Resources(ctx) }))
}

// Trust returns the table of all trusted issuers and workloads.
func (d *Directory) Trust(ctx context.Context) (*trust.Table, error) {
	tables := d.caches.Load().trust
	if table, ok := tables.GetIfPresent(struct{}{}); ok {
		return table, nil
	}
	return tables.Get(ctx, struct{}{}, otter.LoaderFunc[struct{}, *trust.Table](
		func(ctx context.Context, _ struct{}) (*trust.Table, error) { return d.trustStore.Trust(ctx) }))
}

// ForgetClient invalidates the cached client with the id.
func (d *Directory) ForgetClient(id oauth.ClientID) { d.caches.Load().clients.Invalidate(id) }

// ForgetResources invalidates the cached resources.
func (d *Directory) ForgetResources() { d.caches.Load().resources.Invalidate(struct{}{}) }

// ForgetTrust invalidates the cached trusted issuers and workloads.
func (d *Directory) ForgetTrust() { d.caches.Load().trust.Invalidate(struct{}{}) }

// ForgetAll invalidates everything, for when changes may have been missed. Reads in progress fill the discarded caches.
func (d *Directory) ForgetAll() {
	d.caches.Store(&caches{
		clients:   otter.Must(&otter.Options[oauth.ClientID, *Client]{MaximumSize: d.size}),
		resources: otter.Must(&otter.Options[struct{}, *Resources]{MaximumSize: 1}),
		trust:     otter.Must(&otter.Options[struct{}, *trust.Table]{MaximumSize: 1}),
	})
}
