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

// AuditSink stores audit events for later queries.
type AuditSink interface {
	// Append appends all entries to a stream in order, or none of them. There is at least one. After an error, which may
	// hide that they were appended, the recorder calls Append again with the same entries.
	Append(ctx context.Context, stream Stream, entries []Entry) error
}

// Entry is an audit event as an [AuditSink] stores it.
type Entry struct {
	// Time is the time of the event by the clock of the replica.
	Time  time.Time
	Event string
	// Attributes is a JSON object. It is valid only during the call of Append.
	Attributes []byte
}

const (
	// maxQueued is the maximum number of queued events of a stream. As many again may have been taken from the queue and
	// not appended yet.
	maxQueued = 8192
	// maxBatch is the maximum number of entries in one call of Append.
	maxBatch = 500
	// flushInterval is the time between two flushes of the queues, unless one of them fills a batch sooner. retryInterval
	// replaces it after a failure.
	flushInterval, retryInterval = 100 * time.Millisecond, time.Second
	// appendTimeout bounds a call of Append, shutdownTimeout all calls after the recorder has been stopped.
	appendTimeout, shutdownTimeout = 5 * time.Second, 2 * time.Second
)

// streamBehind is the reason of an [EventLeftOut] for events that did not fit into the queue while the sink was
// unreachable or too slow.
const streamBehind = "stream_behind"

// event is a queued audit event. It is encoded when it is appended, in the background, and not in the call that causes
// it.
type event struct {
	at    time.Time
	name  string
	attrs []slog.Attr
}

// queue holds the events that are to be appended to a sink. The zero value has no sink and discards them.
type queue struct {
	sink AuditSink
	// streams are in the order of [Streams].
	streams [3]streamQueue
	// full wakes the appending goroutine when a stream has a full batch.
	full chan struct{}
}

// streamQueue holds the events of one stream. It is safe for concurrent use by multiple goroutines.
type streamQueue struct {
	mu     sync.Mutex
	events []event
	left   leftOut
}

// Keep makes the recorder append its events to a sink, in addition to the log, while [Recorder.Run] runs. It must be
// called before the first event.
func (r *Recorder) Keep(sink AuditSink) {
	r.queue.sink, r.queue.full = sink, make(chan struct{}, 1)
}

// put queues an event and reports whether there was room for it. It never waits for the sink.
func (q *queue) put(stream Stream, e event) bool {
	if q.sink == nil {
		return true
	}
	length := q.streams[slices.Index(Streams, stream)].put(stream, e)
	if length == maxBatch {
		select {
		case q.full <- struct{}{}:
		default: // already pending
		}
	}
	return length <= maxQueued
}

// put returns the length of the queue with the event, or maxQueued+1 if there was no room for it.
func (q *streamQueue) put(stream Stream, e event) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) < maxQueued {
		q.events = append(q.events, e)
		return len(q.events)
	}
	if q.left.count == 0 {
		q.left = leftOut{kind: kind{string(stream), streamBehind}, since: e.at}
	}
	q.left.count++
	return maxQueued + 1
}

// take empties the queue. It returns the queued events and what was left out after them. The queue continues in next,
// which has no elements.
func (q *streamQueue) take(next []event) ([]event, leftOut) {
	q.mu.Lock()
	defer q.mu.Unlock()
	events, left := q.events, q.left
	q.events, q.left = next, leftOut{}
	return events, left
}

// Run writes what is counted or queued: introspections, numbers of left-out events, and the entries of the sink. It
// returns nil once ctx ends, after it has spent at most two seconds on what is left.
func (r *Recorder) Run(ctx context.Context) error {
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(shutdownTimeout, cancel) })()
	writers := r.writers()
	var running sync.WaitGroup
	running.Go(func() { r.flushEverySecond(ctx) })
	running.Go(func() { r.append(ctx, calls, writers) })
	running.Wait()
	r.flushIntrospections(ctx, true)
	r.auditLeftOut(ctx, r.sampler.flush(time.Now().Add(time.Second)))
	for _, w := range writers {
		if err := w.send(calls); err != nil {
			r.log.ErrorContext(ctx, "audit events are only in the log", "stream", w.stream, "count", w.remaining(), "error", err)
		}
	}
	return nil
}

// flushEverySecond writes what is counted instead of being written at once: introspections, and the events that were
// left out. The sampler by itself reports those only when the next event arrives.
func (r *Recorder) flushEverySecond(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			r.flushIntrospections(ctx, false)
			r.auditLeftOut(ctx, r.sampler.flush(now))
		}
	}
}

// append appends the queued events until ctx ends. A call that is in progress then may finish under calls: if it were
// interrupted, its entries could be appended twice.
func (r *Recorder) append(ctx, calls context.Context, writers []*writer) {
	timer := time.NewTimer(flushInterval)
	defer timer.Stop()
	failing := false
	for ctx.Err() == nil {
		full := r.queue.full
		if failing {
			full = nil // a full batch is no reason to retry sooner
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
			r.log.WarnContext(ctx, "audit events cannot be appended to their streams; they are queued until the queue is full", "error", failed)
		case failed == nil && failing:
			r.log.InfoContext(ctx, "audit events are appended to their streams again")
		}
		failing = failed != nil
		interval := flushInterval
		if failing {
			interval = retryInterval
		}
		timer.Reset(interval)
	}
}

// writer appends the queued events of one stream.
type writer struct {
	queue    *streamQueue
	recorder *Recorder
	stream   Stream
	// pending are the events that were taken from the queue and are not appended yet. It is the end of array, which the
	// queue reuses.
	pending, array []event
	// entries and buffer are those of the last batch, which the next one reuses.
	entries []Entry
	buffer  bytes.Buffer
	encoder slog.Handler
}

// writers returns the writers of all streams, the most important one first. It returns none without a sink.
func (r *Recorder) writers() []*writer {
	if r.queue.sink == nil {
		return nil
	}
	var writers []*writer
	for i, stream := range Streams {
		w := &writer{queue: &r.queue.streams[i], recorder: r, stream: stream}
		w.encoder = newEncoder(&w.buffer)
		writers = append(writers, w)
	}
	return writers
}

// send appends all queued events. After an error the next call begins with the events that were not appended.
func (w *writer) send(ctx context.Context) error {
	for {
		if len(w.pending) == 0 && !w.refill(ctx) {
			return nil
		}
		n := min(len(w.pending), maxBatch)
		if err := w.append(ctx, w.pending[:n]); err != nil {
			return err
		}
		w.pending = w.pending[n:]
	}
}

// refill takes the queued events, and reports whether there are any.
func (w *writer) refill(ctx context.Context) bool {
	clear(w.array) // releases the attributes of the appended events
	events, left := w.queue.take(w.array[:0])
	if left.count > 0 {
		// The events that were left out came after the queued ones, and so does their number.
		e := event{time.Now(), EventLeftOut, left.attrs()}
		w.recorder.writeLog(ctx, e)
		events = append(events, e)
	}
	w.pending, w.array = events, events
	return len(events) > 0
}

// append encodes events and appends them with one call of Append.
func (w *writer) append(ctx context.Context, events []event) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	w.buffer.Reset()
	w.entries = w.entries[:0]
	for _, e := range events {
		start := w.buffer.Len()
		if err := w.encode(ctx, e.attrs); err != nil {
			return err
		}
		// If the buffer grows and moves, the slice keeps the old array, which is not written again.
		w.entries = append(w.entries, Entry{e.at, e.name, bytes.TrimSpace(w.buffer.Bytes()[start:])})
	}
	return w.recorder.queue.sink.Append(ctx, w.stream, w.entries)
}

// encode writes attributes to the buffer.
func (w *writer) encode(ctx context.Context, attrs []slog.Attr) error {
	if plain, ok := appendPlain(w.buffer.AvailableBuffer(), attrs); ok {
		w.buffer.Write(plain)
		return nil
	}
	record := slog.NewRecord(time.Time{}, slog.LevelInfo, "", 0)
	record.AddAttrs(attrs...)
	return w.encoder.Handle(ctx, record)
}

// remaining returns the number of events that are not appended.
func (w *writer) remaining() int {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()
	return len(w.pending) + len(w.queue.events) + w.queue.left.count
}

// newEncoder returns a handler that writes the attributes of a record to w, as a JSON object and a newline. They are
// encoded as in the log, with texts truncated.
func newEncoder(w io.Writer) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		if a.Value.Kind() == slog.KindString {
			a.Value = slog.StringValue(truncate(a.Value.String()))
		}
		return a
	}})
}
