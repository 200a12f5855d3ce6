package revocation_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grantorhq/grantor/service/revocation"
)

// fakeLog is a feed in memory. It reads as a store does: at most two entries at once, and it waits when there are none.
type fakeLog struct {
	mu      sync.Mutex
	entries []revocation.Entry
	err     error
	reads   int
	// time is that of the next entry. A loss sets it back, as a store does whose clock is behind that of the lost one.
	time uint64
	// free is how many reads may begin; negative for any number.
	free int
	// added is closed, and made anew, when something happens.
	added chan struct{}
}

func newLog() *fakeLog { return &fakeLog{time: 1000, free: -1, added: make(chan struct{})} }

func (l *fakeLog) happen(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.added)
	l.added = make(chan struct{})
}

func (l *fakeLog) add(ids ...string) {
	l.happen(func() {
		for _, id := range ids {
			cursor := revocation.Cursor{Time: l.time, Sequence: uint64(len(l.entries))}
			l.entries = append(l.entries, revocation.Entry{
				Cursor: cursor, Change: revocation.Change{Kind: revocation.ClientChanged, ID: id},
			})
		}
	})
}

func (l *fakeLog) fail(err error) { l.happen(func() { l.err = err }) }

// lose takes away all entries.
func (l *fakeLog) lose() {
	l.happen(func() {
		l.time--
		l.entries = nil
	})
}

// release lets n more reads begin.
func (l *fakeLog) release(n int) { l.happen(func() { l.free = n }) }

// begin waits until a read may begin.
func (l *fakeLog) begin(ctx context.Context) {
	for {
		l.mu.Lock()
		added, free := l.added, l.free
		if free > 0 {
			l.free--
		}
		l.mu.Unlock()
		if free != 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-added:
		}
	}
}

func (l *fakeLog) Read(ctx context.Context, after revocation.Cursor, wait time.Duration) ([]revocation.Entry, bool, error) {
	l.begin(ctx)
	timeout := time.After(wait)
	for first := true; ; first = false {
		l.mu.Lock()
		if first {
			l.reads++
		}
		err, added := l.err, l.added
		i := slices.IndexFunc(l.entries, func(e revocation.Entry) bool { return e.Cursor.Compare(after) > 0 })
		var rest []revocation.Entry
		if i >= 0 {
			rest = slices.Clone(l.entries[i:])
		}
		if after != (revocation.Cursor{}) && !slices.ContainsFunc(l.entries, func(e revocation.Entry) bool { return e.Cursor == after }) {
			err = cmp.Or(err, revocation.ErrGap)
		}
		l.mu.Unlock()
		const most = 2
		switch {
		case err != nil:
			return nil, false, err
		case len(rest) > 0:
			return rest[:min(most, len(rest))], len(rest) >= most, nil
		case wait == 0:
			return nil, false, nil
		}
		select {
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-timeout:
			return nil, false, nil
		case <-added:
		}
	}
}

func (l *fakeLog) End(context.Context) (revocation.Cursor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || len(l.entries) == 0 {
		return revocation.Cursor{}, l.err
	}
	return l.entries[len(l.entries)-1].Cursor, nil
}

// heard is what a tail told, in order: ids of changes, "lost", and reports as "error: …".
type heard struct {
	mu     sync.Mutex
	events []string
}

func (h *heard) note(event string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, event)
}

func (h *heard) Apply(e revocation.Entry) { h.note(e.ID) }
func (h *heard) Lost(bool)                { h.note("lost") }
func (h *heard) Failed(err error)         { h.note("error: " + err.Error()) }

func (h *heard) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.events, want) {
		t.Errorf("heard %q, want %q", h.events, want)
	}
	h.events = nil
}

// follow runs a tail of a log with the entries given, in a bubble of time, and stops it when the test is done.
func follow(t *testing.T, entries []string, test func(t *testing.T, log *fakeLog, tail *revocation.Tail, h *heard)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log, h := newLog(), &heard{}
		log.add(entries...)
		tail := revocation.NewTail(log, h)
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- tail.Run(ctx) }()
		test(t, log, tail, h)
		cancel()
		synctest.Wait()
		select {
		case err := <-stopped:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		default:
			t.Error("Run goes on although its context has ended")
		}
		h.expect(t)
	})
}

// pass lets time go by in the bubble.
func pass(d time.Duration) { <-time.After(d) }

func expectAge(t *testing.T, tail *revocation.Tail, least, most time.Duration, complete bool) {
	t.Helper()
	synctest.Wait()
	if age, got := tail.Age(); age < least || age > most || got != complete {
		t.Errorf("age %s, complete %v, want %s to %s, %v", age, got, least, most, complete)
	}
}

func TestOrder(t *testing.T) {
	follow(t, []string{"a", "b", "c", "d", "e"}, func(t *testing.T, log *fakeLog, _ *revocation.Tail, h *heard) {
		h.expect(t, "a", "b", "c", "d", "e")
		log.add("f")
		h.expect(t, "f")
		pass(time.Hour)
		log.add("g", "a")
		h.expect(t, "g", "a")
	})
}

// An idle tail is as old as its last read, and no older than one read and the next can make it.
func TestAge(t *testing.T) {
	follow(t, []string{"a", "b", "c"}, func(t *testing.T, log *fakeLog, tail *revocation.Tail, h *heard) {
		h.expect(t, "a", "b", "c")
		expectAge(t, tail, 0, 0, true)
		for range 100 {
			pass(170 * time.Millisecond)
			expectAge(t, tail, 0, time.Second, true)
		}
		if log.reads > 60 {
			t.Errorf("%d reads in 17 idle seconds", log.reads)
		}
		log.fail(errors.New("down"))
		pass(time.Minute)
		expectAge(t, tail, 59*time.Second, 61*time.Second, true)
		log.fail(nil)
		pass(time.Second)
		expectAge(t, tail, 0, time.Second, true)
		h.expect(t, "error: down", "lost")
	})
}

// Before the first read is complete, the tail knows nothing however young it is.
func TestIncomplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		log.fail(errors.New("down"))
		tail := revocation.NewTail(log, &heard{})
		expectAge(t, tail, 0, 0, false)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { _ = tail.Run(ctx) })
		pass(time.Minute)
		expectAge(t, tail, time.Minute, time.Minute, false)
		log.fail(nil)
		pass(time.Second)
		expectAge(t, tail, 0, time.Second, true)
		cancel()
		group.Wait()
	})
}

func TestOutage(t *testing.T) {
	follow(t, []string{"a"}, func(t *testing.T, log *fakeLog, _ *revocation.Tail, h *heard) {
		h.expect(t, "a")
		for i := range 3 {
			log.fail(fmt.Errorf("down %d", i))
			log.add(fmt.Sprint(i))
			pass(time.Minute)
			// One report for each outage, however long; nothing is lost before the store can be read again.
			h.expect(t, fmt.Sprint("error: down ", i))
			log.fail(nil)
			pass(time.Second)
			// What was remembered goes before what came meanwhile is applied.
			h.expect(t, "lost", fmt.Sprint(i))
		}
		if log.reads > 1000 {
			t.Errorf("%d reads in three minutes of outage", log.reads)
		}
	})
}

// Where the feed does not go on from the cursor, what is left of it is read again from the beginning.
func TestGap(t *testing.T) {
	follow(t, []string{"a", "b", "c"}, func(t *testing.T, log *fakeLog, tail *revocation.Tail, h *heard) {
		h.expect(t, "a", "b", "c")
		log.lose()
		log.add("d")
		h.expect(t, "lost", "d")
		pass(time.Minute)
		expectAge(t, tail, 0, time.Second, true)
		h.expect(t)
		// The loss shows during an outage too, and is told once.
		log.fail(errors.New("down"))
		pass(time.Second)
		log.lose()
		log.add("e")
		log.fail(nil)
		pass(time.Second)
		h.expect(t, "error: down", "lost", "e")
	})
}

func TestCatchUp(t *testing.T) {
	follow(t, nil, func(t *testing.T, log *fakeLog, tail *revocation.Tail, h *heard) {
		if err := tail.CatchUp(t.Context()); err != nil {
			t.Errorf("an empty feed: %v", err)
		}
		// Several reads are needed, and all is applied when CatchUp returns.
		log.add("a", "b", "c", "d", "e")
		if err := tail.CatchUp(t.Context()); err != nil {
			t.Error(err)
		}
		h.mu.Lock()
		if len(h.events) != 5 {
			t.Errorf("caught up with %q", h.events)
		}
		h.events = nil
		h.mu.Unlock()
		log.fail(errors.New("down"))
		if err := tail.CatchUp(t.Context()); err == nil || err.Error() != "down" {
			t.Errorf("got %v, want the log's error", err)
		}
		pass(time.Second)
		h.expect(t, "error: down")
		log.fail(nil)
		pass(time.Second)
		h.expect(t, "lost")
		// After a loss, an end that lies before the old cursor is reached when it is read, not before.
		log.release(0)
		log.lose()
		log.add("f")
		h.expect(t, "lost")
		caughtUp := make(chan error, 1)
		go func() { caughtUp <- tail.CatchUp(t.Context()) }()
		synctest.Wait()
		if len(caughtUp) > 0 {
			t.Error("caught up without reading")
		}
		log.release(-1)
		if err := <-caughtUp; err != nil {
			t.Error(err)
		}
		h.expect(t, "f")
	})
}

// A feed that was read in part is not known to its end.
func TestPartlyRead(t *testing.T) {
	const step = 2 * time.Second // as long as a read may take
	follow(t, nil, func(t *testing.T, log *fakeLog, tail *revocation.Tail, h *heard) {
		synctest.Wait()
		log.release(0)
		log.add("a", "b", "c", "d", "e")
		pass(step)
		h.expect(t, "a", "b")
		expectAge(t, tail, step, step+time.Second, true)
		log.release(1)
		pass(step)
		h.expect(t, "c", "d")
		expectAge(t, tail, 2*step, 2*step+time.Second, true)
		log.release(1)
		h.expect(t, "e")
		// What it knows is as old as the question that the last answer was to.
		expectAge(t, tail, step, step, true)
		log.release(-1)
	})
}

func TestCatchUpEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		log.add("a")
		tail := revocation.NewTail(log, &heard{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		// Nobody runs the tail.
		if err := tail.CatchUp(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

// A tail that is stopped while it cannot read stops at once and does not call that an outage.
func TestStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, broken := range map[string]error{"idle": nil, "broken": errors.New("down")} {
			log, h := newLog(), &heard{}
			log.fail(broken)
			tail := revocation.NewTail(log, h)
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			group.Go(func() { _ = tail.Run(ctx) })
			pass(time.Minute + 100*time.Millisecond)
			began := time.Now()
			cancel()
			group.Wait()
			if took := time.Since(began); took > 0 {
				t.Errorf("%s: stopping took %s", name, took)
			}
			want := []string{"error: down"}
			if broken == nil {
				want = nil
			}
			h.expect(t, want...)
		}
	})
}

func TestCursor(t *testing.T) {
	ordered := []revocation.Cursor{
		{}, {Sequence: 1}, {Time: 1}, {Time: 1, Sequence: 2}, {Time: 2}, {Time: 2, Sequence: 1}, {Time: 10}, {Time: 1 << 63},
	}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := a.Compare(b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%v and %v: got %d", a, b, got)
			}
		}
	}
}
