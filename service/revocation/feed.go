// Package revocation provides the deny-list and the feed: an ordered log of changes shared by all replicas, with a
// bound on staleness. It implements RFC 7009 between replicas and verifiers.
package revocation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// Kind is the kind of a change.
type Kind string

// The kinds of change.
const (
	// ClientChanged means that the client with the ID was created, changed or deleted.
	ClientChanged Kind = "client"
	// ResourcesChanged means that the table of resources was changed.
	ResourcesChanged Kind = "resources"
	// TrustChanged means that the table of trusted issuers and workloads was changed. Releases without such a table ignore it.
	TrustChanged Kind = "trust"
	// RingChanged means that the key ring was changed.
	RingChanged Kind = "ring"
	// TokenRevoked means that the token whose "jti" is ID was revoked. At is its expiry.
	TokenRevoked Kind = "token"
	// ClientRevoked means that the tokens of the client with the ID that were issued at or before At were revoked.
	ClientRevoked Kind = "client_tokens"
	// KeyRevoked means that the tokens signed by the key whose "kid" is ID were revoked. At is the time of the revocation.
	KeyRevoked Kind = "key"
)

// Revocation reports whether a change of the kind revokes tokens, rather than changing what they are issued from.
func (k Kind) Revocation() bool { return k == TokenRevoked || k == ClientRevoked || k == KeyRevoked }

// Invalidation reports whether a change of the kind does no more than to invalidate what a follower may have cached.
func (k Kind) Invalidation() bool {
	return k == ClientChanged || k == ResourcesChanged || k == TrustChanged || k == RingChanged
}

// Known reports whether this release knows the kind.
func (k Kind) Known() bool { return k.Revocation() || k.Invalidation() }

// Change is one change in the feed. A replica ignores kinds that it does not know, which newer replicas may write.
type Change struct {
	Kind Kind
	ID   string
	// At is a time in whole seconds, for the kinds that have one.
	At time.Time
}

// A revocation of all tokens of a client covers those dated up to a time. That time lies ahead of the present, because
// the clocks of the replicas that dated the tokens may be ahead, and cannot be seen by the replica that revokes. The
// issuer dates the client's next token after that time.
const (
	// Ahead is how far ahead the time lies when a client is disabled or deleted. It is the leeway that a verifier grants
	// to the date of a token, less the clock skew, because the next token of a client that is enabled again is dated after
	// the time and must be accepted.
	Ahead = 15 * time.Second
	// MaxAhead is how far ahead a client can move the time by revoking its own tokens. It is so much smaller than [Ahead]
	// that disabling the client then still moves the time forward.
	MaxAhead = 3 * time.Second
)

// Cursor is a position in the feed. The zero value is its beginning, before the first entry.
type Cursor struct{ Time, Sequence uint64 }

// Compare returns a negative number if c comes before other in the feed, a positive one if it comes after, and else
// zero.
func (c Cursor) Compare(other Cursor) int {
	return cmp.Or(cmp.Compare(c.Time, other.Time), cmp.Compare(c.Sequence, other.Sequence))
}

// Check returns an error if the change is a revocation of nothing: the ID is not that of a token, client or key.
func (c Change) Check() error {
	ok := true
	switch c.Kind {
	case TokenRevoked:
		_, ok = token.ParseID(c.ID)
	case ClientRevoked:
		_, err := oauth.ParseClientID(c.ID)
		ok = err == nil
	case KeyRevoked:
		ok = c.ID != ""
	}
	if !ok {
		return fmt.Errorf("its ID %.100q is not that of a %s", c.ID, c.Kind)
	}
	return nil
}

// Entry is a change and its position in the feed.
type Entry struct {
	Cursor Cursor
	Change
	// Err is why the entry cannot be read. Such an entry has a position and no effect, so that followers proceed to the
	// entries behind it.
	Err error
}

// ErrGap means that the feed does not continue from a cursor, because the store has lost or trimmed entries.
var ErrGap = errors.New("the feed has a gap")

// ErrNotReplicated means that a change is made and in effect, but that fewer replicas of the store have it than
// required, so that it can be lost if the store fails now. The caller may repeat the request.
var ErrNotReplicated = errors.New("the change is made, but too few replicas of the store have it")

// Log stores the feed. Implementations are safe for concurrent use by multiple goroutines.
type Log interface {
	// Read returns entries after the cursor, oldest first, with [Entry.Err] set where one cannot be read. If there are none
	// it waits for the first one, up to wait or until shortly after ctx ends; a wait of zero does not wait. more reports
	// whether there may be entries after the last returned one. The error is [ErrGap] if the entry at the cursor no longer
	// exists, because then the entries found after the cursor need not be all that were added after it. Exempt are the
	// zero cursor and one so old that the log may have trimmed its entry.
	Read(ctx context.Context, after Cursor, wait time.Duration) (entries []Entry, more bool, err error)
	// End returns the cursor of the newest entry, or the zero cursor if there is none.
	End(ctx context.Context) (Cursor, error)
	// Skim is a faster Read, without waiting, for a follower that has cached nothing yet. It returns the entries after one
	// cursor and up to another, but may leave out those that are an [Kind.Invalidation]. If next equals after, nothing more
	// can be skimmed, and the follower continues with Read.
	Skim(ctx context.Context, after Cursor) (entries []Entry, next Cursor, err error)
	// Checkpoint prepares the feed, as it is now, for Skim. Any number of replicas may call it at any time.
	Checkpoint(ctx context.Context) error
}

// Publisher adds revocations to the feed. Implementations are safe for concurrent use by multiple goroutines.
type Publisher interface {
	// Publish adds the changes to the feed. Without an error they will reach all followers of the feed; with
	// [ErrNotReplicated] they will unless the store fails.
	Publish(ctx context.Context, changes ...Change) error
	// Confirm returns nil if the feed has delivered the changes and they are replicated as Publish requires. A change
	// whose Publish failed may be in the feed all the same.
	Confirm(ctx context.Context, changes ...Change) error
}

const (
	// readWait is how long one read waits for an entry. It bounds the staleness of an idle replica and the time to stop.
	readWait = 500 * time.Millisecond
	// readTimeout is how much longer than that a read may take before the store counts as unreachable.
	readTimeout = 3 * time.Second
	// retryInterval is the time between a failed read and the next one.
	retryInterval = 250 * time.Millisecond
)

// Tail follows the feed. It is safe for concurrent use by multiple goroutines.
type Tail struct {
	log      Log
	follower Follower
	start    time.Time

	mu sync.Mutex
	// cursor is the position of the last applied entry, known the time at which the tail was last known to have read the
	// feed to its end.
	cursor Cursor
	known  time.Time
	// moved is closed and replaced when cursor and known change.
	moved chan struct{}
}

// Follower receives the feed. One goroutine calls its methods, which must not wait for the network.
type Follower interface {
	// Apply applies the next entry.
	Apply(entry Entry)
	// Lost reports that entries may have been missed, so that whatever is cached on the strength of the feed must be
	// dropped. gap reports whether the feed itself has lost entries; Apply then receives it from its beginning again.
	Lost(gap bool)
	// Skimmed reports that the entries so far were skimmed (see [Log]), so that what was cached before must be dropped.
	Skimmed()
	// Failed reports why the feed cannot be read, once for each outage.
	Failed(err error)
}

// NewTail returns a tail that delivers log to follower.
func NewTail(log Log, follower Follower) *Tail {
	return &Tail{log: log, follower: follower, start: time.Now(), moved: make(chan struct{})}
}

// Age returns the staleness of the tail: every change made longer ago has been applied. Until the feed has been read to
// its end for the first time, complete is false and the age is the time since NewTail.
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
	cursor := t.skim(ctx)
	wait, broken := time.Duration(0), false
	for ctx.Err() == nil {
		// An empty result proves only what was true when the read began.
		began := time.Now()
		entries, more, err := t.read(ctx, cursor, wait)
		if errors.Is(err, ErrGap) {
			// The cursor is reset before Lost is called, because the follower may call CatchUp in response.
			cursor, wait, broken = Cursor{}, 0, false
			t.move(cursor, began, true)
			t.follower.Lost(true)
			continue
		}
		if err != nil {
			if ctx.Err() == nil && !broken {
				t.follower.Failed(err)
			}
			broken = true
			select {
			case <-ctx.Done():
			case <-time.After(retryInterval):
			}
			continue
		}
		if broken {
			// The store may have lost data during the outage, which need not show at the cursor.
			t.follower.Lost(false)
			broken = false
		}
		t.apply(entries)
		if len(entries) > 0 {
			cursor = entries[len(entries)-1].Cursor
		}
		t.move(cursor, began, more)
		wait = readWait
	}
	return nil
}

// apply applies the entries that can be read.
func (t *Tail) apply(entries []Entry) {
	for _, entry := range entries {
		if entry.Err == nil {
			t.follower.Apply(entry)
		}
	}
}

// skim skims the feed and returns the cursor to read from. An error ends it: a Read that fails too is retried.
func (t *Tail) skim(ctx context.Context) (cursor Cursor) {
	for {
		bounded, cancel := context.WithTimeout(ctx, readTimeout)
		entries, next, err := t.log.Skim(bounded, cursor)
		cancel()
		if err != nil || next == cursor {
			break
		}
		t.apply(entries)
		cursor = next
		t.move(cursor, time.Time{}, true)
	}
	if cursor != (Cursor{}) {
		t.follower.Skimmed()
	}
	return cursor
}

// read bounds [Log.Read], because a dead connection can stay open for minutes.
func (t *Tail) read(ctx context.Context, after Cursor, wait time.Duration) ([]Entry, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+readTimeout)
	defer cancel()
	return t.log.Read(ctx, after, wait)
}

// move records that the tail has read the feed up to cursor, and to its end as of began unless there is more.
func (t *Tail) move(cursor Cursor, began time.Time, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cursor = cursor
	if !more {
		t.known = began
	}
	close(t.moved)
	t.moved = make(chan struct{})
}
