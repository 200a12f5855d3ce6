package revocation

import (
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grantorhq/grantor/service/token"
)

// Ledger holds the live revocations that a replica knows: the deny-list, and their order in the feed for subscribers of
// this replica. All subscribers share one copy, wherever their cursors are. Ledger is safe for concurrent use by
// multiple goroutines.
type Ledger struct {
	// List is the deny-list.
	List *List

	mu sync.RWMutex
	// entries are the revocations in the feed, in its order.
	entries []record
	// changed is closed and replaced when entries change or a gap is repaired.
	changed chan struct{}
	// epoch is incremented when entries are removed.
	epoch atomic.Uint64
	// From a gap in the feed until it is repaired, beforeGap holds the revocations that were in effect at the gap and
	// sinceGap those that the feed has delivered since. Both are nil otherwise.
	beforeGap []record
	sinceGap  *List
}

// record is the compact form of an [Entry], in 56 bytes. A token's ID is stored as bytes rather than as a string, so
// that a million records leave the garbage collector no pointers to follow.
type record struct {
	cursor Cursor
	token  token.ID
	name   string
	at     uint32
	kind   uint8
}

// The values of record.kind, which index kinds.
const (
	kindToken uint8 = iota
	kindClient
	kindKey
)

var kinds = [...]Kind{kindToken: TokenRevoked, kindClient: ClientRevoked, kindKey: KeyRevoked}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{List: NewList(), changed: make(chan struct{})} }

// Append adds the next entry of the feed. It ignores entries that are not revocations.
func (l *Ledger) Append(e Entry) {
	r, ok := newRecord(e)
	if !ok {
		return
	}
	l.List.Apply(e.Change)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sinceGap != nil {
		l.sinceGap.Apply(e.Change)
	}
	l.entries = append(l.entries, r)
	l.notify()
}

// notify wakes the subscribers. l.mu must be held.
func (l *Ledger) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Reset prepares the ledger for a feed that has lost entries and is read from its beginning again. The list keeps all
// its entries, which are those to be restored in the feed. They include revocations that this replica published and the
// feed lost before delivering them.
func (l *Ledger) Reset() {
	beforeGap := l.List.snapshot()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beforeGap, l.sinceGap = beforeGap, NewList()
	l.entries = nil
	l.epoch.Add(1)
	l.notify()
}

// Missing returns the live revocations that were in effect at the last gap and that the feed has not delivered since.
// The caller publishes them again, once the feed has been read to its end. They stay missing until the feed delivers
// them, because until then they may be lost again. When none is missing the gap is repaired.
func (l *Ledger) Missing(now time.Time) []Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sinceGap == nil {
		return nil
	}
	var missing []Change
	for i := range l.beforeGap {
		if r := &l.beforeGap[i]; r.live(now) && !l.sinceGap.covers(r) {
			missing = append(missing, r.entry().Change)
		}
	}
	if len(missing) == 0 {
		l.beforeGap, l.sinceGap = nil, nil
		l.notify()
	}
	return missing
}

// Page is a part of the ledger.
type Page struct {
	Entries []Entry
	// Next is the cursor to continue from.
	Next Cursor
	// Complete reports whether a subscriber that has this page has all that the ledger knows. It is false until a gap is
	// repaired.
	Complete bool
	// Last reports whether the page ends at the newest entry.
	Last bool
	// Changed is closed when the next page may be read: at once if there are more entries, else when the ledger changes.
	Changed <-chan struct{}
}

// Changed returns a channel that is closed at the next change of the ledger.
func (l *Ledger) Changed() <-chan struct{} {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.changed
}

// Epoch returns a number that changes when entries are removed, before which the cursors of pages that were read earlier may
// be unknown. While it does not change, a page that is not the last remains as it was read, expired tokens aside.
func (l *Ledger) Epoch() uint64 { return l.epoch.Load() }

// After returns at most limit entries after the cursor, of those that may concern a token that is live at now. known
// reports whether the cursor is the zero cursor or that of an entry. A subscriber with an unknown cursor may have
// missed entries and must start from the beginning. Pages end at multiples of limit, so that subscribers at different
// cursors read the same pages from their second one on.
func (l *Ledger) After(after Cursor, limit int, now time.Time) (page Page, known bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	from := 0
	if after != (Cursor{}) {
		at, found := sort.Find(len(l.entries), func(i int) int { return after.Compare(l.entries[i].cursor) })
		if !found {
			return Page{}, false
		}
		from = at + 1
	}
	page.Next = after
	for i := from; i < len(l.entries); i++ {
		if i%limit == 0 && len(page.Entries) > 0 {
			page.Changed = closedChan
			return page, true
		}
		r := &l.entries[i]
		page.Next = r.cursor
		if r.live(now) {
			page.Entries = append(page.Entries, r.entry())
		}
	}
	page.Complete, page.Last, page.Changed = l.sinceGap == nil, true, l.changed
	return page, true
}

// closedChan is a closed channel.
var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Sweep removes the entries that concern no live token. maxLifetime is the maximum lifetime of a token.
func (l *Ledger) Sweep(now time.Time, maxLifetime time.Duration) {
	l.List.Sweep(now, maxLifetime)
	limit := Cursor{Time: uint64(max(now.Add(-maxLifetime).UnixMilli(), 0))}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].cursor.Compare(limit) >= 0 }); n > 0 {
		l.entries = slices.Clone(l.entries[n:])
		l.epoch.Add(1)
	}
}

// newRecord returns the record of an entry. It reports false for an entry that is not a revocation, or that
// has a malformed token ID.
func newRecord(e Entry) (record, bool) {
	kind := slices.Index(kinds[:], e.Kind)
	if kind < 0 {
		return record{}, false
	}
	r := record{cursor: e.Cursor, at: uint32(e.At.Unix()), kind: uint8(kind)} //nolint:gosec // a time of this century; there are three kinds
	if e.Kind != TokenRevoked {
		r.name = e.ID
		return r, true
	}
	var ok bool
	r.token, ok = token.ParseID(e.ID)
	return r, ok
}

func (r *record) entry() Entry {
	e := Entry{Cursor: r.cursor, Change: Change{Kind: kinds[r.kind], ID: r.name, At: time.Unix(int64(r.at), 0)}}
	if e.Kind == TokenRevoked {
		e.ID = r.token.String()
	}
	return e
}

// live reports whether the entry may concern a token that has not expired.
func (r *record) live(now time.Time) bool {
	return kinds[r.kind] != TokenRevoked || int64(r.at) >= now.Unix()
}
