package revocation

import (
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/grantorhq/grantor/service/token"
)

// Ledger is the live revocations as a replica knows them: the deny-list, and their order in the feed for those who follow
// it from here. It holds one copy for all who follow, however far each has come. It may be used by several goroutines.
type Ledger struct {
	// List is the deny-list.
	List *List

	mu sync.RWMutex
	// entries are those of the feed as it stands, in its order.
	entries []record
	// grown is closed, and made anew, when entries change.
	grown chan struct{}
	// before has, from a gap until it is mended, what was in force at the gap; found what the feed has had since.
	before []record
	found  *List
}

// record is an entry, in 56 bytes. A token's id is held as bytes, so that a million of them leave the collector nothing to
// follow.
type record struct {
	cursor Cursor
	token  token.ID
	name   string
	at     uint32
	kind   uint8
}

// The numbers of the kinds in a past, and the kinds by number.
const (
	kindToken uint8 = iota
	kindClient
	kindKey
)

var kinds = [...]Kind{kindToken: TokenRevoked, kindClient: ClientRevoked, kindKey: KeyRevoked}

// NewLedger makes an empty ledger.
func NewLedger() *Ledger { return &Ledger{List: NewList(), grown: make(chan struct{})} }

// Append takes over the next entry of the feed. One that is no revocation is passed over.
func (l *Ledger) Append(e Entry) {
	p, ok := remember(e)
	if !ok {
		return
	}
	l.List.Apply(e.Change)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found != nil {
		l.found.Apply(e.Change)
	}
	l.entries = append(l.entries, p)
	l.tell()
}

// tell wakes those who follow; mu is held.
func (l *Ledger) tell() {
	close(l.grown)
	l.grown = make(chan struct{})
}

// Reset says that the feed will be read from its beginning again, because some of it was lost. What is on the list stays,
// and is what must be mended: it also has what was published here and lost before the feed told it back.
func (l *Ledger) Reset() {
	before := l.List.pasts()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before, l.found = before, NewList()
	l.entries = nil
	l.tell()
}

// Missing gives the live revocations in force at the last gap that the feed has not had since: what must be published again,
// once the feed was read to its end. When there are none left, the gap is mended. What was published counts when the feed
// tells it back: until then it may be lost again.
func (l *Ledger) Missing(now time.Time) []Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found == nil {
		return nil
	}
	var missing []Change
	for i := range l.before {
		if p := &l.before[i]; p.live(now) && !l.found.has(p) {
			missing = append(missing, p.entry().Change)
		}
	}
	if len(missing) == 0 {
		l.before, l.found = nil, nil
		l.tell()
	}
	return missing
}

// Page is a part of the ledger.
type Page struct {
	Entries []Entry
	// Next is the cursor to go on from.
	Next Cursor
	// Complete says that with this page everything is told that is known here. It is not while a gap waits to be mended.
	Complete bool
	// Changed is closed when there is more to tell.
	Changed <-chan struct{}
}

// After gives at most limit entries that come after the cursor and may concern a token that is live at now. known is
// false for a cursor that is not that of an entry here, nor the beginning: who comes with it may have missed something and
// must begin anew.
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
		if len(page.Entries) == limit {
			page.Changed = closed
			return page, true
		}
		p := &l.entries[i]
		page.Next = p.cursor
		if p.live(now) {
			page.Entries = append(page.Entries, p.entry())
		}
	}
	page.Complete, page.Changed = l.found == nil, l.grown
	return page, true
}

// closed is a channel for those who need not wait.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Sweep forgets what concerns no live token any more. longest is the longest life of a token.
func (l *Ledger) Sweep(now time.Time, longest time.Duration) {
	l.List.Sweep(now, longest)
	limit := Cursor{Time: uint64(max(now.Add(-longest).UnixMilli(), 0))}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].cursor.Compare(limit) >= 0 }); n > 0 {
		l.entries = slices.Clone(l.entries[n:])
	}
}

// remember makes a past of an entry; ok is false for what is no revocation.
func remember(e Entry) (record, bool) {
	kind := slices.Index(kinds[:], e.Kind)
	if kind < 0 {
		return record{}, false
	}
	p := record{cursor: e.Cursor, at: uint32(e.At.Unix()), kind: uint8(kind)} //nolint:gosec // a moment of this century; 3 kinds
	if e.Kind != TokenRevoked {
		p.name = e.ID
		return p, true
	}
	var ok bool
	p.token, ok = token.ParseID(e.ID)
	return p, ok
}

func (p *record) entry() Entry {
	e := Entry{Cursor: p.cursor, Change: Change{Kind: kinds[p.kind], ID: p.name, At: time.Unix(int64(p.at), 0)}}
	if e.Kind == TokenRevoked {
		e.ID = p.token.String()
	}
	return e
}

// live reports whether the entry may concern a token that has not expired.
func (p *record) live(now time.Time) bool {
	return kinds[p.kind] != TokenRevoked || int64(p.at) >= now.Unix()
}
