package telemetry

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

// The maximum number of refusals that are written per second. The limits per source keep one source from hiding what
// another does. Refusals beyond a limit are counted. maxPerKind also applies to faults.
const (
	maxPerKind          = 100
	maxPerKindAndSource = 20
	maxTotal            = 200
	maxPerSource        = 100
)

// kind is what events are counted by. Both words are from short fixed lists.
type kind struct{ event, reason string }

// leftOut is the number of events of a kind that were not written, and the time of the first of them.
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

// sampler drops events above a rate. The zero value is ready to use. It is safe for concurrent use by multiple
// goroutines.
type sampler struct {
	mu sync.Mutex
	// began is the start of the current second, which the other fields are about.
	began time.Time
	// written counts the refusals of all kinds that were written.
	written int
	kinds   map[kind]*sample
	// sources counts the refusals that were written by source and kind, and under the zero kind those of all kinds. Only
	// written refusals make an entry, which bounds the map.
	sources map[origin]int
}

// origin is a kind of event from one source.
type origin struct {
	kind

	source netip.Addr
}

// sample counts the events of a kind, the written ones and those that were left out.
type sample struct {
	written int
	left    leftOut
}

// admit reports whether one more event, which peer caused, is written. left is what was left out in the last second, if
// that has ended.
func (s *sampler) admit(k kind, peer string, now time.Time) (write bool, left []leftOut) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left = s.advance(now)
	counts := s.kinds[k]
	if counts == nil {
		counts = &sample{}
		s.kinds[k] = counts
	}
	if counts.written < maxPerKind && s.reserve(k, peer) {
		counts.written++
		return true, left
	}
	if counts.left.count == 0 {
		counts.left = leftOut{kind: k, since: now}
	}
	counts.left.count++
	return false, left
}

// reserve takes a place among the refusals of all kinds, and reports whether there was one. Faults need none, so that a
// flood of refusals cannot hide a fault of the server itself.
func (s *sampler) reserve(k kind, peer string) bool {
	if k.event == fault {
		return true
	}
	source := remoteaddr.RateLimitKey(remoteaddr.ParseString(peer))
	one, all := origin{k, source}, origin{source: source}
	if s.written == maxTotal || s.sources[one] == maxPerKindAndSource || s.sources[all] == maxPerSource {
		return false
	}
	s.written++
	s.sources[one]++
	s.sources[all]++
	return true
}

// flush returns and clears the counts of the last full second.
func (s *sampler) flush(now time.Time) []leftOut {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.advance(now)
}

// advance starts a new second if the current one has ended, and returns what was left out in that. s.mu must be held.
func (s *sampler) advance(now time.Time) (left []leftOut) {
	if now.Sub(s.began) < time.Second {
		return nil
	}
	for _, counts := range s.kinds {
		if counts.left.count > 0 {
			left = append(left, counts.left)
		}
	}
	s.began, s.written, s.kinds, s.sources = now, 0, make(map[kind]*sample), make(map[origin]int)
	return left
}
