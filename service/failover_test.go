package service_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// A Redis acknowledges a write before its replicas have it, so a fail-over may lose it. With revocation-replicas=1 no
// revocation is lost that was acknowledged, if the replica that takes over has what the others have; the first two tests
// check that. Without it the Redis loses the revocations of the last moments. A running Grantor replica that has read them
// restores them, which the third test checks; if none is running they are lost for good.

// withoutRetries has a client report at once that there is no server, so that the tests need not wait for its retries.
const withoutRetries = "&max_retries=-1&dialer_retries=1"

// TestSentinelFailOver kills a primary that Sentinels watch.
func TestSentinelFailOver(t *testing.T) {
	t.Parallel()
	d := redistest.NewSentinel(t, 2)
	f := beginFailOver(t, newClusterOn(d.Primary, d.URL()+withoutRetries))
	f.expectRefused("while there is no primary")
	f.expectAcknowledged("with the new primary and its remaining replica")
	d.AwaitFailOver(t)
	f.finish()
}

// TestClusterFailOver kills the primary that has the issuer's slot. The new primary has no replica, so nothing can be
// acknowledged before the old one is back as its replica.
func TestClusterFailOver(t *testing.T) {
	t.Parallel()
	d := redistest.NewShards(t)
	f := beginFailOver(t, newClusterOn(d.Primary(t, "{grantor}"), d.URL()+withoutRetries))
	f.expectRefused("while there is no primary")
	for _, r := range f.replicas {
		must.Eventually(t, "the new primary is followed", func() bool { return r.CatchUp(withTimeout(t, time.Second)) == nil })
	}
	t.Logf("the new primary was followed after %s", time.Since(f.killed))
	f.expectRefused("while the new primary has no replica")
	f.c.redis.Start()
	f.expectAcknowledged("with the old primary as a replica")
	f.finish()
}

// TestFailOverLoses acknowledges revocations that no replica of the Redis has, and kills the primary.
func TestFailOverLoses(t *testing.T) {
	t.Parallel()
	d := redistest.NewSentinel(t, 2)
	c := newClusterOn(d.Primary, d.URL()+withoutRetries)
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	raw, other, left := a.token(t), a.token(t), a.token(t)
	ids, keys := []string{a.idOf(t, raw), a.idOf(t, other)}, a.keyIDs(t)
	d.CutOff(t)
	must.Succeed(t, a.revoke(t.Context(), raw))
	must.Succeed(t, b.revoke(t.Context(), other))
	running := []*replica{a, b}
	for _, r := range running {
		must.Succeed(t, r.CatchUp(withTimeout(t, timeout)))
	}
	d.Primary.Kill()
	for _, r := range running {
		must.Eventually(t, "what was lost is restored", func() bool { return r.log.count("published again") > 0 })
	}
	d.AwaitFailOver(t)
	for _, r := range append(running, c.start(t)) {
		must.Eventually(t, "the new primary is followed", func() bool { return r.CatchUp(withTimeout(t, time.Second)) == nil })
		r.expectActive(t, raw, false)
		r.expectActive(t, other, false)
		r.expectActive(t, left, true)
		w := r.watch(t, "")
		w.complete()
		for _, id := range ids {
			if !w.known[id] {
				t.Errorf("a fresh follower does not receive %s", id)
			}
		}
		if got := r.keyIDs(t); !slices.Equal(got, keys) {
			t.Errorf("got the keys %q, want %q", got, keys)
		}
	}
}

// TestRevokeAgain repeats a revocation that no replica of the Redis has. It is in effect by then, because it has been read
// from the feed; but it is not recorded as it must be, so it is not acknowledged.
func TestRevokeAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "--repl-diskless-sync-delay", "0")
	c.required = 1
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	raw := a.token(t)
	expectCode(t, a.revoke(t.Context(), raw), codes.Unavailable)
	for _, r := range []*replica{a, b} {
		must.Succeed(t, r.CatchUp(withTimeout(t, timeout)))
		r.expectActive(t, raw, false)
		expectCode(t, r.revoke(t.Context(), raw), codes.Unavailable)
	}
	redistest.New(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(c.redis.Port()))
	for _, r := range []*replica{a, b} {
		must.Eventually(t, "the revocation is recorded", func() bool { return r.revoke(t.Context(), raw) == nil })
	}
}

// failOver is a deployment whose primary was killed while tokens were issued and revoked. The revocations continue.
type failOver struct {
	*testing.T
	c        *cluster
	replicas []*replica
	// keys are the IDs of the signing keys before the fail-over, and left a token that is never revoked.
	keys   []string
	left   string
	killed time.Time

	stop     func()
	mu       sync.Mutex
	attempts []attempt
}

// attempt is one revocation.
type attempt struct {
	raw string
	// id is in the form of a watcher's known.
	id    string
	began time.Time
	// acknowledged is false if it was refused.
	acknowledged bool
}

func beginFailOver(t *testing.T, c *cluster) *failOver {
	t.Helper()
	c.required = 1
	f := &failOver{T: t, c: c, replicas: []*replica{c.start(t), c.start(t)}}
	a := f.replicas[0]
	a.apply(t, manifest())
	for _, r := range f.replicas {
		must.Succeed(t, r.CatchUp(withTimeout(t, timeout)))
		r.expectActive(t, r.token(t), true) // from here on both clients are in memory
	}
	f.left, f.keys = a.token(t), a.keyIDs(t)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, r := range f.replicas {
		group.Go(func() { f.revoke(ctx, r) })
	}
	f.stop = sync.OnceFunc(func() { cancel(); group.Wait() })
	t.Cleanup(f.stop)
	f.expectAcknowledged("before the fail-over")
	c.redis.Kill()
	f.killed = time.Now()
	return f
}

// revoke revokes one new token after another. Issuing and introspecting never fail, because a fail-over is shorter than
// the maximum staleness.
func (f *failOver) revoke(ctx context.Context, r *replica) {
	for next := time.NewTicker(10 * time.Millisecond); ; <-next.C {
		raw, err := r.issue(ctx)
		var id string
		if err == nil {
			answer, asked := r.ask(ctx, raw)
			id, err = "token:"+answer.GetJti(), asked
		}
		if err != nil && ctx.Err() == nil {
			f.Errorf("issuing and introspecting: %v", err)
		}
		began := time.Now()
		err = r.revoke(ctx, raw)
		if ctx.Err() != nil {
			return
		}
		if err != nil && status.Code(err) != codes.Unavailable {
			f.Errorf("revoking: got %v, want success or %s", err, codes.Unavailable)
		}
		f.mu.Lock()
		f.attempts = append(f.attempts, attempt{raw, id, began, err == nil})
		f.mu.Unlock()
	}
}

// count returns how many of the revocations that began since then were acknowledged, and how many were refused.
func (f *failOver) count(since time.Time) (acknowledged, refused int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.attempts {
		switch {
		case f.attempts[i].began.Before(since):
		case f.attempts[i].acknowledged:
			acknowledged++
		default:
			refused++
		}
	}
	return acknowledged, refused
}

// expectRefused waits until revocations are refused, and expects that none is acknowledged in between.
func (f *failOver) expectRefused(when string) {
	f.Helper()
	now := time.Now()
	must.Eventually(f, "revocations are refused "+when, func() bool {
		_, refused := f.count(now)
		return refused >= 2
	})
	if acknowledged, _ := f.count(now); acknowledged > 0 {
		f.Errorf("%d revocations were acknowledged %s", acknowledged, when)
	}
}

func (f *failOver) expectAcknowledged(when string) {
	f.Helper()
	now := time.Now()
	must.Eventually(f, "revocations are acknowledged "+when, func() bool {
		acknowledged, _ := f.count(now)
		return acknowledged >= 20
	})
	if !f.killed.IsZero() {
		f.Logf("revocations are acknowledged %s, %s after the kill", when, time.Since(f.killed))
	}
}

// finish ends the revocations. Every revocation that was acknowledged is in effect, at the running replicas and at a new
// one.
func (f *failOver) finish() {
	f.Helper()
	f.stop()
	acknowledged, refused := f.count(time.Time{})
	f.Logf("%d revocations were acknowledged, %d refused", acknowledged, refused)
	for _, r := range append(f.replicas, f.c.start(f)) {
		// After repeated failures go-redis may wait a second before it dials again, each replica's client by itself.
		next := r.token(f)
		must.Eventually(f, "the replica revokes without a restart", func() bool { return r.revoke(f.Context(), next) == nil })
		r.expectActive(f, next, false)
		must.Eventually(f, "the new primary is followed", func() bool { return r.CatchUp(withTimeout(f, time.Second)) == nil })
		w := r.watch(f, "")
		w.complete()
		for _, attempt := range f.attempts {
			if attempt.acknowledged && !w.known[attempt.id] {
				f.Errorf("a fresh follower does not receive %s", attempt.id)
			}
			if attempt.acknowledged {
				r.expectActive(f, attempt.raw, false)
			}
		}
		r.expectActive(f, f.left, true)
		if got := r.keyIDs(f.T); !slices.Equal(got, f.keys) {
			f.Errorf("got the keys %q, want %q", got, f.keys)
		}
	}
}
