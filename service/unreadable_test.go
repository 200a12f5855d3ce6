package service_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/must"
)

// TestUnreadableEntry checks that unreadable entries of the feed stop no replica, neither one that runs nor one that
// starts: they are logged with their ids, and the entries behind them take effect.
func TestUnreadableEntry(t *testing.T) {
	c := newCluster(t)
	r := c.start(t)
	r.apply(t, manifest())
	raw := r.token(t)
	var ids []string
	for _, kind := range []string{"client_tokens", "token", "key", "client", ""} {
		id, err := c.redis.Client().XAdd(t.Context(), &redis.XAddArgs{
			Stream: "grantor:{grantor}:feed", Values: []string{"k", kind, "i", "", "t", "soon"},
		}).Result()
		must.Succeed(t, err)
		ids = append(ids, id)
	}
	must.Succeed(t, r.revoke(t.Context(), raw))
	for _, replica := range []*replica{r, c.start(t)} {
		replica.expectActive(t, raw, false)
		replica.token(t)
		for _, id := range ids {
			if n := replica.log.count("level=ERROR msg=\"a record in the store cannot be read"); n == 0 || replica.log.count("id="+id) != 1 {
				t.Errorf("the entry %s is not in the log, of %d lines about such", id, n)
			}
		}
		if replica.log.count("the feed cannot be read") > 0 {
			t.Error("the feed counts as unreadable")
		}
	}
}

// TestUnreadableRecords checks that no record that cannot be read stops a replica, neither one that runs nor one that starts.
func TestUnreadableRecords(t *testing.T) {
	const base = "grantor:{grantor}:"
	for name, poison := range map[string][]any{
		"a client":                  {"hset", base + "client:other", "d", "{", "v", "1", "m", "x"},
		"a client of another type":  {"set", base + "client:other", "x"},
		"an ID that no client has":  {"zadd", base + "clients", 0, "\x00", 0, "ghost"},
		"the uses of secrets":       {"hset", base + "used", "svc", "x"},
		"uses of another type":      {"set", base + "used", "x"},
		"a replica":                 {"hset", base + "replicas", "x", "y"},
		"replicas of another type":  {"set", base + "replicas", "x"},
		"an audit event":            {"xadd", base + "audit:decisions", "*", "t", "soon", "e", "x", "a", "["},
		"a stream of another type":  {"set", base + "audit:refusals", "x"},
		"an entry without anything": {"xadd", base + "feed", "*", "x", "y"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			r := c.start(t)
			r.apply(t, manifest())
			if poison[0] == "set" {
				must.Succeed(t, c.redis.Client().Del(t.Context(), poison[1].(string)).Err())
			}
			must.Succeed(t, c.redis.Client().Do(t.Context(), poison...).Err())
			raw := r.token(t)
			for _, replica := range []*replica{r, c.start(t)} {
				replica.token(t)
				replica.expectActive(t, raw, true)
			}
			must.Succeed(t, r.revoke(t.Context(), raw))
			r.expectActive(t, raw, false)
		})
	}
}

// TestUnreadableByThoseThatRun checks that a replica that runs issues tokens although the records that a replica needs to
// start cannot be read.
func TestUnreadableByThoseThatRun(t *testing.T) {
	const base = "grantor:{grantor}:"
	c := newCluster(t)
	r := c.start(t)
	r.apply(t, manifest())
	r.token(t)
	must.Succeed(t, c.redis.Client().HSet(t.Context(), base+"resources", "d", "{").Err())
	must.Succeed(t, c.redis.Client().HSet(t.Context(), base+"ring", "v", "x").Err())
	r.token(t)
}
