package attach

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

const (
	// fetchTimeout ends a token request, whoever waits for it.
	fetchTimeout = 10 * time.Second
	// unknownLifetime is how long a token is used whose issuer does not say (RFC 6749 §5.1 only recommends that it
	// does): short, for the token may end at any time, yet far from a request for each call. A server that refuses it
	// earlier causes a new one earlier.
	unknownLifetime = time.Minute
	// mostLifetime bounds how long a token is used, so that a change of the client's rights reaches it within a day.
	mostLifetime = 24 * time.Hour
	// mostMargin is how long before its end a token is no longer sent, so that it does not end on the way; a tenth of
	// the lifetime where that is less.
	mostMargin = 10 * time.Second
	// A token is renewed when this share of its lifetime has passed: between the two by chance, so that a fleet which
	// started at once does not ask at once for ever after.
	renewFrom, renewTo = 0.75, 0.85

	// Waits after a failure, doubled with each one up to the last: while a token can still be served, while there is
	// none, and between two tokens that servers refuse.
	renewBackoff  = time.Second
	coldBackoff   = 100 * time.Millisecond
	dropBackoff   = time.Second
	mostBackoff   = 30 * time.Second
	mostColdPause = 5 * time.Second
)

// issuer asks for a new token. It is asked by one goroutine at a time; its errors are [*Error].
type issuer interface {
	issue(ctx context.Context) (issued, error)
}

// Source gives the access tokens of one client. A token is fetched when it is first needed, once for all who wait, and
// renewed in the background well before it ends; while the issuer cannot be reached the last token serves until its
// end. It may be used by several goroutines and needs no closing: it runs nothing but the request under way.
type Source struct {
	issuer    issuer
	name      string
	plaintext bool
	jitter    func() float64 // in [0, 1)
	// instruments are nil without [Telemetry].
	instruments *instruments

	// cached is written under mu and read without it; what it points to does not change.
	cached atomic.Pointer[entry]

	mu       sync.Mutex
	flight   *flight // the request under way, or nil
	failures int     // since the last token
	failure  error   // of the last request
	retryAt  time.Time
	drops    int // in short succession
	dropAt   time.Time
}

// flight is one token request, and what all who wait for it get once done is closed.
type flight struct {
	done  chan struct{}
	entry *entry
	err   error
}

// entry is a token with its times, which count by the monotonic clock.
type entry struct {
	*bearer
	// renewAt is from when on a call looks for a newer token while it is served this one.
	renewAt time.Time
	// until is how long the token is served without waiting: a margin before its end, or never once it was refused.
	until time.Time
	// end is when the token expires.
	end time.Time
}

// get gives the token to send now. All that the common case costs is reading the pointer and the clock.
func (s *Source) get(ctx context.Context) (*entry, error) {
	if e := s.cached.Load(); e != nil && time.Now().Before(e.renewAt) {
		return e, nil
	}
	return s.renew(ctx)
}

// renew joins or starts the one token request, and waits for it only if there is no token to serve meanwhile.
func (s *Source) renew(ctx context.Context) (*entry, error) {
	s.mu.Lock()
	e, now := s.cached.Load(), time.Now()
	served := e != nil && now.Before(e.until)
	if served && now.Before(e.renewAt) {
		s.mu.Unlock()
		return e, nil
	}
	if err := ctx.Err(); err != nil && !served {
		s.mu.Unlock()
		return nil, gaveUp(ctx)
	}
	if s.flight == nil && !now.Before(s.retryAt) {
		s.start(ctx)
		if served {
			// Until the answer is there, calls need not come past the lock.
			s.cached.Store(&entry{e.bearer, e.until, e.until, e.end})
		}
	}
	f, failure := s.flight, s.failure
	s.mu.Unlock()
	switch {
	case served:
		return e, nil
	case f == nil:
		return s.lastResort(failure)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, gaveUp(ctx)
	}
	if f.err != nil {
		return s.lastResort(f.err)
	}
	return f.entry, nil
}

// lastResort gives, where no new token is to be had, the one that was refused or is about to end: it may hold for the
// next server, and for this call; else the error.
func (s *Source) lastResort(err error) (*entry, error) {
	if e := s.cached.Load(); e != nil && time.Now().Before(e.end) {
		return e, nil
	}
	return nil, err
}

// start begins a token request; mu is held. It serves all who wait and so does not end with any one caller's context.
func (s *Source) start(caller context.Context) {
	f := &flight{done: make(chan struct{})}
	s.flight = f
	go func() {
		ctx, cancel := context.WithTimeout(triggered(caller), fetchTimeout)
		defer cancel()
		// The lifetime counts from the issue (RFC 6749 §5.1), which is not before the request.
		began := time.Now()
		answer, err := s.issuer.issue(ctx)
		if s.instruments != nil {
			s.instruments.asked(ctx, s.name, err)
		}
		s.mu.Lock()
		if err == nil {
			f.entry = s.keep(answer, began)
		} else {
			f.err = err
			s.backOff(err)
		}
		s.flight = nil
		s.mu.Unlock()
		close(f.done)
	}()
}

// keep makes a new token the cached one; mu is held.
func (s *Source) keep(answer issued, began time.Time) *entry {
	lifetime := answer.lifetime
	if lifetime == 0 {
		lifetime = unknownLifetime
	}
	lifetime = min(lifetime, mostLifetime)
	share := renewFrom + (renewTo-renewFrom)*s.jitter()
	e := &entry{
		bearer:  newBearer(answer.token),
		renewAt: began.Add(time.Duration(share * float64(lifetime))),
		until:   began.Add(lifetime - min(mostMargin, lifetime/10)),
		end:     began.Add(lifetime),
	}
	s.failures, s.failure, s.retryAt = 0, nil, time.Time{}
	s.cached.Store(e)
	return e
}

// backOff decides when to ask again after a failure; mu is held. With a token to serve nobody waits and there is time,
// but the moment it can no longer be served is always worth a request. Without one callers fail, so the first requests
// follow quickly, except that an issuer which has refused the client is not expected to think better of it soon.
func (s *Source) backOff(err error) {
	s.failures++
	s.failure = err
	e, now := s.cached.Load(), time.Now()
	if e != nil && now.Before(e.until) {
		s.retryAt = now.Add(s.pause(renewBackoff, mostBackoff, s.failures))
		if s.retryAt.After(e.until) {
			s.retryAt = e.until
		}
		s.cached.Store(&entry{e.bearer, s.retryAt, e.until, e.end})
		return
	}
	first, most := coldBackoff, mostColdPause
	if e := (*Error)(nil); errors.As(err, &e) && e.grpc != codes.Unavailable {
		first, most = renewBackoff, mostBackoff
	}
	s.retryAt = now.Add(s.pause(first, most, s.failures))
}

// pause is first doubled with each time after the first, at most most, and then between 80 and 120 % of it by chance.
func (s *Source) pause(first, most time.Duration, times int) time.Duration {
	const mostDoublings = 16
	step := min(first<<min(times-1, mostDoublings), most)
	return time.Duration(float64(step) * (0.8 + 0.4*s.jitter()))
}

// Drop says that a server refused the token: the next call waits for another one. A token that is no longer the cached
// one is passed over, so that a late refusal does not cost a fresh token. So is a refusal that follows another drop
// closely, by 1 s at first and by up to 30 s while refusals go on: a server that refuses every token then costs the
// issuer a request now and again rather than one for each call. If the issuer has no other token to give, the refused
// one is served on until it ends, since not every server need refuse it.
func (s *Source) Drop(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, now := s.cached.Load(), time.Now()
	if e == nil || e.token != token || e.until.IsZero() || now.Before(s.dropAt) {
		return
	}
	if now.Sub(s.dropAt) > mostBackoff {
		s.drops = 0
	}
	s.drops++
	s.dropAt = now.Add(s.pause(dropBackoff, mostBackoff, s.drops))
	s.cached.Store(&entry{bearer: e.bearer, end: e.end})
}
