package redisstore_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/token"
)

// reports collects what the store cannot read, without the base of the keys.
type reports struct {
	mu  sync.Mutex
	all []string
}

func (k *kit) reports() *reports {
	r := &reports{}
	k.OnUnreadable(func(u telemetry.UnreadableRecord) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if u.Err == nil {
			u.Record += " without an error"
		}
		r.all = append(r.all, strings.TrimSpace(u.Record+" "+strings.TrimPrefix(u.Key, k.base)+" "+u.ID))
	})
	return r
}

func (r *reports) expect(t *testing.T, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.all, want) {
		t.Errorf("reported: got %q, want %q", r.all, want)
	}
	r.all = nil
}

func (k *kit) add(t *testing.T, stream string, values ...any) string {
	t.Helper()
	id, err := k.client.XAdd(t.Context(), &redis.XAddArgs{Stream: k.base + stream, Values: values}).Result()
	must.Succeed(t, err)
	return id
}

// testUnreadableEntries checks that entries of the feed that cannot be read are reported by their ids and delay no follower, and
// that what needs no time is applied without.
func testUnreadableEntries(t *testing.T, k *kit) {
	jti := token.NewID().String()
	unreadable := [][]any{
		{"k", "token", "i", jti, "t", "soon"}, {"k", "token", "i", jti, "t", ""}, {"k", "token", "i", jti},
		{"k", "token", "i", "x", "t", "1800000000"}, {"k", "token", "i", jti, "t", "-1"},
		{"k", "token", "i", jti, "t", "4294967296"}, {"k", "token", "i", jti, "t", "99999999999999999999"},
		{"k", "token", "i", jti, "t", "1.5"}, {"k", "token", "i", jti, "t", "1800000000 "},
		{"k", "client_tokens", "i", "a", "t", "x"}, {"k", "client_tokens", "i", "", "t", "1800000000"},
		{"k", "client_tokens", "t", "1800000000"}, {"k", "client_tokens", "i", "\xff", "t", "1800000000"},
		{"k", "key", "i", "", "t", "1800000000"}, {"k", "key", "i", "kid", "t", "x"},
		{"k", "client", "i", ""}, {"k", "client", "i", "\x00"}, {"i", "a"}, {"x", "y"}, {"k", "", "i", "a", "t", "1"},
	}
	r := k.reports()
	var want []string
	for _, values := range unreadable {
		want = append(want, "feed feed "+k.add(t, "feed", values...))
	}
	k.add(t, "feed", "k", "client", "i", "b", "t", "soon")
	k.add(t, "feed", "k", "ring", "t", "soon")
	k.add(t, "feed", "k", "client_tokens", "i", "b", "t", "1800000000")
	entries, _ := k.read(t, revocation.Cursor{})
	if len(entries) != len(unreadable)+3 {
		t.Fatalf("got %d entries, want %d", len(entries), len(unreadable)+3)
	}
	for i, e := range entries {
		if (e.Err != nil) != (i < len(unreadable)) {
			t.Errorf("entry %d: got %v, error %v", i, e.Change, e.Err)
		}
	}
	r.expect(t, want...)
	k.reports()
	follower := follow(t, k)
	must.Succeed(t, follower.CatchUp(t.Context()))
	if got := follower.applied(); !slices.Equal(got, []revocation.Change{
		clientChange("b"), {Kind: revocation.RingChanged}, {Kind: revocation.ClientRevoked, ID: "b", At: start},
	}) {
		t.Errorf("applied %v", got)
	}
	// The last entry of the feed may be one of them.
	k.add(t, "feed", "k", "client_tokens", "i", "b", "t", "soon")
	must.Succeed(t, follower.CatchUp(t.Context()))
	if _, complete := follower.Age(); !complete || len(follower.reports) > 0 || len(follower.lost) > 0 {
		t.Errorf("complete %v, reports %v", complete, follower.reports)
	}
}

// testUnreadableListed checks that clients that cannot be read hide no other, even those whose id no client can have.
func testUnreadableListed(t *testing.T, k *kit) {
	for _, id := range []string{"a", "b", "d", "f"} {
		k.save(t, newClient(id))
	}
	must.Succeed(t, k.client.Set(t.Context(), k.base+"client:c", "x", 0).Err())
	for _, id := range []string{"c", "\x01", "e\x00"} {
		must.Succeed(t, k.client.ZAdd(t.Context(), k.base+"clients", redis.Z{Member: id}).Err())
	}
	k.alter(t, "client:b", "d", "{}")
	r := k.reports()
	var got []string
	var after oauth.ClientID
	for {
		page, err := k.Clients(t.Context(), after, 2)
		must.Succeed(t, err)
		for _, c := range page {
			got, after = append(got, fmt.Sprint(c.ID, c.Err == nil)), c.ID
		}
		if len(page) < 2 {
			break
		}
	}
	if want := []string{"a true", "b false", "c false", "d true", "f true"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.expect(t, "client client:\x01", "client client:b", "client client:c", "client client:e\x00")
	for _, id := range []string{"b", "c"} {
		if c, err := k.Client(t.Context(), clientID(id)); err == nil {
			t.Errorf("got %+v", c)
		}
	}
	r.expect(t, "client client:b", "client client:c")
}

func testUnreadableUses(t *testing.T, k *kit) {
	ctx := t.Context()
	for _, id := range []string{"a", "b", "c"} {
		k.withSecrets(t, id, "1")
	}
	r := k.reports()
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "1", 5), used("b", "1", 6)}))
	r.expect(t)
	k.alter(t, "used", "a", "x")
	k.alter(t, "used", "c", `{"1":253402300800}`)
	k.expectUses(t, "a", nil)
	k.expectUses(t, "b", map[string]int{"1": 6})
	k.expectUses(t, "c", nil)
	r.expect(t, "uses used a", "uses used c")
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "1", 7), used("b", "1", 8)}))
	k.expectUses(t, "a", map[string]int{"1": 7})
	k.expectUses(t, "b", map[string]int{"1": 8})
	r.expect(t, "uses used a")
	// A client's key of another type delays the uses of no other client.
	must.Succeed(t, k.client.Set(ctx, k.base+"client:z", "x", 0).Err())
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("z", "1", 1), used("b", "1", 9)}))
	k.expectUses(t, "b", map[string]int{"1": 9})
}

func testUnreadableCounts(t *testing.T, k *kit) {
	w := limit.Window{Kind: "failures", Period: time.Minute, Number: 9}
	a, b, c := keyNumber(1), keyNumber(2), keyNumber(3)
	r := k.reports()
	k.expectSums(t, w, []limit.Count{{Key: a, N: 2}, {Key: b, N: 1}}, 2, 1)
	k.alter(t, "limit:failures:60:9", string(a[:]), "x")
	k.alter(t, "limit:failures:60:9", string(c[:]), "9223372036854775807")
	k.expectSums(t, w, []limit.Count{{Key: a, N: 3}, {Key: c, N: 5}, {Key: b, N: 4}}, 3, 5, 5)
	r.expect(t, "counts limit:failures:60:9", "counts limit:failures:60:9")
	k.expectSums(t, w, []limit.Count{{Key: a, N: 1}}, 4)
	r.expect(t)
}

func testUnreadableReplicas(t *testing.T, k *kit) {
	_, err := k.Announce(t.Context(), heartbeat.Status{ID: "a"})
	must.Succeed(t, err)
	now := fmt.Sprint(time.Now().UnixMilli())
	for id, record := range map[string]string{"b": now + " {", "c": "x", "d": now + ` {"format":1,"id":"a"}`, "e": now + ` {"format":2,"id":"e"}`} {
		k.alter(t, "replicas", id, record)
	}
	r := k.reports()
	found, _, err := k.Replicas(t.Context())
	if err != nil || len(found) != 1 || found[0].ID != "a" {
		t.Errorf("got %v, %v, want a", found, err)
	}
	r.expect(t, "replica replicas b", "replica replicas c", "replica replicas d", "replica replicas e")
}

func testUnreadableAudit(t *testing.T, k *kit) {
	r := k.reports()
	readable := k.add(t, "audit:changes", "t", "1800000000000", "e", "e", "a", "{}")
	beyond := k.add(t, "audit:changes", "t", "253402300800000", "e", "e", "a", "{}")
	list := k.add(t, "audit:changes", "t", "1", "e", "e", "a", "[]")
	page, err := k.AuditTrail(10).Before(t.Context(), telemetry.Changes, "", 10)
	if err != nil || len(page) != 3 || page[2].ID != readable || time.Since(page[1].Time) > time.Hour {
		t.Errorf("got %v, %v", page, err)
	}
	r.expect(t, "audit audit:changes "+list, "audit audit:changes "+beyond)
}

// testWrongType checks that a key of another type costs what that key holds, and that what the store only counts begins again.
func testWrongType(t *testing.T, k *kit) {
	ctx := t.Context()
	k.withSecrets(t, "a", "1")
	w := limit.Window{Kind: "failures", Period: time.Minute, Number: 3}
	for _, key := range []string{"used", "limit:failures:60:3", "replicas", "resources"} {
		must.Succeed(t, k.client.Set(ctx, k.base+key, "x", 0).Err())
	}
	r := k.reports()
	k.expectUses(t, "a", nil)
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "1", 5)}))
	k.expectUses(t, "a", map[string]int{"1": 5})
	k.expectSums(t, w, []limit.Count{{Key: keyNumber(1), N: 2}}, 2)
	_, err := k.Announce(ctx, heartbeat.Status{ID: "a"})
	must.Succeed(t, err)
	if _, err := k.Resources(ctx); err == nil {
		t.Error("the resources: got no error")
	}
	r.expect(t, "uses used", "counts limit:failures:60:3", "resources resources")
}
