package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

func (s *Store) clientKey(id oauth.ClientID) string { return s.key("client:" + id.String()) }

// Client implements [registry.ClientStore].
func (s *Store) Client(ctx context.Context, id oauth.ClientID) (*registry.Client, error) {
	data, version, err := s.loadRecord(ctx, "client", s.clientKey(id))
	switch {
	case err != nil:
		return nil, err
	case data == nil:
		return nil, registry.ErrNotFound
	}
	client, err := decodeClient(id.String(), data, version)
	if err != nil {
		s.report("client", s.clientKey(id), "", err)
	}
	return client, err
}

// list returns id, version, data and MAC of the clients from an id on, atomically, so that a concurrent change hides none. A
// key of another type than hash counts as a record without a version.
//
// KEYS: index
// ARGV: the first id in the syntax of ZRANGE, count, the prefix of a client's key.
var list = redis.NewScript(`
local found = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[1], '+', 'BYLEX', 'LIMIT', 0, ARGV[2])) do
  local record = redis.pcall('HMGET', ARGV[3] .. id, 'v', 'd', 'm')
  if record.err then record = {'', record.err, ''} end
  found[#found + 1] = id
  found[#found + 1] = record[1] or ''
  found[#found + 1] = record[2] or ''
  found[#found + 1] = record[3] or ''
end
return found
`)

// Listed is one entry in the list of clients: the client, or the error that makes it unusable.
type Listed struct {
	ID     string
	Client *registry.Client
	Err    error
}

// List returns up to limit clients whose ids follow after, in byte order; an empty id precedes all. Unlike Clients, it is
// for checking the records: one that is not intact does not hide the others.
func (s *Store) List(ctx context.Context, after string, limit int) ([]Listed, error) {
	if _, err := s.authenticator(); err != nil {
		return nil, err
	}
	start := "-"
	if after != "" {
		// The smallest id that follows. Redis would accept "(" + id, but the embedded one parses "(-" as "-", the very first.
		start = "[" + after + "\x00"
	}
	found, err := list.Run(ctx, s.client, []string{s.key("clients")}, start, limit, s.key("client:")).StringSlice()
	if err != nil {
		return nil, err
	}
	entries := make([]Listed, 0, len(found)/4)
	for f := range slices.Chunk(found, 4) {
		client, err := s.listed(f[0], stored{f[1], []byte(f[2]), []byte(f[3])})
		if err != nil {
			s.report("client", s.key("client:"+f[0]), "", err)
		}
		entries = append(entries, Listed{f[0], client, err})
	}
	return entries, nil
}

func (s *Store) listed(id string, r stored) (*registry.Client, error) {
	if r.empty() {
		return nil, fmt.Errorf("the client %q is listed, but has no record", id)
	}
	version, err := s.verify(s.key("client:"+id), r)
	if err != nil {
		return nil, err
	}
	return decodeClient(id, r.data, version)
}

// Clients implements [registry.ClientStore].
func (s *Store) Clients(ctx context.Context, after oauth.ClientID, limit int) ([]*registry.Client, error) {
	clients := make([]*registry.Client, 0, limit)
	for last := after.String(); len(clients) < limit; {
		want := limit - len(clients)
		entries, err := s.List(ctx, last, want)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			last = entry.ID
			client := entry.Client
			if entry.Err != nil {
				id, err := oauth.ParseClientID(entry.ID)
				if err != nil {
					continue // no client can have this id, and List has reported it
				}
				client = &registry.Client{ID: id, Err: entry.Err}
			}
			clients = append(clients, client)
		}
		if len(entries) < want {
			break
		}
	}
	return clients, nil
}

// SaveClient implements [registry.ClientStore].
func (s *Store) SaveClient(ctx context.Context, c *registry.Client) error {
	data, err := json.Marshal(encodeClient(c))
	if err != nil {
		return err
	}
	id := c.ID.String()
	w := write{
		key: s.clientKey(c.ID), version: c.Version, data: data, id: id, index: s.key("clients"),
		announce: []announcement{{kind: revocation.ClientChanged, id: id}},
	}
	if c.Disabled {
		w.announce = append(w.announce, announcement{revocation.ClientRevoked, id, "now"})
	}
	return conflict(s.write(ctx, w), registry.ErrConflict)
}

// DeleteClient implements [registry.ClientStore].
func (s *Store) DeleteClient(ctx context.Context, id oauth.ClientID, version uint64) error {
	return conflict(s.write(ctx, write{
		key: s.clientKey(id), version: version, id: id.String(), index: s.key("clients"),
		announce: []announcement{{kind: revocation.ClientChanged, id: id.String()}, {revocation.ClientRevoked, id.String(), "now"}},
	}), registry.ErrConflict)
}

// Resources implements [registry.ResourceStore].
func (s *Store) Resources(ctx context.Context) (*registry.Resources, error) {
	data, version, err := s.loadRecord(ctx, "resources", s.key("resources"))
	if err != nil {
		return nil, err
	}
	if data == nil {
		return registry.NewResources(0, nil)
	}
	table, err := decodeResources(data, version)
	if err != nil {
		s.report("resources", s.key("resources"), "", err)
	}
	return table, err
}

// decodeResources decodes the table of resources. Anything that does not parse fails the table as a whole, which is one
// record with one MAC: a table without one of its resources could be saved in that form, and would lose that resource.
func decodeResources(data []byte, version uint64) (_ *registry.Resources, err error) {
	var stored resourcesRecord
	if err := decode("table of resources", data, &stored, &stored.Format, resourcesFormat); err != nil {
		return nil, err
	}
	list := make([]registry.Resource, len(stored.List))
	for i, r := range stored.List {
		if stored.Format < 2 && r.Binding != "" {
			return nil, fmt.Errorf("the stored resource %q has require_bound_tokens, which the format of its table lacks", r.ID)
		}
		if list[i], err = decodeResource(r); err != nil {
			return nil, fmt.Errorf("the stored resource %q: %w", r.ID, err)
		}
	}
	return registry.NewResources(version, list)
}

// SaveResources implements [registry.ResourceStore].
func (s *Store) SaveResources(ctx context.Context, r *registry.Resources) error {
	record := resourcesRecord{Format: 1, List: []resourceRecord{}}
	for _, resource := range r.List() {
		if resource.RequireBoundTokens != "" {
			record.Format = 2
		}
		record.List = append(record.List, encodeResource(resource))
	}
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return conflict(s.write(ctx, write{
		key: s.key("resources"), version: r.Version(), data: data, announce: []announcement{{kind: revocation.ResourcesChanged}},
	}), registry.ErrConflict)
}

// LoadRing implements [keys.Store].
func (s *Store) LoadRing(ctx context.Context) ([]byte, uint64, error) {
	r, err := s.load(ctx, s.key("ring"))
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, 0, fmt.Errorf("the record %s: %w: it is not a hash", s.key("ring"), ErrRing)
	}
	if err != nil || r.empty() {
		return nil, 0, err
	}
	version, err := parseVersion(r.version)
	if err != nil {
		return nil, 0, fmt.Errorf("the record %s: %w: %w", s.key("ring"), ErrRing, err)
	}
	return r.data, version, nil
}

// ErrRing means that the key ring cannot be read: another program has altered it.
var ErrRing = errors.New("unreadable")

// SaveRing implements [keys.Store].
func (s *Store) SaveRing(ctx context.Context, document []byte, version uint64, revoked ...string) error {
	w := write{key: s.key("ring"), version: version, data: document, sealed: true, announce: []announcement{{kind: revocation.RingChanged}}}
	for _, id := range revoked {
		w.announce = append(w.announce, announcement{revocation.KeyRevoked, id, "now"})
	}
	return conflict(s.write(ctx, w), keys.ErrConflict)
}

// conflict returns the domain's error for a stale version.
func conflict(err, domain error) error {
	if errors.Is(err, errStale) {
		return domain
	}
	return err
}
