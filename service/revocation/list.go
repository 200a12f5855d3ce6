package revocation

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/grantorhq/grantor/service/token"
)

// List is the deny-list: a token on it is refused even if it is valid in every other respect. [List.Apply] adds entries
// and [List.Sweep] removes those that concern no live token. List is safe for concurrent use by multiple goroutines. A
// lookup takes no lock that a change elsewhere in the list holds.
type List struct {
	// tokens maps the "jti" of a revoked token to its expiry in Unix seconds, in shards so that a change delays few
	// lookups. An entry takes about 45 bytes: IDs are stored as 16 bytes, without pointers for the garbage collector to
	// follow.
	tokens [shards]shard
	// addMu serializes additions. filter contains every ID in tokens, and possibly some that have been swept.
	addMu  sync.Mutex
	filter atomic.Pointer[filter]
	// clients maps a client ID to the time, in Unix seconds, up to which its tokens are revoked. keys maps the "kid" of a
	// key whose tokens are revoked to the time of the revocation.
	clients, keys sync.Map
	// tokenCount and otherCount make lookups in an empty list fast.
	tokenCount, otherCount atomic.Int64
}

const shards = 64

type shard struct {
	mu   sync.RWMutex
	ends map[token.ID]uint32
}

// NewList returns an empty list.
func NewList() *List {
	l := &List{}
	for i := range l.tokens {
		l.tokens[i].ends = make(map[token.ID]uint32)
	}
	l.filter.Store(newFilter(0))
	return l
}

// Revoked implements [token.DenyList].
func (l *List) Revoked(c *token.Claims) bool {
	if l.tokenCount.Load() > 0 {
		if id, ok := c.Identity(); ok && l.filter.Load().mayContain(id) && l.hasToken(id) {
			return true
		}
	}
	if l.otherCount.Load() == 0 {
		return false
	}
	if until, ok := l.clients.Load(c.ClientID); ok && c.IssuedAt.Unix() <= until.(int64) { //nolint:forcetypeassert // the map has no other values
		return true
	}
	_, ok := l.keys.Load(c.KeyID())
	return ok
}

func (l *List) hasToken(id token.ID) bool {
	s := &l.tokens[id[0]%shards]
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.ends[id]
	return ok
}

// covers reports whether the list revokes at least the tokens that r revokes.
func (l *List) covers(r *record) bool {
	times := &l.clients
	switch kinds[r.kind] {
	case TokenRevoked:
		return l.hasToken(r.token)
	case KeyRevoked:
		times = &l.keys
	}
	at, ok := times.Load(r.name)
	return ok && at.(int64) >= int64(r.at) //nolint:forcetypeassert // the map has no other values
}

// snapshot returns all entries in unspecified order. They have no cursors.
func (l *List) snapshot() []record {
	all := make([]record, 0, l.Len())
	for i := range l.tokens {
		s := &l.tokens[i]
		s.mu.RLock()
		for id, end := range s.ends {
			all = append(all, record{token: id, at: end, kind: kindToken})
		}
		s.mu.RUnlock()
	}
	for kind, times := range map[uint8]*sync.Map{kindClient: &l.clients, kindKey: &l.keys} {
		times.Range(func(name, at any) bool {
			all = append(all, record{name: name.(string), at: uint32(at.(int64)), kind: kind}) //nolint:gosec,forcetypeassert // a time of this century; the maps have no other values
			return true
		})
	}
	return all
}

// Apply applies a change and reports whether it changed the list. Changes that are not revocations do not, nor does a
// change that was applied before.
func (l *List) Apply(c Change) bool {
	switch c.Kind {
	case TokenRevoked:
		id, ok := token.ParseID(c.ID)
		return ok && l.addToken(id, c.At)
	case ClientRevoked:
		return l.advance(&l.clients, c.ID, c.At.Unix())
	case KeyRevoked:
		return l.advance(&l.keys, c.ID, c.At.Unix())
	}
	return false
}

func (l *List) addToken(id token.ID, end time.Time) bool {
	l.addMu.Lock()
	defer l.addMu.Unlock()
	if count := int(l.tokenCount.Load()); count >= l.filter.Load().capacity {
		l.rebuildFilter(2 * count)
	}
	s := &l.tokens[id[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.ends[id]; known {
		return false
	}
	l.filter.Load().add(id)
	s.ends[id] = uint32(end.Unix()) //nolint:gosec // an expiry in this century, where RFC 7519 allows any number
	l.tokenCount.Add(1)
	return true
}

// rebuildFilter replaces the filter with one sized for capacity that contains the current tokens. l.addMu must be held.
func (l *List) rebuildFilter(capacity int) {
	f := newFilter(capacity)
	for i := range l.tokens {
		s := &l.tokens[i]
		s.mu.RLock()
		for id := range s.ends {
			f.add(id)
		}
		s.mu.RUnlock()
	}
	l.filter.Store(f)
}

// advance sets the time of the name to at, unless it is that late already, and reports whether it changed.
func (l *List) advance(times *sync.Map, name string, at int64) bool {
	for {
		before, known := times.LoadOrStore(name, at)
		if !known {
			l.otherCount.Add(1)
			return true
		}
		if before.(int64) >= at { //nolint:forcetypeassert // the map has no other values
			return false
		}
		if times.CompareAndSwap(name, before, at) {
			return true
		}
	}
}

// RevokedUntil returns the time up to which the client's tokens are revoked, or the zero time if they are not.
func (l *List) RevokedUntil(clientID string) time.Time {
	until, ok := l.clients.Load(clientID)
	if !ok {
		return time.Time{}
	}
	return time.Unix(until.(int64), 0) //nolint:forcetypeassert // the map has no other values
}

// Len returns the number of entries on the list.
func (l *List) Len() int { return int(l.tokenCount.Load() + l.otherCount.Load()) }

// Sweep removes the entries that concern no live token. maxLifetime is the maximum lifetime of a token.
func (l *List) Sweep(now time.Time, maxLifetime time.Duration) {
	swept := false
	for i := range l.tokens {
		s := &l.tokens[i]
		s.mu.Lock()
		for id, end := range s.ends {
			if int64(end) < now.Unix() {
				delete(s.ends, id)
				l.tokenCount.Add(-1)
				swept = true
			}
		}
		s.mu.Unlock()
	}
	if swept {
		l.addMu.Lock()
		l.rebuildFilter(int(l.tokenCount.Load()))
		l.addMu.Unlock()
	}
	for _, times := range []*sync.Map{&l.clients, &l.keys} {
		times.Range(func(name, at any) bool {
			if time.Unix(at.(int64), 0).Add(maxLifetime).Before(now) && times.CompareAndDelete(name, at) { //nolint:forcetypeassert // the maps have no other values
				l.otherCount.Add(-1)
			}
			return true
		})
	}
}
