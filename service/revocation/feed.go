// Package revocation has the feed: the one ordered account of every change that other replicas must learn, and the means
// to follow it and to know how old one's knowledge is.
package revocation

import (
	"context"
	"sync/atomic"
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

// Entry is a change and its place in the feed.
type Entry struct {
	// Cursor is opaque; it is what [Log.Read] takes to go on after this entry.
	Cursor string
	Change Change
}

// Log keeps the feed. It may be used by several goroutines.
type Log interface {
	// Read gives entries after the cursor, oldest first, and waits up to wait for the first; none when none came. The
	// empty cursor is the beginning. more says that there are entries after the last one given. The wait ends early with
	// ctx or soon after.
	Read(ctx context.Context, cursor string, wait time.Duration) (entries []Entry, more bool, err error)
}

const (
	// readWait is how long one read waits: as old as the knowledge of an idle replica gets, and as long as stopping takes.
	readWait = 500 * time.Millisecond
	// retryWait is the pause after a read that failed.
	retryWait = 250 * time.Millisecond
)

// Tail follows the feed. Its fields are set before Run and not changed after.
type Tail struct {
	Log Log
	// Apply takes over one change. It must not wait for the network.
	Apply func(Change)
	// Lost is called when changes may have been missed: whatever was remembered on the strength of the feed must go.
	Lost func()
	// Report is told of reads that fail, once for each outage.
	Report func(error)

	// known is when the feed was last known to have been read to its end, as time since start.
	known atomic.Int64
	start time.Time
}

// NewTail makes a tail of log.
func NewTail(log Log, apply func(Change), lost func(), report func(error)) *Tail {
	return &Tail{Log: log, Apply: apply, Lost: lost, Report: report, start: time.Now()}
}

// Age is how old the tail's knowledge is: every change made longer ago than that has been applied. Before the feed was
// first read to its end it is the age of the tail, and Complete is false.
func (t *Tail) Age() time.Duration { return time.Since(t.start) - time.Duration(t.known.Load()) }

// Complete reports whether the feed has been read to its end at least once.
func (t *Tail) Complete() bool { return t.known.Load() != 0 }

// Run follows the feed from its beginning until ctx ends.
func (t *Tail) Run(ctx context.Context) error {
	cursor, broken := "", false
	for ctx.Err() == nil {
		// What is true when the read begins is all that an empty answer proves.
		asked := time.Since(t.start)
		entries, more, err := t.Log.Read(ctx, cursor, readWait)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			if !broken {
				t.Report(err)
			}
			broken = true
			pause(ctx, retryWait)
			continue
		}
		if broken {
			// The store may have come back without its data; entries are then missing that no cursor shows.
			t.Lost()
			broken = false
		}
		for _, entry := range entries {
			t.Apply(entry.Change)
			cursor = entry.Cursor
		}
		if !more {
			t.known.Store(int64(max(asked, 1)))
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
