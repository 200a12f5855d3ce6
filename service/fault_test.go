package service_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/must"

	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/service/redistest"
)

// TestRestart stops a Redis that keeps what it has: nothing is lost.
func TestRestart(t *testing.T) {
	c := newCluster(t, "--appendonly", "yes", "--appendfsync", "always")
	a := c.start(t)
	a.apply(t, manifest())
	raw, left := a.token(t), a.token(t)
	id, keys := a.idOf(t, raw), a.kids(t)
	must.Succeed(t, a.revoke(t.Context(), raw))
	c.redis.Kill()
	c.redis.Start()
	must.Eventually(t, "the replica is back", func() bool { return a.CatchUp(within(t, time.Second)) == nil })
	for _, r := range []*replica{a, c.start(t)} {
		r.expectActive(t, raw, false)
		r.expectActive(t, left, true)
		if got := r.kids(t); !slices.Equal(got, keys) {
			t.Errorf("got the keys %q, want %q", got, keys)
		}
		w := r.watch(t, "")
		w.complete()
		if !w.known[id] {
			t.Error("a fresh follower is not told of the revocation")
		}
	}
	if a.log.count("lost data") > 0 {
		t.Error("the log tells of lost data")
	}
}

// TestRestartEmpty brings the Redis back without anything, twice: the replicas put back what they know.
func TestRestartEmpty(t *testing.T) {
	for name, replicas := range map[string]int{"one replica": 1, "two replicas": 2} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			running := make([]*replica, replicas)
			for i := range running {
				running[i] = c.start(t)
			}
			a := running[0]
			a.apply(t, manifest())
			raw := a.token(t)
			id, keys := a.idOf(t, raw), a.kids(t)
			must.Succeed(t, a.revokeAll(t.Context()))
			left := a.token(t)
			must.Succeed(t, a.revoke(t.Context(), raw)) // it is revoked already, which changes nothing
			single := a.token(t)
			singleID := a.idOf(t, single)
			must.Succeed(t, a.revoke(t.Context(), single))
			others := publish(t, a.store, 2500)
			for _, r := range running {
				must.Succeed(t, r.CatchUp(t.Context()))
			}
			old := a.watch(t, "")
			old.complete()
			for loss := range 2 {
				c.redis.Kill()
				c.redis.Wipe()
				c.redis.Start()
				for _, r := range running {
					must.Eventually(t, "the log tells of the loss", func() bool { return r.log.count("lost data") == loss+1 })
				}
				must.Eventually(t, "the key ring is back", func() bool {
					data, _, err := a.store.LoadRing(t.Context())
					return err == nil && data != nil
				})
				for _, r := range running {
					// Nothing is called complete before everything is back.
					w := r.watch(t, "")
					w.complete()
					if !w.known[singleID] {
						t.Error("a revocation is not told")
					}
					expectKnown(t, w, others, id)
				}
				fresh := c.start(t)
				fresh.apply(t, manifest()) // clients are put back by who has their file
				w := fresh.watch(t, "")
				w.complete()
				expectKnown(t, w, others, id)
				if got := fresh.kids(t); !slices.Equal(got, keys) {
					t.Errorf("got the keys %q, want %q", got, keys)
				}
				for _, r := range append(running, fresh) {
					must.Succeed(t, r.CatchUp(t.Context()))
					r.expectActive(t, raw, false)
					r.expectActive(t, single, false)
					r.expectActive(t, left, true)
				}
				fresh.stop()
			}
			// One that has followed all along is begun anew and goes on.
			last := a.token(t)
			lastID := a.idOf(t, last)
			must.Succeed(t, a.revoke(t.Context(), last))
			old.until(func() bool { return old.known[lastID] && old.last.GetComplete() })
		})
	}
}

func expectKnown(t *testing.T, w *watcher, ids []string, revokedByClient string) {
	t.Helper()
	for _, id := range ids {
		if !w.known["token:"+id] {
			t.Fatalf("of %d revocations, %s is not told", len(ids), id)
		}
	}
	if !w.known["client:svc"] || w.known[revokedByClient] {
		t.Errorf("got client %t and the token that it covers %t, want the client alone", w.known["client:svc"], w.known[revokedByClient])
	}
}

// TestRevokeWithoutStore revokes while there is no Redis.
func TestRevokeWithoutStore(t *testing.T) {
	c := newCluster(t, "--appendonly", "yes", "--appendfsync", "always")
	r := c.start(t)
	r.apply(t, manifest())
	raw := r.token(t)
	r.expectActive(t, raw, true)
	c.redis.Kill()
	expectCode(t, r.revoke(t.Context(), raw), codes.Unavailable)
	expectCode(t, r.revokeAll(t.Context()), codes.Unavailable)
	r.expectActive(t, raw, true) // as everywhere else
	c.redis.Start()
	must.Eventually(t, "it revokes again", func() bool { return r.revoke(t.Context(), raw) == nil })
	r.expectActive(t, raw, false)
}

// TestStoppedAfterAnswer ends a replica as soon as it has answered: what it answered, the other one knows.
func TestStoppedAfterAnswer(t *testing.T) {
	c := newCluster(t)
	b := c.start(t)
	b.apply(t, manifest())
	for range 3 {
		a := c.start(t)
		raw := b.token(t)
		must.Succeed(t, a.revoke(t.Context(), raw))
		a.stop()
		must.Succeed(t, b.CatchUp(within(t, patience)))
		b.expectActive(t, raw, false)
	}
}

// TestRequiredReplicas has revocations wait for a replica of the Redis, and issuing not.
func TestRequiredReplicas(t *testing.T) {
	c := newCluster(t, "--repl-diskless-sync-delay", "0")
	c.required = 1
	r := c.start(t)
	r.apply(t, manifest())
	raw := r.token(t)
	expectCode(t, r.revoke(t.Context(), raw), codes.Unavailable)
	expectCode(t, r.revokeAll(t.Context()), codes.Unavailable)
	redistest.New(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(c.redis.Port()))
	must.Eventually(t, "the replica counts", func() bool { return r.revoke(t.Context(), raw) == nil })
	next := r.token(t)
	must.Succeed(t, r.revoke(t.Context(), next))
	r.expectActive(t, next, false)
}
