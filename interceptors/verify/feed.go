package verify

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/recovery"
	"github.com/grantorhq/grantor/service/revocation"
)

const (
	// silenceTimeout is how long the feed may be silent before its connection is given up, unless the issuer has agreed to
	// an interval for which less is enough. Issuers that agree to none send an answer every second.
	silenceTimeout = 5 * time.Second
	// maxHeartbeatInterval and minHeartbeatInterval bound the interval that is requested. Two intervals of the maximum and
	// silenceMargin are silenceTimeout. The minimum is that of the issuer.
	maxHeartbeatInterval = 2 * time.Second
	minHeartbeatInterval = 500 * time.Millisecond
	// silenceMargin is how much longer than two intervals the feed may be silent.
	silenceMargin = time.Second
	// The wait before the feed is reconnected, doubled with each failure.
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
	// absentInterval is the minimum time between two requests for the metadata of an issuer that offers no feed.
	absentInterval = time.Minute
)

var (
	// errNoFeed reports that the issuer's metadata offer no feed, because it is not Grantor. An answer of the feed itself
	// is never a reason for it: UNIMPLEMENTED, which is also how gRPC reads an HTTP 404, may come from an ingress whose
	// route is missing for a moment.
	errNoFeed = errors.New("the issuer's metadata offer no feed of revocations")
	errSilent = errors.New("the feed of revocations was silent")
)

// heartbeatInterval returns the interval to request, so that the age stays below maxStale although one heartbeat is late: the
// knowledge of the issuer itself is up to half a second old.
func heartbeatInterval(maxStale time.Duration) time.Duration {
	const issuersAge = time.Second
	return min(max((maxStale-issuersAge)/2, minHeartbeatInterval), maxHeartbeatInterval)
}

// silenceTimeoutFor returns how long the feed may be silent when the issuer has agreed to an interval of milliseconds.
func silenceTimeoutFor(milliseconds int32) time.Duration {
	return min(2*time.Duration(milliseconds)*time.Millisecond+silenceMargin, silenceTimeout)
}

// FeedStatus is the state of a verifier's knowledge of the issuer's revocations.
type FeedStatus struct {
	// Followed is true if a feed is followed, or should be but cannot be reached. It is false while the issuer's metadata
	// offer no feed: only those of Grantor do.
	Followed bool
	// Complete is true once every live revocation was received; Age is meaningful from then on.
	Complete bool
	// Age is the age of the knowledge: every revocation made longer ago is in effect in this verifier.
	Age time.Duration
	// Live is the number of revocations in effect.
	Live int
	// StaleCalls is the number of calls that were decided, or refused, while Age exceeded [MaxStaleness].
	StaleCalls uint64
}

// feedFollower follows the issuer's feed of revocations. It is safe for concurrent use by multiple goroutines.
type feedFollower struct {
	dial     feedDialer
	list     *revocation.List
	maxStale time.Duration
	// onChange is called when the list has grown.
	onChange func()
	start    time.Time
	// asOf is the time as of which revocations are known, relative to start and often before it. It is meaningful once
	// complete is set.
	asOf     atomic.Int64
	complete atomic.Bool
	// absent is true while the issuer's metadata offer no feed, as seen at absentAt, a time relative to start. run has
	// returned then, so that the verifier of such an issuer need not be closed, and the next call after absentInterval
	// has restart run it again; looking is true from then on.
	absent     atomic.Bool
	absentAt   atomic.Int64
	looking    atomic.Bool
	restart    func()
	warned     atomic.Bool
	staleCalls atomic.Uint64
	// failure is the error with which the feed last broke off, for the log.
	failure atomic.Pointer[error]
	// ready is closed when the knowledge becomes complete for the first time, or when the issuer's metadata offer no
	// feed.
	ready     chan struct{}
	readyOnce sync.Once
}

// age returns the age of the knowledge; complete is false if there is none yet.
func (f *feedFollower) age() (age time.Duration, complete bool) {
	if !f.complete.Load() {
		return time.Since(f.start), false
	}
	return time.Since(f.start) - time.Duration(f.asOf.Load()), true
}

// stale reports whether the knowledge is older than permitted, and counts the call if it is.
func (f *feedFollower) stale() bool {
	if f.absent.Load() {
		if time.Since(f.start)-time.Duration(f.absentAt.Load()) >= absentInterval && f.looking.CompareAndSwap(false, true) {
			f.restart()
		}
		return false
	}
	if age, complete := f.age(); complete && age <= f.maxStale {
		return false
	}
	f.staleCalls.Add(1)
	if !f.warned.Swap(true) {
		attributes := []any{"max_staleness", f.maxStale}
		if failure := f.failure.Load(); failure != nil {
			attributes = append(attributes, "error", *failure)
		}
		logRecord(slog.LevelWarn, "verify: the feed of revocations cannot be reached: later revocations are not known", attributes...)
	}
	return true
}

// run follows the feed until ctx ends or the issuer's metadata turn out to offer none.
func (f *feedFollower) run(ctx context.Context) {
	cursor, wait, heard := "", minBackoff, false
	for ctx.Err() == nil {
		began := time.Now()
		// The connection, its interceptors and the HTTP client are code of the program, and so are their errors.
		absent, err := recovery.Await("following the feed", func() (bool, error) {
			err := f.follow(ctx, &cursor, func() { heard = true })
			return errors.Is(err, errNoFeed), err
		})
		// An issuer that had a feed and offers none now is in trouble: its latest revocations are not known.
		if absent && !heard {
			f.absentAt.Store(int64(time.Since(f.start)))
			f.absent.Store(true)
			f.looking.Store(false)
			f.setReady()
			return
		}
		f.failure.Store(&err)
		if time.Since(began) > maxBackoff {
			wait = minBackoff // decided by duration: one answer must not permit ten attempts a second
		}
		// The wait is between half and all of it, at random, so that not all verifiers reconnect to a restarted issuer
		// at once.
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait/2)): //nolint:gosec // not a secret: it only spreads load
		}
		wait = min(2*wait, maxBackoff)
	}
}

// setReady lets [New] return.
func (f *feedFollower) setReady() { f.readyOnce.Do(func() { close(f.ready) }) }

// follow reads the feed from the cursor on until the feed breaks off. It calls alive for each answer.
func (f *feedFollower) follow(ctx context.Context, cursor *string, alive func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := silenceTimeout
	watchdog := time.AfterFunc(timeout, func() { cancel(errSilent) })
	defer watchdog.Stop()
	conn, closeConn, err := f.dial(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	f.absent.Store(false)
	watchdog.Reset(timeout)
	stream, err := grantorv1.NewRevocationServiceClient(conn).WatchRevocations(ctx, &grantorv1.WatchRevocationsRequest{
		Cursor: *cursor, HeartbeatIntervalMs: int32(heartbeatInterval(f.maxStale).Milliseconds()), //nolint:gosec // at most maxHeartbeatInterval
	})
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		received := time.Since(f.start)
		if agreed := answer.GetHeartbeatIntervalMs(); agreed > 0 {
			timeout = silenceTimeoutFor(agreed)
		}
		watchdog.Reset(timeout)
		alive()
		f.apply(answer)
		*cursor = answer.GetCursor()
		if answer.GetComplete() {
			age := min(max(answer.GetAgeMs(), 0), maxTokenLifetime.Milliseconds()) // no answer is from the future
			f.setKnown(received - time.Duration(age)*time.Millisecond)
		}
	}
}

// apply adds the revocations of an answer to the list.
func (f *feedFollower) apply(answer *grantorv1.WatchRevocationsResponse) {
	changed := false
	add := func(kind revocation.Kind, id string, at int64) {
		changed = f.list.Apply(revocation.Change{Kind: kind, ID: id, At: time.Unix(at, 0)}) || changed
	}
	for _, t := range answer.GetTokens() {
		add(revocation.TokenRevoked, t.GetJti(), t.GetExp())
	}
	for _, c := range answer.GetClients() {
		add(revocation.ClientRevoked, c.GetClientId(), c.GetUntil())
	}
	for _, k := range answer.GetKeys() {
		add(revocation.KeyRevoked, k.GetKid(), k.GetAt())
	}
	if changed {
		f.onChange()
	}
}

// setKnown records that all revocations up to asOf, a time relative to start, are known. An answer from a replica that
// lags behind the previous one does not move it back.
func (f *feedFollower) setKnown(asOf time.Duration) {
	if !f.complete.Load() || int64(asOf) > f.asOf.Load() {
		f.asOf.Store(int64(asOf))
	}
	f.complete.Store(true)
	f.setReady()
	if age, _ := f.age(); age <= f.maxStale {
		f.warned.Store(false)
	}
}
