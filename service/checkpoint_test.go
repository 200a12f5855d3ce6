package service_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/must"
)

const (
	feedKey        = "grantor:{grantor}:feed"
	checkpointsKey = "grantor:{grantor}:checkpoints"
)

// changeClients announces n changes of clients, as any release does.
func changeClients(t *testing.T, c *cluster, n int) {
	t.Helper()
	pipe := c.redis.Client().Pipeline()
	for i := range n {
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: feedKey, Values: []string{"k", "client", "i", fmt.Sprint("c", i), "t", ""}})
	}
	must.Get(pipe.Exec(t.Context()))
}

// TestStartFromCheckpoint checks that running replicas store checkpoints as the feed grows, that a replica which starts
// uses them, and that it knows and serves every revocation with its cursor.
func TestStartFromCheckpoint(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	early, late, left := a.token(t), a.token(t), a.token(t)
	lateID := a.idOf(t, late)
	must.Succeed(t, a.revoke(t.Context(), early))
	changeClients(t, c, 10_500)
	client := c.redis.Client()
	must.Eventually(t, "there are checkpoints", func() bool { return client.XLen(context.Background(), checkpointsKey).Val() >= 2 })
	w := a.watch(t, "")
	w.complete()
	must.Succeed(t, b.revoke(t.Context(), late))
	// The entries behind the first one are removed: the replica that starts cannot have them from the feed.
	first := must.Get(client.XRangeN(t.Context(), feedKey, "-", "+", 1000).Result())
	for _, m := range first {
		must.Succeed(t, client.XDel(t.Context(), feedKey, m.ID).Err())
	}
	fresh := c.start(t)
	for _, r := range []*replica{a, b, fresh} {
		must.Succeed(t, r.CatchUp(withTimeout(t, timeout)))
		r.expectActive(t, early, false)
		r.expectActive(t, late, false)
		r.expectActive(t, left, true)
		if r.log.count("the store has lost data")+r.log.count("cannot be read")+r.log.count("checkpoint") > 0 {
			t.Errorf("the log has\n%s", r.log)
		}
	}
	resumed := fresh.watch(t, w.cursor)
	resumed.complete()
	if resumed.received != 1 || !resumed.known[lateID] {
		t.Errorf("resumed at the replica that started, a follower received %d revocations, want the last one", resumed.received)
	}
	// What was lost is noticed as ever, and what is known from checkpoints is published again.
	must.Succeed(t, client.Del(t.Context(), feedKey).Err())
	must.Eventually(t, "the loss is repaired", func() bool { return fresh.log.count("published again") > 0 })
	last := c.start(t)
	last.expectActive(t, early, false)
	last.expectActive(t, late, false)
	last.expectActive(t, left, true)
}
