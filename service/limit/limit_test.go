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

// shelf is a store in memory.
type shelf struct {
	mu    sync.Mutex
	sums  map[string]int64
	calls int
	// sent counts what was added, fail is what adding answers.
	sent int64
	fail error
}

func (s *shelf) AddCounts(_ context.Context, w limit.Window, counts []limit.Count) ([]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls++; s.fail != nil {
		return nil, s.fail
	}
	if s.sums == nil {
		s.sums = make(map[string]int64)
	}
	var sums []int64
	for _, c := range counts {
		key := fmt.Sprint(w, c.Key)
		s.sums[key] += c.N
		s.sent += c.N
		sums = append(sums, s.sums[key])
	}
	return sums, nil
}

func (s *shelf) answer(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *shelf) told() (calls int, sent int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls, s.sent
}

// clock is one that a test moves.
type clock struct{ now time.Time }

func (c *clock) read() time.Time { return c.now }

func newLimiter(limits limit.Limits) (*limit.Limiter, *clock) {
	c := &clock{start}
	return limit.New(limit.Config{Limits: limits, Key: []byte("key"), Store: &shelf{}, Now: c.read}), c
}

// fail fails n times and gives how many were counted.
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
		{"b", here, 10},  // another client counts for itself
		{"c", here, 5},   // until the source has its share
		{"a", there, 10}, // and so does another source
		{"a", netip.MustParseAddr("::ffff:192.0.2.2"), 0},
		{"a", netip.Addr{}, 15}, // that is not known
	} {
		if got := fail(l, 15, step.client, step.source); got != step.want {
			t.Errorf("%s from %s: %d counted, want %d", step.client, step.source, got, step.want)
		}
	}
	if !l.Suspect(here) || l.Suspect(netip.MustParseAddr("192.0.2.3")) {
		t.Error("the wrong sources are suspect")
	}
	if got := l.RetryAfter("a", there); got <= time.Minute || got > 2*time.Minute {
		t.Errorf("the wait is %s; the window slides out within the next", got)
	}
	c.now = c.now.Add(3 * time.Minute)
	if l.Suspect(here) || l.RetryAfter("a", here) != 0 {
		t.Error("after three minutes it still counts")
	}
}

// The wait that is told is neither too long nor too short, and within any period no more are counted than the limit, but
// for the unevenness that the sliding window does not see.
func TestWait(t *testing.T) {
	for most := 1; most <= 12; most++ {
		l, c := newLimiter(limit.Limits{FailuresPerClient: most})
		counted := 0
		for range 200 {
			counted += fail(l, 1, "a", here)
			wait := l.RetryAfter("a", here)
			if wait > 0 {
				before := *c
				c.now = c.now.Add(wait - time.Millisecond)
				if l.RetryAfter("a", here) == 0 {
					t.Fatalf("limit %d: told to wait %s, which is too long", most, wait)
				}
				c.now = before.now.Add(wait + time.Microsecond)
			}
			if l.RetryAfter("a", here) > 0 {
				t.Fatalf("limit %d: after the wait of %s: wait", most, wait)
			}
		}
		minutes := c.now.Sub(start).Minutes()
		if got := float64(counted) / (minutes + 1); got > float64(most) {
			t.Errorf("limit %d: %d counted within %.1f minutes", most, counted, minutes)
		}
	}
}

func TestClockSetBack(t *testing.T) {
	l, c := newLimiter(limit.Limits{FailuresPerClient: 10})
	fail(l, 10, "a", here)
	c.now = c.now.Add(-time.Second)
	if l.RetryAfter("a", here) == 0 {
		t.Error("a second back: it is forgotten")
	}
	c.now = c.now.Add(-24 * time.Hour)
	if l.RetryAfter("a", here) != 0 {
		t.Error("a day back: it waits a day")
	}
}

func TestOff(t *testing.T) {
	l, _ := newLimiter(limit.Limits{})
	if got := fail(l, 1000, "a", here); got != 1000 {
		t.Errorf("without limits %d are let through", got)
	}
	for range 1000 {
		if l.AllowToken("a") > 0 || l.AllowRequest(here) > 0 || !l.EnterStream(here) {
			t.Fatal("without limits something is refused")
		}
	}
	if keys, _ := l.Held(); keys > 0 {
		t.Errorf("without limits %d keys are held", keys)
	}
	l.SetLimits(limit.Limits{FailuresPerSource: 5})
	if got := fail(l, 10, "a", here); got != 5 {
		t.Errorf("with a limit of 5 that came later: %d", got)
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
		t.Errorf("the wait is %s", wait)
	}
	c.now = c.now.Add(2 * time.Hour)
	if got := take("a", 5); got != 3 {
		t.Errorf("two hours later: got %d", got)
	}
}

// In soft mode everybody gets what they ask for, and who has had too much is named once a period.
func TestTokensWarn(t *testing.T) {
	var named []string
	c := &clock{start}
	l := limit.New(limit.Config{
		Limits: limit.Limits{TokensPerClient: 3, TokensPeriod: time.Minute, TokensWarn: true},
		Store:  &shelf{}, Now: c.read, Exceeded: func(client string) { named = append(named, client) },
	})
	for period := range 3 {
		for n := range 10 {
			if l.AllowToken("a") > 0 || (n < 3 && l.AllowToken("b") > 0) {
				t.Fatal("it is refused")
			}
		}
		if len(named) != period+1 || named[period] != "a" {
			t.Errorf("period %d: named are %v", period, named)
		}
		c.now = c.now.Add(2 * time.Minute)
	}
}

func TestRequests(t *testing.T) {
	l, c := newLimiter(limit.Limits{RequestsPerSource: 5})
	for n := range 10 {
		if wait := l.AllowRequest(here); (wait > 0) != (n >= 5) || wait > 2*time.Second {
			t.Errorf("request %d: wait %s", n, wait)
		}
	}
	if l.AllowRequest(there) > 0 {
		t.Error("another source waits too")
	}
	if c.now = c.now.Add(2 * time.Second); l.AllowRequest(here) > 0 {
		t.Error("it waits two seconds later")
	}
}

func TestStreams(t *testing.T) {
	l, _ := newLimiter(limit.Limits{StreamsPerSource: 2})
	if !l.EnterStream(here) || !l.EnterStream(here) || l.EnterStream(here) || !l.EnterStream(there) {
		t.Error("not two for each source")
	}
	l.LeaveStream(here)
	if !l.EnterStream(here) || l.EnterStream(here) {
		t.Error("a place that was given back is not there")
	}
}

// Whom a count is about does not show, and differs between clients, sources, kinds and keys.
func TestKeys(t *testing.T) {
	seen := make(map[limit.Key]bool)
	for _, key := range []string{"key", "another"} {
		s := &keys{seen: seen}
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
		t.Errorf("there are %d keys, want %d", len(seen), want)
	}
}

// keys notes the keys.
type keys struct{ seen map[limit.Key]bool }

func (k *keys) AddCounts(_ context.Context, _ limit.Window, counts []limit.Count) ([]int64, error) {
	for _, c := range counts {
		k.seen[c.Key] = true
	}
	return make([]int64, len(counts)), nil
}

// What replicas counted adds up.
func TestShared(t *testing.T) {
	store, c := &shelf{}, &clock{start}
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
		t.Errorf("three replicas counted %d, want 10 and one more of each that had not heard", counted)
	}
	if _, sent := store.told(); sent != int64(2*counted) {
		t.Errorf("sent are %d, want each failure for the client and for the source", sent)
	}
}

// A store that is away is asked rarely, named once, and gets everything when it is back. Limits hold meanwhile.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &shelf{fail: errors.New("down")}
		l := limit.New(limit.Config{Limits: limit.Limits{FailuresPerSource: 5}, Store: store, Now: time.Now})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var failures []error
		running.Go(func() { _ = l.Run(ctx, func(err error) { failures = append(failures, err) }) })
		synctest.Wait()
		if calls, _ := store.told(); calls > 0 {
			t.Error("it is asked where nothing was counted")
		}
		if got := fail(l, 10, "a", here); got != 5 {
			t.Errorf("%d are let through, want 5", got)
		}
		time.Sleep(10 * limit.SharePause)
		synctest.Wait()
		if calls, _ := store.told(); calls < 5 || calls > 11 || len(failures) != 1 {
			t.Errorf("%d calls, failures %v", calls, failures)
		}
		store.answer(nil)
		time.Sleep(2 * limit.SharePause)
		synctest.Wait()
		if _, sent := store.told(); sent != 10 {
			t.Errorf("when it is back: sent are %d, want 5 of the client and 5 of the source", sent)
		}
		before, _ := store.told()
		time.Sleep(time.Minute)
		synctest.Wait()
		if after, _ := store.told(); after != before {
			t.Errorf("%d calls while nothing was counted", after-before)
		}
		cancel()
		running.Wait()
	})
}

// However many ids and addresses there are, memory is bounded, and who has failed most is not forgotten.
func TestBounded(t *testing.T) {
	l, _ := newLimiter(limit.Limits{FailuresPerClient: 10, FailuresPerSource: 100})
	fail(l, 10, "target", here)
	for n := range 2 * limit.MostKeys {
		var address [4]byte
		binary.BigEndian.PutUint32(address[:], uint32(n+1)<<8)
		l.RecordFailure(fmt.Sprint(n), netip.AddrFrom4(address))
	}
	if keys, unsent := l.Held(); keys > limit.MostKeys || unsent > limit.MostKeys {
		t.Errorf("%d keys are held and %d to be sent", keys, unsent)
	}
	if l.RetryAfter("target", here) == 0 {
		t.Error("who failed most gave way")
	}
}

func BenchmarkToken(b *testing.B) {
	l := limit.New(limit.Config{
		Limits: limit.Limits{TokensPerClient: 1 << 40, TokensPeriod: time.Hour}, Key: make([]byte, 32), Store: &shelf{}, Now: time.Now,
	})
	b.ReportAllocs()
	for b.Loop() {
		l.AllowToken("background-service")
	}
}

func BenchmarkFailed(b *testing.B) {
	l := limit.New(limit.Config{
		Limits: limit.Limits{FailuresPerClient: 10, FailuresPerSource: 100}, Key: make([]byte, 32), Store: &shelf{}, Now: time.Now,
	})
	b.ReportAllocs()
	for b.Loop() {
		l.RecordFailure("background-service", here)
	}
}
