package registry_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Unix(1_800_000_000, 0)

func clientID(s string) oauth.ClientID   { return must.Get(oauth.ParseClientID(s)) }
func resourceID(s string) oauth.Resource { return must.Get(oauth.ParseResource(s)) }
func scopes(s string) oauth.Scopes       { return must.Get(oauth.ParseScopes(s)) }

var pepper = []byte(strings.Repeat("p", 32))

// expectField checks that err is about the field; "" stands for no error.
func expectField(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if field, ok := errors.AsType[*registry.FieldError](err); ok {
		got = field.Field
	} else if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// memory is a store in memory that fulfils the contracts of the interfaces.
type memory struct {
	mu        sync.Mutex
	clients   map[oauth.ClientID]*registry.Client
	resources *registry.Resources
	trust     *trust.Table
	version   uint64
	writes    int
	// concurrent functions are called one before each write, as another replica that is faster.
	concurrent []func()
	// fail, if not nil, is the error of every call.
	fail error
}

func newMemory() *memory {
	return &memory{
		clients: make(map[oauth.ClientID]*registry.Client), resources: must.Get(registry.NewResources(0, nil)),
		trust: must.Get(trust.NewTable(0, nil, nil)),
	}
}

func (m *memory) Client(_ context.Context, id oauth.ClientID) (*registry.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	client, ok := m.clients[id]
	switch {
	case m.fail != nil:
		return nil, m.fail
	case !ok:
		return nil, registry.ErrNotFound
	}
	return client, nil
}

func (m *memory) Clients(_ context.Context, after oauth.ClientID, limit int) ([]*registry.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*registry.Client
	for len(found) < limit {
		var next *registry.Client
		for id, c := range m.clients {
			if id.String() > after.String() && (next == nil || id.String() < next.ID.String()) {
				next = c
			}
		}
		if next == nil {
			break
		}
		found, after = append(found, next), next.ID
	}
	return found, m.fail
}

func (m *memory) interfere() {
	m.mu.Lock()
	var f func()
	if len(m.concurrent) > 0 {
		f, m.concurrent = m.concurrent[0], m.concurrent[1:]
	}
	m.mu.Unlock()
	if f != nil {
		f()
	}
}

// write makes a change if the stored version is the given one.
func (m *memory) write(stored, version uint64, change func(next uint64)) error {
	switch {
	case m.fail != nil:
		return m.fail
	case stored != version:
		return registry.ErrConflict
	}
	m.version++
	m.writes++
	change(m.version)
	return nil
}

func (m *memory) versionOf(id oauth.ClientID) uint64 {
	if c, ok := m.clients[id]; ok {
		return c.Version
	}
	return 0
}

func (m *memory) SaveClient(_ context.Context, c *registry.Client) error {
	m.interfere()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.write(m.versionOf(c.ID), c.Version, func(next uint64) {
		stored := *c
		stored.Version = next
		m.clients[c.ID] = &stored
	})
}

func (m *memory) DeleteClient(_ context.Context, id oauth.ClientID, version uint64) error {
	m.interfere()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.write(m.versionOf(id), version, func(uint64) { delete(m.clients, id) })
}

func (m *memory) Resources(context.Context) (*registry.Resources, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	return m.resources, nil
}

func (m *memory) SaveResources(_ context.Context, r *registry.Resources) error {
	m.interfere()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.write(m.resources.Version(), r.Version(), func(next uint64) {
		m.resources = must.Get(registry.NewResources(next, r.List()))
	})
}

func (m *memory) Trust(context.Context) (*trust.Table, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	return m.trust, nil
}

func (m *memory) SaveTrust(_ context.Context, t *trust.Table) error {
	m.interfere()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.write(m.trust.Version(), t.Version(), func(next uint64) {
		m.trust = must.Get(trust.NewTable(next, t.Issuers(), t.Workloads()))
	})
}
