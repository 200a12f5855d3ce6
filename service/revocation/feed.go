// Package revocation has the deny-list and the feed: the one ordered account of every change that others must learn, and
// the means to follow it and to know how old one's knowledge is. It carries out RFC 7009 between replicas and verifiers.
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
	// TokenRevoked tells that the token whose "jti" is ID was revoked; At is its end.
	TokenRevoked Kind = "token"
	// ClientRevoked tells that the tokens of the client named by ID were revoked that were issued at At or before.
	ClientRevoked Kind = "client_tokens"
	// KeyRevoked tells that the tokens were revoked that the key whose "kid" is ID signed; At is when that was told.
	KeyRevoked Kind = "key"
)

// Revocation reports whether the kind is about tokens, rather than about what tokens are issued by.
func (k Kind) Revocation() bool { return k == TokenRevoked || k == ClientRevoked || k == KeyRevoked }

// Known reports whether this release knows the kind.
func (k Kind) Known() bool {
	return k.Revocation() || k == ClientChanged || k == ResourcesChanged || k == RingChanged
}

// Change is one entry of the feed. A kind that a replica does not know, from a newer one, is passed over.
type Change struct {
	Kind Kind
	ID   string
	// At is a moment in whole seconds, for the kinds that have one.
	At time.Time
}

// Who takes back the tokens of a client cannot see the clocks by which they are dated: a replica's may be ahead, and after
// a revocation the next token is dated behind its moment. So the moment lies ahead of the present.
const (
	// Ahead is how far, where a client is disabled or removed. It is as much as a verifier lets a token be ahead of its own
	// clock, less what the clocks may differ by, since the next token of a client that is enabled again is dated after it.
	Ahead = 15 * time.Second
	// MostAhead is how far a client can push the moment by itself. It is so much less that [Ahead] lies behind it.
	MostAhead = 3 * time.Second
)

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

// ErrNotReplicated says that a revocation is made and known here, but not in as many replicas of the store as it must be:
// if the store fails now it can be lost. Whoever asked for it may ask again.
var ErrNotReplicated = errors.New("the change is made, but too few replicas of the store have it")

// Log keeps the feed. It may be used by several goroutines.
type Log interface {
	// Read gives entries after the cursor, oldest first, and waits up to wait for the first; none when none came. more
	// says that there may be entries after the last one given. A wait of zero does not wait; any other ends early with
	// ctx or soon after. Where the entry at the cursor, unless it is the beginning or as old as what the log lets
	// go, is not there any more, the error is [ErrGap]: what stands behind it then need not be all that came after.
	Read(ctx context.Context, after Cursor, wait time.Duration) (entries []Entry, more bool, err error)
	// End gives the place of the newest entry; the beginning where there is none.
	End(ctx context.Context) (Cursor, error)
}

// Publisher adds revocations to the feed. It may be used by several goroutines.
type Publisher interface {
	// Publish records the changes. Success says that they will reach everybody who follows the feed; [ErrNotReplicated]
	// that they will unless the store fails.
	Publish(ctx context.Context, changes ...Change) error
	// Confirm succeeds for changes that the feed has told where Publish would have succeeded: a change whose Publish
	// failed may be in the feed all the same.
	Confirm(ctx context.Context, changes ...Change) error
}

const (
	// readWait is how long one read waits: as old as the knowledge of an idle replica gets, and as long as stopping takes.
	readWait = 500 * time.Millisecond
	// readPatience is how much longer a read may take before the store counts as out of reach.
	readPatience = 3 * time.Second
	// retryWait is the pause after a read that failed.
	retryWait = 250 * time.Millisecond
)

// Tail follows the feed. It may be used by several goroutines.
type Tail struct {
	log   Log
	to    Follower
	start time.Time

	mu sync.Mutex
	// cursor is the last entry applied; known is when the feed was last known to have been read to its end.
	cursor Cursor
	known  time.Time
	// moved is closed, and made anew, when the two change.
	moved chan struct{}
}

// Follower is told what the feed says, by one goroutine. Its methods must not wait for the network.
type Follower interface {
	// Apply takes over the next entry.
	Apply(entry Entry)
	// Lost says that entries may have been missed, so that whatever was remembered on the strength of the feed must go.
	// gap says that the feed itself has lost entries, and that Apply gets it from its beginning again.
	Lost(gap bool)
	// Failed is told why the feed cannot be read, once for each outage.
	Failed(err error)
}

// NewTail makes a tail of log for a follower.
func NewTail(log Log, to Follower) *Tail {
	return &Tail{log: log, to: to, start: time.Now(), moved: make(chan struct{})}
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
		entries, more, err := t.read(ctx, cursor, wait)
		if errors.Is(err, ErrGap) {
			// The tail goes back first: who is told of the gap may wait at once for it to catch up.
			cursor, wait, broken = Cursor{}, 0, false
			t.move(cursor, asked, true)
			t.to.Lost(true)
			continue
		}
		if err != nil {
			if ctx.Err() == nil && !broken {
				t.to.Failed(err)
			}
			broken = true
			pause(ctx, retryWait)
			continue
		}
		if broken {
			// The store may have come back without its data; entries are then missing that no cursor shows.
			t.to.Lost(false)
			broken = false
		}
		for _, entry := range entries {
			t.to.Apply(entry)
			cursor = entry.Cursor
		}
		t.move(cursor, asked, more)
		wait = readWait
	}
	return nil
}

// read gives a store that falls silent up: a connection to one that is gone may be open for long.
func (t *Tail) read(ctx context.Context, after Cursor, wait time.Duration) ([]Entry, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+readPatience)
	defer cancel()
	return t.log.Read(ctx, after, wait)
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
