package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
)

var errDown = errors.New("the issuer is down")

// source is an issuer from which a Remote fetches.
type source struct {
	set     atomic.Pointer[jwks.Set]
	maxAge  time.Duration
	latency time.Duration // duration of a fetch
	down    atomic.Bool
	fetches atomic.Int32
}

func newSource(keys ...jwks.Key) *source {
	s := &source{maxAge: 10 * time.Minute}
	s.set.Store(jwks.NewSet(keys...))
	return s
}

func (s *source) fetch(ctx context.Context) (*jwks.Set, time.Duration, error) {
	s.fetches.Add(1)
	select {
	case <-time.After(s.latency):
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	if s.down.Load() {
		return nil, 0, errDown
	}
	return s.set.Load(), s.maxAge, nil
}

func (s *source) expect(t *testing.T, fetches int32) {
	t.Helper()
	if got := s.fetches.Load(); got != fetches {
		t.Errorf("%d fetches, want %d", got, fetches)
	}
}

// find returns the error of Find, which must not take any time.
func find(t *testing.T, r *jwks.Remote, id string) error {
	t.Helper()
	start := time.Now()
	_, err := r.Find(t.Context(), id)
	if d := time.Since(start); d > 0 {
		t.Errorf("Find took %s", d)
	}
	return err
}

func expectError(t *testing.T, name string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", name, got, want)
	}
}

func TestOneFetchForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey()
		s := newSource(k)
		s.latency = time.Second
		r := jwks.NewRemote(s.fetch, jwks.RemoteConfig{})
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() {
				if got, err := r.Find(t.Context(), k.ID()); err != nil || !got.Equal(k) {
					t.Errorf("got %v, %v, want the key", got.ID(), err)
				}
			})
		}
		group.Wait()
		s.expect(t, 1)
	})
}

// The fetch outlives the caller that started it: the next caller gets its result.
func TestCallerStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey()
		s := newSource(k)
		s.latency = 2 * time.Second
		r := jwks.NewRemote(s.fetch, jwks.RemoteConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Find(ctx, k.ID())
		expectError(t, "at its deadline", err, context.DeadlineExceeded)
		<-time.After(time.Second + 1) // the bubble's clock
		expectError(t, "after", find(t, r, k.ID()), nil)
		s.expect(t, 1)
	})
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newKey(), newKey()
		s := newSource(old)
		r := jwks.NewRemote(s.fetch, jwks.RemoteConfig{})
		expectError(t, "first", find(t, r, old.ID()), nil)
		<-time.After(10*time.Minute - 1)
		expectError(t, "still fresh", find(t, r, old.ID()), nil)
		s.expect(t, 1)

		s.set.Store(jwks.NewSet(fresh))
		s.latency = time.Second
		<-time.After(time.Nanosecond)
		if !r.Trusts(old) {
			t.Error("the old set is not used while the new one is being fetched")
		}
		for range 100 {
			expectError(t, "during the fetch", find(t, r, old.ID()), nil)
		}
		<-time.After(time.Second)
		synctest.Wait()
		s.expect(t, 2)
		if r.Trusts(old) || !r.Trusts(fresh) {
			t.Error("the new set is not used")
		}
	})
}

// The issuer's max-age is limited to between one minute and one day.
func TestMaxAgeBounds(t *testing.T) {
	for maxAge, want := range map[time.Duration]time.Duration{
		-time.Second: time.Minute, 0: time.Minute, time.Second: time.Minute, time.Hour: time.Hour, 1000 * time.Hour: 24 * time.Hour,
	} {
		synctest.Test(t, func(t *testing.T) {
			k := newKey()
			s := newSource(k)
			s.maxAge = maxAge
			r := jwks.NewRemote(s.fetch, jwks.RemoteConfig{})
			expectError(t, "first", find(t, r, k.ID()), nil)
			<-time.After(want - 1)
			r.Trusts(k)
			synctest.Wait()
			s.expect(t, 1)
			<-time.After(time.Nanosecond)
			r.Trusts(k)
			synctest.Wait()
			s.expect(t, 2)
		})
	}
}

func TestUnknownKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, next := newKey(), newKey()
		s := newSource(k)
		r := jwks.NewRemote(s.fetch, jwks.RemoteConfig{MinInterval: 5 * time.Second})
		expectError(t, "first", find(t, r, k.ID()), nil)
		for i := range 1000 {
			expectError(t, "flood", find(t, r, fmt.Sprint(i)), jwks.ErrUnknownKey)
		}
		s.expect(t, 1)
		s.set.Store(jwks.NewSet(k, next))
		<-time.After(5*time.Second - 1)
		expectError(t, "a moment too soon", find(t, r, next.ID()), jwks.ErrUnknownKey)
		<-time.After(time.Nanosecond)
		expectError(t, "after the interval", find(t, r, next.ID()), nil)
		for i := range 1000 {
			expectError(t, "flood", find(t, r, fmt.Sprint(i)), jwks.ErrUnknownKey)
		}
		s.expect(t, 2)
	})
}

// While a fetch hangs, a known key is found at once, however often it is looked up.
func TestFetchHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey()
		s := newSource(k)
		r := jwks.NewRemote(s.fetch, jwks.RemoteConfig{})
		expectError(t, "first", find(t, r, k.ID()), nil)
		s.latency = time.Hour
		<-time.After(10 * time.Minute)
		for range 9 {
			for range 100 {
				expectError(t, "known", find(t, r, k.ID()), nil)
			}
			<-time.After(time.Second)
			// Joining the fetch would allocate a waiter for each call, held until the fetch ends.
			if n := testing.AllocsPerRun(10, func() { r.Trusts(k) }); n > 0 {
				t.Errorf("%v allocations for a known key, want none", n)
			}
		}
		s.expect(t, 2)
		_, err := r.Find(t.Context(), "unknown")
		expectError(t, "unknown, at the end of the fetch", err, context.DeadlineExceeded)
		s.expect(t, 2)
	})
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey()
		s := newSource(k)
		s.down.Store(true)
		r := jwks.NewRemote(s.fetch, jwks.RemoteConfig{MaxStale: time.Hour})
		expectError(t, "down from the start", find(t, r, k.ID()), errDown)
		s.down.Store(false)
		expectError(t, "within the minimum interval", find(t, r, k.ID()), errDown)
		s.expect(t, 1)
		<-time.After(5 * time.Second)
		expectError(t, "up", find(t, r, k.ID()), nil)

		s.down.Store(true)
		<-time.After(10*time.Minute + time.Hour - 1)
		expectError(t, "the last good set", find(t, r, k.ID()), nil)
		synctest.Wait()
		expectError(t, "unknown while down", find(t, r, "unknown"), errDown)
		<-time.After(time.Nanosecond)
		expectError(t, "too old", find(t, r, k.ID()), errDown)
		if r.Trusts(k) {
			t.Error("a key of a set that is too old is trusted")
		}
		s.down.Store(false)
		<-time.After(5 * time.Second)
		expectError(t, "up again", find(t, r, k.ID()), nil)
	})
}

// A fetch that panics, ends its goroutine or returns nothing fails for those who wait for it, and the next one is made
// after the interval.
func TestFaultyFetch(t *testing.T) {
	for name, fault := range map[string]func() (*jwks.Set, time.Duration, error){
		"panics":             func() (*jwks.Set, time.Duration, error) { panic("s3cret") },
		"ends its goroutine": func() (*jwks.Set, time.Duration, error) { runtime.Goexit(); return nil, 0, nil },
		"returns nothing":    func() (*jwks.Set, time.Duration, error) { return nil, 0, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKey()
				s := newSource(k)
				faulty := true
				r := jwks.NewRemote(func(ctx context.Context) (*jwks.Set, time.Duration, error) {
					if faulty {
						return fault()
					}
					return s.fetch(ctx)
				}, jwks.RemoteConfig{})
				for range 2 { // the second is within the interval
					if err := find(t, r, k.ID()); err == nil || errors.Is(err, jwks.ErrUnknownKey) || strings.Contains(err.Error(), "s3cret") {
						t.Errorf("got %v, want an error of the fetch", err)
					}
				}
				faulty = false
				<-time.After(5 * time.Second)
				expectError(t, "after the fault", find(t, r, k.ID()), nil)
				faulty = true
				<-time.After(10 * time.Minute) // the set is renewed in the background
				expectError(t, "with an old set", find(t, r, k.ID()), nil)
				synctest.Wait()
				if !r.Trusts(k) {
					t.Error("the old set is lost")
				}
				faulty = false
				<-time.After(5 * time.Second)
				r.Trusts(k)
				synctest.Wait()
				s.expect(t, 2)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		for name, fetch := range map[string]jwks.Fetch{"nil": nil, "HTTP without a client": jwks.HTTP(nil, "ftp://a")} {
			if err := find(t, jwks.NewRemote(fetch, jwks.RemoteConfig{}), ""); err == nil {
				t.Errorf("%s: got no error", name)
			}
		}
	})
}

// Without calls there are no fetches.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(newKey())
		r := jwks.NewRemote(s.fetch, jwks.RemoteConfig{})
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Hour)
		s.expect(t, 1)
	})
}

// A clock that is set back neither prevents fetching nor prolongs the use of a set.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newKey(), newKey()
		s := newSource(old)
		now := time.Now().Add(1000 * time.Hour)
		r := jwks.NewRemote(s.fetch, jwks.RemoteConfig{Now: func() time.Time { return now }})
		expectError(t, "first", find(t, r, old.ID()), nil)
		now = now.Add(-900 * time.Hour)
		s.set.Store(jwks.NewSet(fresh))
		expectError(t, "during the fetch", find(t, r, old.ID()), nil)
		synctest.Wait()
		s.expect(t, 2)
		if r.Trusts(old) {
			t.Error("a key that was withdrawn is still trusted")
		}
		now = now.Add(-90 * time.Hour)
		s.set.Store(jwks.NewSet(old))
		expectError(t, "unknown", find(t, r, old.ID()), nil)
	})
}
