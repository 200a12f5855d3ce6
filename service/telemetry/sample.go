package telemetry

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

// How many events of a kind are written in a second, and how many refusals of all kinds; and how many of those one source
// may have, so that none hides what another does. The others are counted.
const (
	perSecond, perSource    = 100, 20
	inAll, inAllOfOneSource = 200, 100
)

// kind is what events are counted by. Both are from a short fixed list.
type kind struct{ event, reason string }

// leftOut is how many events were left out, and since when.
type leftOut struct {
	kind

	count int
	since time.Time
}

func (l leftOut) attrs() []slog.Attr {
	return []slog.Attr{
		slog.String("of", l.event), slog.String("reason", l.reason), slog.Int("count", l.count), slog.Time("since", l.since.UTC()),
	}
}

// sampler leaves out events of which there are too many. Its zero value is ready. It may be used by several goroutines.
type sampler struct {
	mu sync.Mutex
	// began is when the second began that the rest is about.
	began time.Time
	// written counts the refusals of all kinds that were written.
	written int
	kinds   map[kind]*sample
	// sources has how many refusals of a source were written, of each kind and, for the zero kind, of all. What was not
	// written makes no entry, which bounds it.
	sources map[origin]int
}

// origin is a kind of event from one source.
type origin struct {
	kind

	source netip.Addr
}

// sample is how many events of a kind were written, and what was left out.
type sample struct {
	written int
	left    leftOut
}

// admit reports whether one more event, which the peer caused, is written. left is what was left out in a second that is over.
func (s *sampler) admit(k kind, peer string, now time.Time) (write bool, left []leftOut) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left = s.next(now)
	of := s.kinds[k]
	if of == nil {
		of = &sample{}
		s.kinds[k] = of
	}
	if of.written < perSecond && s.room(k, peer) {
		of.written++
		return true, left
	}
	if of.left.count == 0 {
		of.left = leftOut{kind: k, since: now}
	}
	of.left.count++
	return false, left
}

// room reports whether there is room among the refusals of all kinds, and takes it. No flood of refusals hides a fault of
// the server's own.
func (s *sampler) room(k kind, peer string) bool {
	if k.event == fault {
		return true
	}
	source := remoteaddr.RateLimitKey(remoteaddr.ParseString(peer))
	one, all := origin{k, source}, origin{source: source}
	if s.written == inAll || s.sources[one] == perSource || s.sources[all] == inAllOfOneSource {
		return false
	}
	s.written++
	s.sources[one]++
	s.sources[all]++
	return true
}

// over gives what was left out in a second that is over, and forgets it.
func (s *sampler) over(now time.Time) []leftOut {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next(now)
}

// next begins another second where one is over, and gives what was left out in that.
func (s *sampler) next(now time.Time) (left []leftOut) {
	if now.Sub(s.began) < time.Second {
		return nil
	}
	for _, of := range s.kinds {
		if of.left.count > 0 {
			left = append(left, of.left)
		}
	}
	s.began, s.written, s.kinds, s.sources = now, 0, make(map[kind]*sample), make(map[origin]int)
	return left
}
