package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// slowStore is a memory whose reads the test can delay.
type slowStore struct {
	*memory
	mu    sync.Mutex
	reads int
	// gate, if not nil, is received from after a read and before it returns, so that a change can overtake the read.
	gate chan struct{}
}

func (s *slowStore) pass(ctx context.Context) error {
	s.mu.Lock()
	s.reads++
	gate := s.gate
	s.mu.Unlock()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slowStore) Client(ctx context.Context, id oauth.ClientID) (*registry.Client, error) {
	client, err := s.memory.Client(ctx, id)
	if waited := s.pass(ctx); waited != nil {
		return nil, waited
	}
	return client, err
}

func (s *slowStore) Resources(ctx context.Context) (*registry.Resources, error) {
	resources, err := s.memory.Resources(ctx)
	if waited := s.pass(ctx); waited != nil {
		return nil, waited
	}
	return resources, err
}

func (s *slowStore) expectReads(t *testing.T, want int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reads != want {
		t.Errorf("got %d reads, want %d", s.reads, want)
	}
	s.reads = 0
}

// put stores a client with the name, whatever its version.
func (s *slowStore) put(id, name string) {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	s.clients[clientID(id)] = &registry.Client{ID: clientID(id), Name: name}
}

func newDirectory(size int) (*registry.Directory, *slowStore) {
	store := &slowStore{memory: newMemory()}
	return registry.NewDirectory(store, store, store, size), store
}

func expectName(t *testing.T, d *registry.Directory, id, want string) {
	t.Helper()
	client, err := d.Client(t.Context(), clientID(id))
	switch {
	case want == "" && !errors.Is(err, registry.ErrNotFound):
		t.Errorf("%s: got %v, %v, want %v", id, client, err, registry.ErrNotFound)
	case want != "" && (err != nil || client.Name != want):
		t.Errorf("%s: got %v, %v, want %s", id, client, err, want)
	}
}

func TestDirectoryCaches(t *testing.T) {
	d, store := newDirectory(100)
	store.put("a", "first")
	for range 3 {
		expectName(t, d, "a", "first")
		expectName(t, d, "b", "")
		if _, err := d.Resources(t.Context()); err != nil {
			t.Error(err)
		}
	}
	store.expectReads(t, 3)
	if hits, misses := d.Lookups(); hits != 4 || misses != 2 {
		t.Errorf("got %d hits and %d misses, want 4 and 2", hits, misses)
	}
	store.put("a", "second")
	store.put("b", "created")
	expectName(t, d, "a", "first")
	expectName(t, d, "b", "")
	d.ForgetClient(clientID("b"))
	expectName(t, d, "a", "first")
	expectName(t, d, "b", "created")
	d.ForgetClient(clientID("a"))
	expectName(t, d, "a", "second")
	store.expectReads(t, 2)
	d.ForgetResources()
	if _, err := d.Resources(t.Context()); err != nil {
		t.Error(err)
	}
	expectName(t, d, "a", "second")
	store.expectReads(t, 1)
	d.ForgetAll()
	expectName(t, d, "a", "second")
	expectName(t, d, "b", "created")
	if _, err := d.Resources(t.Context()); err != nil {
		t.Error(err)
	}
	store.expectReads(t, 3)
}

func TestDirectoryJoins(t *testing.T) {
	for name, read := range map[string]func(context.Context, *registry.Directory) error{
		"client": func(ctx context.Context, d *registry.Directory) error {
			_, err := d.Client(ctx, clientID("a"))
			return err
		},
		"no client": func(ctx context.Context, d *registry.Directory) error {
			if _, err := d.Client(ctx, clientID("b")); !errors.Is(err, registry.ErrNotFound) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		},
		"resources": func(ctx context.Context, d *registry.Directory) error {
			_, err := d.Resources(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, store := newDirectory(100)
				store.put("a", "first")
				store.gate = make(chan struct{})
				var group sync.WaitGroup
				for range 1000 {
					group.Go(func() {
						if err := read(t.Context(), d); err != nil {
							t.Error(err)
						}
					})
				}
				synctest.Wait()
				close(store.gate)
				group.Wait()
				store.expectReads(t, 1)
			})
		})
	}
}

// TestFillLosesAgainstChange checks that a read which a change overtakes is not cached: it returned the previous state.
func TestFillLosesAgainstChange(t *testing.T) {
	for name, test := range map[string]struct {
		before, after string
		forget        func(*registry.Directory)
	}{
		"changed":             {"first", "second", func(d *registry.Directory) { d.ForgetClient(clientID("a")) }},
		"created":             {"", "second", func(d *registry.Directory) { d.ForgetClient(clientID("a")) }},
		"deleted":             {"first", "", func(d *registry.Directory) { d.ForgetClient(clientID("a")) }},
		"changed, forget all": {"first", "second", (*registry.Directory).ForgetAll},
		"created, forget all": {"", "second", (*registry.Directory).ForgetAll},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, store := newDirectory(100)
				set := func(name string) {
					if name == "" {
						delete(store.clients, clientID("a"))
					} else {
						store.put("a", name)
					}
				}
				set(test.before)
				store.gate = make(chan struct{})
				var group sync.WaitGroup
				group.Go(func() { _, _ = d.Client(t.Context(), clientID("a")) })
				synctest.Wait()
				set(test.after)
				test.forget(d)
				close(store.gate)
				group.Wait()
				expectName(t, d, "a", test.after)
			})
		})
	}
}

func TestResourcesFillLosesAgainstChange(t *testing.T) {
	for name, forget := range map[string]func(*registry.Directory){
		"resources": (*registry.Directory).ForgetResources, "all": (*registry.Directory).ForgetAll,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, store := newDirectory(100)
				store.gate = make(chan struct{})
				var group sync.WaitGroup
				group.Go(func() { _, _ = d.Resources(t.Context()) })
				synctest.Wait()
				if err := store.SaveResources(t.Context(), must.Get(registry.NewResources(0, nil))); err != nil {
					t.Error(err)
				}
				forget(d)
				close(store.gate)
				group.Wait()
				if got := must.Get(d.Resources(t.Context())); got.Version() != 1 {
					t.Errorf("got version %d, want 1", got.Version())
				}
			})
		})
	}
}

func TestDirectoryErrors(t *testing.T) {
	d, store := newDirectory(100)
	store.put("a", "first")
	down := errors.New("down")
	store.fail = down
	for range 2 {
		if client, err := d.Client(t.Context(), clientID("a")); !errors.Is(err, down) || client != nil {
			t.Errorf("got %v, %v, want %v", client, err, down)
		}
		if resources, err := d.Resources(t.Context()); !errors.Is(err, down) || resources != nil {
			t.Errorf("got %v, %v, want %v", resources, err, down)
		}
	}
	store.expectReads(t, 4)
	store.fail = nil
	expectName(t, d, "a", "first")
	if _, err := d.Resources(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDirectoryContext checks that a caller whose context ends does not fail the others, even if it started the read.
func TestDirectoryContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, store := newDirectory(100)
		store.put("a", "first")
		store.gate = make(chan struct{})
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		errs := make([]error, 3)
		var group sync.WaitGroup
		for i, ctx := range []context.Context{first, second, t.Context()} {
			group.Go(func() { _, errs[i] = d.Client(ctx, clientID("a")) })
			synctest.Wait()
		}
		cancelSecond()
		synctest.Wait()
		cancelFirst()
		synctest.Wait()
		close(store.gate)
		group.Wait()
		if !errors.Is(errs[0], context.Canceled) || !errors.Is(errs[1], context.Canceled) || errs[2] != nil {
			t.Errorf("got %v, want two canceled and one success", errs)
		}
	})
}

// TestDirectoryBounded checks that unknown ids occupy no more than the size of the cache.
func TestDirectoryBounded(t *testing.T) {
	const size, ids = 50, 2000
	d, store := newDirectory(size)
	for i := range ids {
		expectName(t, d, fmt.Sprint("x", i), "")
	}
	store.expectReads(t, ids)
	for i := range ids {
		expectName(t, d, fmt.Sprint("x", i), "")
	}
	store.mu.Lock()
	defer store.mu.Unlock()
	if cached := ids - store.reads; cached > 2*size {
		t.Errorf("%d ids are cached, want about %d", cached, size)
	}
}
