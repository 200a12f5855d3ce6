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

// memory is a log in memory that can fall silent.
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

// told is a follower that keeps what it is told.
type told struct {
	applied chan revocation.Entry
	failed  chan error
	lost    chan bool
	// onLost runs within Lost.
	onLost func()
}

func (f *told) Apply(e revocation.Entry) { f.applied <- e }
func (f *told) Failed(err error)         { f.failed <- err }
func (f *told) Lost(gap bool) {
	if f.onLost != nil {
		f.onLost()
	}
	f.lost <- gap
}

// tailOf runs a tail of the log until the test ends.
func tailOf(t *testing.T, log *memory) (*revocation.Tail, *told) {
	f := &told{applied: make(chan revocation.Entry, 100), failed: make(chan error, 100), lost: make(chan bool, 100)}
	tail := revocation.NewTail(log, f)
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	group.Go(func() { _ = tail.Run(ctx) })
	t.Cleanup(func() { cancel(); group.Wait() })
	return tail, f
}

// TestTailSilent has a store that takes questions and does not answer them: that counts as out of reach, is told once,
// and ends when it answers again.
func TestTailSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, f := &memory{}, &feed{}
		first, second := f.add(clientRevoked("a", start)), f.add(clientRevoked("b", start))
		log.set(false, first)
		tail, follower := tailOf(t, log)
		<-follower.applied
		must.Succeed(t, tail.CatchUp(t.Context()))
		silent := time.Now()
		log.set(true, first, second)
		<-follower.failed
		if took := time.Since(silent); took > 5*time.Second {
			t.Errorf("told after %s", took)
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
			t.Error("one outage is told twice")
		}
		log.set(false, first, second)
		if gap := <-follower.lost; gap {
			t.Error("an outage is called a gap")
		}
		if got := <-follower.applied; got != second {
			t.Errorf("got %v, want %v", got, second)
		}
		must.Succeed(t, tail.CatchUp(t.Context()))
		if age, _ := tail.Age(); age > time.Second {
			t.Errorf("got the age %s, back again", age)
		}
	})
}

// TestTailGap has the log lose its end. Who is told can wait at once for the tail, which has to begin anew.
func TestTailGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, f := &memory{}, &feed{}
		first, second := f.add(clientRevoked("a", start)), f.add(clientRevoked("b", start))
		log.set(false, first, second)
		tail, follower := tailOf(t, log)
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
			t.Error("a gap is called an outage")
		}
		must.Succeed(t, tail.CatchUp(t.Context()))
		var got []revocation.Entry
		for range 3 {
			got = append(got, <-follower.applied)
		}
		expectEntries(t, got, []revocation.Entry{first, second, first})
	})
}
