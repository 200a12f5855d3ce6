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

// operations are all that can be done to a client that is there.
func operations(t *testing.T, r *registry.Editor) map[string]func(registry.Target) error {
	update := func(change func(*registry.Client)) func(registry.Target) error {
		return func(target registry.Target) error {
			_, err := r.UpdateClient(t.Context(), target, func(c *registry.Client) error { change(c); return nil })
			return err
		}
	}
	return map[string]func(registry.Target) error{
		"rename":         update(func(c *registry.Client) { c.Name = "renamed" }),
		"disable":        update(func(c *registry.Client) { c.Disabled = true }),
		"enable":         update(func(c *registry.Client) { c.Disabled = false }),
		"take its right": update(func(c *registry.Client) { c.Scopes, c.DefaultScopes = nil, nil }),
		"delete":         func(target registry.Target) error { return r.DeleteClient(t.Context(), target) },
		"add a secret": func(target registry.Target) error {
			_, err := r.AddSecret(t.Context(), target, "", time.Time{})
			return err
		},
		"rotate": func(target registry.Target) error {
			_, err := r.RotateSecret(t.Context(), target, time.Hour, time.Time{})
			return err
		},
		"end a secret": func(target registry.Target) error {
			_, err := r.ExpireSecret(t.Context(), target, "x", start)
			return err
		},
		"remove a secret": func(target registry.Target) error {
			_, err := r.RemoveSecret(t.Context(), target, "x")
			return err
		},
	}
}

// TestLostUpdates has somebody else change the client between reading and writing, for each operation: without a state
// that is meant both changes are there in the end, with one only the other's.
func TestLostUpdates(t *testing.T) {
	for name := range operations(t, nil) {
		t.Run(name, func(t *testing.T) {
			start := func() (*memory, registry.Target, func(registry.Target) error) {
				store, r := newRegistry()
				stored := store.put(t, registry.Client{ID: clientID("a"), Scopes: scopes("a"), Secrets: []clientsecret.Secret{{ID: "x", Hash: "x"}}})
				return store, registry.Target{ID: stored.ID, Version: stored.Version}, operations(t, r)[name]
			}
			store, target, operate := start()
			other := func() {
				c := *store.clients[target.ID]
				c.AccessTokenLifetime += time.Minute
				store.put(t, c)
			}
			store.meanwhile = []func(){other, nil, other, nil}
			must.Succeed(t, operate(registry.Target{ID: target.ID}))
			if c, ok := store.clients[target.ID]; ok == (name == "delete") || (ok && c.AccessTokenLifetime != 2*time.Minute) {
				t.Errorf("got %+v", c)
			}
			if left := len(store.meanwhile); left > 0 {
				t.Errorf("the operation wrote %d times too few", left)
			}

			store, target, operate = start()
			store.meanwhile = []func(){other}
			expectError(t, operate(target), registry.ErrConflict)
			want := registry.Client{
				ID: target.ID, Scopes: scopes("a"), Secrets: []clientsecret.Secret{{ID: "x", Hash: "x"}}, AccessTokenLifetime: time.Minute,
				Version: store.version,
			}
			store.expectStored(t, &want)

			// Somebody who is always quicker is not fought for ever.
			store, target, operate = start()
			for range 100 {
				store.meanwhile = append(store.meanwhile, other, nil)
			}
			expectError(t, operate(registry.Target{ID: target.ID}), registry.ErrConflict)
			if left := len(store.meanwhile); left < 100 {
				t.Errorf("the operation was tried %d times", (200-left)/2)
			}

			// The state that is meant, with nobody in between.
			_, target, operate = start()
			must.Succeed(t, operate(target))
		})
	}
}

// lossy is a store whose answers get lost.
type lossy struct {
	*memory
	// unheard is how many writes are made and then reported as overtaken: what a client of Redis that tries again by
	// itself makes of an answer that was lost.
	unheard int
	// deaf makes reading fail after the first write.
	deaf bool
}

func (l *lossy) SaveClient(ctx context.Context, c *registry.Client) error {
	err := l.memory.SaveClient(ctx, c)
	if l.deaf {
		l.fail = errors.New("down")
	}
	if err == nil && l.unheard > 0 {
		l.unheard--
		return registry.ErrConflict
	}
	return err
}

// A secret that was made is never lost with an answer, and never made twice.
func TestLostAnswers(t *testing.T) {
	issue := map[string]func(*registry.Editor, registry.Target) (*registry.Issued, error){
		"add": func(r *registry.Editor, target registry.Target) (*registry.Issued, error) {
			return r.AddSecret(t.Context(), target, "", time.Time{})
		},
		"rotate": func(r *registry.Editor, target registry.Target) (*registry.Issued, error) {
			return r.RotateSecret(t.Context(), target, 0, time.Time{})
		},
	}
	for name, issue := range issue {
		store, r := newRegistry()
		stored := store.put(t, registry.Client{ID: clientID("a"), Secrets: []clientsecret.Secret{{ID: "x", Hash: "x"}}})
		r.Clients = &lossy{memory: store, unheard: 2}
		made, err := issue(r, registry.Target{ID: stored.ID})
		must.Succeed(t, err)
		if matching(r, made.Client, made.Secret, start) != 1 || len(made.Client.Secrets) != 2 {
			t.Errorf("%s, unheard: got %+v", name, made)
		}

		r.Clients = &lossy{memory: store, deaf: true}
		made, err = issue(r, registry.Target{ID: stored.ID})
		must.Succeed(t, err)
		if matching(r, made.Client, made.Secret, start) != 1 || made.Client.ETag() != "" {
			t.Errorf("%s, deaf: got %+v", name, made)
		}
	}
}

func TestEditorStoreFails(t *testing.T) {
	store, r := newRegistry()
	stored := store.put(t, registry.Client{ID: clientID("a"), Secrets: []clientsecret.Secret{{ID: "x", Hash: "x"}}})
	store.fail = errors.New("down")
	for name, operate := range operations(t, r) {
		if err := operate(registry.Target{ID: stored.ID}); !errors.Is(err, store.fail) {
			t.Errorf("%s: got %v, want %v", name, err, store.fail)
		}
	}
	_, err := r.CreateClient(t.Context(), registry.Client{ID: clientID("b")}, "", false)
	expectError(t, err, store.fail)
	expectError(t, r.CreateResource(t.Context(), registry.Resource{ID: resourceID("urn:d")}), store.fail)
}
