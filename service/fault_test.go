package service_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// TestRestart restarts a Redis that persists its data: nothing is lost.
func TestRestart(t *testing.T) {
	c := newCluster(t, "--appendonly", "yes", "--appendfsync", "always")
	a := c.start(t)
	a.apply(t, manifest())
	raw, left := a.token(t), a.token(t)
	id, keys := a.idOf(t, raw), a.keyIDs(t)
	must.Succeed(t, a.revoke(t.Context(), raw))
	c.redis.Kill()
	c.redis.Start()
	must.Eventually(t, "the replica follows the feed again", func() bool { return a.CatchUp(withTimeout(t, time.Second)) == nil })
	for _, r := range []*replica{a, c.start(t)} {
		r.expectActive(t, raw, false)
		r.expectActive(t, left, true)
		if got := r.keyIDs(t); !slices.Equal(got, keys) {
			t.Errorf("got the keys %q, want %q", got, keys)
		}
		w := r.watch(t, "")
		w.complete()
		if !w.known[id] {
			t.Error("a fresh follower does not receive the revocation")
		}
	}
	if a.log.count("lost data") > 0 {
		t.Error("the log reports lost data")
	}
}

// TestRestartEmpty restarts the Redis without its data, twice: the replicas restore what they know.
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
			id, keys := a.idOf(t, raw), a.keyIDs(t)
			must.Succeed(t, a.revokeAll(t.Context()))
			left := a.token(t)
			must.Succeed(t, a.revoke(t.Context(), raw)) // revoked already, which changes nothing
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
					must.Eventually(t, "the loss is logged", func() bool { return r.log.count("lost data") == loss+1 })
				}
				must.Eventually(t, "the key ring is restored", func() bool {
					data, _, err := a.store.LoadRing(t.Context())
					return err == nil && data != nil
				})
				for _, r := range running {
					// No answer is complete before everything is restored.
					w := r.watch(t, "")
					w.complete()
					if !w.known[singleID] {
						t.Error("a revocation is missing")
					}
					expectReceived(t, w, others, id)
				}
				fresh := c.start(t)
				fresh.apply(t, manifest()) // clients are restored by applying their file
				w := fresh.watch(t, "")
				w.complete()
				expectReceived(t, w, others, id)
				if got := fresh.keyIDs(t); !slices.Equal(got, keys) {
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
			// A stream that has been open throughout starts over and continues.
			last := a.token(t)
			lastID := a.idOf(t, last)
			must.Succeed(t, a.revoke(t.Context(), last))
			old.until(func() bool { return old.known[lastID] && old.last.GetComplete() })
		})
	}
}

func expectReceived(t *testing.T, w *watcher, ids []string, revokedByClient string) {
	t.Helper()
	for _, id := range ids {
		if !w.known["token:"+id] {
			t.Fatalf("of %d revocations, %s is missing", len(ids), id)
		}
	}
	if !w.known["client:svc"] || w.known[revokedByClient] {
		t.Errorf("got client %t and the token that it covers %t, want the client alone", w.known["client:svc"], w.known[revokedByClient])
	}
}

// TestRevokeWithoutStore revokes while the Redis is down.
func TestRevokeWithoutStore(t *testing.T) {
	c := newCluster(t, "--appendonly", "yes", "--appendfsync", "always")
	r := c.start(t)
	r.apply(t, manifest())
	raw := r.token(t)
	r.expectActive(t, raw, true)
	c.redis.Kill()
	expectCode(t, r.revoke(t.Context(), raw), codes.Unavailable)
	expectCode(t, r.revokeAll(t.Context()), codes.Unavailable)
	r.expectActive(t, raw, true) // as at every other replica
	c.redis.Start()
	must.Eventually(t, "it revokes again", func() bool { return r.revoke(t.Context(), raw) == nil })
	r.expectActive(t, raw, false)
}

// TestStoppedAfterAnswer stops a replica as soon as it has answered: the other replica knows what was acknowledged.
func TestStoppedAfterAnswer(t *testing.T) {
	c := newCluster(t)
	b := c.start(t)
	b.apply(t, manifest())
	for range 3 {
		a := c.start(t)
		raw := b.token(t)
		must.Succeed(t, a.revoke(t.Context(), raw))
		a.stop()
		must.Succeed(t, b.CatchUp(withTimeout(t, timeout)))
		b.expectActive(t, raw, false)
	}
}

// TestRequiredReplicas requires a replica of the Redis. Revocations wait for it; issuing does not.
func TestRequiredReplicas(t *testing.T) {
	c := newCluster(t, "--repl-diskless-sync-delay", "0")
	c.required = 1
	r := c.start(t)
	r.apply(t, manifest())
	raw := r.token(t)
	expectCode(t, r.revoke(t.Context(), raw), codes.Unavailable)
	expectCode(t, r.revokeAll(t.Context()), codes.Unavailable)
	redistest.New(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(c.redis.Port()))
	must.Eventually(t, "the replica acknowledges", func() bool { return r.revoke(t.Context(), raw) == nil })
	next := r.token(t)
	must.Succeed(t, r.revoke(t.Context(), next))
	r.expectActive(t, next, false)
}
