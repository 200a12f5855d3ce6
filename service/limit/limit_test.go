package limit_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/must"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	start = time.Unix(1_800_000_000, 0) // the start of a minute
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("192.0.2.2")
)

// fakeStore is a store in memory.
type fakeStore struct {
	mu   sync.Mutex
	sums map[string]int64
	// calls is the number of calls, and added the sum of all added counts.
	calls int
	added int64
	// err, if not nil, is the error of AddCounts.
	err error
}

func (s *fakeStore) AddCounts(_ context.Context, w limit.Window, counts []limit.Count) ([]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls++; s.err != nil {
		return nil, s.err
	}
	if s.sums == nil {
		s.sums = make(map[string]int64)
	}
	var sums []int64
	for _, c := range counts {
		key := fmt.Sprint(w, c.Key)
		s.sums[key] += c.N
		s.added += c.N
		sums = append(sums, s.sums[key])
	}
	return sums, nil
}

// setErr sets the error of AddCounts.
func (s *fakeStore) setErr(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// stats returns the number of calls and the sum of the added counts.
func (s *fakeStore) stats() (calls int, added int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls, s.added
}

// clock is a clock that the test advances.
type clock struct{ now time.Time }

func (c *clock) read() time.Time { return c.now }

func newLimiter(limits limit.Limits) (*limit.Limiter, *clock) {
	c := &clock{start}
	return limit.New(limit.Config{Limits: limits, Key: []byte("key"), Store: &fakeStore{}, Now: c.read}), c
}

// fail records n failures and returns how many were counted.
func fail(l *limit.Limiter, n int, client string, source netip.Addr) (counted int) {
	for range n {
		if l.RecordFailure(client, source) == 0 {
			counted++
		}
	}
	return counted
}

func TestFailures(t *testing.T) {
	l, c := newLimiter(limit.Limits{FailuresPerClient: 10, FailuresPerSource: 25})
	for _, step := range []struct {
		client string
		source netip.Addr
		want   int
	}{
		{"a", here, 10},
		{"a", here, 0},
		{"b", here, 10},  // another client has its own count
		{"c", here, 5},   // until the limit of the source is reached
		{"a", there, 10}, // another source has its own count
		{"a", netip.MustParseAddr("::ffff:192.0.2.2"), 0},
		{"a", netip.Addr{}, 15}, // an unknown source has no limit
	} {
		if got := fail(l, 15, step.client, step.source); got != step.want {
			t.Errorf("%s from %s: %d counted, want %d", step.client, step.source, got, step.want)
		}
	}
	if !l.Suspect(here) || l.Suspect(netip.MustParseAddr("192.0.2.3")) {
		t.Error("the wrong sources are suspect")
	}
	if got := l.RetryAfter("a", there); got <= time.Minute || got > 2*time.Minute {
		t.Errorf("got the wait %s, want more than 1m and at most 2m", got)
	}
	c.now = c.now.Add(3 * time.Minute)
	if l.Suspect(here) || l.RetryAfter("a", here) != 0 {
		t.Error("the failures still count after three minutes")
	}
}

// TestWait checks that the wait is neither too long nor too short, and that no more than the limit is counted within a
// period, on average.
func TestWait(t *testing.T) {
	for n := 1; n <= 12; n++ {
		l, c := newLimiter(limit.Limits{FailuresPerClient: n})
		counted := 0
		for range 200 {
			counted += fail(l, 1, "a", here)
			wait := l.RetryAfter("a", here)
			if wait > 0 {
				before := *c
				c.now = c.now.Add(wait - time.Millisecond)
				if l.RetryAfter("a", here) == 0 {
					t.Fatalf("limit %d: the wait of %s is too long", n, wait)
				}
				c.now = before.now.Add(wait + time.Microsecond)
			}
			if l.RetryAfter("a", here) > 0 {
				t.Fatalf("limit %d: the wait of %s is too short", n, wait)
			}
		}
		minutes := c.now.Sub(start).Minutes()
		if got := float64(counted) / (minutes + 1); got > float64(n) {
			t.Errorf("limit %d: %d counted within %.1f minutes", n, counted, minutes)
		}
	}
}

func TestClockSetBack(t *testing.T) {
	l, c := newLimiter(limit.Limits{FailuresPerClient: 10})
	fail(l, 10, "a", here)
	c.now = c.now.Add(-time.Second)
	if l.RetryAfter("a", here) == 0 {
		t.Error("after a second back, the failures no longer count")
	}
	c.now = c.now.Add(-24 * time.Hour)
	if l.RetryAfter("a", here) != 0 {
		t.Error("after a day back, the failures still count")
	}
}

func TestOff(t *testing.T) {
	l, _ := newLimiter(limit.Limits{})
	if got := fail(l, 1000, "a", here); got != 1000 {
		t.Errorf("without limits: %d counted, want 1000", got)
	}
	for range 1000 {
		if l.AllowToken("a") > 0 || l.AllowRequest(here) > 0 || !l.EnterStream(here) {
			t.Fatal("without limits: a token, a request or a stream is refused")
		}
	}
	if keys, _ := l.Held(); keys > 0 {
		t.Errorf("without limits: %d keys are held, want 0", keys)
	}
	l.SetLimits(limit.Limits{FailuresPerSource: 5})
	if got := fail(l, 10, "a", here); got != 5 {
		t.Errorf("after SetLimits: %d counted, want 5", got)
	}
}

func TestTokens(t *testing.T) {
	l, c := newLimiter(limit.Limits{TokensPerClient: 3, TokensPeriod: time.Hour})
	take := func(client string, n int) (got int) {
		for range n {
			if l.AllowToken(client) == 0 {
				got++
			}
		}
		return got
	}
	if a, b := take("a", 5), take("b", 2); a != 3 || b != 2 {
		t.Errorf("got %d and %d tokens, want 3 and 2", a, b)
	}
	if wait := l.AllowToken("a"); wait <= 0 || wait > 2*time.Hour {
		t.Errorf("got the wait %s, want at most 2h", wait)
	}
	c.now = c.now.Add(2 * time.Hour)
	if got := take("a", 5); got != 3 {
		t.Errorf("two hours later: got %d tokens, want 3", got)
	}
}

// With TokensWarn no token is refused, and a client that exceeds the limit is reported once a period.
func TestTokensWarn(t *testing.T) {
	var exceeded []string
	c := &clock{start}
	l := limit.New(limit.Config{
		Limits: limit.Limits{TokensPerClient: 3, TokensPeriod: time.Minute, TokensWarn: true},
		Store:  &fakeStore{}, Now: c.read, Exceeded: func(client string) { exceeded = append(exceeded, client) },
	})
	for period := range 3 {
		for n := range 10 {
			if l.AllowToken("a") > 0 || (n < 3 && l.AllowToken("b") > 0) {
				t.Fatal("a token is refused")
			}
		}
		if len(exceeded) != period+1 || exceeded[period] != "a" {
			t.Errorf("period %d: got the clients %v, want a once a period", period, exceeded)
		}
		c.now = c.now.Add(2 * time.Minute)
	}
}

func TestRequests(t *testing.T) {
	l, c := newLimiter(limit.Limits{RequestsPerSource: 5})
	for n := range 10 {
		if wait := l.AllowRequest(here); (wait > 0) != (n >= 5) || wait > 2*time.Second {
			t.Errorf("request %d: got the wait %s", n, wait)
		}
	}
	if l.AllowRequest(there) > 0 {
		t.Error("another source has to wait")
	}
	if c.now = c.now.Add(2 * time.Second); l.AllowRequest(here) > 0 {
		t.Error("the source has to wait two seconds later")
	}
}

func TestStreams(t *testing.T) {
	l, _ := newLimiter(limit.Limits{StreamsPerSource: 2})
	if !l.EnterStream(here) || !l.EnterStream(here) || l.EnterStream(here) || !l.EnterStream(there) {
		t.Error("the limit is not two streams for each source")
	}
	l.LeaveStream(here)
	if !l.EnterStream(here) || l.EnterStream(here) {
		t.Error("after one stream has ended, not exactly one more is allowed")
	}
}

// TestKeys checks that the keys differ between clients, sources, kinds and secret keys.
func TestKeys(t *testing.T) {
	seen := make(map[limit.Key]bool)
	for _, key := range []string{"key", "another"} {
		s := &keyStore{seen: seen}
		l := limit.New(limit.Config{
			Limits: limit.Limits{FailuresPerClient: 9, TokensPerClient: 9}, Key: []byte(key), Store: s, Now: time.Now,
		})
		for _, client := range []string{"", "a", "b"} {
			for _, source := range []netip.Addr{here, there, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:0:1::1")} {
				l.RecordFailure(client, source)
			}
			l.AllowToken(client)
		}
		must.Succeed(t, l.Share(t.Context()))
	}
	if want := 2 * (3*4 + 4 + 3); len(seen) != want {
		t.Errorf("got %d keys, want %d", len(seen), want)
	}
}

// keyStore is a store that records the keys.
type keyStore struct{ seen map[limit.Key]bool }

func (k *keyStore) AddCounts(_ context.Context, _ limit.Window, counts []limit.Count) ([]int64, error) {
	for _, c := range counts {
		k.seen[c.Key] = true
	}
	return make([]int64, len(counts)), nil
}

// The counts of replicas add up.
func TestShared(t *testing.T) {
	store, c := &fakeStore{}, &clock{start}
	var replicas []*limit.Limiter
	for range 3 {
		replicas = append(replicas, limit.New(limit.Config{
			Limits: limit.Limits{FailuresPerClient: 10}, Key: []byte("key"), Store: store, Now: c.read,
		}))
	}
	counted := 0
	for range 20 {
		for _, l := range replicas {
			counted += fail(l, 1, "a", here)
		}
		for _, l := range replicas {
			must.Succeed(t, l.Share(t.Context()))
		}
	}
	if counted < 10 || counted > 12 {
		t.Errorf("three replicas counted %d, want 10, and at most 1 more for each of the other two", counted)
	}
	if _, added := store.stats(); added != int64(2*counted) {
		t.Errorf("%d were added, want %d: each failure for the client and for the source", added, 2*counted)
	}
}

// An unreachable store is queried rarely and reported once, and receives all counts afterwards. Until then the limits
// hold.
func TestStoreUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{err: errors.New("down")}
		l := limit.New(limit.Config{Limits: limit.Limits{FailuresPerSource: 5}, Store: store, Now: time.Now})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var errs []error
		running.Go(func() { _ = l.Run(ctx, func(err error) { errs = append(errs, err) }) })
		synctest.Wait()
		if calls, _ := store.stats(); calls > 0 {
			t.Error("the store is queried although nothing was counted")
		}
		if got := fail(l, 10, "a", here); got != 5 {
			t.Errorf("%d counted, want 5", got)
		}
		time.Sleep(10 * limit.ShareBackoff)
		synctest.Wait()
		if calls, _ := store.stats(); calls < 5 || calls > 11 || len(errs) != 1 {
			t.Errorf("%d calls, errors %v, want 5 to 11 calls and 1 error", calls, errs)
		}
		store.setErr(nil)
		time.Sleep(2 * limit.ShareBackoff)
		synctest.Wait()
		if _, added := store.stats(); added != 10 {
			t.Errorf("after the outage: %d were added, want 5 of the client and 5 of the source", added)
		}
		before, _ := store.stats()
		time.Sleep(time.Minute)
		synctest.Wait()
		if after, _ := store.stats(); after != before {
			t.Errorf("%d calls although nothing was counted", after-before)
		}
		cancel()
		running.Wait()
	})
}

// Memory is bounded for any number of client IDs and sources, and the client with the most failures is not evicted.
func TestBounded(t *testing.T) {
	l, _ := newLimiter(limit.Limits{FailuresPerClient: 10, FailuresPerSource: 100})
	fail(l, 10, "target", here)
	for n := range 2 * limit.MaxKeys {
		var address [4]byte
		binary.BigEndian.PutUint32(address[:], uint32(n+1)<<8)
		l.RecordFailure(fmt.Sprint(n), netip.AddrFrom4(address))
	}
	if keys, unsent := l.Held(); keys > limit.MaxKeys || unsent > limit.MaxKeys {
		t.Errorf("%d keys are held and %d to be sent, want at most %d", keys, unsent, limit.MaxKeys)
	}
	if l.RetryAfter("target", here) == 0 {
		t.Error("the client with the most failures was evicted")
	}
}

func BenchmarkAllowToken(b *testing.B) {
	l := limit.New(limit.Config{
		Limits: limit.Limits{TokensPerClient: 1 << 40, TokensPeriod: time.Hour}, Key: make([]byte, 32), Store: &fakeStore{}, Now: time.Now,
	})
	b.ReportAllocs()
	for b.Loop() {
		l.AllowToken("background-service")
	}
}

func BenchmarkRecordFailure(b *testing.B) {
	l := limit.New(limit.Config{
		Limits: limit.Limits{FailuresPerClient: 10, FailuresPerSource: 100}, Key: make([]byte, 32), Store: &fakeStore{}, Now: time.Now,
	})
	b.ReportAllocs()
	for b.Loop() {
		l.RecordFailure("background-service", here)
	}
}
