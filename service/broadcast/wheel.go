package broadcast

import "time"

const (
	// tickInterval is the resolution of the heartbeats.
	tickInterval = 20 * time.Millisecond
	// wheelSlots is the number of ticks after which the wheel begins again. It exceeds the maximum interval.
	wheelSlots = 512
)

// ticks returns the number of ticks in d.
func ticks(d time.Duration) int64 { return int64(d / tickInterval) }

// wheel holds each live follower in the slot of a tick at which its heartbeat may be due. A heartbeat that a change has made
// unnecessary only has its due time moved: the follower moves to the slot of that when its present slot comes.
type wheel struct {
	start time.Time
	// now is the last tick whose slot has been emptied.
	now   int64
	slots [wheelSlots][]*follower
}

// tick returns the tick of a time.
func (w *wheel) tick(t time.Time) int64 {
	if w.start.IsZero() {
		w.start = t
	}
	return ticks(t.Sub(w.start))
}

// add adds a follower to the slot in which its heartbeat is due, unless it is in one already.
func (w *wheel) add(f *follower) {
	if f.inWheel {
		return
	}
	f.inWheel = true
	slot := &w.slots[max(f.due, w.now+1)%wheelSlots]
	*slot = append(*slot, f)
}

// advance passes the followers whose heartbeats are due at a time to beat, and removes those that are
// not live.
func (w *wheel) advance(t time.Time, beat func(*follower)) {
	end := w.tick(t)
	if end-w.now > wheelSlots {
		w.now = end - wheelSlots // each slot is emptied once, however long the clock stood still
	}
	for w.now < end {
		w.now++
		slot := &w.slots[w.now%wheelSlots]
		due := *slot
		*slot = nil
		for _, f := range due {
			f.inWheel = false
			if !f.live {
				continue
			}
			if f.due <= w.now {
				beat(f)
				f.due = w.now + ticks(f.interval)
			}
			w.add(f)
		}
	}
}
