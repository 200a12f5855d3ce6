package broadcast

import (
	"sync"
	"time"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/revocation"
)

const (
	// maxEntries is the maximum number of revocations in one response, of some 35 bytes each.
	maxEntries = 2000
	// latestLifetime is how long followers share a page that ends at the newest entry. Its age includes this time.
	latestLifetime = 5 * time.Millisecond
	// maxFull is the maximum number of full pages in memory, 4.5 MB. Followers that start together proceed together, so that
	// few pages serve any number of them.
	maxFull = 64
	// fullLifetime is how long full pages stay in memory after the last use of any.
	fullLifetime = 10 * time.Second
)

// page is a part of the feed, encoded.
type page struct {
	message *encoded
	// next is the cursor of the next page.
	next revocation.Cursor
	// last reports whether the page ends at the newest entry, and empty whether it has no entries.
	last, empty bool
}

// pages reads and encodes each part of the feed once for all followers at the same cursor. It is safe for concurrent use by
// multiple goroutines.
type pages struct {
	hub *Hub

	mu sync.Mutex
	// latest has pages that end at the newest entry, keyed by the cursor before them. It is cleared latestLifetime after since,
	// and when a change is sent. version is that of the ledger at since.
	latest  map[revocation.Cursor]*page
	since   time.Time
	version <-chan struct{}
	// full has pages after which there are more, keyed alike. They do not change until entries before them are removed, which
	// changes the epoch of the ledger. used is the time at which one was last used.
	full  map[revocation.Cursor]*page
	used  time.Time
	epoch uint64
}

func newPages(h *Hub) *pages {
	return &pages{hub: h, latest: make(map[revocation.Cursor]*page), full: make(map[revocation.Cursor]*page)}
}

// after returns the page after the cursor. After an unknown cursor that is the first page: a revocation that is sent twice
// changes nothing. If the page ends at the newest entry, that is the newest one of latestLifetime ago, or of now if current is
// set.
func (p *pages) after(cursor revocation.Cursor, current bool) (*page, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if epoch := p.hub.Ledger.Epoch(); epoch != p.epoch {
		p.epoch = epoch
		clear(p.full)
		clear(p.latest)
	}
	if now.Sub(p.since) > latestLifetime || current && p.version != p.hub.Ledger.Changed() {
		p.since, p.version = now, p.hub.Ledger.Changed()
		clear(p.latest)
	}
	for {
		if found, ok := p.full[cursor]; ok {
			p.used = now
			return found, nil
		}
		if found, ok := p.latest[cursor]; ok {
			return found, nil
		}
		built, known, err := p.hub.build(cursor)
		switch {
		case err != nil:
			return nil, err
		case !known:
			cursor = revocation.Cursor{}
			continue
		case built.last:
			p.latest[cursor] = built
		default:
			p.keepFull(cursor, built)
			p.used = now
		}
		return built, nil
	}
}

// keepFull keeps a full page, in place of any other if there are too many. p.mu must be held.
func (p *pages) keepFull(cursor revocation.Cursor, built *page) {
	if len(p.full) >= maxFull {
		for other := range p.full {
			delete(p.full, other)
			break
		}
	}
	p.full[cursor] = built
}

// changed forgets the pages that do not have the newest entry.
func (p *pages) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.latest)
}

// trim forgets the full pages if none was used for some time.
func (p *pages) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.full) > 0 && time.Since(p.used) > fullLifetime {
		p.full = make(map[revocation.Cursor]*page)
	}
}

// build reads and encodes the page after a cursor. known reports whether the ledger has the cursor.
func (h *Hub) build(cursor revocation.Cursor) (built *page, known bool, err error) {
	// The age is taken first: what is appended while the entries are read makes them newer, not older.
	age, complete := h.Feed.Age()
	read, known := h.Ledger.After(cursor, maxEntries, h.Now())
	if !known {
		return nil, false, nil
	}
	response := newResponse(read.Entries)
	response.Cursor = cursorText(read.Next)
	if read.Last {
		response.Complete = complete && read.Complete
		response.AgeMs = (age + latestLifetime).Milliseconds()
	}
	message, err := encode(response)
	return &page{message, read.Next, read.Last, len(read.Entries) == 0}, true, err
}

func newResponse(entries []revocation.Entry) *grantorv1.WatchRevocationsResponse {
	response := &grantorv1.WatchRevocationsResponse{}
	for _, e := range entries {
		switch e.Kind {
		case revocation.TokenRevoked:
			response.Tokens = append(response.Tokens, &grantorv1.RevokedToken{Jti: e.ID, Exp: e.At.Unix()})
		case revocation.ClientRevoked:
			response.Clients = append(response.Clients, &grantorv1.RevokedClient{ClientId: e.ID, Until: e.At.Unix()})
		case revocation.KeyRevoked:
			response.Keys = append(response.Keys, &grantorv1.RevokedKey{Kid: e.ID, At: e.At.Unix()})
		}
	}
	return response
}

// cursorText returns the text of a cursor on the wire, where the beginning is empty.
func cursorText(c revocation.Cursor) string {
	if c == (revocation.Cursor{}) {
		return ""
	}
	return c.String()
}
