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
