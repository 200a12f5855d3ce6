package attach

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

const (
	// requestTimeout bounds one token request, regardless of the callers that wait for it.
	requestTimeout = 10 * time.Second
	// unknownLifetime is how long a token is used if the issuer does not state its lifetime (RFC 6749 §5.1 only
	// recommends it). It is short, because such a token may expire at any time, yet long enough to avoid a request for
	// each call. A server that refuses the token earlier causes an earlier renewal.
	unknownLifetime = time.Minute
	// maxLifetime bounds how long a token is used, so that a change of the client's rights reaches it within a day.
	maxLifetime = 24 * time.Hour
	// maxMargin is how long before its expiry a token is no longer sent, so that it does not expire in transit. The
	// margin is a tenth of the lifetime if that is less.
	maxMargin = 10 * time.Second
	// A token is renewed after a share of its lifetime chosen at random between these two, so that replicas which
	// started together do not renew together.
	minRenewShare, maxRenewShare = 0.75, 0.85

	// Waits after a failure, doubled with each further failure up to the maximum: while a token can still be sent
	// (warm), while there is none (cold), and between two tokens that servers refuse (drop).
	warmBackoff    = time.Second
	coldBackoff    = 100 * time.Millisecond
	dropBackoff    = time.Second
	maxBackoff     = 30 * time.Second
	maxColdBackoff = 5 * time.Second
)

// issuer obtains new tokens. A Source never calls it concurrently; its errors are of type [*Error].
type issuer interface {
	issue(ctx context.Context) (issuedToken, error)
}

// Source provides the access tokens of one client; [ClientCredentials] returns one. It fetches a token when one is
// first needed, once for all callers that wait, and renews it in the background well before it expires. While the
// issuer cannot be reached, the last token is used until it expires.
//
// A Source is safe for concurrent use by multiple goroutines. It need not be closed: its only goroutine is that of the
// request in flight.
type Source struct {
	issuer    issuer
	name      string
	prover    *prover // nil without [DPoP]
	plaintext bool
	jitter    func() float64 // in [0, 1)
	// instruments is nil without [Telemetry].
	instruments *instruments
	// rotation is nil for a client without a certificate. Otherwise the source has no token itself.
	rotation *rotation
	// certificate is that of a generation, and transports its HTTP transports, by the ones that they are made from.
	certificate *tls.Certificate
	transports  sync.Map

	// cached is written under mu and read without it. The entry it points to is immutable.
	cached atomic.Pointer[entry]

	mu       sync.Mutex
	flight   *flight // the request in flight, or nil
	failures int     // number of failures since the last token
	failure  error   // result of the last request
	retryAt  time.Time
	drops    int // number of drops in close succession
	dropAt   time.Time
}

// flight is one token request. Its result is set before done is closed.
type flight struct {
	done  chan struct{}
	entry *entry
	err   error
}

// entry is a token with its times, which are on the monotonic clock.
type entry struct {
	*bearer
	// renewAt is the time from which a call starts a renewal while it uses this token.
	renewAt time.Time
	// sendUntil is the time until which the token is used without waiting for a newer one: a margin before its expiry.
	// It is zero once the token was refused.
	sendUntil time.Time
	// expiresAt is the time at which the token expires.
	expiresAt time.Time
}

// get returns the token to send now. In the common case it costs one atomic load and one reading of the clock.
func (s *Source) get(ctx context.Context) (*entry, error) {
	if s == nil {
		return nil, misuse("the source is nil")
	}
	if s.rotation != nil {
		generation, err := s.rotation.source(ctx)
		if err != nil {
			return nil, err
		}
		return generation.get(ctx)
	}
	if e := s.cached.Load(); e != nil && time.Now().Before(e.renewAt) {
		return e, nil
	}
	return s.refresh(ctx)
}

// refresh joins or starts the token request. It waits for the result only if there is no token to send in the meantime.
func (s *Source) refresh(ctx context.Context) (*entry, error) {
	switch {
	case s.issuer == nil:
		return nil, misuse("the source was not made by ClientCredentials")
	case ctx == nil:
		ctx = context.Background()
	}
	s.mu.Lock()
	e, now := s.cached.Load(), time.Now()
	usable := e != nil && now.Before(e.sendUntil)
	if usable && now.Before(e.renewAt) {
		s.mu.Unlock()
		return e, nil
	}
	if err := ctx.Err(); err != nil && !usable {
		s.mu.Unlock()
		return nil, contextError(ctx)
	}
	if s.flight == nil && !now.Before(s.retryAt) {
		s.start(ctx)
		if usable {
			// Until the request ends, calls need not acquire the lock.
			s.cached.Store(&entry{e.bearer, e.sendUntil, e.sendUntil, e.expiresAt})
		}
	}
	f, failure := s.flight, s.failure
	s.mu.Unlock()
	switch {
	case usable:
		return e, nil
	case f == nil:
		return s.fallback(failure)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
	if f.err != nil {
		return s.fallback(f.err)
	}
	return f.entry, nil
}

// successor returns the token to send now. While that is still the one of e, it waits for the request in flight, for which get
// does not wait: of the last tenths of a short lifetime no time is left for polling.
func (s *Source) successor(ctx context.Context, e *entry) (*entry, error) {
	next, err := s.get(ctx)
	if err != nil || next.token != e.token {
		return next, err
	}
	s.mu.Lock()
	f := s.flight
	s.mu.Unlock()
	if f == nil {
		return s.get(ctx) // the request may just have ended
	}
	select {
	case <-f.done:
		return f.entry, f.err
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
}

// fallback returns the token that was refused or is about to expire, because another server may accept it and it may
// suffice for this call; without such a token it returns err.
func (s *Source) fallback(err error) (*entry, error) {
	if e := s.cached.Load(); e != nil && time.Now().Before(e.expiresAt) {
		return e, nil
	}
	return nil, err
}

// start starts a token request. s.mu must be held. The request serves every waiting caller, so it does not end with the
// context of any of them.
func (s *Source) start(caller context.Context) {
	f := &flight{done: make(chan struct{})}
	s.flight = f
	go func() {
		// The lifetime counts from the time of issue (RFC 6749 §5.1), which is not before the request.
		began := time.Now()
		var answer issuedToken
		err := error(misuse("the token request ended its goroutine"))
		defer func() { s.land(f, answer, err, began) }()
		answer, err = guard("the token request", func() (issuedToken, error) { return s.request(caller) })
	}()
}

// request makes and counts a token request.
func (s *Source) request(caller context.Context) (issuedToken, error) {
	ctx, cancel := context.WithTimeout(detached(caller), requestTimeout)
	defer cancel()
	answer, err := s.issuer.issue(ctx)
	if s.instruments != nil {
		s.instruments.countRequest(ctx, s.name, err)
	}
	return answer, err
}

// land ends f with the result of its request.
func (s *Source) land(f *flight, answer issuedToken, err error, began time.Time) {
	s.mu.Lock()
	if err == nil {
		f.entry = s.store(answer, began)
	} else {
		f.err = err
		s.backOff(err)
	}
	s.flight = nil
	s.mu.Unlock()
	close(f.done)
}

// store makes the issued token the cached one. s.mu must be held.
func (s *Source) store(answer issuedToken, began time.Time) *entry {
	lifetime := answer.lifetime
	if lifetime == 0 {
		lifetime = unknownLifetime
	}
	lifetime = min(lifetime, maxLifetime)
	share := minRenewShare + (maxRenewShare-minRenewShare)*s.jitter()
	e := &entry{
		bearer:    newBearer(s.prover.scheme(), answer.token, s),
		renewAt:   began.Add(time.Duration(share * float64(lifetime))),
		sendUntil: began.Add(lifetime - min(maxMargin, lifetime/10)),
		expiresAt: began.Add(lifetime),
	}
	s.failures, s.failure, s.retryAt = 0, nil, time.Time{}
	s.cached.Store(e)
	return e
}

// backOff sets the time of the next request after a failure. s.mu must be held. With a token to send, no caller waits
// and there is time, but the moment at which that token can no longer be sent always justifies a request. Without a
// token callers fail, so the first retries follow quickly, except after the issuer has refused the client, which it is
// unlikely to reverse soon.
func (s *Source) backOff(err error) {
	s.failures++
	s.failure = err
	e, now := s.cached.Load(), time.Now()
	if e != nil && now.Before(e.sendUntil) {
		s.retryAt = now.Add(s.backoff(warmBackoff, maxBackoff, s.failures))
		if s.retryAt.After(e.sendUntil) {
			s.retryAt = e.sendUntil
		}
		s.cached.Store(&entry{e.bearer, s.retryAt, e.sendUntil, e.expiresAt})
		return
	}
	base, maximum := coldBackoff, maxColdBackoff
	if e := (*Error)(nil); errors.As(err, &e) && e.statusCode() != codes.Unavailable {
		base, maximum = warmBackoff, maxBackoff
	}
	s.retryAt = now.Add(s.backoff(base, maximum, s.failures))
}

// backoff returns base doubled with each of times after the first, limited to maximum, and then varied at random by up
// to 20 %.
func (s *Source) backoff(base, maximum time.Duration, times int) time.Duration {
	const maxDoublings = 16
	step := min(base<<min(times-1, maxDoublings), maximum)
	return time.Duration(float64(step) * (0.8 + 0.4*s.jitter()))
}

// Drop reports that a server refused the token. If that is the cached token, the next call waits for a new one; a late
// refusal of an earlier token therefore discards nothing. The interceptors and the transport call Drop themselves.
//
// After a drop, Drop has no effect for about 1 s, and for up to 30 s while refusals continue: a server that refuses every
// token then costs the issuer an occasional request instead of one for each call. If the issuer provides no new token,
// the refused one is sent until it expires, because other servers may accept it.
func (s *Source) Drop(token string) {
	if s == nil {
		return
	}
	if s.rotation != nil {
		s.rotation.current.Load().Drop(token)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, now := s.cached.Load(), time.Now()
	if e == nil || e.token != token || e.sendUntil.IsZero() || now.Before(s.dropAt) {
		return
	}
	if now.Sub(s.dropAt) > maxBackoff {
		s.drops = 0
	}
	s.drops++
	s.dropAt = now.Add(s.backoff(dropBackoff, maxBackoff, s.drops))
	s.cached.Store(&entry{bearer: e.bearer, expiresAt: e.expiresAt})
}
