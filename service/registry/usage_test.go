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

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// ledger is a store of uses that counts what it is given.
type ledger struct {
	mu      sync.Mutex
	kept    map[string]time.Time // by "client secret"
	batches []int
	// fail, where set, says what the batch of the number is answered.
	fail func(batch int) error
}

func newLedger() *ledger { return &ledger{kept: make(map[string]time.Time)} }

func (l *ledger) RecordUses(ctx context.Context, uses []registry.Use) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = append(l.batches, len(uses))
	if l.fail != nil {
		if err := l.fail(len(l.batches)); err != nil {
			return err
		}
	}
	for _, u := range uses {
		if key := u.Client.String() + " " + u.SecretID; u.At.After(l.kept[key]) {
			l.kept[key] = u.At
		}
	}
	return ctx.Err()
}

func (l *ledger) LastUses(context.Context, []oauth.ClientID) (map[oauth.ClientID]map[string]time.Time, error) {
	return nil, nil
}

func (l *ledger) expect(t *testing.T, what string, want map[string]time.Time) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !maps.Equal(l.kept, want) {
		t.Errorf("%s: kept %v, want %v", what, l.kept, want)
	}
}

func TestUsage(t *testing.T) {
	l := newLedger()
	u := registry.NewUsage(l)
	a, b := clientID("a"), clientID("b")
	u.Note(a, "1", start.Add(time.Second+999*time.Millisecond))
	u.Note(a, "1", start)
	u.Note(a, "2", start.Add(2*time.Second))
	u.Note(b, "1", start)
	l.expect(t, "noted", nil)
	must.Succeed(t, u.WriteUses(t.Context()))
	want := map[string]time.Time{"a 1": start.Add(time.Second), "a 2": start.Add(2 * time.Second), "b 1": start}
	l.expect(t, "written", want)
	must.Succeed(t, u.WriteUses(t.Context()))
	u.Note(b, "1", start.Add(time.Minute))
	must.Succeed(t, u.WriteUses(t.Context()))
	want["b 1"] = start.Add(time.Minute)
	l.expect(t, "written again", want)
	if got := fmt.Sprint(l.batches); got != "[3 1]" {
		t.Errorf("written in batches of %s, want each use once", got)
	}
}

// A store that is away costs nothing that was noted, and what was noted meanwhile is not undone by it.
func TestUsageKept(t *testing.T) {
	l := newLedger()
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
	l := newLedger()
	u := registry.NewUsage(l)
	for i := range registry.MaxUses + 10 {
		u.Note(clientID(fmt.Sprint(i)), "1", start)
	}
	// Those that are noted go on being noted.
	u.Note(clientID("0"), "1", start.Add(time.Second))
	if err := u.WriteUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(l.kept) != registry.MaxUses || !l.kept["0 1"].Equal(start.Add(time.Second)) {
		t.Errorf("kept %d, the first of %s", len(l.kept), l.kept["0 1"])
	}
	u.Note(clientID(fmt.Sprint(registry.MaxUses)), "1", start)
	if err := u.WriteUses(t.Context()); err != nil || len(l.kept) != registry.MaxUses+1 {
		t.Errorf("once it is written there is room: kept %d, %v", len(l.kept), err)
	}
}

// It is written within a minute of the use, again after a failure, and at the end.
func TestUsageRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
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
		l.expect(t, "while the store is away", want)
		want["a 2"] = start
		time.Sleep(time.Minute)
		l.expect(t, "when it is back", want)
		note("3")
		cancel()
		running.Wait()
		l.expect(t, "at the end", want)
		if len(failures) != 1 || !errors.Is(failures[0], down) {
			t.Errorf("failures %v, want one", failures)
		}
	})
}

func TestLastUse(t *testing.T) {
	secret := clientsecret.Secret{ID: "2", CreatedAt: start}
	for name, test := range map[string]struct {
		uses map[string]time.Time
		want time.Time
	}{
		"nothing kept":               {nil, time.Time{}},
		"of another":                 {map[string]time.Time{"1": start.Add(time.Hour)}, time.Time{}},
		"its own":                    {map[string]time.Time{"1": start, "2": start.Add(time.Hour)}, start.Add(time.Hour)},
		"by a clock that is behind":  {map[string]time.Time{"2": start.Add(-30 * time.Second)}, start.Add(-30 * time.Second)},
		"of one that had its id":     {map[string]time.Time{"2": start.Add(-time.Hour)}, time.Time{}},
		"of one that had it, lately": {map[string]time.Time{"2": start.Add(-time.Minute)}, time.Time{}},
	} {
		if got := secret.LastUse(test.uses); !got.Equal(test.want) {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

// BenchmarkNote is what each token pays.
func BenchmarkNote(b *testing.B) {
	u := registry.NewUsage(newLedger())
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
