package revocation_test

import (
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

// eventLog is a follower that records events in order: the IDs of changes, "lost" and "error: …".
type eventLog struct {
	mu     sync.Mutex
	events []string
}

func (l *eventLog) add(event string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, event)
}

func (l *eventLog) Apply(e revocation.Entry) { l.add(e.ID) }
func (l *eventLog) Lost(bool)                { l.add("lost") }
func (l *eventLog) Skimmed()                 { l.add("skimmed") }
func (l *eventLog) Failed(err error)         { l.add("error: " + err.Error()) }

func (l *eventLog) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.events, want) {
		t.Errorf("got the events %q, want %q", l.events, want)
	}
	l.events = nil
}

// follow runs test in a synctest bubble with a running tail of a log that has the entries, and then stops the tail.
func follow(t *testing.T, entries []string, test func(t *testing.T, log *fakeLog, tail *revocation.Tail, events *eventLog)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log, events := newLog(), &eventLog{}
		log.add(entries...)
		tail := revocation.NewTail(log, events)
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- tail.Run(ctx) }()
		test(t, log, tail, events)
		cancel()
		synctest.Wait()
		select {
		case err := <-stopped:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		default:
			t.Error("Run continues after its context has ended")
		}
		events.expect(t)
	})
}

// pass advances the time of the bubble.
func pass(d time.Duration) { <-time.After(d) }

func expectAge(t *testing.T, tail *revocation.Tail, low, high time.Duration, complete bool) {
	t.Helper()
	synctest.Wait()
	if age, got := tail.Age(); age < low || age > high || got != complete {
		t.Errorf("got the age %s, complete %v, want %s to %s, %v", age, got, low, high, complete)
	}
}

func TestOrder(t *testing.T) {
	follow(t, []string{"a", "b", "c", "d", "e"}, func(t *testing.T, log *fakeLog, _ *revocation.Tail, events *eventLog) {
		events.expect(t, "a", "b", "c", "d", "e")
		log.add("f")
		events.expect(t, "f")
		pass(time.Hour)
		log.add("g", "a")
		events.expect(t, "g", "a")
	})
}

// The staleness of an idle tail is the time since its last read began, and at most the duration of two reads.
func TestAge(t *testing.T) {
	follow(t, []string{"a", "b", "c"}, func(t *testing.T, log *fakeLog, tail *revocation.Tail, events *eventLog) {
		events.expect(t, "a", "b", "c")
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
		events.expect(t, "error: down", "lost")
	})
}

// Until the feed was read to its end for the first time the tail is incomplete, whatever its age.
func TestIncomplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		log.fail(errors.New("down"))
		tail := revocation.NewTail(log, &eventLog{})
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
	follow(t, []string{"a"}, func(t *testing.T, log *fakeLog, _ *revocation.Tail, events *eventLog) {
		events.expect(t, "a")
		for i := range 3 {
			log.fail(fmt.Errorf("down %d", i))
			log.add(fmt.Sprint(i))
			pass(time.Minute)
			// Each outage is reported once, however long it is, and Lost is called only when the store can be read again.
			events.expect(t, fmt.Sprint("error: down ", i))
			log.fail(nil)
			pass(time.Second)
			// Caches are dropped before the entries added during the outage are applied.
			events.expect(t, "lost", fmt.Sprint(i))
		}
		if log.reads > 1000 {
			t.Errorf("%d reads in three minutes of outage", log.reads)
		}
	})
}

// After a gap, the rest of the feed is read again from the beginning.
func TestGap(t *testing.T) {
	follow(t, []string{"a", "b", "c"}, func(t *testing.T, log *fakeLog, tail *revocation.Tail, events *eventLog) {
		events.expect(t, "a", "b", "c")
		log.lose()
		log.add("d")
		events.expect(t, "lost", "d")
		pass(time.Minute)
		expectAge(t, tail, 0, time.Second, true)
		events.expect(t)
		// A loss during an outage is reported too, and once.
		log.fail(errors.New("down"))
		pass(time.Second)
		log.lose()
		log.add("e")
		log.fail(nil)
		pass(time.Second)
		events.expect(t, "error: down", "lost", "e")
	})
}

func TestCatchUp(t *testing.T) {
	follow(t, nil, func(t *testing.T, log *fakeLog, tail *revocation.Tail, events *eventLog) {
		if err := tail.CatchUp(t.Context()); err != nil {
			t.Errorf("an empty feed: %v", err)
		}
		// Several reads are needed, and all entries are applied when CatchUp returns.
		log.add("a", "b", "c", "d", "e")
		if err := tail.CatchUp(t.Context()); err != nil {
			t.Error(err)
		}
		events.mu.Lock()
		if len(events.events) != 5 {
			t.Errorf("CatchUp returned after %q", events.events)
		}
		events.events = nil
		events.mu.Unlock()
		log.fail(errors.New("down"))
		if err := tail.CatchUp(t.Context()); err == nil || err.Error() != "down" {
			t.Errorf("got %v, want the log's error", err)
		}
		pass(time.Second)
		events.expect(t, "error: down")
		log.fail(nil)
		pass(time.Second)
		events.expect(t, "lost")
		// After a loss, an end before the old cursor is reached only when it has been read.
		log.allow(0)
		log.lose()
		log.add("f")
		events.expect(t, "lost")
		caughtUp := make(chan error, 1)
		go func() { caughtUp <- tail.CatchUp(t.Context()) }()
		synctest.Wait()
		if len(caughtUp) > 0 {
			t.Error("CatchUp returned before the feed was read")
		}
		log.allow(-1)
		if err := <-caughtUp; err != nil {
			t.Error(err)
		}
		events.expect(t, "f")
	})
}

// A partial read of the feed does not reduce the staleness.
func TestPartlyRead(t *testing.T) {
	const step = 2 * time.Second // as long as a read may take
	follow(t, nil, func(t *testing.T, log *fakeLog, tail *revocation.Tail, events *eventLog) {
		synctest.Wait()
		log.allow(0)
		log.add("a", "b", "c", "d", "e")
		pass(step)
		events.expect(t, "a", "b")
		expectAge(t, tail, step, step+time.Second, true)
		log.allow(1)
		pass(step)
		events.expect(t, "c", "d")
		expectAge(t, tail, 2*step, 2*step+time.Second, true)
		log.allow(1)
		events.expect(t, "e")
		// The staleness counts from the beginning of the read that reached the end.
		expectAge(t, tail, step, step, true)
		log.allow(-1)
	})
}

func TestCatchUpEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		log.add("a")
		tail := revocation.NewTail(log, &eventLog{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		// The tail does not run.
		if err := tail.CatchUp(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

// A tail that is stopped during a read or an outage stops at once and does not report that as an outage.
func TestStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, broken := range map[string]error{"idle": nil, "broken": errors.New("down")} {
			log, events := newLog(), &eventLog{}
			log.fail(broken)
			tail := revocation.NewTail(log, events)
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			group.Go(func() { _ = tail.Run(ctx) })
			pass(time.Minute + 100*time.Millisecond)
			began := time.Now()
			cancel()
			group.Wait()
			if took := time.Since(began); took > 0 {
				t.Errorf("%s: Run took %s to stop", name, took)
			}
			want := []string{"error: down"}
			if broken == nil {
				want = nil
			}
			events.expect(t, want...)
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

// A tail that starts skims the feed and reads on from there, or from where skimming fails. It skims only once.
func TestSkim(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		lost bool
		want []string
	}{
		"to its end":        {nil, false, []string{"b", "d", "e", "skimmed", "f", "g"}},
		"until it fails":    {errors.New("down"), false, []string{"b", "d", "e", "skimmed", "f", "g"}},
		"what is lost then": {nil, true, []string{"b", "d", "e", "skimmed", "lost", "g"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			log, events := newLog(), &eventLog{}
			log.add("a", "b", "c", "d", "e", "f")
			log.skimmed, log.skimErr = []revocation.Entry{log.entries[1], log.entries[3], log.entries[4]}, test.err
			if test.lost {
				log.lose()
			}
			log.add("g")
			tail := revocation.NewTail(log, events)
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			log.allow(0)
			group.Go(func() { _ = tail.Run(ctx) })
			synctest.Wait()
			if _, complete := tail.Age(); complete {
				t.Errorf("%s: complete before the rest is read", name)
			}
			log.allow(-1)
			if err := tail.CatchUp(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			events.expect(t, test.want...)
			log.add("h")
			events.expect(t, "h")
			cancel()
			group.Wait()
		})
	}
}
