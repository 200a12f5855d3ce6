// Package limit limits the rates of callers, by their failed authentications, issued tokens and requests, and the
// number of streams that they have open at once.
//
// Replicas share the counts of periods of a minute or longer: in the background, each replica adds its own counts to a
// [Store] and receives the sums of all replicas. No request waits for that. While the store is unreachable each replica
// counts alone.
package limit

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

// Limits configures the limits of a [Limiter]. Zero means no limit.
type Limits struct {
	// FailuresPerClient is the maximum number of failed authentications per minute of one client ID from one source, and
	// FailuresPerSource that of one source, whatever client IDs it claims.
	FailuresPerClient, FailuresPerSource int
	// TokensPerClient is the maximum number of tokens of a client in TokensPeriod, which defaults to a minute. With
	// TokensWarn, excess tokens are only reported.
	TokensPerClient int
	TokensPeriod    time.Duration
	TokensWarn      bool
	// RequestsPerSource is the maximum number of calls of a source per second, to one replica.
	RequestsPerSource int
	// StreamsPerSource is the maximum number of streaming calls that a source may have open at once, to one replica.
	StreamsPerSource int
}

// Config configures a [Limiter]. Now is required, and so is Store for [Limiter.Run].
type Config struct {
	Limits Limits
	// Key hides from readers of the store which clients and sources the counts are about. All replicas need the same key.
	Key []byte
	// Store sums the counts of all replicas.
	Store Store
	// Exceeded, if not nil, is called with a client that exceeds TokensPerClient while TokensWarn is set, once per client
	// and period. It must not block.
	Exceeded func(client string)
	Now      func() time.Time
}

// Limiter counts and limits. It is safe for concurrent use by multiple goroutines.
type Limiter struct {
	config Config
	limits atomic.Pointer[Limits]
	// failures counts under the keys of both limits on failures. tokens counts in windows of the current TokensPeriod.
	failures *counter
	tokens   atomic.Pointer[counter]
	requests *counter
	streams  Concurrency
	// Intake is the budget for the requests under way.
	Intake Intake
	// unshared wakes Run when there are counts to share.
	unshared chan struct{}
}

const failuresPeriod = time.Minute

// New returns a limiter. It shares its counts while [Limiter.Run] runs.
func New(config Config) *Limiter {
	l := &Limiter{
		config: config, failures: newCounter("failures", failuresPeriod), requests: newCounter("", time.Second),
		unshared: make(chan struct{}, 1),
	}
	l.SetLimits(config.Limits)
	return l
}

// SetLimits changes the limits with immediate effect. It keeps the counts, except those of tokens if TokensPeriod
// changes.
func (l *Limiter) SetLimits(limits Limits) {
	if limits.TokensPeriod <= 0 {
		limits.TokensPeriod = time.Minute
	}
	l.limits.Store(&limits)
	if tokens := l.tokens.Load(); tokens == nil || tokens.period != limits.TokensPeriod {
		l.tokens.Store(newCounter("tokens", limits.TokensPeriod))
	}
}

// RetryAfter returns how long it takes until an authentication of the client ID from the source may fail again, or zero
// if one may fail now. The client need not exist. An unknown source, the zero address, has no limit.
func (l *Limiter) RetryAfter(client string, source netip.Addr) time.Duration {
	limits := l.limits.Load()
	if !limits.limitFailures() || !source.IsValid() {
		return 0
	}
	keys := l.failureKeys(limits, client, source)
	return l.failures.wait(l.config.Now(), keys[:]...)
}

// RecordFailure counts a failed authentication and returns zero. If a limit is reached already, it counts nothing and
// returns what [Limiter.RetryAfter] returns. The count therefore never exceeds the limit, and further attempts do not
// prolong the wait.
func (l *Limiter) RecordFailure(client string, source netip.Addr) time.Duration {
	limits := l.limits.Load()
	if !limits.limitFailures() || !source.IsValid() {
		return 0
	}
	keys := l.failureKeys(limits, client, source)
	wait := l.failures.add(l.config.Now(), keys[:]...)
	l.wake()
	return wait
}

// Suspect reports whether an authentication from the source has failed within the last minute or two.
func (l *Limiter) Suspect(source netip.Addr) bool {
	if !l.limits.Load().limitFailures() || !source.IsValid() {
		return false
	}
	return l.failures.seen(l.config.Now(), l.key(keySource, "", remoteaddr.RateLimitKey(source)))
}

func (l *Limits) limitFailures() bool { return l.FailuresPerClient > 0 || l.FailuresPerSource > 0 }

// failureKeys returns the keys that a failure counts under.
func (l *Limiter) failureKeys(limits *Limits, client string, source netip.Addr) [2]limitedKey {
	source = remoteaddr.RateLimitKey(source)
	return [2]limitedKey{
		{l.key(keySource, "", source), limits.FailuresPerSource},
		{l.key(keyClient, client, source), limits.FailuresPerClient},
	}
}

// AllowToken counts a token of the client and returns zero. If the limit is reached already, it counts nothing and
// returns how long the client should wait. With TokensWarn it always counts and returns zero, and calls Exceeded when
// the limit is exceeded.
func (l *Limiter) AllowToken(client string) time.Duration {
	limits := l.limits.Load()
	if limits.TokensPerClient <= 0 {
		return 0
	}
	key := l.key(keyTokens, client, netip.Addr{})
	defer l.wake()
	tokens, now := l.tokens.Load(), l.config.Now()
	limited := limitedKey{key, limits.TokensPerClient}
	if !limits.TokensWarn {
		return tokens.add(now, limited)
	}
	if tokens.addAlways(now, limited) && l.config.Exceeded != nil {
		l.config.Exceeded(client)
	}
	return 0
}

// AllowRequest counts a call of the source to this replica and returns zero. If the limit is reached already, it counts
// nothing and returns how long the source should wait.
func (l *Limiter) AllowRequest(source netip.Addr) time.Duration {
	limit := l.limits.Load().RequestsPerSource
	if limit <= 0 || !source.IsValid() {
		return 0
	}
	return l.requests.add(l.config.Now(), limitedKey{Key(remoteaddr.RateLimitKey(source).As16()), limit})
}

// EnterStream reports whether the source may open another stream to this replica. After a true result, the caller calls
// [Limiter.LeaveStream] exactly once, when the stream ends.
func (l *Limiter) EnterStream(source netip.Addr) bool {
	return l.streams.Enter(source, l.limits.Load().StreamsPerSource)
}

// LeaveStream undoes one successful [Limiter.EnterStream] of the source.
func (l *Limiter) LeaveStream(source netip.Addr) { l.streams.Leave(source) }

const (
	// shareInterval is how long counts are gathered before they are sent.
	shareInterval = 200 * time.Millisecond
	// shareTimeout is the maximum duration of one exchange with the store, shareBackoff the time without an exchange after
	// one that failed.
	shareTimeout = 2 * time.Second
	shareBackoff = 2 * time.Second
	// shareBatch is the maximum number of counts sent at once.
	shareBatch = 500
)

// wake makes Run share the counts.
func (l *Limiter) wake() {
	select {
	case l.unshared <- struct{}{}:
	default: // already pending
	}
}

// Run shares the counts until ctx ends. It calls report with the first of several errors in a row.
func (l *Limiter) Run(ctx context.Context, report func(error)) error {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.unshared:
		}
		select {
		case <-ctx.Done():
		case <-time.After(shareInterval):
		}
		err := l.share(ctx)
		if err != nil && ctx.Err() == nil {
			if !failing {
				report(err)
			}
			l.wake()
			select {
			case <-ctx.Done():
			case <-time.After(shareBackoff):
			}
		}
		failing = err != nil
	}
}

// share exchanges all new counts with the store.
func (l *Limiter) share(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shareTimeout)
	defer cancel()
	for _, c := range []*counter{l.failures, l.tokens.Load()} {
		if err := c.share(ctx, l.config.Store); err != nil {
			return err
		}
	}
	return nil
}
