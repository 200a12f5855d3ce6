package limit

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"time"
)

// Store adds up what the replicas count. It may be used by several goroutines.
type Store interface {
	// AddCounts adds each count to that of its key in the window, and gives the sums, in the same order. A window holds a
	// bounded number of keys; of one beyond that nothing is kept, and its sum is the count that was sent. What a window
	// holds is kept for two periods after it was last added to.
	AddCounts(ctx context.Context, w Window, counts []Count) (sums []int64, err error)
}

// Window is a stretch of time of one kind of counts. Periods are whole seconds, and the windows of a period are numbered
// from 1970 on, so that replicas have the same ones without speaking of it.
type Window struct {
	Kind   string
	Period time.Duration
	Number int64
}

// Count is what was counted for a key.
type Count struct {
	Key Key
	N   int64
}

// Key says whom a count is about, in a way that who reads it cannot turn around.
type Key [16]byte

// The kinds of keys.
const (
	ofSource byte = 's'
	ofClient byte = 'c'
	ofTokens byte = 't'
)

// keyOf makes the key of a client id, an address, or both.
func (l *Limiter) keyOf(kind byte, client string, source netip.Addr) Key {
	var space [512]byte // on the stack
	text := append(space[:0], l.config.Key...)
	text = append(text, kind)
	if source.IsValid() {
		address := source.As16()
		text = append(text, address[:]...)
	}
	// The client comes last, and each kind either has an address or has not, so that no two come to one text. It takes no
	// HMAC: half of a hash cannot be continued.
	sum := sha256.Sum256(append(text, client...))
	return Key(sum[:16])
}

// mostKeys bounds the keys of one window in memory.
const mostKeys = 100_000

// counter counts in windows that slide: what counts is the present window, and of the one before the part that lies
// within a period from now, as if it had been spread evenly.
type counter struct {
	kind   string
	period time.Duration

	mu                sync.Mutex
	current, previous window
}

type window struct {
	number  int64
	tallies map[Key]tally
	// unsent are the keys of which something is to be sent.
	unsent []Key
}

// tally is the count of one key.
type tally struct {
	// sum is that of all replicas as last heard, own what this one has counted beside it.
	sum, own int64
	// unsent says that the key is in the window's list of that name; told that it was told of, see addBeyond.
	unsent, told bool
}

// bounded is a key and how much may be counted for it; zero is no bound.
type bounded struct {
	key  Key
	most int
}

// newCounter makes a counter; one of no kind is not shared.
func newCounter(kind string, period time.Duration) *counter {
	return &counter{kind: kind, period: period}
}

// turn makes the window of the moment the current one, and gives which part of it has passed. A clock that was set back a
// little stays in the later window.
func (c *counter) turn(now time.Time) float64 {
	number := now.UnixNano() / int64(c.period)
	switch c.current.number - number {
	case 0:
	case 1:
		return 0
	case -1:
		c.previous, c.current = c.current, window{number: number}
	default:
		c.previous, c.current = window{number: number - 1}, window{number: number}
	}
	return float64(now.UnixNano()%int64(c.period)) / float64(c.period)
}

// wait tells how long it is until each of the keys may be counted once more; zero where all may now.
func (c *counter) wait(now time.Time, keys ...bounded) (longest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.longest(now, keys)
}

// add counts once for each of the keys if all have room; else it counts nothing and gives what wait gives.
func (c *counter) add(now time.Time, keys ...bounded) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if wait := c.longest(now, keys); wait > 0 {
		return wait
	}
	for _, k := range keys {
		c.count(k.key, false)
	}
	return 0
}

// addBeyond counts, and reports whether that was too much for the first time in this window.
func (c *counter) addBeyond(now time.Time, k bounded) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	beyond := c.longest(now, []bounded{k}) > 0
	return !c.count(k.key, beyond) && beyond
}

// any reports whether something was counted for the key, in the present window or the one before.
func (c *counter) any(now time.Time, key Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn(now)
	_, present := c.current.tallies[key]
	_, before := c.previous.tallies[key]
	return present || before
}

func (c *counter) longest(now time.Time, keys []bounded) (longest time.Duration) {
	passed := c.turn(now)
	for _, k := range keys {
		if k.most <= 0 {
			continue
		}
		current, previous := c.current.tallies[k.key], c.previous.tallies[k.key]
		periods := untilRoom(float64(previous.sum+previous.own), float64(current.sum+current.own), float64(k.most), passed)
		longest = max(longest, time.Duration(periods*float64(c.period)))
	}
	return longest
}

// untilRoom gives how many periods it is until one more is within the limit, if nothing is counted meanwhile. passed is
// the part of the present window that has.
func untilRoom(previous, current, most, passed float64) float64 {
	if previous*(1-passed)+current+1 <= most {
		return 0
	}
	// A nanosecond or so more, lest rounding make it none.
	const least = 1e-9
	if current+1 <= most {
		return max(1-(most-1-current)/previous-passed, least)
	}
	// The present window alone is too much: there is room when it is the one before, and has passed in part.
	return max(1-passed+1-(most-1)/current, least)
}

// count counts for a key of the current window, and reports whether it was told of before. Where there are too many keys
// one that has little gives way.
func (c *counter) count(key Key, tell bool) (told bool) {
	w := &c.current
	t, known := w.tallies[key]
	switch {
	case w.tallies == nil:
		w.tallies = make(map[Key]tally)
	case !known && len(w.tallies) >= mostKeys:
		w.giveWay()
	}
	t.own++
	if !t.unsent && c.kind != "" && len(w.unsent) < mostKeys { // else it is sent when it is next counted
		w.unsent, t.unsent = append(w.unsent, key), true
	}
	told, t.told = t.told, t.told || tell
	w.tallies[key] = t
	return told
}

// giveWay removes the least of a few tallies, whichever the map gives.
func (w *window) giveWay() {
	const few = 8
	seen, lowest, victim := 0, int64(math.MaxInt64), Key{}
	for key, t := range w.tallies {
		if sum := t.sum + t.own; sum < lowest {
			lowest, victim = sum, key
		}
		if seen++; seen == few {
			break
		}
	}
	delete(w.tallies, victim)
}

// share sends what was counted, and takes over the sums of all replicas.
func (c *counter) share(ctx context.Context, store Store) error {
	for {
		number, counts := c.take()
		if len(counts) == 0 {
			return nil
		}
		sums, err := store.AddCounts(ctx, Window{c.kind, c.period, number}, counts)
		if err == nil && len(sums) != len(counts) {
			err = fmt.Errorf("there are %d sums of %d counts", len(sums), len(counts))
		}
		if err != nil {
			c.settle(number, counts, nil)
			return fmt.Errorf("sharing counts with the other replicas: %w", err)
		}
		c.settle(number, counts, sums)
	}
}

// take gives a batch of what is to be sent of one window; none where there is nothing.
func (c *counter) take() (number int64, counts []Count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range []*window{&c.previous, &c.current} {
		for len(w.unsent) > 0 && len(counts) < shareBatch {
			key := w.unsent[len(w.unsent)-1]
			w.unsent = w.unsent[:len(w.unsent)-1]
			if t := w.tallies[key]; t.unsent { // it may have given way, or come back and be there twice
				counts = append(counts, Count{key, t.own})
				t.unsent = false
				w.tallies[key] = t
			}
		}
		if len(counts) > 0 {
			return w.number, counts
		}
	}
	return 0, nil
}

// settle takes over the sums of what was sent; without them it is to be sent again.
func (c *counter) settle(number int64, counts []Count, sums []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.current
	if w.number != number {
		w = &c.previous
	}
	if w.number != number {
		return // it no longer matters
	}
	for i, sent := range counts {
		t, ok := w.tallies[sent.Key]
		if !ok {
			continue
		}
		if sums != nil {
			// One that gave way meanwhile, and came back, has less of its own than was sent.
			t.sum, t.own = sums[i], max(t.own-sent.N, 0)
		} else if !t.unsent {
			w.unsent, t.unsent = append(w.unsent, sent.Key), true
		}
		w.tallies[sent.Key] = t
	}
}
