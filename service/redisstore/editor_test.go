package redisstore_test

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

func newHasher() *clientsecret.Hasher {
	return must.Get(clientsecret.NewHasher([]byte(strings.Repeat("p", 32))))
}

func (k *kit) editor() *registry.Editor {
	return registry.NewEditor(registry.Config{
		Clients: k, Resources: k, Trust: k, Hasher: newHasher(),
		Now: func() time.Time { return start.Add(time.Millisecond) },
	}).As(registry.Unlimited())
}

// testRegistered checks that an editor returns what is stored, and that an etag is valid for one change.
func testRegistered(t *testing.T, k *kit) {
	e, ctx := k.editor(), t.Context()
	must.Succeed(t, e.CreateResource(ctx, registry.Resource{ID: resourceID("urn:a"), Scopes: scopes("a b")}))
	c := newClient("a")
	c.Scopes = scopes("a " + registry.ScopeKeysRead)
	made, err := e.CreateClient(ctx, *c, "", false)
	must.Succeed(t, err)
	k.expectClient(t, made.Client)
	version, err := registry.ParseETag(made.Client.ETag())
	must.Succeed(t, err)
	target := registry.Target{ID: c.ID, Version: version}
	// In a record the beginning of 1970 means never. As the expiry of a secret it must not.
	ended, err := e.ExpireSecret(ctx, target, made.SecretID, time.Unix(0, 0))
	must.Succeed(t, err)
	if k.expectClient(t, ended); !ended.Secrets[0].Expired(start) {
		t.Errorf("got %+v, want an expired secret", ended.Secrets)
	}
	_, err = e.RemoveSecret(ctx, target, made.SecretID)
	expectConflict(t, err)
	rotated, err := e.RotateSecret(ctx, registry.Target{ID: c.ID}, time.Hour, start.Add(1999*time.Millisecond))
	must.Succeed(t, err)
	k.expectClient(t, rotated.Client)
	got, err := e.UpdateResource(ctx, resourceID("urn:a"), "", func(r *registry.Resource) error { r.Name = "A"; return nil })
	must.Succeed(t, err)
	table, err := k.Resources(ctx)
	must.Succeed(t, err)
	if stored, _ := table.Get(resourceID("urn:a")); !reflect.DeepEqual(stored, got) || stored.ETag() != got.ETag() {
		t.Errorf("got %+v, stored is %+v", got, stored)
	}
}

// testDisabledAgain disables a client twice: its tokens are revoked each time, for a caller who did not learn of the first.
func testDisabledAgain(t *testing.T, k *kit) {
	c := k.save(t, newClient("a"))
	must.Succeed(t, k.editor().CreateResource(t.Context(), registry.Resource{ID: resourceID("urn:a"), Scopes: scopes("a b")}))
	for n := range 2 {
		_, err := k.editor().UpdateClient(t.Context(), registry.Target{ID: c.ID}, func(c *registry.Client) error {
			c.Disabled = true
			return nil
		})
		must.Succeed(t, err)
		revoked := 0
		for _, change := range k.feed(t) {
			if change.Kind == revocation.ClientRevoked && change.ID == "a" {
				revoked++
			}
		}
		if revoked != n+1 {
			t.Errorf("disabled %d times: got %d revocations", n+1, revoked)
		}
	}
}

// testEditorsAtOnce checks that no concurrent change of one client, or of the resources, is lost.
func testEditorsAtOnce(t *testing.T, k *kit) {
	const many = 8
	c := k.save(t, &registry.Client{ID: clientID("a")})
	issued := make([]*registry.Issued, many)
	var group sync.WaitGroup
	for i := range many {
		group.Go(func() {
			var err error
			if issued[i], err = k.editor().AddSecret(t.Context(), registry.Target{ID: c.ID}, "", time.Time{}); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() {
			resource := registry.Resource{ID: resourceID(fmt.Sprint("urn:", i)), Scopes: scopes(fmt.Sprint("s", i))}
			if err := k.editor().CreateResource(t.Context(), resource); err != nil {
				t.Error(err)
			}
		})
	}
	if group.Wait(); t.Failed() {
		return
	}
	stored, err := k.Client(t.Context(), c.ID)
	must.Succeed(t, err)
	table, err := k.Resources(t.Context())
	must.Succeed(t, err)
	if len(stored.Secrets) != many || len(table.List()) != many {
		t.Errorf("%d secrets and %d resources, want %d", len(stored.Secrets), len(table.List()), many)
	}
	for _, secret := range issued {
		if !k.hasSecret(stored, secret) {
			t.Errorf("the secret %s is lost", secret.SecretID)
		}
	}
}

// hasSecret reports whether the client has the secret that was issued.
func (k *kit) hasSecret(c *registry.Client, issued *registry.Issued) bool {
	for _, s := range c.Secrets {
		if s.ID == issued.SecretID {
			return newHasher().Matches(s.Hash, issued.Secret)
		}
	}
	return false
}
