package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// clientRecord is a client as it is stored. Times are Unix seconds, lifetimes seconds; zero is none.
type clientRecord struct {
	Format        int            `json:"format"`
	ID            string         `json:"client_id"`
	Name          string         `json:"client_name,omitempty"`
	Secrets       []secretRecord `json:"secrets,omitempty"`
	AuthMethods   []string       `json:"auth_methods,omitempty"`
	GrantTypes    []string       `json:"grant_types,omitempty"`
	Scopes        string         `json:"scope,omitempty"`
	DefaultScopes string         `json:"default_scope,omitempty"`
	Resources     []string       `json:"resources,omitempty"`
	Lifetime      int64          `json:"access_token_lifetime,omitempty"`
	Networks      []string       `json:"allowed_networks,omitempty"`
	Disabled      bool           `json:"disabled,omitempty"`
	CreatedAt     int64          `json:"created_at"`
	ChangedAt     int64          `json:"changed_at"`
}

type secretRecord struct {
	ID        string `json:"id"`
	Hash      string `json:"hash"`
	CreatedAt int64  `json:"created_at"`
	ExpiresAt int64  `json:"expires_at,omitempty"`
	FromFile  bool   `json:"from_file,omitempty"`
}

// resourcesRecord is the table of resources as it is stored.
type resourcesRecord struct {
	Format int              `json:"format"`
	List   []resourceRecord `json:"resources"`
}

type resourceRecord struct {
	ID         string `json:"resource"`
	Name       string `json:"name,omitempty"`
	Scopes     string `json:"scope,omitempty"`
	Lifetime   int64  `json:"access_token_lifetime,omitempty"`
	SigningAlg string `json:"signing_alg,omitempty"`
}

func (s *Store) clientKey(id oauth.ClientID) string { return s.key("client:" + id.String()) }

// Client implements [registry.ClientStore].
func (s *Store) Client(ctx context.Context, id oauth.ClientID) (*registry.Client, error) {
	data, version, err := s.loadRecord(ctx, s.clientKey(id))
	switch {
	case err != nil:
		return nil, err
	case data == nil:
		return nil, registry.ErrNotFound
	}
	return decodeClient(id.String(), data, version)
}

// list gives id, version, data and MAC of the clients after an id, in one step, so that none is missed by a change meanwhile.
//
// KEYS: index
// ARGV: the least id in ZRANGE's form, count, the start of a client's key.
var list = redis.NewScript(`
local found = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[1], '+', 'BYLEX', 'LIMIT', 0, ARGV[2])) do
  local record = redis.call('HMGET', ARGV[3] .. id, 'v', 'd', 'm')
  found[#found + 1] = id
  found[#found + 1] = record[1] or ''
  found[#found + 1] = record[2] or ''
  found[#found + 1] = record[3] or ''
end
return found
`)

// Listed is one entry in the list of clients: the client, or why it cannot be used.
type Listed struct {
	ID     string
	Client *registry.Client
	Err    error
}

// List gives up to limit clients after an id, in byte order; empty is before the first. It is for who looks whether the
// records are in order: one that is not does not hide the others.
func (s *Store) List(ctx context.Context, after string, limit int) ([]Listed, error) {
	if _, err := s.authenticator(); err != nil {
		return nil, err
	}
	start := "-"
	if after != "" {
		// The least id after it. "(" + id would do for Redis; the embedded one takes "(-" for "-", the very first.
		start = "[" + after + "\x00"
	}
	found, err := list.Run(ctx, s.client, []string{s.key("clients")}, start, limit, s.key("client:")).StringSlice()
	if err != nil {
		return nil, err
	}
	entries := make([]Listed, 0, len(found)/4)
	for f := range slices.Chunk(found, 4) {
		client, err := s.listed(f[0], stored{f[1], []byte(f[2]), []byte(f[3])})
		entries = append(entries, Listed{f[0], client, err})
	}
	return entries, nil
}

func (s *Store) listed(id string, r stored) (*registry.Client, error) {
	if r.empty() {
		return nil, fmt.Errorf("the client %q is listed but not there", id)
	}
	version, err := s.verify(s.key("client:"+id), r)
	if err != nil {
		return nil, err
	}
	return decodeClient(id, r.data, version)
}

// Clients implements [registry.ClientStore].
func (s *Store) Clients(ctx context.Context, after oauth.ClientID, limit int) ([]*registry.Client, error) {
	entries, err := s.List(ctx, after.String(), limit)
	if err != nil {
		return nil, err
	}
	clients := make([]*registry.Client, 0, len(entries))
	for _, entry := range entries {
		client, err := entry.Client, entry.Err
		if errors.Is(err, registry.ErrNewer) {
			client, err = newerClient(entry.ID)
		}
		if err != nil {
			return nil, err
		}
		clients = append(clients, client)
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
		tell: []telling{{kind: revocation.ClientChanged, id: id}},
	}
	if c.Disabled {
		w.tell = append(w.tell, telling{revocation.ClientRevoked, id, "now"})
	}
	return conflict(s.write(ctx, w), registry.ErrConflict)
}

// DeleteClient implements [registry.ClientStore].
func (s *Store) DeleteClient(ctx context.Context, id oauth.ClientID, version uint64) error {
	return conflict(s.write(ctx, write{
		key: s.clientKey(id), version: version, id: id.String(), index: s.key("clients"),
		tell: []telling{{kind: revocation.ClientChanged, id: id.String()}, {revocation.ClientRevoked, id.String(), "now"}},
	}), registry.ErrConflict)
}

// Resources implements [registry.ResourceStore].
func (s *Store) Resources(ctx context.Context) (*registry.Resources, error) {
	data, version, err := s.loadRecord(ctx, s.key("resources"))
	if err != nil {
		return nil, err
	}
	if data == nil {
		return registry.NewResources(0, nil)
	}
	var stored resourcesRecord
	if err := decode("table of resources", data, &stored, &stored.Format, resourcesFormat); err != nil {
		return nil, err
	}
	list := make([]registry.Resource, len(stored.List))
	for i, r := range stored.List {
		if list[i], err = decodeResource(r); err != nil {
			return nil, fmt.Errorf("the stored resource %q: %w", r.ID, err)
		}
	}
	return registry.NewResources(version, list)
}

// SaveResources implements [registry.ResourceStore].
func (s *Store) SaveResources(ctx context.Context, r *registry.Resources) error {
	record := resourcesRecord{Format: resourcesFormat, List: []resourceRecord{}}
	for _, resource := range r.List() {
		record.List = append(record.List, resourceRecord{
			ID: resource.ID.String(), Name: resource.Name, Scopes: resource.Scopes.String(),
			Lifetime: int64(resource.AccessTokenLifetime / time.Second), SigningAlg: string(resource.SigningAlg),
		})
	}
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return conflict(s.write(ctx, write{
		key: s.key("resources"), version: r.Version(), data: data, tell: []telling{{kind: revocation.ResourcesChanged}},
	}), registry.ErrConflict)
}

// LoadRing implements [keys.Store].
func (s *Store) LoadRing(ctx context.Context) ([]byte, uint64, error) {
	r, err := s.load(ctx, s.key("ring"))
	if err != nil || r.empty() {
		return nil, 0, err
	}
	version, err := parseVersion(r.version)
	if err != nil {
		return nil, 0, fmt.Errorf("the record %s: %w", s.key("ring"), err)
	}
	return r.data, version, nil
}

// SaveRing implements [keys.Store].
func (s *Store) SaveRing(ctx context.Context, document []byte, version uint64, revoked ...string) error {
	w := write{key: s.key("ring"), version: version, data: document, sealed: true, tell: []telling{{kind: revocation.RingChanged}}}
	for _, id := range revoked {
		w.tell = append(w.tell, telling{revocation.KeyRevoked, id, "now"})
	}
	return conflict(s.write(ctx, w), keys.ErrConflict)
}

// conflict words a stale version as the domain does.
func conflict(err, domain error) error {
	if errors.Is(err, errStale) {
		return domain
	}
	return err
}

func encodeClient(c *registry.Client) clientRecord {
	record := clientRecord{
		Format: 1, ID: c.ID.String(), Name: c.Name, AuthMethods: c.AuthMethods, GrantTypes: c.GrantTypes,
		Scopes: c.Scopes.String(), DefaultScopes: c.DefaultScopes.String(),
		Lifetime: int64(c.AccessTokenLifetime / time.Second), Disabled: c.Disabled,
		CreatedAt: unix(c.CreatedAt), ChangedAt: unix(c.ChangedAt),
	}
	for _, r := range c.Resources {
		record.Resources = append(record.Resources, r.String())
	}
	for _, network := range c.AllowedNetworks {
		record.Format = 2
		record.Networks = append(record.Networks, network.String())
	}
	for _, secret := range c.Secrets {
		record.Secrets = append(record.Secrets, secretRecord{
			ID: secret.ID, Hash: string(secret.Hash), CreatedAt: unix(secret.CreatedAt), ExpiresAt: unix(secret.ExpiresAt),
			FromFile: secret.FromFile,
		})
	}
	return record
}

// decodeClient reads what is stored under id. Whatever does not parse fails the client as a whole: half a record could
// mean more rights than the whole.
func decodeClient(id string, data []byte, version uint64) (*registry.Client, error) {
	var record clientRecord
	if err := decode(fmt.Sprintf("client %q", id), data, &record, &record.Format, clientFormat); err != nil {
		return nil, err
	}
	if record.Format < 2 && record.Networks != nil {
		return nil, fmt.Errorf("the stored client %q has allowed_networks, which its format has not", id)
	}
	if record.ID != id {
		return nil, fmt.Errorf("the record of client %q is that of %q", id, record.ID)
	}
	c := &registry.Client{
		Name: record.Name, AuthMethods: record.AuthMethods, GrantTypes: record.GrantTypes, Disabled: record.Disabled,
		AccessTokenLifetime: time.Duration(record.Lifetime) * time.Second,
		CreatedAt:           timeOf(record.CreatedAt), ChangedAt: timeOf(record.ChangedAt), Version: version,
	}
	var errs [3]error
	c.ID, errs[0] = oauth.ParseClientID(record.ID)
	c.Scopes, errs[1] = oauth.ParseScopes(record.Scopes)
	c.DefaultScopes, errs[2] = oauth.ParseScopes(record.DefaultScopes)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("the stored client %q: %w", id, err)
	}
	for _, raw := range record.Resources {
		resource, err := oauth.ParseResource(raw)
		if err != nil {
			return nil, fmt.Errorf("the stored client %q: %w", id, err)
		}
		c.Resources = append(c.Resources, resource)
	}
	for _, raw := range record.Networks {
		network, err := registry.ParseNetwork(raw)
		if err != nil {
			return nil, fmt.Errorf("the stored client %q: %w", id, err)
		}
		c.AllowedNetworks = append(c.AllowedNetworks, network)
	}
	for _, secret := range record.Secrets {
		c.Secrets = append(c.Secrets, clientsecret.Secret{
			ID: secret.ID, Hash: clientsecret.Hash(secret.Hash),
			CreatedAt: timeOf(secret.CreatedAt), ExpiresAt: timeOf(secret.ExpiresAt),
			FromFile: secret.FromFile,
		})
	}
	return c, nil
}

// newerClient is what a list has of a client whose record a newer release wrote.
func newerClient(id string) (*registry.Client, error) {
	parsed, err := oauth.ParseClientID(id)
	return &registry.Client{ID: parsed, Newer: true}, err
}

func decodeResource(record resourceRecord) (registry.Resource, error) {
	id, err := oauth.ParseResource(record.ID)
	if err != nil {
		return registry.Resource{}, err
	}
	scopes, err := oauth.ParseScopes(record.Scopes)
	return registry.Resource{
		ID: id, Name: record.Name, Scopes: scopes, SigningAlg: jwks.Algorithm(record.SigningAlg),
		AccessTokenLifetime: time.Duration(record.Lifetime) * time.Second,
	}, err
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func timeOf(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}
