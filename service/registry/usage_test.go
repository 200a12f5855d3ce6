package registry_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// useStore is a store of uses that counts its batches.
type useStore struct {
	mu      sync.Mutex
	stored  map[string]time.Time // by "client secret"
	batches []int
	// fail, if not nil, returns the error of the batch with the number.
	fail func(batch int) error
}

func newUseStore() *useStore { return &useStore{stored: make(map[string]time.Time)} }

func (l *useStore) RecordUses(ctx context.Context, uses []registry.Use) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = append(l.batches, len(uses))
	if l.fail != nil {
		if err := l.fail(len(l.batches)); err != nil {
			return err
		}
	}
	for _, u := range uses {
		if key := u.Client.String() + " " + u.SecretID; u.At.After(l.stored[key]) {
			l.stored[key] = u.At
		}
	}
	return ctx.Err()
}

func (l *useStore) LastUses(context.Context, []oauth.ClientID) (map[oauth.ClientID]map[string]time.Time, error) {
	return nil, nil
}

func (l *useStore) expect(t *testing.T, what string, want map[string]time.Time) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !maps.Equal(l.stored, want) {
		t.Errorf("%s: got %v stored, want %v", what, l.stored, want)
	}
}

func TestUsage(t *testing.T) {
	l := newUseStore()
	u := registry.NewUsage(l)
	a, b := clientID("a"), clientID("b")
	u.Note(a, "1", start.Add(time.Second+999*time.Millisecond))
	u.Note(a, "1", start)
	u.Note(a, "2", start.Add(2*time.Second))
	u.Note(b, "1", start)
	l.expect(t, "before writing", nil)
	must.Succeed(t, u.WriteUses(t.Context()))
	want := map[string]time.Time{"a 1": start.Add(time.Second), "a 2": start.Add(2 * time.Second), "b 1": start}
	l.expect(t, "written", want)
	must.Succeed(t, u.WriteUses(t.Context()))
	u.Note(b, "1", start.Add(time.Minute))
	must.Succeed(t, u.WriteUses(t.Context()))
	want["b 1"] = start.Add(time.Minute)
	l.expect(t, "written again", want)
	if got := fmt.Sprint(l.batches); got != "[3 1]" {
		t.Errorf("got batches of %s, want each use written once", got)
	}
}

// TestUsageKept checks that no use is lost if the store fails, and that putting uses back does not undo newer ones.
func TestUsageKept(t *testing.T) {
	l := newUseStore()
	u := registry.NewUsage(l)
	down := errors.New("down")
	l.fail = func(batch int) error {
		if batch >= 3 {
			// The first secret is used again while it is written.
			u.Note(clientID("c0"), "1", start.Add(time.Hour))
			return down
		}
		return nil
	}
	want := make(map[string]time.Time)
	for i := range 1000 {
		id := fmt.Sprintf("c%d", i)
		u.Note(clientID(id), "1", start)
		want[id+" 1"] = start
	}
	if err := u.WriteUses(t.Context()); !errors.Is(err, down) || len(l.batches) != 3 {
		t.Fatalf("got %v after %d batches", err, len(l.batches))
	}
	l.fail = nil
	if err := u.WriteUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	want["c0 1"] = start.Add(time.Hour)
	l.expect(t, "written later", want)
}

func TestUsageIsBounded(t *testing.T) {
	l := newUseStore()
	u := registry.NewUsage(l)
	for i := range registry.MaxUses + 10 {
		u.Note(clientID(fmt.Sprint(i)), "1", start)
	}
	// Further uses of a recorded secret are recorded.
	u.Note(clientID("0"), "1", start.Add(time.Second))
	if err := u.WriteUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(l.stored) != registry.MaxUses || !l.stored["0 1"].Equal(start.Add(time.Second)) {
		t.Errorf("got %d stored, the first at %s", len(l.stored), l.stored["0 1"])
	}
	u.Note(clientID(fmt.Sprint(registry.MaxUses)), "1", start)
	if err := u.WriteUses(t.Context()); err != nil || len(l.stored) != registry.MaxUses+1 {
		t.Errorf("after writing there is room: got %d stored, %v", len(l.stored), err)
	}
}

// TestUsageRun checks that uses are written within a minute, again after a failure, and at the end.
func TestUsageRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newUseStore()
		u := registry.NewUsage(l)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var failures []error
		running.Go(func() { _ = u.Run(ctx, func(err error) { failures = append(failures, err) }) })
		a, want := clientID("a"), make(map[string]time.Time)
		note := func(secret string) {
			u.Note(a, secret, start)
			want["a "+secret] = start
		}
		note("1")
		time.Sleep(time.Minute)
		l.expect(t, "after a minute", want)
		down := errors.New("down")
		l.mu.Lock()
		l.fail = func(batch int) error {
			if batch == 2 {
				return down
			}
			return nil
		}
		l.mu.Unlock()
		u.Note(a, "2", start)
		time.Sleep(time.Minute)
		l.expect(t, "while the store fails", want)
		want["a 2"] = start
		time.Sleep(time.Minute)
		l.expect(t, "after the failure", want)
		note("3")
		cancel()
		running.Wait()
		l.expect(t, "at the end", want)
		if len(failures) != 1 || !errors.Is(failures[0], down) {
			t.Errorf("got failures %v, want one", failures)
		}
	})
}

// BenchmarkNote measures the cost of usage for each token.
func BenchmarkNote(b *testing.B) {
	u := registry.NewUsage(newUseStore())
	ids := make([]oauth.ClientID, 1000)
	for i := range ids {
		ids[i] = clientID(fmt.Sprintf("service-%d", i))
	}
	b.Run("one after another", func(b *testing.B) {
		b.ReportAllocs()
		at := start
		for i := 0; b.Loop(); i++ {
			at = at.Add(time.Millisecond)
			u.Note(ids[i%len(ids)], "a-secret-id", at)
		}
	})
	b.Run("at once", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			at := start
			for i := 0; p.Next(); i++ {
				at = at.Add(time.Millisecond)
				u.Note(ids[i%len(ids)], "a-secret-id", at)
			}
		})
	})
}
