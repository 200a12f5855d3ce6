package revocation

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/grantorhq/grantor/service/token"
)

// List is the deny-list: what it has makes a token refused that is valid in every other respect. It grows by [List.Apply]
// and forgets what no live token can be concerned by. It may be used by several goroutines; asking it takes no lock that
// a change elsewhere in the list holds.
type List struct {
	// tokens has "jti" → the end of the token in Unix seconds, in parts so that a change delays few questions. An entry
	// takes about 45 bytes: ids are held as their 16 bytes, without pointers for the collector to follow.
	tokens [shards]shard
	// adding is held while one is added. filter knows all that are there, and some that are not any more.
	adding sync.Mutex
	filter atomic.Pointer[filter]
	// clients has client id → the moment, in Unix seconds, up to which its tokens are revoked; keys has the "kid" of
	// keys whose tokens are revoked → when that was told.
	clients, keys sync.Map
	// tokenCount and otherCount let an empty list answer at once.
	tokenCount, otherCount atomic.Int64
}

const shards = 64

type shard struct {
	mu   sync.RWMutex
	ends map[token.ID]uint32
}

// NewList makes an empty list.
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

// has reports whether the list has what p says, or more.
func (l *List) has(p *record) bool {
	moments := &l.clients
	switch kinds[p.kind] {
	case TokenRevoked:
		return l.hasToken(p.token)
	case KeyRevoked:
		moments = &l.keys
	}
	at, ok := moments.Load(p.name)
	return ok && at.(int64) >= int64(p.at) //nolint:forcetypeassert // the map has no other values
}

// pasts gives what is on the list, in no order.
func (l *List) pasts() []record {
	all := make([]record, 0, l.Len())
	for i := range l.tokens {
		s := &l.tokens[i]
		s.mu.RLock()
		for id, end := range s.ends {
			all = append(all, record{token: id, at: end, kind: kindToken})
		}
		s.mu.RUnlock()
	}
	for kind, moments := range map[uint8]*sync.Map{kindClient: &l.clients, kindKey: &l.keys} {
		moments.Range(func(name, at any) bool {
			all = append(all, record{name: name.(string), at: uint32(at.(int64)), kind: kind}) //nolint:gosec,forcetypeassert // of this century; the map has nothing else
			return true
		})
	}
	return all
}

// Apply takes over a change and reports whether it says anything new. Changes of other kinds say nothing to the list, and
// the same change again changes nothing.
func (l *List) Apply(c Change) bool {
	switch c.Kind {
	case TokenRevoked:
		id, ok := token.ParseID(c.ID)
		return ok && l.addToken(id, c.At)
	case ClientRevoked:
		return l.later(&l.clients, c.ID, c.At.Unix())
	case KeyRevoked:
		return l.later(&l.keys, c.ID, c.At.Unix())
	}
	return false
}

func (l *List) addToken(id token.ID, end time.Time) bool {
	l.adding.Lock()
	defer l.adding.Unlock()
	if count := int(l.tokenCount.Load()); count >= l.filter.Load().room {
		l.filterAnew(2 * count)
	}
	s := &l.tokens[id[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.ends[id]; known {
		return false
	}
	l.filter.Load().add(id)
	s.ends[id] = uint32(end.Unix()) //nolint:gosec // a token's end, in this century (RFC 7519 allows any number)
	l.tokenCount.Add(1)
	return true
}

// filterAnew makes the filter for what is on the list now, with room for so many. The caller holds adding.
func (l *List) filterAnew(room int) {
	f := newFilter(room)
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

// later keeps the later of two moments.
func (l *List) later(moments *sync.Map, name string, at int64) bool {
	for {
		before, known := moments.LoadOrStore(name, at)
		if !known {
			l.otherCount.Add(1)
			return true
		}
		if before.(int64) >= at { //nolint:forcetypeassert // the map has no other values
			return false
		}
		if moments.CompareAndSwap(name, before, at) {
			return true
		}
	}
}

// RevokedUntil gives the moment up to which the client's tokens are revoked; zero where they are not.
func (l *List) RevokedUntil(clientID string) time.Time {
	until, ok := l.clients.Load(clientID)
	if !ok {
		return time.Time{}
	}
	return time.Unix(until.(int64), 0) //nolint:forcetypeassert // the map has no other values
}

// Len is how many revocations are live.
func (l *List) Len() int { return int(l.tokenCount.Load() + l.otherCount.Load()) }

// Sweep forgets what no live token can be concerned by any more. longest is the longest life of a token.
func (l *List) Sweep(now time.Time, longest time.Duration) {
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
		l.adding.Lock()
		l.filterAnew(int(l.tokenCount.Load()))
		l.adding.Unlock()
	}
	for _, moments := range []*sync.Map{&l.clients, &l.keys} {
		moments.Range(func(name, at any) bool {
			if time.Unix(at.(int64), 0).Add(longest).Before(now) && moments.CompareAndDelete(name, at) { //nolint:forcetypeassert // the maps have no other values
				l.otherCount.Add(-1)
			}
			return true
		})
	}
}
