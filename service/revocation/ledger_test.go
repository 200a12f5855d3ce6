package revocation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// feed is a feed in memory, as a store would have it.
type feed struct {
	entries []revocation.Entry
	last    uint64
}

func (f *feed) add(c revocation.Change) revocation.Entry {
	f.last++
	e := revocation.Entry{Cursor: revocation.Cursor{Time: uint64(start.UnixMilli()), Sequence: f.last}, Change: c}
	f.entries = append(f.entries, e)
	return e
}

// tokens appends n revocations of live tokens to the ledger.
func (f *feed) tokens(l *revocation.Ledger, n int) {
	for range n {
		l.Append(f.add(tokenRevoked(token.NewID(), start.Add(time.Hour))))
	}
}

func after(t *testing.T, l *revocation.Ledger, cursor revocation.Cursor, limit int) revocation.Page {
	t.Helper()
	page, known := l.After(cursor, limit, start)
	if !known {
		t.Fatalf("the cursor %v is unknown", cursor)
	}
	return page
}

func expectEntries(t *testing.T, got, want []revocation.Entry) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b revocation.Entry) bool {
		return a.Cursor == b.Cursor && a.Kind == b.Kind && a.ID == b.ID && a.At.Equal(b.At)
	}) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLedgerAfter(t *testing.T) {
	l, f := revocation.NewLedger(), &feed{}
	if page := after(t, l, revocation.Cursor{}, 10); len(page.Entries) > 0 || page.Next != (revocation.Cursor{}) || !page.Complete {
		t.Errorf("an empty ledger: got %+v, want an empty page", page)
	}
	f.tokens(l, 3)
	l.Append(f.add(clientRevoked("a", start)))
	l.Append(f.add(keyRevoked("k", start)))
	want := slices.Clone(f.entries)
	// A change that is not a revocation is ignored, and so is a token whose ID is malformed.
	l.Append(f.add(revocation.Change{Kind: revocation.ClientChanged, ID: "a"}))
	l.Append(f.add(revocation.Change{Kind: revocation.TokenRevoked, ID: "x", At: start}))
	if got := l.List.Len(); got != 5 {
		t.Errorf("the list has %d entries, want 5", got)
	}
	for i := range len(want) + 1 {
		cursor := revocation.Cursor{}
		if i > 0 {
			cursor = want[i-1].Cursor
		}
		page := after(t, l, cursor, 10)
		expectEntries(t, page.Entries, want[i:])
		if page.Next != want[len(want)-1].Cursor || !page.Complete {
			t.Errorf("after %d: got %+v", i, page)
		}
	}
	for name, cursor := range map[string]revocation.Cursor{
		"not a revocation": f.entries[5].Cursor, "later": {Time: 1 << 50}, "earlier": {Time: 1}, "between": {Time: want[0].Cursor.Time, Sequence: 1 << 40},
	} {
		if _, known := l.After(cursor, 10, start); known {
			t.Errorf("%s: the cursor is known, want unknown", name)
		}
	}
	t.Run("in pages", func(t *testing.T) {
		var got []revocation.Entry
		page := revocation.Page{}
		for pages := 0; !page.Complete; pages++ {
			page = after(t, l, page.Next, 2)
			got = append(got, page.Entries...)
			if !page.Complete && (len(page.Entries) != 2 || !isClosed(page.Changed)) {
				t.Fatalf("page %d: got %+v", pages, page)
			}
		}
		expectEntries(t, got, want)
	})
	t.Run("a limit of exactly all", func(t *testing.T) {
		if page := after(t, l, revocation.Cursor{}, len(want)); !page.Complete || isClosed(page.Changed) {
			t.Errorf("got %+v", page)
		}
	})
	t.Run("changed", func(t *testing.T) {
		page := after(t, l, revocation.Cursor{}, 10)
		l.Append(f.add(revocation.Change{Kind: revocation.RingChanged}))
		if isClosed(page.Changed) {
			t.Error("Changed is closed although nothing was revoked")
		}
		l.Append(f.add(clientRevoked("b", start)))
		if !isClosed(page.Changed) {
			t.Fatal("Changed is not closed")
		}
		if next := after(t, l, page.Next, 10); len(next.Entries) != 1 || next.Entries[0].ID != "b" || isClosed(next.Changed) {
			t.Errorf("got %+v", next)
		}
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestLedgerExpiry checks that expired tokens are left out, and that their cursors stay known until they are swept.
func TestLedgerExpiry(t *testing.T) {
	l, f := revocation.NewLedger(), &feed{}
	l.Append(f.add(tokenRevoked(token.NewID(), start.Add(-time.Second))))
	l.Append(f.add(tokenRevoked(token.NewID(), start)))
	l.Append(f.add(tokenRevoked(token.NewID(), start.Add(-time.Second))))
	expectEntries(t, after(t, l, revocation.Cursor{}, 10).Entries, f.entries[1:2])
	if page := after(t, l, f.entries[0].Cursor, 10); page.Next != f.entries[2].Cursor {
		t.Errorf("got %+v, want the cursor of the last entry", page)
	}
	cursor := f.entries[0].Cursor
	l.Sweep(start.Add(maxLifetime), maxLifetime)
	after(t, l, cursor, 10)
	l.Sweep(start.Add(maxLifetime+time.Second), maxLifetime)
	if _, known := l.After(cursor, 10, start); known {
		t.Error("a cursor that was swept is known")
	}
	if page := after(t, l, revocation.Cursor{}, 10); len(page.Entries) > 0 || !page.Complete {
		t.Errorf("got %+v, want an empty page", page)
	}
}

// TestLedgerMissing loses parts of the feed and checks that exactly those are to be published again.
func TestLedgerMissing(t *testing.T) {
	live := tokenRevoked(token.NewID(), start.Add(time.Hour))
	expired := tokenRevoked(token.NewID(), start.Add(-time.Second))
	client, key := clientRevoked("a", start), keyRevoked("k", start)
	all := []revocation.Change{live, expired, client, key}
	for _, c := range []struct {
		name string
		left []revocation.Change
		want []revocation.Change
	}{
		{"everything", nil, []revocation.Change{live, client, key}},
		{"nothing", all, nil},
		{"the token", []revocation.Change{client, key}, []revocation.Change{live}},
		{"an expired token", []revocation.Change{live, client, key}, nil},
		{"a later time", []revocation.Change{live, clientRevoked("a", start.Add(-time.Hour)), key}, []revocation.Change{client}},
		{"an earlier time", []revocation.Change{live, clientRevoked("a", start.Add(time.Hour)), key}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, f := revocation.NewLedger(), &feed{}
			for _, change := range all {
				l.Append(f.add(change))
			}
			if got := l.Missing(start); got != nil {
				t.Fatalf("before a gap: got %v", got)
			}
			page := after(t, l, revocation.Cursor{}, 10)
			l.Reset()
			if !isClosed(page.Changed) || l.List.Len() != len(all) {
				t.Errorf("at the gap: got changed %t and %d on the list", isClosed(page.Changed), l.List.Len())
			}
			if _, known := l.After(page.Next, 10, start); known {
				t.Error("a cursor from before the gap is known")
			}
			if after(t, l, revocation.Cursor{}, 10).Complete {
				t.Error("a page during a gap is complete")
			}
			g := &feed{last: 100}
			for _, change := range c.left {
				l.Append(g.add(change))
			}
			got := l.Missing(start)
			expectChanges(t, got, c.want)
			for range 2 { // they stay missing until the feed delivers them
				expectChanges(t, l.Missing(start), c.want)
			}
			if complete := after(t, l, revocation.Cursor{}, 10).Complete; complete != (len(c.want) == 0) {
				t.Errorf("complete: got %t", complete)
			}
			for _, change := range got {
				l.Append(g.add(change))
			}
			page = after(t, l, revocation.Cursor{}, 10)
			if got := l.Missing(start); len(got) > 0 {
				t.Errorf("delivered by the feed, and missing: %v", got)
			}
			if len(c.want) > 0 && (page.Complete || !isClosed(page.Changed)) {
				t.Error("subscribers are not notified of the repair")
			}
			if !after(t, l, revocation.Cursor{}, 10).Complete {
				t.Error("not complete after the repair")
			}
		})
	}
}

func expectChanges(t *testing.T, got, want []revocation.Change) {
	t.Helper()
	order := func(a, b revocation.Change) int {
		return slices.Compare([]string{string(a.Kind), a.ID}, []string{string(b.Kind), b.ID})
	}
	got, want = slices.SortedFunc(slices.Values(got), order), slices.SortedFunc(slices.Values(want), order)
	if !slices.EqualFunc(got, want, func(a, b revocation.Change) bool { return order(a, b) == 0 && a.At.Equal(b.At) }) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestLedgerSecondGap loses revocations that were published again before the feed delivered them, and one that the feed
// never delivered.
func TestLedgerSecondGap(t *testing.T) {
	l, f := revocation.NewLedger(), &feed{}
	delivered, direct := clientRevoked("delivered", start), clientRevoked("direct", start)
	l.Append(f.add(delivered))
	l.List.Apply(direct) // published here, and lost before the feed delivered it
	l.Reset()
	expectChanges(t, l.Missing(start), []revocation.Change{delivered, direct})
	l.Append(f.add(delivered))
	l.Reset()
	expectChanges(t, l.Missing(start), []revocation.Change{delivered, direct})
	l.Append(f.add(direct))
	expectChanges(t, l.Missing(start), []revocation.Change{delivered})
	l.Append(f.add(delivered))
	expectChanges(t, l.Missing(start), nil)
	if !after(t, l, revocation.Cursor{}, 10).Complete {
		t.Error("not complete")
	}
}

// TestLedgerModel applies random appends and losses to a ledger with subscribers at random cursors. A subscriber that
// has read everything knows every live revocation.
func TestLedgerModel(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	l, f := revocation.NewLedger(), &feed{}
	type subscriber struct {
		cursor revocation.Cursor
		known  map[string]bool
	}
	subscribers := make([]*subscriber, 5)
	for i := range subscribers {
		subscribers[i] = &subscriber{known: make(map[string]bool)}
	}
	live := make(map[string]bool)
	follow := func(s *subscriber) revocation.Page {
		page, known := l.After(s.cursor, 1+random.IntN(5), start)
		if !known {
			s.cursor = revocation.Cursor{}
			return revocation.Page{}
		}
		for _, e := range page.Entries {
			s.known[e.ID] = true
		}
		s.cursor = page.Next
		return page
	}
	for step := range 3000 {
		switch n := random.IntN(100); {
		case n < 50:
			c := clientRevoked(fmt.Sprint("c", step), start)
			if n%2 == 0 {
				c = tokenRevoked(token.NewID(), start.Add(time.Duration(random.IntN(10)-2)*time.Second))
			}
			if c.Kind == revocation.ClientRevoked || !c.At.Before(start) {
				live[c.ID] = true
			}
			l.Append(f.add(c))
		case n == 50:
			f.entries = f.entries[:random.IntN(len(f.entries)+1)]
			l.Reset()
			for _, e := range f.entries {
				l.Append(e)
			}
		case n < 60:
			for _, c := range l.Missing(start) {
				if random.IntN(5) > 0 { // some are lost again
					l.Append(f.add(c))
				}
			}
		default:
			follow(subscribers[random.IntN(len(subscribers))])
		}
	}
	for missing := l.Missing(start); len(missing) > 0; missing = l.Missing(start) {
		for _, c := range missing {
			l.Append(f.add(c))
		}
	}
	for i, s := range append(subscribers, &subscriber{known: make(map[string]bool)}) {
		for !follow(s).Complete {
		}
		for id := range live {
			if !s.known[id] {
				t.Fatalf("subscriber %d does not know %s", i, id)
			}
		}
	}
}

// TestLedgerConcurrently has subscribers wait for entries during concurrent appends, gaps and sweeps.
func TestLedgerConcurrently(t *testing.T) {
	l, f := revocation.NewLedger(), &feed{}
	const total = 2000
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			known := make(map[string]bool)
			var cursor revocation.Cursor
			for len(known) < total {
				page, ok := l.After(cursor, 100, start)
				if !ok {
					cursor = revocation.Cursor{}
					continue
				}
				for _, e := range page.Entries {
					known[e.ID] = true
				}
				if cursor = page.Next; len(known) < total {
					select {
					case <-page.Changed:
					case <-t.Context().Done():
						return
					}
				}
			}
		})
	}
	for i := range total {
		f.tokens(l, 1)
		if i%500 == 250 {
			l.Reset()
			for _, c := range l.Missing(start) {
				l.Append(f.add(c))
			}
			l.Sweep(start, maxLifetime)
		}
	}
	group.Wait()
	expectChanges(t, l.Missing(start), nil)
}
