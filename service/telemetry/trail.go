package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// AuditSink keeps audit events for those who look back.
type AuditSink interface {
	// Append adds entries, at least one, to a stream in their order, all or none. After an error, which may hide that they
	// were added, the same ones come again.
	Append(ctx context.Context, stream Stream, entries []Entry) error
}

// Entry is an audit event as a [AuditSink] keeps it.
type Entry struct {
	// Time is when it happened, by the clock of the replica.
	Time  time.Time
	Event string
	// Attributes is a JSON object. It is valid during the call alone.
	Attributes []byte
}

const (
	// queued bounds the events of a stream that wait; as many again may be on their way.
	queued = 8192
	// atOnce bounds the entries of one call to the trail.
	atOnce = 500
	// gather is how long events wait for others, again how long they wait after a failure.
	gather, again = 100 * time.Millisecond, time.Second
	// patience bounds a call, farewell those that are made when the recorder stops.
	patience, farewell = 5 * time.Second, 2 * time.Second
)

// behind is the reason of an [EventLeftOut] for events that found no room while the trail could not be reached, or was too
// slow.
const behind = "stream_behind"

// event is an audit event that waits. It is encoded when it is appended, so that no caller's time goes into that.
type event struct {
	at    time.Time
	name  string
	attrs []slog.Attr
}

// queue has the events that wait for a trail. Its zero value, without one, takes none.
type queue struct {
	trail AuditSink
	// waiting has those of each of the [Streams].
	waiting [3]waiting
	// full wakes who appends, when there is enough for one call.
	full chan struct{}
}

// waiting are the events that wait for one stream.
type waiting struct {
	mu     sync.Mutex
	events []event
	left   leftOut
}

// Keep has the recorder keep its events in a trail too, while [Recorder.Run] runs. It is called before the first event.
func (r *Recorder) Keep(trail AuditSink) {
	r.queue.trail, r.queue.full = trail, make(chan struct{}, 1)
}

// put adds an event, if there is room, and reports whether there was. It never waits for the trail.
func (q *queue) put(stream Stream, e event) bool {
	if q.trail == nil {
		return true
	}
	waiting := q.waiting[slices.Index(Streams, stream)].put(stream, e)
	if waiting == atOnce {
		select {
		case q.full <- struct{}{}:
		default: // it is awake
		}
	}
	return waiting <= queued
}

// put gives how many wait; more than can wait where there was no room.
func (w *waiting) put(stream Stream, e event) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) < queued {
		w.events = append(w.events, e)
		return len(w.events)
	}
	if w.left.count == 0 {
		w.left = leftOut{kind: kind{string(stream), behind}, since: e.at}
	}
	w.left.count++
	return queued + 1
}

// take gives what waits, and what was left out after that. The next ones go where room is.
func (w *waiting) take(room []event) ([]event, leftOut) {
	w.mu.Lock()
	defer w.mu.Unlock()
	events, left := w.events, w.left
	w.events, w.left = room, leftOut{}
	return events, left
}

// Run tells what was left out, and keeps the events in the trail, until ctx ends. What is not kept then is given a moment.
func (r *Recorder) Run(ctx context.Context) error {
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(farewell, cancel) })()
	writers := r.writers()
	var running sync.WaitGroup
	running.Go(func() { r.tellEachSecond(ctx) })
	running.Go(func() { r.append(ctx, calls, writers) })
	running.Wait()
	r.tellIntrospected(ctx, true)
	r.tellLeftOut(ctx, r.sampler.over(time.Now().Add(time.Second)))
	for _, w := range writers {
		if err := w.send(calls); err != nil {
			r.log.ErrorContext(ctx, "audit events are only in the log", "stream", w.stream, "count", w.rest(), "error", err)
		}
	}
	return nil
}

// tellEachSecond tells what is counted and not written at once: introspections, and what was left out while no more of it
// comes.
func (r *Recorder) tellEachSecond(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			r.tellIntrospected(ctx, false)
			r.tellLeftOut(ctx, r.sampler.over(now))
		}
	}
}

// append appends what waits until ctx ends. What is under way then may end: cut off, it would come a second time.
func (r *Recorder) append(ctx, calls context.Context, writers []*writer) {
	timer := time.NewTimer(gather)
	defer timer.Stop()
	failing := false
	for ctx.Err() == nil {
		full := r.queue.full
		if failing {
			full = nil // that there is much to do is no reason to try earlier
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-full:
		}
		var failed error
		for _, w := range writers {
			if err := w.send(calls); err != nil {
				failed = err
			}
		}
		switch {
		case failed != nil && !failing:
			r.log.WarnContext(ctx, "audit events cannot be appended to their streams; they wait, as far as there is room", "error", failed)
		case failed == nil && failing:
			r.log.InfoContext(ctx, "audit events are appended to their streams again")
		}
		failing = failed != nil
		pause := gather
		if failing {
			pause = again
		}
		timer.Reset(pause)
	}
}

// writer appends to one stream what waits for it.
type writer struct {
	*waiting

	recorder *Recorder
	stream   Stream
	// taken is what was taken and is not appended yet: the end of room, which is used again.
	taken, room []event
	buffer      bytes.Buffer
	encoder     slog.Handler
}

// writers gives those of the streams, the more important first; none without a trail.
func (r *Recorder) writers() []*writer {
	if r.queue.trail == nil {
		return nil
	}
	var writers []*writer
	for i, stream := range Streams {
		w := &writer{waiting: &r.queue.waiting[i], recorder: r, stream: stream}
		w.encoder = newEncoder(&w.buffer)
		writers = append(writers, w)
	}
	return writers
}

// send appends everything that waits. What it cannot append it tries first when it is called again.
func (w *writer) send(ctx context.Context) error {
	for {
		if len(w.taken) == 0 && !w.refill(ctx) {
			return nil
		}
		n := min(len(w.taken), atOnce)
		if err := w.append(ctx, w.taken[:n]); err != nil {
			return err
		}
		w.taken = w.taken[n:]
	}
}

// refill takes what waits, and reports whether that is anything.
func (w *writer) refill(ctx context.Context) bool {
	clear(w.room) // lets go of what was appended
	events, left := w.take(w.room[:0])
	if left.count > 0 {
		// It comes after those that waited, as what it tells of did.
		e := event{time.Now(), EventLeftOut, left.attrs()}
		w.recorder.logged(ctx, e)
		events = append(events, e)
	}
	w.taken, w.room = events, events
	return len(events) > 0
}

func (w *writer) append(ctx context.Context, events []event) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w.buffer.Reset()
	entries := make([]Entry, len(events))
	for i, e := range events {
		start := w.buffer.Len()
		record := slog.NewRecord(time.Time{}, slog.LevelInfo, "", 0)
		record.AddAttrs(e.attrs...)
		if err := w.encoder.Handle(ctx, record); err != nil {
			return err
		}
		// Should the buffer move, what was written stays where it was as well.
		entries[i] = Entry{e.at, e.name, bytes.TrimSpace(w.buffer.Bytes()[start:])}
	}
	return w.recorder.queue.trail.Append(ctx, w.stream, entries)
}

// rest is how many are not appended.
func (w *writer) rest() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.taken) + len(w.events) + w.left.count
}

// newEncoder makes what writes the attributes of a record as a JSON object and a newline, as the log has them. Texts are
// bounded.
func newEncoder(w io.Writer) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		if a.Value.Kind() == slog.KindString {
			a.Value = slog.StringValue(bounded(a.Value.String()))
		}
		return a
	}})
}
