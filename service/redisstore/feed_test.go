package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// timeout bounds the waiting for what should happen at once.
const timeout = 20 * time.Second

func (k *kit) read(t *testing.T, after revocation.Cursor) ([]revocation.Entry, bool) {
	t.Helper()
	entries, more, err := k.Read(t.Context(), after, 0)
	must.Succeed(t, err)
	return entries, more
}

func testCursor(t *testing.T, k *kit) {
	if end, err := k.End(t.Context()); err != nil || end != (revocation.Cursor{}) {
		t.Errorf("the end of an empty feed: got %v, %v, want the beginning", end, err)
	}
	for _, id := range []string{"a", "b", "c"} {
		k.save(t, newClient(id))
	}
	// The store returns the changes of a newer release; the tail ignores them.
	must.Succeed(t, k.client.XAdd(t.Context(), &redis.XAddArgs{
		Stream: k.base + "feed", Values: []string{"k", "later", "i", "x", "more", "y"},
	}).Err())
	want := []revocation.Change{clientChange("a"), clientChange("b"), clientChange("c"), {Kind: "later", ID: "x"}}
	all, more := k.read(t, revocation.Cursor{})
	if len(all) != len(want) || more {
		t.Fatalf("got %v, more %v, want %v", all, more, want)
	}
	for i := range all {
		if all[i].Change != want[i] {
			t.Errorf("entry %d: got %v, want %v", i, all[i].Change, want[i])
		}
		if i > 0 && all[i].Cursor.Compare(all[i-1].Cursor) <= 0 {
			t.Errorf("entry %d is not after the one before: %v, %v", i, all[i].Cursor, all[i-1].Cursor)
		}
		if rest, _ := k.read(t, all[i].Cursor); len(rest) != len(all)-i-1 || (len(rest) > 0 && !reflect.DeepEqual(rest, all[i+1:])) {
			t.Errorf("after entry %d: got %v, want %v", i, rest, all[i+1:])
		}
	}
	if end, err := k.End(t.Context()); err != nil || end != all[len(all)-1].Cursor {
		t.Errorf("the end: got %v, %v, want %v", end, err, all[len(all)-1].Cursor)
	}
}

// testWaiting checks that a blocking read returns what is announced while it waits, and ends by itself if nothing is.
func testWaiting(t *testing.T, k *kit) {
	k.save(t, newClient("a"))
	end, err := k.End(t.Context())
	must.Succeed(t, err)
	var group sync.WaitGroup
	group.Go(func() {
		entries, more, err := k.Read(t.Context(), end, timeout)
		if err != nil || more || len(entries) != 1 || entries[0].Change != clientChange("b") {
			t.Errorf("got %v, more %v, %v, want the change of b", entries, more, err)
		}
	})
	must.Succeed(t, k.SaveClient(t.Context(), newClient("b")))
	group.Wait()
	end, err = k.End(t.Context())
	must.Succeed(t, err)
	for _, wait := range []time.Duration{0, time.Nanosecond, 10 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		began := time.Now()
		entries, more, err := k.Read(ctx, end, wait)
		if len(entries) > 0 || more || err != nil {
			t.Errorf("waiting %s: got %v, more %v, %v, want nothing", wait, entries, more, err)
		}
		if waited := time.Since(began); waited < wait/2 {
			t.Errorf("waiting %s took %s", wait, waited)
		}
		cancel()
	}
}

func testMore(t *testing.T, k *kit) {
	const total = 10_001
	pipe := k.client.Pipeline()
	for i := range total {
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: k.base + "feed", Values: []string{"k", "client", "i", fmt.Sprint(i)}})
	}
	_, err := pipe.Exec(t.Context())
	must.Succeed(t, err)
	var cursor revocation.Cursor
	var got []string
	for _, want := range []struct {
		count int
		more  bool
	}{{5000, true}, {5000, true}, {1, false}, {0, false}} {
		entries, more := k.read(t, cursor)
		if len(entries) != want.count || more != want.more {
			t.Fatalf("got %d, more %v, want %d, %v", len(entries), more, want.count, want.more)
		}
		for _, e := range entries {
			got, cursor = append(got, e.ID), e.Cursor
		}
	}
	for i, id := range got {
		if id != fmt.Sprint(i) {
			t.Fatalf("entry %d is %s", i, id)
		}
	}
}

// testTrimmed checks that trimming removes old entries only. A real server trims whole nodes of a hundred entries, so some
// old entries stay.
func testTrimmed(t *testing.T, k *kit) {
	add := func(id string, age time.Duration) {
		at := time.Now().Add(-age).UnixMilli()
		must.Succeed(t, k.client.XAdd(t.Context(), &redis.XAddArgs{
			Stream: k.base + "feed", ID: fmt.Sprintf("%d-*", at), Values: []string{"k", "client", "i", id},
		}).Err())
	}
	for i := range 300 {
		add(fmt.Sprintf("old%d", i), retention+time.Minute)
	}
	add("kept", retention-time.Minute)
	k.save(t, newClient("new"))
	var left []string
	for _, change := range k.feed(t) {
		left = append(left, change.ID)
	}
	if len(left) > 150 {
		t.Errorf("%d entries are left", len(left))
	}
	if n := len(left); n < 2 || !slices.Equal(left[n-2:], []string{"kept", "new"}) {
		t.Errorf("left: %q, want kept and new at the end", left)
	}
}

func testGap(t *testing.T, k *kit) {
	a := k.save(t, newClient("a"))
	first, err := k.End(t.Context())
	must.Succeed(t, err)
	k.save(t, a)
	second, err := k.End(t.Context())
	must.Succeed(t, err)
	lose := func(cursor revocation.Cursor) {
		id := fmt.Sprintf("%d-%d", cursor.Time, cursor.Sequence)
		must.Succeed(t, k.client.XDel(t.Context(), k.base+"feed", id).Err())
	}
	expect := func(name string, after revocation.Cursor, want error) {
		t.Helper()
		entries, _, err := k.Read(t.Context(), after, 0)
		if !errors.Is(err, want) || (err != nil && entries != nil) {
			t.Errorf("%s: got %v, %v, want %v", name, entries, err, want)
		}
	}
	lose(first)
	expect("with newer entries", first, revocation.ErrGap)
	expect("at an existing entry", second, nil)
	lose(second)
	expect("without newer entries", second, revocation.ErrGap)
	must.Succeed(t, k.client.Del(t.Context(), k.base+"feed").Err())
	expect("without a feed", second, revocation.ErrGap)
	expect("from the beginning", revocation.Cursor{}, nil)
}

// testFollowed checks that a tail applies changes in order, and that CatchUp waits for them.
func testFollowed(t *testing.T, k *kit) {
	follower := follow(t, k)
	var want []revocation.Change
	for i := range 20 {
		id := fmt.Sprint(i)
		must.Succeed(t, k.SaveClient(t.Context(), newClient(id)))
		want = append(want, clientChange(id))
		must.Succeed(t, follower.CatchUp(t.Context()))
		if got := follower.applied(); !reflect.DeepEqual(got, want) {
			t.Fatalf("caught up with %v, want %v", got, want)
		}
	}
	if age, complete := follower.Age(); !complete || age > timeout {
		t.Errorf("got age %s, complete %v", age, complete)
	}
}

// follower is a tail and what it reported.
type follower struct {
	*revocation.Tail
	mu      sync.Mutex
	changes []revocation.Change
	reports []error
	// skims counts the calls of Skimmed.
	skims int
	// lost receives the argument of each call of Lost.
	lost chan bool
}

func (f *follower) Apply(e revocation.Entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes = append(f.changes, e.Change)
}

func (f *follower) Lost(gap bool) { f.lost <- gap }

func (f *follower) Skimmed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.skims++
}

func (f *follower) Failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports = append(f.reports, err)
}

func follow(t *testing.T, log revocation.Log) *follower {
	f := &follower{lost: make(chan bool, 100)}
	f.Tail = revocation.NewTail(log, f)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = f.Run(ctx) })
	t.Cleanup(func() { cancel(); group.Wait() })
	return f
}

func (f *follower) applied() []revocation.Change {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.changes)
}

func (f *follower) expectLost(t *testing.T) {
	t.Helper()
	for {
		select {
		case gap := <-f.lost:
			if gap {
				return
			}
		case <-time.After(timeout):
			t.Fatal("the tail does not report the gap in the feed")
		}
	}
}

// testAppliedAtOnce checks that replicas can apply one manifest concurrently, as they do when they start with one.
func testAppliedAtOnce(t *testing.T, k *kit) {
	hasher := must.Get(clientsecret.NewHasher([]byte(strings.Repeat("p", 32))))
	manifest := registry.Manifest{Resources: []registry.Resource{{ID: resourceID("urn:a"), Scopes: scopes("a b")}}}
	for i := range 5 {
		manifest.Clients = append(manifest.Clients, registry.ClientSpec{
			Client: *newClient(fmt.Sprint("c", i)), Secret: clientsecret.New(),
		})
	}
	accounts := make([][]registry.Change, 4)
	var group sync.WaitGroup
	for i := range accounts {
		group.Go(func() {
			editor := registry.NewEditor(registry.Config{Clients: k, Resources: k, Trust: k, Hasher: hasher, Now: time.Now})
			var err error
			if accounts[i], err = editor.Apply(t.Context(), manifest, registry.ApplyOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	created := 0
	for _, account := range accounts {
		for _, change := range account {
			if change.Action == registry.Created {
				created++
			} else if change.Action != registry.Unchanged {
				t.Errorf("got %+v", change)
			}
		}
	}
	// Each client and resource was created once, by one of them, and announced once.
	if want := 1 + len(manifest.Clients); created != want || len(k.feed(t)) != want {
		t.Errorf("%d created, %d announced, want %d", created, len(k.feed(t)), want)
	}
}
