package service_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// TestRevokedEverywhere revokes at one replica and introspects at the other.
func TestRevokedEverywhere(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	raw, other := a.token(t), a.token(t)
	must.Succeed(t, b.CatchUp(t.Context()))
	b.expectActive(t, raw, true)
	must.Succeed(t, a.revoke(t.Context(), raw))
	began := time.Now()
	a.expectActive(t, raw, false) // immediately
	must.Eventually(t, "the other replica knows it", func() bool {
		answer, err := b.ask(t.Context(), raw)
		return err == nil && !answer.GetActive()
	})
	t.Logf("the other replica refused the token after %s", time.Since(began))
	b.expectActive(t, other, true)
	must.Succeed(t, a.revoke(t.Context(), raw)) // again
	// At this replica it is in effect with the answer, before it is read from the feed.
	for range 100 {
		raw := a.token(t)
		must.Succeed(t, a.revoke(t.Context(), raw))
		a.expectActive(t, raw, false)
	}
}

// TestRevokeClientTokens revokes all tokens issued up to now, and none of those issued later, however soon.
func TestRevokeClientTokens(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	for range 3 {
		before := []string{a.token(t), a.token(t)}
		must.Succeed(t, a.revokeAll(t.Context()))
		next := a.token(t)
		for _, raw := range before {
			a.expectActive(t, raw, false)
		}
		a.expectActive(t, next, true)
		must.Succeed(t, b.CatchUp(t.Context()))
		b.expectActive(t, before[0], false)
		b.expectActive(t, next, true)
		b.expectActive(t, b.token(t), true)
	}
	answer, err := a.ask(t.Context(), a.token(t))
	must.Succeed(t, err)
	if lived := answer.GetExp() - answer.GetIat(); lived != 3600 {
		t.Errorf("a token that was dated later has a lifetime of %d s, want 3600", lived)
	}
}

// TestRevokeTooOften revokes until it is refused, which is before tokens are dated so late that no verifier accepts them.
func TestRevokeTooOften(t *testing.T) {
	r := newCluster(t).start(t)
	r.apply(t, manifest())
	var err error
	for range 100 {
		if err = r.revokeAll(t.Context()); err != nil {
			break
		}
	}
	expectCode(t, err, codes.ResourceExhausted)
	r.expectActive(t, r.token(t), true)
}

// TestClientEnds disables and deletes a client, whose tokens are revoked by that.
func TestClientEnds(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, r *replica){
		"disabled": func(t *testing.T, r *replica) {
			r.apply(t, manifest(func(svc *registry.Client) { svc.Disabled = true }))
		},
		"deleted": func(t *testing.T, r *replica) {
			wanted := manifest()
			wanted.Clients = wanted.Clients[1:]
			_, err := r.Editor().Apply(t.Context(), wanted, registry.ApplyOptions{Prune: true})
			must.Succeed(t, err)
			must.Succeed(t, r.CatchUp(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			a, b := c.start(t), c.start(t)
			a.apply(t, manifest())
			raw := a.token(t)
			a.expectActive(t, raw, true)
			end(t, a)
			a.expectActive(t, raw, false)
			must.Succeed(t, b.CatchUp(t.Context()))
			b.expectActive(t, raw, false)
			if _, err := a.issue(t.Context()); err == nil {
				t.Error("the client still gets tokens")
			}
			// Registered again, it gets valid tokens; the old ones stay revoked.
			a.apply(t, manifest())
			a.expectActive(t, raw, false)
			a.expectActive(t, a.token(t), true)
		})
	}
}

func (c *cluster) ring(t *testing.T, store keys.Store) *keys.Ring {
	t.Helper()
	return must.Get(keys.Open(t.Context(), keys.Config{
		Store: store, Sealer: c.sealer, Algorithms: []jwks.Algorithm{jwks.ES256}, Rotation: 30 * 24 * time.Hour,
		MaxAge: time.Minute, Retention: registry.MaxLifetime,
	}))
}

func (r *replica) keyIDs(t *testing.T) []string {
	t.Helper()
	set, err := r.tokens.GetKeySet(t.Context(), &grantorv1.GetKeySetRequest{})
	must.Succeed(t, err)
	var ids []string
	for _, key := range set.GetKeys() {
		ids = append(ids, key.GetKid())
	}
	return ids
}

// rendezvous makes the first loads of two rings after both is set wait for each other, so that both read the ring before
// either changes it.
type rendezvous struct {
	keys.Store
	once *sync.Once
	both *sync.WaitGroup
}

func (m *rendezvous) LoadRing(ctx context.Context) ([]byte, uint64, error) {
	data, version, err := m.Store.LoadRing(ctx)
	if m.both != nil {
		m.once.Do(func() {
			m.both.Done()
			m.both.Wait()
		})
	}
	return data, version, err
}

// TestCompromise has two replicas compromise a key at once.
func TestCompromise(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	must.Succeed(t, b.CatchUp(t.Context()))
	raw, kid := a.token(t), a.keyIDs(t)[0]
	a.expectActive(t, raw, true)
	b.expectActive(t, raw, true)
	var both, group sync.WaitGroup
	both.Add(2)
	for _, r := range []*replica{a, b} {
		store := &rendezvous{Store: r.store}
		ring := c.ring(t, store)
		store.both, store.once = &both, &sync.Once{}
		group.Go(func() {
			if err := ring.Compromise(t.Context(), kid); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	var published []revocation.Change
	entries, _, err := a.store.Read(t.Context(), revocation.Cursor{}, 0)
	must.Succeed(t, err)
	for _, e := range entries {
		if e.Kind == revocation.KeyRevoked {
			published = append(published, e.Change)
		}
	}
	if len(published) != 1 || published[0].ID != kid {
		t.Errorf("the feed has %v, want the key once", published)
	}
	for _, r := range []*replica{a, b} {
		must.Eventually(t, "another key signs", func() bool {
			ids := r.keyIDs(t)
			return len(ids) == 1 && !slices.Contains(ids, kid)
		})
		must.Succeed(t, r.CatchUp(t.Context()))
		r.expectActive(t, raw, false)
		r.expectActive(t, r.token(t), true)
	}
	if got, want := a.keyIDs(t), b.keyIDs(t); !slices.Equal(got, want) {
		t.Errorf("the replicas have the keys %q and %q", got, want)
	}
	// A later follower learns that the key was revoked, not only that it is gone.
	fresh := c.start(t)
	fresh.expectActive(t, raw, false)
	w := fresh.watch(t, "")
	w.complete()
	if !w.known["key:"+kid] {
		t.Error("a fresh follower does not receive the key")
	}
	// A key that is no longer in the ring is revoked too.
	const gone = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	must.Succeed(t, c.ring(t, a.store).Compromise(t.Context(), gone))
	w.until(func() bool { return w.known["key:"+gone] })
}

// TestDisabledAfterRevoking has a client push the moment of its revocation into the future, so that its next token is
// dated in the future too. Disabling the client, or removing it, revokes that token as well.
func TestDisabledAfterRevoking(t *testing.T) {
	for name, end := range map[string]func(*replica) error{
		"disabled": func(r *replica) error {
			return withCopy(r, func(c *registry.Client) error {
				c.Disabled = true
				return r.store.SaveClient(t.Context(), c)
			})
		},
		"deleted": func(r *replica) error {
			return withCopy(r, func(c *registry.Client) error {
				return r.store.DeleteClient(t.Context(), c.ID, c.Version)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newCluster(t).start(t)
			r.apply(t, manifest())
			for range 20 {
				if err := r.revokeAll(t.Context()); err != nil {
					expectCode(t, err, codes.ResourceExhausted)
				}
			}
			raw := r.token(t)
			r.expectActive(t, raw, true)
			must.Succeed(t, end(r))
			must.Succeed(t, r.CatchUp(withTimeout(t, timeout)))
			r.expectActive(t, raw, false)
		})
	}
}

// withCopy calls fn with a copy of the client svc as it is stored.
func withCopy(r *replica, fn func(*registry.Client) error) error {
	stored, err := r.store.Client(context.Background(), must.Get(oauth.ParseClientID("svc")))
	if err != nil {
		return err
	}
	c := *stored
	return fn(&c)
}

// TestEndedWithoutReplicas disables and deletes clients while too few replicas of the Redis acknowledge it. The change is
// made, but reported as unsafe; repeating it gets no better answer before a replica has it.
func TestEndedWithoutReplicas(t *testing.T) {
	c := newCluster(t, "--repl-diskless-sync-delay", "0")
	c.required = 1
	r := c.start(t)
	r.apply(t, withBoss(manifest()))
	ctx := r.adminContext(t)
	clients := grantorv1.NewClientServiceClient(r.conn)
	raw := r.token(t)
	disable := func() error {
		_, err := clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{Client: &grantorv1.Client{ClientId: "svc", Disabled: new(true)}})
		return err
	}
	remove := func() error {
		_, err := clients.DeleteClient(ctx, &grantorv1.DeleteClientRequest{ClientId: "svc"})
		return err
	}
	apply := func() error {
		_, err := r.Editor().Apply(t.Context(), manifest(func(svc *registry.Client) { svc.Disabled = true }), registry.ApplyOptions{})
		return err
	}
	for range 2 {
		expectCode(t, disable(), codes.Unavailable)
	}
	if err := apply(); !errors.Is(err, revocation.ErrNotReplicated) {
		t.Errorf("applying the disabled client: got %v, want %v", err, revocation.ErrNotReplicated)
	}
	r.expectActive(t, raw, false)
	if n := r.log.count("event=client.changed"); n != 2 {
		t.Errorf("got %d audit events of changes, want 2", n)
	}
	for range 2 {
		expectCode(t, remove(), codes.Unavailable)
	}
	if n := r.log.count("event=client.deleted"); n != 1 {
		t.Errorf("got %d audit events of deletions, want 1", n)
	}
	redistest.New(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(c.redis.Port()))
	must.Eventually(t, "a replica of the Redis has it", func() bool { return status.Code(remove()) == codes.NotFound })
}
