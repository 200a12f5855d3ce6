// Package limit bounds what callers may do in a while: failed authentications, tokens, requests, and what they have open
// at once. It also says which address a caller is counted by.
//
// What is counted within a minute or longer is shared by the replicas: each adds what it counted to a [Store] in the
// background, and learns the sums of all. Nobody waits for that. While the store is away each replica counts alone.
package limit

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

// Limits are the bounds. Zero is no bound.
type Limits struct {
	// FailuresPerClient and FailuresPerSource are the failed authentications per minute of one client id from one source,
	// and of one source whatever ids it claims.
	FailuresPerClient, FailuresPerSource int
	// TokensPerClient is how many tokens a client gets in TokensPeriod. TokensWarn says that more are only told of.
	TokensPerClient int
	TokensPeriod    time.Duration
	TokensWarn      bool
	// RequestsPerSource is how many calls a source may make in a second, at one replica.
	RequestsPerSource int
	// StreamsPerSource is how many streaming calls a source may have open at once, at one replica.
	StreamsPerSource int
}

// Config says what a limiter works with.
type Config struct {
	Limits Limits
	// Key hides whom the counts are about from who reads the store. All replicas have the same.
	Key []byte
	// Store adds up what the replicas count.
	Store Store
	// Exceeded is told of a client that has had more than its tokens, once for each client and period, where more are only
	// told of. It must answer at once.
	Exceeded func(client string)
	Now      func() time.Time
}

// Limiter counts and decides. It may be used by several goroutines.
type Limiter struct {
	config Config
	limits atomic.Pointer[Limits]
	// failures has what both kinds of failures count; tokens has those of the present period.
	failures *counter
	tokens   atomic.Pointer[counter]
	requests *counter
	streams  Concurrency
	// counted wakes Run.
	counted chan struct{}
}

const failuresPeriod = time.Minute

// New makes a limiter. It shares what it counts while [Limiter.Run] is under way.
func New(config Config) *Limiter {
	l := &Limiter{
		config: config, failures: newCounter("failures", failuresPeriod), requests: newCounter("", time.Second),
		counted: make(chan struct{}, 1),
	}
	l.SetLimits(config.Limits)
	return l
}

// SetLimits changes the bounds at once. What was counted stays, except tokens where their period changes.
func (l *Limiter) SetLimits(limits Limits) {
	if limits.TokensPeriod <= 0 {
		limits.TokensPeriod = time.Minute
	}
	l.limits.Store(&limits)
	if tokens := l.tokens.Load(); tokens == nil || tokens.period != limits.TokensPeriod {
		l.tokens.Store(newCounter("tokens", limits.TokensPeriod))
	}
}

// RetryAfter tells how long it is until the client id may fail again from the source; zero where it may now. An id that
// no client has counts like any other. A source that is not known, the zero address, has no limit.
func (l *Limiter) RetryAfter(client string, source netip.Addr) time.Duration {
	limits := l.limits.Load()
	if !limits.boundsFailures() || !source.IsValid() {
		return 0
	}
	both := l.failureKeys(limits, client, source)
	return l.failures.wait(l.config.Now(), both[:]...)
}

// RecordFailure counts a failed authentication, unless a limit is reached already: then it counts nothing and gives what
// [Limiter.RetryAfter] gives. So no more than the limit is ever counted, and the source waits no longer for trying on.
func (l *Limiter) RecordFailure(client string, source netip.Addr) time.Duration {
	limits := l.limits.Load()
	if !limits.boundsFailures() || !source.IsValid() {
		return 0
	}
	both := l.failureKeys(limits, client, source)
	wait := l.failures.add(l.config.Now(), both[:]...)
	l.wake()
	return wait
}

// Suspect reports whether an authentication from the source has failed within the last minute or two.
func (l *Limiter) Suspect(source netip.Addr) bool {
	if !l.limits.Load().boundsFailures() || !source.IsValid() {
		return false
	}
	return l.failures.any(l.config.Now(), l.keyOf(ofSource, "", remoteaddr.RateLimitKey(source)))
}

func (l *Limits) boundsFailures() bool { return l.FailuresPerClient > 0 || l.FailuresPerSource > 0 }

func (l *Limiter) failureKeys(limits *Limits, client string, source netip.Addr) [2]bounded {
	source = remoteaddr.RateLimitKey(source)
	return [2]bounded{
		{l.keyOf(ofSource, "", source), limits.FailuresPerSource},
		{l.keyOf(ofClient, client, source), limits.FailuresPerClient},
	}
}

// AllowToken counts a token for the client. Where that would be one too many it counts nothing and gives how long the client
// should wait; with TokensWarn it counts all the same, tells Exceeded and gives zero.
func (l *Limiter) AllowToken(client string) time.Duration {
	limits := l.limits.Load()
	if limits.TokensPerClient <= 0 {
		return 0
	}
	key := l.keyOf(ofTokens, client, netip.Addr{})
	defer l.wake()
	tokens, now := l.tokens.Load(), l.config.Now()
	if !limits.TokensWarn {
		return tokens.add(now, bounded{key, limits.TokensPerClient})
	}
	if tokens.addBeyond(now, bounded{key, limits.TokensPerClient}) && l.config.Exceeded != nil {
		l.config.Exceeded(client)
	}
	return 0
}

// AllowRequest counts a call of the source at this replica. Where that would be one too many it counts nothing and gives how
// long the source should wait.
func (l *Limiter) AllowRequest(source netip.Addr) time.Duration {
	most := l.limits.Load().RequestsPerSource
	if most <= 0 || !source.IsValid() {
		return 0
	}
	return l.requests.add(l.config.Now(), bounded{Key(remoteaddr.RateLimitKey(source).As16()), most})
}

// EnterStream reports whether the source may open one more stream at this replica. Who may calls [Limiter.LeaveStream]
// when it ends.
func (l *Limiter) EnterStream(source netip.Addr) bool {
	return l.streams.Enter(source, l.limits.Load().StreamsPerSource)
}

// LeaveStream says that a stream of the source has ended.
func (l *Limiter) LeaveStream(source netip.Addr) { l.streams.Leave(source) }

const (
	// shareEvery is how long counts are gathered before they are sent.
	shareEvery = 200 * time.Millisecond
	// sharePatience bounds one exchange with the store, sharePause is how long nothing is sent after one that failed.
	sharePatience = 2 * time.Second
	sharePause    = 2 * time.Second
	// shareBatch is how many counts are sent at once.
	shareBatch = 500
)

// wake has Run send what is counted.
func (l *Limiter) wake() {
	select {
	case l.counted <- struct{}{}:
	default: // it is awake
	}
}

// Run shares what is counted until ctx ends. It tells failed of the first of several failures in a row.
func (l *Limiter) Run(ctx context.Context, failed func(error)) error {
	working := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.counted:
		}
		pause(ctx, shareEvery)
		err := l.share(ctx)
		if err != nil && ctx.Err() == nil {
			if working {
				failed(err)
			}
			l.wake()
			pause(ctx, sharePause)
		}
		working = err == nil
	}
}

// share exchanges everything that is counted with the store.
func (l *Limiter) share(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sharePatience)
	defer cancel()
	for _, c := range []*counter{l.failures, l.tokens.Load()} {
		if err := c.share(ctx, l.config.Store); err != nil {
			return err
		}
	}
	return nil
}

// pause waits until d has passed or ctx has ended.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
