// Package revocation has the feed: the one ordered account of every change that other replicas must learn, and the means
// to follow it and to know how old one's knowledge is.
package revocation

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"
)

// Kind says what changed.
type Kind string

// The kinds of change.
const (
	// ClientChanged tells that the client named by ID was made, changed or removed.
	ClientChanged Kind = "client"
	// ResourcesChanged tells that the table of resources was changed.
	ResourcesChanged Kind = "resources"
	// RingChanged tells that the key ring was changed.
	RingChanged Kind = "ring"
)

// Change is one entry of the feed. A kind that a replica does not know, from a newer one, is passed over.
type Change struct {
	Kind Kind
	ID   string
}

// Cursor is a place in the feed. The zero value is its beginning, before the first entry.
type Cursor struct{ Time, Sequence uint64 }

// Compare orders cursors as the feed does: negative where c comes before other.
func (c Cursor) Compare(other Cursor) int {
	return cmp.Or(cmp.Compare(c.Time, other.Time), cmp.Compare(c.Sequence, other.Sequence))
}

// Entry is a change and its place in the feed.
type Entry struct {
	Cursor Cursor
	Change
}

// ErrGap says that the feed does not go on from a cursor: the store has lost what it had, or has trimmed it.
var ErrGap = errors.New("the feed has a gap")

// Log keeps the feed. It may be used by several goroutines.
type Log interface {
	// Read gives entries after the cursor, oldest first, and waits up to wait for the first; none when none came. more
	// says that there may be entries after the last one given. A wait of zero does not wait; any other ends early with
	// ctx or soon after. Where the entry at the cursor, unless it is the beginning, is not there any more, the error is
	// [ErrGap]: what stands behind it then need not be all that came after.
	Read(ctx context.Context, after Cursor, wait time.Duration) (entries []Entry, more bool, err error)
	// End gives the place of the newest entry; the beginning where there is none.
	End(ctx context.Context) (Cursor, error)
}

const (
	// readWait is how long one read waits: as old as the knowledge of an idle replica gets, and as long as stopping takes.
	readWait = 500 * time.Millisecond
	// retryWait is the pause after a read that failed.
	retryWait = 250 * time.Millisecond
)

// Tail follows the feed. It may be used by several goroutines.
type Tail struct {
	log    Log
	apply  func(Change)
	lost   func()
	report func(error)
	start  time.Time

	mu sync.Mutex
	// cursor is the last entry applied; known is when the feed was last known to have been read to its end.
	cursor Cursor
	known  time.Time
	// moved is closed, and made anew, when the two change.
	moved chan struct{}
}

// NewTail makes a tail of log. apply takes over one change; it must not wait for the network. lost is called when changes
// may have been missed: whatever was remembered on the strength of the feed must go. report is told of reads that fail,
// once for each outage.
func NewTail(log Log, apply func(Change), lost func(), report func(error)) *Tail {
	return &Tail{log: log, apply: apply, lost: lost, report: report, start: time.Now(), moved: make(chan struct{})}
}

// Age is how old the tail's knowledge is: every change made longer ago than that has been applied. Before the feed was
// first read to its end, complete is false and the age is that of the tail.
func (t *Tail) Age() (age time.Duration, complete bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known.IsZero() {
		return time.Since(t.start), false
	}
	return time.Since(t.known), true
}

// CatchUp waits until every change made before the call has been applied.
func (t *Tail) CatchUp(ctx context.Context) error {
	end, err := t.log.End(ctx)
	if err != nil {
		return err
	}
	for {
		t.mu.Lock()
		reached, moved := !t.known.IsZero() && t.cursor.Compare(end) >= 0, t.moved
		t.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// Run follows the feed from its beginning until ctx ends.
func (t *Tail) Run(ctx context.Context) error {
	var cursor Cursor
	wait, broken := time.Duration(0), false
	for ctx.Err() == nil {
		// What is true when the read begins is all that an empty answer proves.
		asked := time.Now()
		entries, more, err := t.log.Read(ctx, cursor, wait)
		if errors.Is(err, ErrGap) {
			t.lost()
			cursor, wait, broken = Cursor{}, 0, false
			t.move(cursor, asked, true)
			continue
		}
		if err != nil {
			if ctx.Err() == nil && !broken {
				t.report(err)
			}
			broken = true
			pause(ctx, retryWait)
			continue
		}
		if broken {
			// The store may have come back without its data; entries are then missing that no cursor shows.
			t.lost()
			broken = false
		}
		for _, entry := range entries {
			t.apply(entry.Change)
			cursor = entry.Cursor
		}
		t.move(cursor, asked, more)
		wait = readWait
	}
	return nil
}

// move publishes how far the tail has come.
func (t *Tail) move(cursor Cursor, asked time.Time, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cursor = cursor
	if !more {
		t.known = asked
	}
	close(t.moved)
	t.moved = make(chan struct{})
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
