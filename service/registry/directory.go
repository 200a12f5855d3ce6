package registry

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/grantorhq/grantor/service/oauth"
)

// Directory answers from memory what a store keeps, so that a request which was seen before reads nothing. A miss is one
// read, joined by whoever misses the same. Whoever hears of a change tells the directory to forget; a read that a
// change overtakes is not kept. It may be used by several goroutines.
type Directory struct {
	clientStore   ClientStore
	resourceStore ResourceStore
	size          int
	kept          atomic.Pointer[kept]
	hits, misses  atomic.Uint64
}

// kept is all that is remembered, so that it can be dropped as one, reads under way included.
type kept struct {
	// clients has id → client, or nil for an id that no client has.
	clients   *otter.Cache[oauth.ClientID, *Client]
	resources *otter.Cache[struct{}, *Resources]
}

// NewDirectory makes a directory that remembers at most size clients, which is more than zero.
func NewDirectory(clients ClientStore, resources ResourceStore, size int) *Directory {
	d := &Directory{clientStore: clients, resourceStore: resources, size: size}
	d.ForgetAll()
	return d
}

// Client gives the client with the id, or [ErrNotFound].
func (d *Directory) Client(ctx context.Context, id oauth.ClientID) (*Client, error) {
	clients := d.kept.Load().clients
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

// Lookups counts the clients that were found in memory, those known not to exist among them, and those that were not.
func (d *Directory) Lookups() (hits, misses uint64) { return d.hits.Load(), d.misses.Load() }

func (d *Directory) loadClient(ctx context.Context, id oauth.ClientID) (*Client, error) {
	client, err := d.clientStore.Client(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return client, err
}

// Resources gives all resources.
func (d *Directory) Resources(ctx context.Context) (*Resources, error) {
	resources := d.kept.Load().resources
	if table, ok := resources.GetIfPresent(struct{}{}); ok {
		return table, nil
	}
	return resources.Get(ctx, struct{}{}, otter.LoaderFunc[struct{}, *Resources](
		func(ctx context.Context, _ struct{}) (*Resources, error) { return d.resourceStore.Resources(ctx) }))
}

// ForgetClient drops what is remembered of a client.
func (d *Directory) ForgetClient(id oauth.ClientID) { d.kept.Load().clients.Invalidate(id) }

// ForgetResources drops the resources.
func (d *Directory) ForgetResources() { d.kept.Load().resources.Invalidate(struct{}{}) }

// ForgetAll drops everything: for when changes may have been missed. Reads under way fill what nobody looks at any more.
func (d *Directory) ForgetAll() {
	d.kept.Store(&kept{
		clients:   otter.Must(&otter.Options[oauth.ClientID, *Client]{MaximumSize: d.size}),
		resources: otter.Must(&otter.Options[struct{}, *Resources]{MaximumSize: 1}),
	})
}
