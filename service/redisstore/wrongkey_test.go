package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// storeWrite is one of the writes that are announced in the feed, to a store that prepareWrites has filled.
type storeWrite struct {
	// keys are those that must be intact for the write, besides the feed.
	keys  []string
	write func(ctx context.Context, k *kit) error
	// kind is that of an entry which the write announces.
	kind revocation.Kind
}

// onClient returns the write that fn makes with the stored client a.
func onClient(kind revocation.Kind, fn func(ctx context.Context, k *kit, a *registry.Client) error) storeWrite {
	return storeWrite{[]string{"client:a", "clients"}, func(ctx context.Context, k *kit) error {
		a, err := k.Client(ctx, clientID("a"))
		if err != nil {
			return err
		}
		return fn(ctx, k, a)
	}, kind}
}

var storeWrites = map[string]storeWrite{
	"create": {[]string{"client:b", "clients"}, func(ctx context.Context, k *kit) error {
		return k.SaveClient(ctx, newClient("b"))
	}, revocation.ClientChanged},
	"restrict": onClient(revocation.ClientChanged, func(ctx context.Context, k *kit, a *registry.Client) error {
		a.Scopes = scopes("a")
		return k.SaveClient(ctx, a)
	}),
	"disable": onClient(revocation.ClientRevoked, func(ctx context.Context, k *kit, a *registry.Client) error {
		a.Disabled = true
		return k.SaveClient(ctx, a)
	}),
	"delete": onClient(revocation.ClientRevoked, func(ctx context.Context, k *kit, a *registry.Client) error {
		return k.DeleteClient(ctx, a.ID, a.Version)
	}),
	"resources": {[]string{"resources"}, func(ctx context.Context, k *kit) error {
		table, err := k.Resources(ctx)
		if err != nil {
			return err
		}
		return k.SaveResources(ctx, must.Get(registry.NewResources(table.Version(), nil)))
	}, revocation.ResourcesChanged},
	"ring": {[]string{"ring"}, func(ctx context.Context, k *kit) error {
		_, version, err := k.LoadRing(ctx)
		if err != nil {
			return err
		}
		return k.SaveRing(ctx, []byte("y"), version, "kid")
	}, revocation.KeyRevoked},
	"publish": {nil, func(ctx context.Context, k *kit) error {
		return k.Publish(ctx, revocation.Change{Kind: revocation.ClientRevoked, ID: "a", At: start})
	}, revocation.ClientRevoked},
}

// prepareWrites stores what the writes change.
func (k *kit) prepareWrites(t *testing.T) {
	t.Helper()
	k.withSecrets(t, "a", "1")
	must.Succeed(t, k.RecordUses(t.Context(), []registry.Use{used("a", "1", 5)}))
	must.Succeed(t, k.SaveResources(t.Context(), must.Get(registry.NewResources(0, []registry.Resource{{ID: resourceID("urn:a"), Scopes: scopes("a")}}))))
	must.Succeed(t, k.SaveRing(t.Context(), []byte("x"), 0))
}

// state returns all that the writes change.
func (k *kit) state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, key := range []string{"client:a", "client:b", "resources", "ring"} {
		record, err := k.client.HGetAll(t.Context(), k.base+key).Result()
		must.Succeed(t, err)
		fmt.Fprintf(&b, "%s %q\n", key, record)
	}
	ids, err := k.client.ZRange(t.Context(), k.base+"clients", 0, -1).Result()
	must.Succeed(t, err)
	fmt.Fprintln(&b, ids, k.feed(t))
	return b.String()
}

// displace replaces a key by what damage stores under it, and returns the function that undoes this.
func (k *kit) displace(t *testing.T, key string, damage func(ctx context.Context, key string) error) (restore func()) {
	t.Helper()
	ctx, name, backup := t.Context(), k.base+key, k.base+"backup"
	exists := must.Get(k.client.Exists(ctx, name).Result()) > 0
	if exists {
		must.Succeed(t, k.client.Rename(ctx, name, backup).Err())
	}
	must.Succeed(t, damage(ctx, name))
	return func() {
		must.Succeed(t, k.client.Del(ctx, name).Err())
		if exists {
			must.Succeed(t, k.client.Rename(ctx, backup, name).Err())
		}
	}
}

// testWrongKeys checks that a write that meets a key of a wrong type changes nothing, neither the records nor the feed, so that
// it can be repeated when the key is repaired, and is announced then. A wrong key of uses prevents no write.
func testWrongKeys(t *testing.T, k *kit) {
	types := map[string]func(ctx context.Context, key string) error{
		"string": func(ctx context.Context, key string) error { return k.client.Set(ctx, key, "x", 0).Err() },
		"list":   func(ctx context.Context, key string) error { return k.client.RPush(ctx, key, "x").Err() },
		"set":    func(ctx context.Context, key string) error { return k.client.SAdd(ctx, key, "x").Err() },
		"hash":   func(ctx context.Context, key string) error { return k.client.HSet(ctx, key, "x", "x").Err() },
		"zset": func(ctx context.Context, key string) error {
			return k.client.ZAdd(ctx, key, redis.Z{Member: "x"}).Err()
		},
		"stream": func(ctx context.Context, key string) error {
			return k.client.XAdd(ctx, &redis.XAddArgs{Stream: key, Values: []string{"x", "x"}}).Err()
		},
	}
	right := map[string]string{"clients": "zset", "feed": "stream"} // every other key is a hash
	for name, w := range storeWrites {
		for _, key := range []string{"client:a", "client:b", "clients", "used", "resources", "ring", "feed"} {
			for kind, damage := range types {
				if kind == right[key] || kind == "hash" && right[key] == "" {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s a %s", name, key, kind), func(t *testing.T) {
					k := newKit(k.client)
					k.prepareWrites(t)
					k.expectWrite(t, w, key, damage)
				})
			}
		}
	}
}

// expectWrite makes a write while a key is displaced, and expects that it succeeds or changes nothing, by whether it needs the key.
// Either way it is announced in the end.
func (k *kit) expectWrite(t *testing.T, w storeWrite, key string, damage func(ctx context.Context, key string) error) {
	t.Helper()
	before := k.state(t)
	announced := func() int { return len(k.announced(t, w.kind)) }
	count := announced()
	restore := k.displace(t, key, damage)
	err := w.write(t.Context(), k)
	needed := key == "feed" || slices.Contains(w.keys, key)
	if failed := err != nil; failed != needed {
		t.Errorf("got %v, want an error: %t", err, needed)
	}
	restore()
	if needed {
		if after := k.state(t); after != before {
			t.Errorf("the write failed and changed\n%s\nto\n%s", before, after)
		}
		must.Succeed(t, w.write(t.Context(), k))
	}
	if got := announced(); got != count+1 {
		t.Errorf("got %d announcements, want %d", got, count+1)
	}
}

// announced returns the changes of a kind in the feed.
func (k *kit) announced(t *testing.T, kind revocation.Kind) []revocation.Change {
	t.Helper()
	return slices.DeleteFunc(k.feed(t), func(c revocation.Change) bool { return c.Kind != kind })
}

// TestExhaustedFeed checks that no write changes a record if its entries cannot be added to the feed, because the last ID is
// the highest possible one, even if that entry was deleted, or because one ID is left and the write needs two. The embedded
// Redis knows no highest ID.
func TestExhaustedFeed(t *testing.T) {
	const highest, last = "18446744073709551615-18446744073709551615", "18446744073709551615-18446744073709551614"
	client := redistest.New(t).Client()
	end := func(ctx context.Context, key, id string) error {
		return client.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: id, Values: []string{"k", "client", "i", "zz", "t", "1"}}).Err()
	}
	for name, w := range storeWrites {
		for how, damage := range map[string]func(ctx context.Context, key string) error{
			"no ID left": func(ctx context.Context, key string) error { return end(ctx, key, highest) },
			"no ID left, entry deleted": func(ctx context.Context, key string) error {
				if err := end(ctx, key, highest); err != nil {
					return err
				}
				return client.XDel(ctx, key, highest).Err()
			},
			"one ID left": func(ctx context.Context, key string) error { return end(ctx, key, last) },
		} {
			if how == "one ID left" && !slices.Contains([]string{"disable", "delete", "ring"}, name) {
				continue // one entry is enough
			}
			t.Run(name+", "+how, func(t *testing.T) {
				k := newKit(client)
				k.prepareWrites(t)
				k.expectWrite(t, w, "feed", damage)
			})
		}
	}
}

// TestDeleteWithoutMemory checks that a client can be deleted although the Redis is at its memory limit and refuses what
// could need more.
func TestDeleteWithoutMemory(t *testing.T) {
	client := redistest.New(t).Client()
	k := newKit(client)
	a := k.withSecrets(t, "a", "1")
	must.Succeed(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
	a.Name = "A"
	if err := k.SaveClient(t.Context(), a); !redis.HasErrorPrefix(err, "OOM") {
		t.Errorf("a change: got %v, want OOM", err)
	}
	must.Succeed(t, k.DeleteClient(t.Context(), a.ID, a.Version))
	k.expectNoClient(t, "a")
	if got := k.announced(t, revocation.ClientRevoked); len(got) != 1 || time.Until(got[0].At) < 0 {
		t.Errorf("announced %v, want one revocation that covers every token so far", got)
	}
}
