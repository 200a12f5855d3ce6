package redisstore_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// skim reads the feed as a replica does that starts. It returns the entries that are no invalidations, and how many of all
// entries came from Read.
func (k *kit) skim(t *testing.T) (entries []revocation.Entry, read int) {
	t.Helper()
	var cursor revocation.Cursor
	keep := func(page []revocation.Entry) {
		for _, e := range page {
			if n := len(entries); n > 0 && e.Cursor.Compare(entries[n-1].Cursor) <= 0 {
				t.Errorf("the entry %v is not after %v", e, entries[n-1])
			}
			if !e.Kind.Invalidation() {
				entries = append(entries, e)
			}
		}
	}
	for {
		page, next, err := k.Skim(t.Context(), cursor)
		must.Succeed(t, err)
		keep(page)
		if next == cursor {
			break
		}
		cursor = next
	}
	for {
		page, more, err := k.Read(t.Context(), cursor, 0)
		must.Succeed(t, err)
		keep(page)
		if read += len(page); !more {
			return entries, read
		}
		cursor = page[len(page)-1].Cursor
	}
}

// kept returns the entries of the feed that are no invalidations.
func (k *kit) kept(t *testing.T) []revocation.Entry {
	t.Helper()
	entries, more := k.read(t, revocation.Cursor{})
	if more {
		t.Fatal("the feed has more than one page")
	}
	return slices.DeleteFunc(entries, func(e revocation.Entry) bool { return e.Kind.Invalidation() })
}

// expectSkim checks that a start gets what is in the feed, and how many entries it reads there.
func (k *kit) expectSkim(t *testing.T, wantRead int) {
	t.Helper()
	got, read := k.skim(t)
	if want := k.kept(t); !reflect.DeepEqual(got, want) {
		t.Errorf("skimmed %v, want %v", got, want)
	}
	if read != wantRead {
		t.Errorf("read %d entries of the feed, want %d", read, wantRead)
	}
}

// addSome adds as many entries to the feed, of every kind in turn.
func (k *kit) addSome(t *testing.T, n int) {
	t.Helper()
	at := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	for i := range n {
		jti := token.NewID().String()
		k.add(t, "feed", [][]any{
			{"k", "client", "i", fmt.Sprint("c", i), "t", ""}, {"k", "token", "i", jti, "t", at}, {"k", "ring"}, {"k", "resources", "i", ""},
			{"k", "client_tokens", "i", "\"c\n ü", "t", at}, {"k", "trust", "i", ""}, {"k", "key", "i", "kid", "t", at, "by", "\x00\xff"},
			{"k", "of a later release", "i", "x", "more", "y"}, {"k", "token", "i", jti, "t", "soon"}, {"k", "client", "i", ""}, {"x", ""},
		}[i%11]...)
	}
}

func (k *kit) checkpoint(t *testing.T) {
	t.Helper()
	must.Succeed(t, k.Checkpoint(t.Context()))
}

func (k *kit) expectCheckpoints(t *testing.T, want int) []redis.XMessage {
	t.Helper()
	found, err := k.client.XRange(t.Context(), k.base+"checkpoints", "-", "+").Result()
	if err != nil || len(found) != want {
		t.Fatalf("got %d checkpoints, %v, want %d", len(found), err, want)
	}
	return found
}

func testCheckpoints(t *testing.T, k *kit) {
	k.SetCheckpointEntries(20)
	k.checkpoint(t)
	k.expectSkim(t, 0)
	k.addSome(t, 19)
	k.checkpoint(t)
	k.expectCheckpoints(t, 0)
	k.expectSkim(t, 19)
	k.addSome(t, 20*20+5)
	k.expectSkim(t, 20*21+4)
	k.checkpoint(t)
	k.expectCheckpoints(t, 21)
	k.expectSkim(t, 4)
	k.addSome(t, 16)
	k.expectSkim(t, 20)
	k.checkpoint(t)
	k.checkpoint(t)
	found := k.expectCheckpoints(t, 22)
	k.expectSkim(t, 0)
	if left := must.Get(k.client.PTTL(t.Context(), k.base+"checkpoints").Result()); left < retention-time.Minute || left > retention {
		t.Errorf("the checkpoints expire after %s, want %s", left, retention)
	}
	// The MAC is part of the stored format.
	for i, m := range found {
		previous := "0-0"
		if i > 0 {
			previous = found[i-1].ID
		}
		if m.Values["p"] != previous || m.Values["m"] != k.mac("checkpoints", previous+" "+m.ID, m.Values["d"].(string)) {
			t.Errorf("checkpoint %d: got %q", i, m.Values)
		}
	}
	// A tail applies every entry once, and drops what was cached before.
	follower := follow(t, k)
	must.Succeed(t, follower.CatchUp(t.Context()))
	var want []revocation.Change
	for _, e := range k.kept(t) {
		if e.Err == nil {
			want = append(want, e.Change)
		}
	}
	if got := follower.applied(); !slices.Equal(got, want) || len(follower.lost) > 0 {
		t.Errorf("applied %v, want %v, and no loss", got, want)
	}
	k.save(t, newClient("a"))
	must.Succeed(t, follower.CatchUp(t.Context()))
	if got := follower.applied(); got[len(got)-1] != clientChange("a") || follower.skims != 1 {
		t.Errorf("applied %v at the end, after %d skims", got[len(got)-1], follower.skims)
	}
}

// testUnusableCheckpoints checks that a start reads the feed where the checkpoints are unusable, and that they are replaced.
func testUnusableCheckpoints(t *testing.T, k *kit) {
	k.SetCheckpointEntries(20)
	k.addSome(t, 65)
	ctx, key := t.Context(), k.base+"checkpoints"
	alter := func(i int, change func(values map[string]any)) func([]redis.XMessage) {
		return func(found []redis.XMessage) {
			must.Succeed(t, k.client.Del(ctx, key).Err())
			change(found[i].Values)
			for _, m := range found {
				must.Succeed(t, k.client.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: m.ID, Values: m.Values}).Err())
			}
		}
	}
	for name, test := range map[string]struct {
		damage func([]redis.XMessage)
		read   int
		report bool
	}{
		"none":               {func([]redis.XMessage) {}, 5, false},
		"lost":               {func([]redis.XMessage) { must.Succeed(t, k.client.Del(ctx, key).Err()) }, 65, false},
		"of another type":    {func([]redis.XMessage) { must.Succeed(t, k.client.Set(ctx, key, "x", 0).Err()) }, 65, true},
		"the first altered":  {alter(0, func(v map[string]any) { v["d"] = v["d"].(string) + "\x00" }), 65, true},
		"the second altered": {alter(1, func(v map[string]any) { v["p"] = v["p"].(string) + "0" }), 45, true},
		"the last cut off": {alter(2, func(v map[string]any) {
			d, _ := v["d"].(string)
			v["d"] = d[:len(d)-1]
		}), 65, true},
		"the last without fields": {alter(2, func(v map[string]any) {
			clear(v)
			v["x"] = "y"
		}), 65, true},
		"the second missing": {func(found []redis.XMessage) { must.Succeed(t, k.client.XDel(ctx, key, found[1].ID).Err()) }, 5, false},
		"the first missing":  {func(found []redis.XMessage) { must.Succeed(t, k.client.XDel(ctx, key, found[0].ID).Err()) }, 5, false},
		"moved": {func(found []redis.XMessage) {
			other := newKit(k.client)
			other.SetCheckpointEntries(20)
			other.addSome(t, 25)
			other.checkpoint(t)
			foreign := other.expectCheckpoints(t, 1)[0]
			must.Succeed(t, k.client.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: foreign.ID, Values: foreign.Values}).Err())
		}, 65, true},
	} {
		must.Succeed(t, k.client.Del(ctx, key).Err())
		k.checkpoint(t)
		found := k.expectCheckpoints(t, 3)
		test.damage(found)
		r := k.reports()
		if got, read := k.skim(t); !reflect.DeepEqual(got, k.kept(t)) || read != test.read {
			t.Errorf("%s: read %d entries of the feed, want %d; got %v", name, read, test.read, got)
		}
		if reported := slices.ContainsFunc(r.all, func(s string) bool { return s[:10] == "checkpoint" }); reported != test.report {
			t.Errorf("%s: reported %q", name, r.all)
		}
		k.checkpoint(t)
		if test.report {
			if _, read := k.skim(t); read != 5 {
				t.Errorf("%s: read %d entries of the feed after the repair, want 5", name, read)
			}
		}
	}
}

// testNewerCheckpoint checks that a start reads the feed from a checkpoint of a newer release, and keeps it. Further ones follow
// it.
func testNewerCheckpoint(t *testing.T, k *kit) {
	k.SetCheckpointEntries(10)
	k.addSome(t, 25)
	k.checkpoint(t)
	found := k.expectCheckpoints(t, 2)
	newer := found[1].Values
	newer["d"] = "\x02?"
	newer["m"] = k.mac("checkpoints", newer["p"].(string)+" "+found[1].ID, "\x02?")
	must.Succeed(t, k.client.Del(t.Context(), k.base+"checkpoints").Err())
	for _, m := range found {
		must.Succeed(t, k.client.XAdd(t.Context(), &redis.XAddArgs{Stream: k.base + "checkpoints", ID: m.ID, Values: m.Values}).Err())
	}
	k.expectSkim(t, 15)
	k.addSome(t, 10)
	k.checkpoint(t)
	k.expectCheckpoints(t, 3)
	k.expectSkim(t, 25)
}

func testCheckpointsAtOnce(t *testing.T, k *kit) {
	k.SetCheckpointEntries(10)
	for range 10 {
		k.addSome(t, 35)
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				if err := k.Checkpoint(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		k.checkpoint(t)
		_, read := k.skim(t)
		k.expectSkim(t, read)
		if read >= 10 {
			t.Errorf("read %d entries of the feed, want fewer than 10", read)
		}
	}
}

// testCheckpointsTrimmed checks that checkpoints are trimmed as the feed is, and that what is left of it before them is read.
func testCheckpointsTrimmed(t *testing.T, k *kit) {
	k.SetCheckpointEntries(10)
	now := time.Now().UnixMilli()
	for i := range 40 {
		at := now - retention.Milliseconds() + int64(i-25)*60_000 // 25 are older than the retention
		must.Succeed(t, k.client.XAdd(t.Context(), &redis.XAddArgs{
			Stream: k.base + "feed", ID: fmt.Sprintf("%d-1", at), Values: []any{"k", "client_tokens", "i", fmt.Sprint(i), "t", "1800000000"},
		}).Err())
	}
	k.checkpoint(t)
	k.expectCheckpoints(t, 2) // those of the entries up to 30 and 40
	k.expectSkim(t, 0)
	must.Succeed(t, k.client.XTrimMinID(t.Context(), k.base+"feed", fmt.Sprint(now-retention.Milliseconds()-10*60_000)).Err())
	got, _ := k.skim(t)
	if want := k.kept(t); len(want) != 25 || !reflect.DeepEqual(got, want) {
		t.Errorf("skimmed %d entries, want %d", len(got), len(want))
	}
	k.addSome(t, 10)
	k.checkpoint(t)
	k.expectCheckpoints(t, 3)
	// If nothing was added for longer than the retention, the next change trims all.
	must.Succeed(t, k.client.XTrimMaxLen(t.Context(), k.base+"feed", 0).Err())
	k.addSome(t, 11)
	k.expectSkim(t, 11)
	k.checkpoint(t)
	k.expectCheckpoints(t, 1)
	k.expectSkim(t, 1)
}

// TestCheckpointHistories compares starts with and without checkpoints after each step of random histories.
func TestCheckpointHistories(t *testing.T) {
	server := redistest.New(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	skimmed := 0
	for range 25 {
		k := newKit(server.Client())
		k.SetCheckpointEntries(1 + random.Int64N(12))
		h := &history{kit: k, random: random, ever: make(map[string]bool)}
		for range 60 {
			h.step(t)
			skimmed += h.compare(t)
			if t.Failed() {
				t.Fatalf("after %q", h.steps)
			}
		}
	}
	if skimmed < 500 {
		t.Errorf("%d entries were skimmed, so the test tests little", skimmed)
	}
}

// history is a random history of a feed.
type history struct {
	*kit
	random *rand.Rand
	steps  []string
	// backup has the dumps of both keys at one moment.
	backup map[string]string
	// ever has each entry that was ever in the feed.
	ever map[string]bool
}

func (h *history) step(t *testing.T) {
	t.Helper()
	ctx, feed, checkpoints := t.Context(), h.base+"feed", h.base+"checkpoints"
	steps := map[string]func(){
		"add":        func() { h.addSome(t, 1+h.random.IntN(30)) },
		"publish":    func() { must.Succeed(t, h.Publish(ctx, revoked(time.Now()))) },
		"checkpoint": func() { h.checkpoint(t) },
		"backup":     func() { h.backup = h.dump(t) },
		"restore": func() { // as a fail-over to a replica that was behind does
			must.Succeed(t, h.client.Del(ctx, feed, checkpoints).Err())
			for key, dump := range h.backup {
				must.Succeed(t, h.client.Restore(ctx, key, 0, dump).Err())
			}
		},
		"lose both":           func() { must.Succeed(t, h.client.Del(ctx, feed, checkpoints).Err()) },
		"lose the feed":       func() { must.Succeed(t, h.client.Del(ctx, feed).Err()) },
		"lose checkpoints":    func() { must.Succeed(t, h.client.Del(ctx, checkpoints).Err()) },
		"trim the feed":       func() { must.Succeed(t, h.client.XTrimMaxLen(ctx, feed, h.random.Int64N(50)).Err()) },
		"trim checkpoints":    func() { must.Succeed(t, h.client.XTrimMaxLen(ctx, checkpoints, h.random.Int64N(4)).Err()) },
		"remove a checkpoint": func() { h.remove(t, checkpoints) },
	}
	names := append([]string{"add", "add", "add", "checkpoint", "checkpoint", "checkpoint", "publish", "backup"}, slices.Sorted(maps.Keys(steps))...)
	name := names[h.random.IntN(len(names))]
	h.steps = append(h.steps, name)
	steps[name]()
	time.Sleep(2 * time.Millisecond) // no ID is used twice
}

func (h *history) dump(t *testing.T) map[string]string {
	t.Helper()
	dumps := make(map[string]string)
	for _, key := range []string{h.base + "feed", h.base + "checkpoints"} {
		if dump, err := h.client.Dump(t.Context(), key).Result(); err == nil {
			dumps[key] = dump
		}
	}
	return dumps
}

// remove removes one entry of a stream.
func (h *history) remove(t *testing.T, key string) {
	t.Helper()
	all := must.Get(h.client.XRange(t.Context(), key, "-", "+").Result())
	if len(all) > 0 {
		must.Succeed(t, h.client.XDel(t.Context(), key, all[h.random.IntN(len(all))].ID).Err())
	}
}

// compare checks that a start gets everything that is in the feed, nothing that never was, and no gap. It returns how many
// entries of the feed need not be read.
func (h *history) compare(t *testing.T) int {
	t.Helper()
	want := h.kept(t)
	for _, e := range want {
		h.ever[fmt.Sprint(e)] = true
	}
	got, read := h.skim(t)
	for _, e := range got {
		if !h.ever[fmt.Sprint(e)] {
			t.Errorf("got %v, which was never in the feed", e)
		}
	}
	got = slices.DeleteFunc(got, func(e revocation.Entry) bool {
		return !slices.ContainsFunc(want, func(w revocation.Entry) bool { return w.Cursor == e.Cursor })
	})
	if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Errorf("skimmed %v, want %v", got, want)
	}
	all, _ := h.read(t, revocation.Cursor{})
	return len(all) - read
}

// TestCheckpointFailOver promotes a replica of the Redis that has neither the last entries nor their checkpoints.
func TestCheckpointFailOver(t *testing.T) {
	master := redistest.New(t, "--repl-diskless-sync-delay", "0")
	replica := redistest.New(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.Port()))
	k := newKit(master.Client())
	k.SetCheckpointEntries(10)
	k.addSome(t, 35)
	k.checkpoint(t)
	promoted := k.on(replica.Client())
	promoted.SetCheckpointEntries(10)
	ctx := t.Context()
	must.Eventually(t, "the replica has the checkpoints", func() bool {
		return must.Get(promoted.client.XLen(ctx, k.base+"checkpoints").Result()) == 3
	})
	must.Succeed(t, promoted.client.Do(ctx, "replicaof", "no", "one").Err())
	k.addSome(t, 35)
	k.checkpoint(t)
	k.expectCheckpoints(t, 7)
	promoted.expectSkim(t, 5)
	promoted.addSome(t, 35)
	promoted.expectSkim(t, 40)
	promoted.checkpoint(t)
	promoted.expectCheckpoints(t, 7)
	promoted.expectSkim(t, 0)
}

// on returns a kit with the same keys and secret, on another client.
func (k *kit) on(client redis.UniversalClient) *kit {
	prefix, _, _ := strings.Cut(k.base, "{")
	other := &kit{must.Get(redisstore.New(client, prefix, retention)), client, k.base, k.secret}
	other.Authenticate(k.secret)
	return other
}
