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

// Store sums the counts of the replicas. Implementations are safe for concurrent use by multiple goroutines.
type Store interface {
	// AddCounts adds each count to that of its key in the window and returns the sums, in the same order. A window holds a
	// limited number of keys. A key beyond that is not stored, and its sum is the count that was sent. A window is kept
	// for two periods after the last addition to it.
	AddCounts(ctx context.Context, w Window, counts []Count) (sums []int64, err error)
}

// Window is a time window of one kind of counts. Periods are whole seconds, and windows are numbered from 1970, so that
// replicas have the same windows without communicating.
type Window struct {
	Kind   string
	Period time.Duration
	Number int64
}

// Count is the count of a key.
type Count struct {
	Key Key
	N   int64
}

// Key identifies what is counted, such as a client or a source, without revealing it.
type Key [16]byte

// The kinds of keys.
const (
	keySource byte = 's' // failures of a source
	keyClient byte = 'c' // failures of a client from a source
	keyTokens byte = 't' // tokens of a client
)

// key returns the key of a client ID, an address, or both.
func (l *Limiter) key(kind byte, client string, source netip.Addr) Key {
	var buf [512]byte // on the stack
	text := append(buf[:0], l.config.Key...)
	text = append(text, kind)
	if source.IsValid() {
		address := source.As16()
		text = append(text, address[:]...)
	}
	// The client comes last, and each kind either always or never has an address, so that no two keys have the same text.
	// An HMAC is not needed: a length extension would need the whole hash, of which half is kept.
	sum := sha256.Sum256(append(text, client...))
	return Key(sum[:16])
}

// maxKeys is the maximum number of keys of one window in memory.
const maxKeys = 100_000

// counter counts in a sliding window of one period, which it approximates by two fixed windows: the count of a key is
// that in the current window, plus that in the previous one weighted by the fraction of it that lies within the last
// period, as if its counts were spread evenly.
type counter struct {
	kind   string
	period time.Duration

	mu                sync.Mutex
	current, previous window
}

type window struct {
	number  int64
	tallies map[Key]tally
	// unsent are the keys with counts to be sent to the store.
	unsent []Key
}

// tally is the count of one key.
type tally struct {
	// sum is the sum of all replicas as last received, own what this replica has counted in addition.
	sum, own int64
	// unsent reports whether the key is in the window's unsent, and reported whether its excess was reported; see
	// addAlways.
	unsent, reported bool
}

// limitedKey is a key and its limit. Zero means no limit.
type limitedKey struct {
	key   Key
	limit int
}

// newCounter returns a counter. A counter without a kind is not shared.
func newCounter(kind string, period time.Duration) *counter {
	return &counter{kind: kind, period: period}
}

// advance makes the window that contains now the current one, and returns the fraction of it that has passed. If the
// clock was set back into the previous window, the later one stays current.
func (c *counter) advance(now time.Time) float64 {
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

// wait returns how long it takes until each of the keys may be counted once more, or zero if all may be now.
func (c *counter) wait(now time.Time, keys ...limitedKey) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.longestWait(now, keys)
}

// add counts once for each of the keys and returns zero. If one of them has reached its limit, add counts nothing and
// returns what wait returns.
func (c *counter) add(now time.Time, keys ...limitedKey) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if wait := c.longestWait(now, keys); wait > 0 {
		return wait
	}
	for _, k := range keys {
		c.count(k.key, false)
	}
	return 0
}

// addAlways counts once for k, even beyond its limit, and reports whether this was the first excess in the current
// window.
func (c *counter) addAlways(now time.Time, k limitedKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	exceeds := c.longestWait(now, []limitedKey{k}) > 0
	return !c.count(k.key, exceeds) && exceeds
}

// seen reports whether the key was counted in the current window or the previous one.
func (c *counter) seen(now time.Time, key Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(now)
	_, inCurrent := c.current.tallies[key]
	_, inPrevious := c.previous.tallies[key]
	return inCurrent || inPrevious
}

// longestWait is wait with c.mu held.
func (c *counter) longestWait(now time.Time, keys []limitedKey) (longest time.Duration) {
	passed := c.advance(now)
	for _, k := range keys {
		if k.limit <= 0 {
			continue
		}
		current, previous := c.current.tallies[k.key], c.previous.tallies[k.key]
		periods := periodsUntilAllowed(float64(previous.sum+previous.own), float64(current.sum+current.own), float64(k.limit), passed)
		longest = max(longest, time.Duration(periods*float64(c.period)))
	}
	return longest
}

// periodsUntilAllowed returns how many periods it takes until another count is within the limit, if nothing is counted
// until then. passed is the fraction of the current window that has passed.
func periodsUntilAllowed(previous, current, limit, passed float64) float64 {
	if previous*(1-passed)+current+1 <= limit {
		return 0
	}
	// epsilon, about a nanosecond for a period of a second, keeps a wait that rounding makes zero positive.
	const epsilon = 1e-9
	if current+1 <= limit {
		return max(1-(limit-1-current)/previous-passed, epsilon)
	}
	// The count of the current window alone reaches the limit. A part of the next window must pass, in which the current
	// one counts as the previous one.
	return max(1-passed+1-(limit-1)/current, epsilon)
}

// count counts once for the key in the current window, and marks the key as reported if report is set. It returns
// whether the key was marked before. If the window is full, a key with a low count is evicted.
func (c *counter) count(key Key, report bool) (reported bool) {
	w := &c.current
	t, known := w.tallies[key]
	switch {
	case w.tallies == nil:
		w.tallies = make(map[Key]tally)
	case !known && len(w.tallies) >= maxKeys:
		w.evict()
	}
	t.own++
	if !t.unsent && c.kind != "" && len(w.unsent) < maxKeys { // otherwise the key is sent after its next count
		w.unsent, t.unsent = append(w.unsent, key), true
	}
	reported, t.reported = t.reported, t.reported || report
	w.tallies[key] = t
	return reported
}

// evict removes the lowest of a few tallies, which the map selects at random.
func (w *window) evict() {
	const samples = 8
	sampled, lowest, victim := 0, int64(math.MaxInt64), Key{}
	for key, t := range w.tallies {
		if sum := t.sum + t.own; sum < lowest {
			lowest, victim = sum, key
		}
		if sampled++; sampled == samples {
			break
		}
	}
	delete(w.tallies, victim)
}

// share sends the new counts and adopts the sums of all replicas.
func (c *counter) share(ctx context.Context, store Store) error {
	for {
		number, counts := c.takeBatch()
		if len(counts) == 0 {
			return nil
		}
		sums, err := store.AddCounts(ctx, Window{c.kind, c.period, number}, counts)
		if err == nil && len(sums) != len(counts) {
			err = fmt.Errorf("the store returned %d sums for %d counts", len(sums), len(counts))
		}
		if err != nil {
			c.apply(number, counts, nil)
			return fmt.Errorf("sharing counts with other replicas: %w", err)
		}
		c.apply(number, counts, sums)
	}
}

// takeBatch returns a batch of unsent counts of one window, or none if all are sent.
func (c *counter) takeBatch() (number int64, counts []Count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range []*window{&c.previous, &c.current} {
		for len(w.unsent) > 0 && len(counts) < shareBatch {
			key := w.unsent[len(w.unsent)-1]
			w.unsent = w.unsent[:len(w.unsent)-1]
			if t := w.tallies[key]; t.unsent { // it may have been evicted, or counted again after that and be listed twice
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

// apply adopts the sums of the counts that were sent. If sums is nil the exchange failed, and they are to be sent
// again.
func (c *counter) apply(number int64, counts []Count, sums []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.current
	if w.number != number {
		w = &c.previous
	}
	if w.number != number {
		return // the window no longer counts
	}
	for i, sent := range counts {
		t, ok := w.tallies[sent.Key]
		if !ok {
			continue
		}
		if sums != nil {
			// A key that was evicted and counted again during the exchange has a smaller own count than was sent.
			t.sum, t.own = sums[i], max(t.own-sent.N, 0)
		} else if !t.unsent {
			w.unsent, t.unsent = append(w.unsent, sent.Key), true
		}
		w.tallies[sent.Key] = t
	}
}
