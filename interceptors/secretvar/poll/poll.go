// Package poll makes a variable of the Go Cloud Development Kit from a store that announces no changes. It schedules the
// reads, keeps the responses of the store out of errors, and bounds the duration of a read and the size of a response. The
// drivers azurekeyvault and hashivault are built on it; a program imports one of those.
package poll

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"

	"gocloud.dev/gcerrors"
	"gocloud.dev/runtimevar"
	"gocloud.dev/runtimevar/driver"

	"github.com/grantorhq/grantor/service/recovery"
)

const (
	// readTimeout bounds one read, with the request for a token that it may need.
	readTimeout = 20 * time.Second
	// firstRetry is the pause after the first failed read. Each further failure doubles it, up to maxRetry or the interval,
	// whichever is longer.
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
	// minWait and maxWait bound the interval that a URL may set.
	minWait = 10 * time.Millisecond
	maxWait = 24 * time.Hour
	// maxSecret bounds a secret, in bytes. A client secret of Grantor has at most 512, but a decoder may decrypt this one.
	maxSecret = 64 << 10
)

// Store reads one secret.
type Store interface {
	// Read returns the secret as it is now. It is called by one goroutine at a time, and returns soon after ctx ends. Its
	// errors are shown to people, so they must quote neither the secret nor anything else that the server answered.
	Read(ctx context.Context) ([]byte, error)
	// Close releases what the store holds.
	Close()
}

// Error is why a secret cannot be read.
type Error struct {
	Text string
	Code gcerrors.ErrorCode
}

func (e *Error) Error() string { return e.Text }

// Refusal returns the error of a status that a store answered, and quotes nothing else of the answer. meanings maps the
// statuses that the store uses to what they mean.
func Refusal(status int, meanings map[int]Error) error {
	meaning, ok := meanings[status]
	if !ok {
		meaning = Error{"the server does not answer reads with it", gcerrors.Unknown}
	}
	return &Error{fmt.Sprintf("status %d: %s", status, meaning.Text), meaning.Code}
}

// Options are the options of each URL.
type Options struct {
	decoder *runtimevar.Decoder
	wait    time.Duration
}

// ParseOptions parses the parameters decoder and wait of a URL. Any other parameter must be among own, and none may be
// given twice.
func ParseOptions(ctx context.Context, query url.Values, own ...string) (*Options, error) {
	known := map[string]bool{"decoder": true, "wait": true}
	for _, name := range own {
		known[name] = true
	}
	for name, values := range query {
		switch {
		case !known[name]:
			return nil, fmt.Errorf("invalid query parameter %q", name)
		case len(values) > 1:
			return nil, fmt.Errorf("duplicate query parameter %q", name)
		}
	}
	o := &Options{wait: driver.DefaultWaitDuration}
	var err error
	if o.decoder, err = runtimevar.DecoderByName(ctx, query.Get("decoder"), nil); err != nil {
		return nil, err
	}
	if text := query.Get("wait"); text != "" {
		if o.wait, err = time.ParseDuration(text); err != nil || o.wait < minWait || o.wait > maxWait {
			return nil, fmt.Errorf("invalid wait %q: it is a duration from %v to %v", text, minWait, maxWait)
		}
	}
	return o, nil
}

// New returns a variable that follows the secret of a store, and closes the store when it is closed.
func New(store Store, options *Options) *runtimevar.Variable {
	return runtimevar.New(&watcher{store: store, Options: *options})
}

// watcher implements [driver.Watcher].
type watcher struct {
	Options

	store Store
	// failures counts the failed reads since the last successful one.
	failures int
}

// state implements [driver.State]: a value, or why there is none.
type state struct {
	value   any
	raw     []byte
	updated time.Time
	err     error
}

func (s *state) Value() (any, error)   { return s.value, s.err }
func (s *state) UpdateTime() time.Time { return s.updated }
func (s *state) As(any) bool           { return false }

// WatchVariable implements [driver.Watcher].
func (w *watcher) WatchVariable(ctx context.Context, previous driver.State) (driver.State, time.Duration) {
	next := w.read(ctx)
	if next.err != nil {
		w.failures++
	} else {
		w.failures = 0
	}
	pause := w.pause(next.err)
	last, ok := previous.(*state)
	switch {
	case !ok:
		return next, pause
	case next.err == nil && last.err == nil && bytes.Equal(next.raw, last.raw):
		return nil, pause
	case next.err != nil && last.err != nil && next.err.Error() == last.err.Error():
		return nil, pause
	}
	return next, pause
}

// read reads and decodes the secret. The clients of the stores are the vendors', and at least one of them panics on an
// answer that no such server sends: on a challenge with the parameter authorization="x", azsecrets takes the fourth part
// of that URL. The goroutine is one of a user's process, so a panic becomes an error.
func (w *watcher) read(ctx context.Context) *state {
	next := &state{updated: time.Now()}
	if err := recovery.Do("the client of the store", func() { w.fill(ctx, next) }); err != nil {
		next.err = Unreadable(err)
	}
	return next
}

// fill sets the value of a state, or the reason why there is none.
func (w *watcher) fill(ctx context.Context, next *state) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if next.raw, next.err = w.store.Read(ctx); next.err != nil {
		return
	}
	if len(next.raw) > maxSecret {
		next.err = &Error{fmt.Sprintf("the secret has more than %d bytes", maxSecret), gcerrors.FailedPrecondition}
		return
	}
	if next.value, next.err = w.decoder.Decode(ctx, next.raw); next.err != nil {
		// The error of a decoder may quote what it decodes.
		next.err = &Error{"the secret cannot be decoded as the parameter decoder says", gcerrors.FailedPrecondition}
	}
}

// pause returns when to read again. Pauses are up to a fifth shorter than they could be, so that processes that start
// together do not stay together.
func (w *watcher) pause(err error) time.Duration {
	pause := w.wait
	if err != nil {
		if w.ErrorCode(err) != gcerrors.ResourceExhausted {
			pause = min(firstRetry, w.wait)
		}
		longest := max(w.wait, maxRetry)
		for range w.failures - 1 {
			if pause *= 2; pause >= longest {
				pause = longest
				break
			}
		}
	}
	return pause - rand.N(pause/5+1) //nolint:gosec // not a secret: it only spreads load
}

// Close implements [driver.Watcher].
func (w *watcher) Close() error {
	w.store.Close()
	return nil
}

// ErrorAs implements [driver.Watcher].
func (w *watcher) ErrorAs(err error, target any) bool {
	found, ok := target.(**Error)
	return ok && errors.As(err, found)
}

// ErrorCode implements [driver.Watcher].
func (w *watcher) ErrorCode(err error) gcerrors.ErrorCode {
	if known, ok := errors.AsType[*Error](err); ok {
		return known.Code
	}
	return gcerrors.Unknown
}
