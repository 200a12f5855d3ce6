package registry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
)

// operations returns every operation on an existing client.
func operations(t *testing.T, e *registry.Editor) map[string]func(registry.Target) error {
	update := func(change func(*registry.Client)) func(registry.Target) error {
		return func(target registry.Target) error {
			_, err := e.UpdateClient(t.Context(), target, func(c *registry.Client) error { change(c); return nil })
			return err
		}
	}
	return map[string]func(registry.Target) error{
		"rename":        update(func(c *registry.Client) { c.Name = "renamed" }),
		"disable":       update(func(c *registry.Client) { c.Disabled = true }),
		"enable":        update(func(c *registry.Client) { c.Disabled = false }),
		"remove scopes": update(func(c *registry.Client) { c.Scopes, c.DefaultScopes = nil, nil }),
		"delete":        func(target registry.Target) error { return e.DeleteClient(t.Context(), target) },
		"add a secret": func(target registry.Target) error {
			_, err := e.AddSecret(t.Context(), target, "", time.Time{})
			return err
		},
		"rotate": func(target registry.Target) error {
			_, err := e.RotateSecret(t.Context(), target, time.Hour, time.Time{})
			return err
		},
		"expire a secret": func(target registry.Target) error {
			_, err := e.ExpireSecret(t.Context(), target, "x", start)
			return err
		},
		"remove a secret": func(target registry.Target) error {
			_, err := e.RemoveSecret(t.Context(), target, "x")
			return err
		},
	}
}

// TestLostUpdates changes the client between reading and writing of each operation. If the operation requires no version,
// both changes must be stored; otherwise only the other one.
func TestLostUpdates(t *testing.T) {
	for name := range operations(t, nil) {
		t.Run(name, func(t *testing.T) {
			start := func() (*memory, registry.Target, func(registry.Target) error) {
				store, e := newRegistry()
				stored := store.put(t, registry.Client{ID: clientID("a"), Scopes: scopes("a"), Disabled: name == "enable", Secrets: []clientsecret.Secret{{ID: "x", Hash: "x"}}})
				return store, registry.Target{ID: stored.ID, Version: stored.Version}, operations(t, e)[name]
			}
			store, target, operate := start()
			concurrent := func() {
				c := *store.clients[target.ID]
				c.AccessTokenLifetime += time.Minute
				store.put(t, c)
			}
			store.concurrent = []func(){concurrent, nil, concurrent, nil}
			must.Succeed(t, operate(registry.Target{ID: target.ID}))
			if c, ok := store.clients[target.ID]; ok == (name == "delete") || (ok && c.AccessTokenLifetime != 2*time.Minute) {
				t.Errorf("got %+v", c)
			}
			if left := len(store.concurrent); left > 0 {
				t.Errorf("the operation wrote too few times, by %d", left)
			}

			store, target, operate = start()
			store.concurrent = []func(){concurrent}
			expectError(t, operate(target), registry.ErrConflict)
			want := registry.Client{
				ID: target.ID, Scopes: scopes("a"), Secrets: []clientsecret.Secret{{ID: "x", Hash: "x"}}, AccessTokenLifetime: time.Minute,
				Version: store.version, Disabled: name == "enable",
			}
			store.expectStored(t, &want)

			// The operation gives up if every attempt conflicts.
			store, target, operate = start()
			for range 100 {
				store.concurrent = append(store.concurrent, concurrent, nil)
			}
			expectError(t, operate(registry.Target{ID: target.ID}), registry.ErrConflict)
			if left := len(store.concurrent); left < 100 {
				t.Errorf("got %d attempts", (200-left)/2)
			}

			// The required version, without a concurrent change.
			_, target, operate = start()
			must.Succeed(t, operate(target))
		})
	}
}

// lossy is a store whose replies get lost.
type lossy struct {
	*memory
	// conflicts is how many writes are made and then reported as conflicts, as by a Redis client that retries by itself when
	// a reply is lost.
	conflicts int
	// unreadable makes reading fail after the first write.
	unreadable bool
}

func (l *lossy) SaveClient(ctx context.Context, c *registry.Client) error {
	err := l.memory.SaveClient(ctx, c)
	if l.unreadable {
		l.fail = errors.New("down")
	}
	if err == nil && l.conflicts > 0 {
		l.conflicts--
		return registry.ErrConflict
	}
	return err
}

// TestLostReplies checks that a lost reply neither loses a new secret nor adds it twice.
func TestLostReplies(t *testing.T) {
	operations := map[string]func(*registry.Editor, registry.Target) (*registry.Issued, error){
		"add": func(e *registry.Editor, target registry.Target) (*registry.Issued, error) {
			return e.AddSecret(t.Context(), target, "", time.Time{})
		},
		"rotate": func(e *registry.Editor, target registry.Target) (*registry.Issued, error) {
			return e.RotateSecret(t.Context(), target, 0, time.Time{})
		},
	}
	for name, issue := range operations {
		store, e := newRegistry()
		stored := store.put(t, registry.Client{ID: clientID("a"), Secrets: []clientsecret.Secret{{ID: "x", Hash: "x"}}})
		e.Config().Clients = &lossy{memory: store, conflicts: 2}
		issued, err := issue(e, registry.Target{ID: stored.ID})
		must.Succeed(t, err)
		if matching(e, issued.Client, issued.Secret, start) != 1 || len(issued.Client.Secrets) != 2 {
			t.Errorf("%s, reply lost: got %+v", name, issued)
		}

		e.Config().Clients = &lossy{memory: store, unreadable: true}
		issued, err = issue(e, registry.Target{ID: stored.ID})
		must.Succeed(t, err)
		if matching(e, issued.Client, issued.Secret, start) != 1 || issued.Client.ETag() != "" {
			t.Errorf("%s, not readable: got %+v", name, issued)
		}
	}
}

func TestEditorStoreFails(t *testing.T) {
	store, e := newRegistry()
	stored := store.put(t, registry.Client{ID: clientID("a"), Secrets: []clientsecret.Secret{{ID: "x", Hash: "x"}}})
	store.fail = errors.New("down")
	for name, operate := range operations(t, e) {
		if err := operate(registry.Target{ID: stored.ID}); !errors.Is(err, store.fail) {
			t.Errorf("%s: got %v, want %v", name, err, store.fail)
		}
	}
	_, err := e.CreateClient(t.Context(), registry.Client{ID: clientID("b")}, "", false)
	expectError(t, err, store.fail)
	expectError(t, e.CreateResource(t.Context(), registry.Resource{ID: resourceID("urn:d")}), store.fail)
}
