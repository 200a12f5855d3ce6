package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
)

// expectAltered checks that every way to read the client a, or the resources, reports which record was altered.
func (k *kit) expectAltered(t *testing.T, key string) {
	t.Helper()
	reads := map[string]func(ctx context.Context) error{
		"read": func(ctx context.Context) error { _, err := k.Client(ctx, clientID("a")); return err },
		"listed": func(ctx context.Context) error {
			list, err := k.Clients(ctx, oauth.ClientID{}, 10)
			if err != nil || len(list) == 0 || list[0].ID != clientID("a") {
				return errors.Join(fmt.Errorf("got %v", list), err)
			}
			return list[0].Err
		},
	}
	if key == "resources" {
		reads = map[string]func(ctx context.Context) error{
			"read": func(ctx context.Context) error { _, err := k.Resources(ctx); return err },
		}
	}
	if key == "trust" {
		reads = map[string]func(ctx context.Context) error{
			"read": func(ctx context.Context) error { _, err := k.Trust(ctx); return err },
		}
	}
	for how, read := range reads {
		if err := read(t.Context()); !errors.Is(err, registry.ErrAltered) || !strings.Contains(err.Error(), k.base+key) {
			t.Errorf("%s: got %v, want %v, and the name of the record", how, err, registry.ErrAltered)
		}
	}
}

// testAltered alters each field of a client and of the resources.
func testAltered(t *testing.T, k *kit) {
	narrow := newClient("a")
	narrow.Scopes = scopes("a")
	k.save(t, narrow)
	must.Succeed(t, k.SaveResources(t.Context(), must.Get(registry.NewResources(0, []registry.Resource{{ID: resourceID("urn:a"), Scopes: scopes("a")}}))))
	must.Succeed(t, k.SaveTrust(t.Context(), table(0, workload(scopes("a")))))
	for _, key := range []string{"client:a", "resources", "trust"} {
		whole, err := k.client.HGetAll(t.Context(), k.base+key).Result()
		must.Succeed(t, err)
		for name, fields := range map[string]map[string]string{
			"a wider scope":     {"d": strings.Replace(whole["d"], `"scope":"a"`, `"scope":"a b"`, 1)},
			"a blank":           {"d": whole["d"] + " "},
			"another version":   {"v": "1" + whole["v"]},
			"version as text":   {"v": "0" + whole["v"]},
			"a bit of the MAC":  {"m": string(whole["m"][0]^1) + whole["m"][1:]},
			"half the MAC":      {"m": whole["m"][:16]},
			"an empty MAC":      {"m": ""},
			"a shifted border":  {"v": whole["v"] + whole["d"][:1], "d": whole["d"][1:]},
			"MAC of no key":     {"d": "{}", "m": string(make([]byte, 32))},
			"MAC under another": {"m": (&kit{base: k.base, secret: keys.NewKEK()}).mac(key, whole["v"], whole["d"])},
		} {
			t.Run(key+", "+name, func(t *testing.T) {
				must.Succeed(t, k.client.HSet(t.Context(), k.base+key, fields).Err())
				k.expectAltered(t, key)
				must.Succeed(t, k.client.HSet(t.Context(), k.base+key, whole).Err())
			})
		}
		for field := range whole {
			t.Run(key+", without "+field, func(t *testing.T) {
				must.Succeed(t, k.client.HDel(t.Context(), k.base+key, field).Err())
				k.expectAltered(t, key)
				must.Succeed(t, k.client.HSet(t.Context(), k.base+key, whole).Err())
			})
		}
	}
	// The restored records are valid again.
	c, err := k.Client(t.Context(), clientID("a"))
	must.Succeed(t, err)
	resources, err := k.Resources(t.Context())
	must.Succeed(t, err)
	trusted, err := k.Trust(t.Context())
	must.Succeed(t, err)
	if c.Scopes.String() != "a" || len(resources.List()) != 1 || len(trusted.Workloads()) != 1 {
		t.Errorf("got %v, %v and %v", c, resources.List(), trusted.Workloads())
	}
}

// testMoved copies whole records to the keys of another client, another table and another issuer.
func testMoved(t *testing.T, k *kit) {
	other := newKit(k.client)
	k.save(t, newClient("a"))
	k.save(t, newClient("b"))
	other.save(t, newClient("a"))
	// Another issuer may even have the same key, if its ring was copied.
	same := newKit(k.client)
	same.Authenticate(k.secret)
	same.save(t, newClient("a"))
	must.Succeed(t, k.SaveResources(t.Context(), must.Get(registry.NewResources(0, nil))))
	for name, from := range map[string]string{
		"of another client":                   k.base + "client:b",
		"of another issuer":                   other.base + "client:a",
		"of another issuer with the same key": same.base + "client:a",
		"of the resources":                    k.base + "resources",
	} {
		t.Run(name, func(t *testing.T) {
			record, err := k.client.HGetAll(t.Context(), from).Result()
			must.Succeed(t, err)
			must.Succeed(t, k.client.Del(t.Context(), k.base+"client:a").Err())
			must.Succeed(t, k.client.HSet(t.Context(), k.base+"client:a", record).Err())
			k.expectAltered(t, "client:a")
		})
	}
	// After it was deleted by hand, the client can be registered again.
	must.Succeed(t, k.client.Del(t.Context(), k.base+"client:a").Err())
	k.save(t, newClient("a"))
	if listed, err := k.Clients(t.Context(), oauth.ClientID{}, 10); err != nil || len(listed) != 2 {
		t.Errorf("got %v, %v, want both", listed, err)
	}
}

// testNoKey checks that a store without its key neither reads nor writes records.
func testNoKey(t *testing.T, k *kit) {
	ctx := t.Context()
	c := k.save(t, newClient("a"))
	bare := must.Get(redisstore.New(k.client, strings.SplitN(k.base, "{", 2)[0], retention))
	for name, err := range map[string]error{
		"client":           func() error { _, err := bare.Client(ctx, c.ID); return err }(),
		"no client":        func() error { _, err := bare.Client(ctx, clientID("b")); return err }(),
		"clients":          func() error { _, err := bare.Clients(ctx, oauth.ClientID{}, 10); return err }(),
		"resources":        func() error { _, err := bare.Resources(ctx); return err }(),
		"saved":            bare.SaveClient(ctx, c),
		"deleted":          bare.DeleteClient(ctx, c.ID, c.Version),
		"saved, resources": bare.SaveResources(ctx, must.Get(registry.NewResources(0, nil))),
		"trust":            func() error { _, err := bare.Trust(ctx); return err }(),
		"saved, trust":     bare.SaveTrust(ctx, table(0)),
	} {
		if err == nil || errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), "no key") {
			t.Errorf("%s: got %v, want an error about the missing key", name, err)
		}
	}
	k.expectClient(t, c)
	k.expectFeed(t, clientChange("a"))
}

// loseReply loses the reply to the next change, so that go-redis sends it again.
type loseReply struct{ lost bool }

func (l *loseReply) DialHook(next redis.DialHook) redis.DialHook { return next }
func (l *loseReply) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (l *loseReply) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := next(ctx, cmd); err != nil || l.lost || !strings.HasPrefix(cmd.Name(), "eval") {
			return err
		}
		l.lost = true
		return next(ctx, cmd)
	}
}

// testReplyLost checks that a change which go-redis sends twice, because the first reply was lost, is made once.
func testReplyLost(t *testing.T, k *kit) {
	k.client.AddHook(&loseReply{})
	must.Succeed(t, k.SaveClient(t.Context(), newClient("a")))
	k.expectFeed(t, clientChange("a"))
	if c, err := k.Client(t.Context(), clientID("a")); err != nil || c.Version == 0 {
		t.Errorf("got %v, %v", c, err)
	}
}
