package revocation_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/revocation"
)

// memory is a log in memory that can stop answering.
type memory struct {
	mu      sync.Mutex
	entries []revocation.Entry
	silent  bool
}

func (m *memory) set(silent bool, entries ...revocation.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.silent, m.entries = silent, entries
}

func (m *memory) Read(ctx context.Context, after revocation.Cursor, wait time.Duration) ([]revocation.Entry, bool, error) {
	m.mu.Lock()
	silent, entries := m.silent, slices.Clone(m.entries)
	m.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, false, ctx.Err()
	}
	at := slices.IndexFunc(entries, func(e revocation.Entry) bool { return e.Cursor == after })
	if at < 0 && after != (revocation.Cursor{}) {
		return nil, false, revocation.ErrGap
	}
	if entries = entries[at+1:]; len(entries) == 0 {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		<-ctx.Done()
	}
	return entries, false, nil
}

func (m *memory) End(context.Context) (revocation.Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.entries) == 0 {
		return revocation.Cursor{}, nil
	}
	return m.entries[len(m.entries)-1].Cursor, nil
}

func (m *memory) Skim(_ context.Context, after revocation.Cursor) ([]revocation.Entry, revocation.Cursor, error) {
	return nil, after, nil
}

func (m *memory) Checkpoint(context.Context) error { return nil }

// recorder is a follower that records the calls of its methods.
type recorder struct {
	applied chan revocation.Entry
	failed  chan error
	lost    chan bool
	// onLost, if not nil, is called by Lost.
	onLost func()
}

func (f *recorder) Apply(e revocation.Entry) { f.applied <- e }
func (f *recorder) Skimmed()                 {}
func (f *recorder) Failed(err error)         { f.failed <- err }
func (f *recorder) Lost(gap bool) {
	if f.onLost != nil {
		f.onLost()
	}
	f.lost <- gap
}

// runTail runs a tail of the log until the test ends.
func runTail(t *testing.T, log *memory) (*revocation.Tail, *recorder) {
	f := &recorder{applied: make(chan revocation.Entry, 100), failed: make(chan error, 100), lost: make(chan bool, 100)}
	tail := revocation.NewTail(log, f)
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	group.Go(func() { _ = tail.Run(ctx) })
	t.Cleanup(func() { cancel(); group.Wait() })
	return tail, f
}

// TestTailSilent has a store that accepts requests and does not answer them. That is an outage, which is reported once
// and ends when the store answers again.
func TestTailSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, f := &memory{}, &feed{}
		first, second := f.add(clientRevoked("a", start)), f.add(clientRevoked("b", start))
		log.set(false, first)
		tail, follower := runTail(t, log)
		<-follower.applied
		must.Succeed(t, tail.CatchUp(t.Context()))
		silent := time.Now()
		log.set(true, first, second)
		<-follower.failed
		if took := time.Since(silent); took > 5*time.Second {
			t.Errorf("reported after %s, want at most 5s", took)
		}
		age, complete := tail.Age()
		if !complete || age < time.Second {
			t.Errorf("got the age %s, complete %t", age, complete)
		}
		<-time.After(time.Minute)
		if age, _ := tail.Age(); age < time.Minute {
			t.Errorf("got the age %s after a minute", age)
		}
		if len(follower.failed) > 0 {
			t.Error("one outage is reported twice")
		}
		log.set(false, first, second)
		if gap := <-follower.lost; gap {
			t.Error("an outage is reported as a gap")
		}
		if got := <-follower.applied; got != second {
			t.Errorf("got %v, want %v", got, second)
		}
		must.Succeed(t, tail.CatchUp(t.Context()))
		if age, _ := tail.Age(); age > time.Second {
			t.Errorf("got the age %s after the outage", age)
		}
	})
}

// TestTailGap has the log lose its end. The follower may call CatchUp at once, while the tail starts from the
// beginning.
func TestTailGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, f := &memory{}, &feed{}
		first, second := f.add(clientRevoked("a", start)), f.add(clientRevoked("b", start))
		log.set(false, first, second)
		tail, follower := runTail(t, log)
		if age, complete := tail.Age(); complete || age != 0 {
			t.Errorf("before the first read: got the age %s, complete %t", age, complete)
		}
		must.Succeed(t, tail.CatchUp(t.Context()))
		over, cancel := context.WithCancel(t.Context())
		cancel()
		follower.onLost = func() {
			if tail.CatchUp(over) == nil {
				t.Error("the tail has caught up although it has to read the feed again")
			}
		}
		log.set(false, first)
		if gap := <-follower.lost; !gap {
			t.Error("a gap is reported as an outage")
		}
		must.Succeed(t, tail.CatchUp(t.Context()))
		var got []revocation.Entry
		for range 3 {
			got = append(got, <-follower.applied)
		}
		expectEntries(t, got, []revocation.Entry{first, second, first})
	})
}
