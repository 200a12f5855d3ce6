package clientauth_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
)

// newBlocked returns an authenticator whose slow hashes end when gate is closed, and the number of those started.
func newBlocked(clients registered) (a *clientauth.Authenticator, started *atomic.Int64, gate chan struct{}) {
	a, started, gate = newAuthenticator(clients), &atomic.Int64{}, make(chan struct{})
	a.SetFind(func(secrets []clientsecret.Secret, secret string, now time.Time) int {
		if clientsecret.Generated(secret) {
			return hasher.Match(secrets, secret, now)
		}
		started.Add(1)
		<-gate
		return -1
	})
	return a, started, gate
}

// guesses numbers the guesses, because concurrent requests with the same secret of a client take one place.
var guesses atomic.Int64

func guess() string { return fmt.Sprint("guess ", guesses.Add(1)) }

// TestSameSecretTakesOnePlace has many processes of one client authenticate at once, with a secret not proven before.
func TestSameSecretTakesOnePlace(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	synctest.Test(t, func(t *testing.T) {
		a, gate := newAuthenticator(clients), make(chan struct{})
		a.SetFind(func([]clientsecret.Secret, string, time.Time) int {
			<-gate
			return 0
		})
		var group sync.WaitGroup
		for range 2 * clientauth.MaxQueued {
			group.Go(func() {
				if _, err := a.Authenticate(t.Context(), post("a", "chosen")); err != nil {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		if s := a.Stats(); s.Queued != 1 || s.Rejected != 0 {
			t.Errorf("%d queued and %d rejected, want 1 and 0", s.Queued, s.Rejected)
		}
		close(gate)
		group.Wait()
	})
}

// TestUnknownIDsApart sends one chosen secret for several clients at once. Requests of unknown clients wait for each other
// no more than those of known clients do; otherwise their duration would reveal which IDs are known.
func TestUnknownIDsApart(t *testing.T) {
	clients := registered{"a": client("a", "chosen"), "b": client("b", "chosen")}
	for name, ids := range map[string][]string{
		"known": {"a", "b"}, "unknown": {"x", "y"}, "one unknown": {"a", "x"}, "impossible": {"a b", "\x00", strings.Repeat("x", 255)},
		"a NUL": {"x", "x\x00"},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, _, gate := newBlocked(clients)
			var group sync.WaitGroup
			for _, id := range ids {
				group.Go(func() { _, _ = a.Authenticate(t.Context(), post(id, "guessed")) })
			}
			synctest.Wait()
			if got := a.Stats().Queued; got != len(ids) {
				t.Errorf("%s: %d have a place in the queue, want %d", name, got, len(ids))
			}
			close(gate)
			group.Wait()
		})
	}
}

// Of two concurrent checks of the same secret, the end of the context of one, whichever came first, ends that one
// alone.
func TestSameSecretOwnContext(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	for name, timeouts := range map[string][2]time.Duration{
		"the first gives up": {time.Second, time.Hour}, "the second gives up": {time.Hour, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, _, gate := newBlocked(clients)
			var guessing, group sync.WaitGroup
			for range clientauth.Parallel() {
				guessing.Go(func() { _, _ = a.Authenticate(t.Context(), post("a", guess())) })
			}
			synctest.Wait()
			var errs [2]error
			for i, timeout := range timeouts {
				group.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), timeout)
					defer cancel()
					_, errs[i] = a.Authenticate(ctx, post("a", "chosen"))
				})
				synctest.Wait()
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			a.SetFind(hasher.Match)
			close(gate)
			guessing.Wait()
			group.Wait()
			for i, timeout := range timeouts {
				if gaveUp := errors.Is(errs[i], context.DeadlineExceeded); gaveUp != (timeout == time.Second) || !gaveUp && errs[i] != nil {
					t.Errorf("%s: with a timeout of %s: got %v", name, timeout, errs[i])
				}
			}
		})
	}
}

// Concurrent requests with the same wrong secret are checked, and counted as failures, one by one.
func TestSameWrongSecret(t *testing.T) {
	const failures, requests = 3, 10
	a := newLimited(registered{"a": client("a", "chosen")}, failures, 0)
	c := count(a)
	var group sync.WaitGroup
	var failed, limited atomic.Int64
	for range requests {
		group.Go(func() {
			if try(t, a, "a", "guess", here) == "429" {
				limited.Add(1)
			} else {
				failed.Add(1)
			}
		})
	}
	group.Wait()
	if failed.Load() != failures || limited.Load() != requests-failures {
		t.Errorf("%d failed and %d were limited, want %d and %d", failed.Load(), limited.Load(), failures, requests-failures)
	}
	if slow, limit := c.slow.Load(), int64(failures+clientauth.Parallel()); slow < failures || slow > limit {
		t.Errorf("%d slow hashes, want %d to %d", slow, failures, limit)
	}
}

func TestSlowHashesAreBounded(t *testing.T) {
	clients := registered{"a": client("a", "chosen"), "fast": client("fast", generated)}
	synctest.Test(t, func(t *testing.T) {
		a, started, gate := newBlocked(clients)
		var group sync.WaitGroup
		refused := make(chan *oauth.Error, 2*clientauth.MaxQueued)
		for range clientauth.MaxQueued + 10 {
			group.Go(func() {
				_, err := a.Authenticate(t.Context(), post("a", guess()))
				refused <- oauth.From(err)
			})
		}
		synctest.Wait()
		if got := started.Load(); got != int64(clientauth.Parallel()) {
			t.Errorf("%d slow hashes started, want %d", got, clientauth.Parallel())
		}
		if len(refused) != 10 {
			t.Errorf("%d requests refused at once, want 10", len(refused))
		}
		if s := a.Stats(); s.Queued != clientauth.MaxQueued || s.Running != clientauth.Parallel() || s.Rejected != 10 || s.Places != clientauth.MaxQueued {
			t.Errorf("while the hashes are computed: got %+v", s)
		}
		for range len(refused) {
			if e := <-refused; e.Code != oauth.TemporarilyUnavailable || !e.Limited || e.RetryAfter <= 0 {
				t.Errorf("got %+v, want a limit with RetryAfter", e)
			}
		}
		close(gate)
		group.Wait()
		for range clientauth.MaxQueued {
			if e := <-refused; e.Code != oauth.InvalidClient {
				t.Errorf("got %v, want %s", e, oauth.InvalidClient)
			}
		}
		if s := a.Stats(); s.Queued != 0 || s.Running != 0 || s.Chosen.Wrong != uint64(clientauth.MaxQueued) {
			t.Errorf("afterwards: got %+v", s)
		}
	})
	// Generated secrets do not wait for chosen ones.
	synctest.Test(t, func(t *testing.T) {
		a, _, gate := newBlocked(clients)
		var group sync.WaitGroup
		for range clientauth.MaxQueued {
			group.Go(func() { _, _ = a.Authenticate(t.Context(), post("a", guess())) })
		}
		synctest.Wait()
		if _, err := a.Authenticate(t.Context(), post("fast", generated)); err != nil {
			t.Errorf("got %v", err)
		}
		close(gate)
		group.Wait()
	})
}

func TestCallerStopsWaiting(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	synctest.Test(t, func(t *testing.T) {
		a, started, gate := newBlocked(clients)
		var group sync.WaitGroup
		for range clientauth.Parallel() {
			group.Go(func() { _, _ = a.Authenticate(t.Context(), post("a", guess())) })
		}
		synctest.Wait()
		// There are more of them than places: each frees its place when its context ends.
		for range clientauth.MaxQueued + 1 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := a.Authenticate(ctx, post("a", guess()))
			cancel()
			if e := oauth.From(err); e.Code != oauth.TemporarilyUnavailable || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, want %s for %v", err, oauth.TemporarilyUnavailable, context.DeadlineExceeded)
			}
		}
		if got := started.Load(); got != int64(clientauth.Parallel()) {
			t.Errorf("%d slow hashes started, want %d", got, clientauth.Parallel())
		}
		close(gate)
		group.Wait()
	})
}

// A host cannot take more places by using many IPv6 networks: all networks of its site count together.
func TestSiteShare(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	synctest.Test(t, func(t *testing.T) {
		a, _, gate := newBlocked(clients)
		var group sync.WaitGroup
		wait := func(format string, n int) {
			e := post("a", guess())
			e.Source = netip.MustParseAddr(fmt.Sprintf(format, n))
			group.Go(func() { _, _ = a.Authenticate(t.Context(), e) })
			synctest.Wait()
		}
		for n := range clientauth.MaxPerSite + 10 {
			wait("2001:db8:1:%x::1", n)
		}
		if s := a.Stats(); s.Queued != clientauth.MaxPerSite || s.Rejected != 10 {
			t.Errorf("one site: %d queued and %d rejected, want %d and 10", s.Queued, s.Rejected, clientauth.MaxPerSite)
		}
		for n := range clientauth.MaxPerSource + 1 {
			wait("2001:db8:2:1::%x", n)
		}
		if s := a.Stats(); s.Queued != clientauth.MaxPerSite+clientauth.MaxPerSource {
			t.Errorf("two sites: %d queued, want %d", s.Queued, clientauth.MaxPerSite+clientauth.MaxPerSource)
		}
		close(gate)
		group.Wait()
		if s := a.Stats(); s.Queued != 0 {
			t.Errorf("afterwards: %d queued, want 0", s.Queued)
		}
		wait("2001:db8:1:%x::1", 0)
		if s := a.Stats(); s.Rejected != 11 {
			t.Error("afterwards: the site has no place")
		}
	})
}

// One source cannot take every place in the queue: a client at another source is authenticated.
func TestSourceShare(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	a := newAuthenticator(clients)
	gate, entered := make(chan struct{}), make(chan struct{}, clientauth.MaxQueued)
	a.SetFind(func([]clientsecret.Secret, string, time.Time) int {
		entered <- struct{}{}
		<-gate
		return 0
	})
	var flood sync.WaitGroup
	refused := make(chan error, clientauth.MaxQueued)
	for range clientauth.MaxQueued {
		flood.Go(func() {
			e := post("a", rand.Text())
			e.Source = here
			if _, err := a.Authenticate(t.Context(), e); err != nil {
				refused <- err
			}
		})
	}
	for range clientauth.Parallel() {
		<-entered
	}
	for range clientauth.MaxQueued - clientauth.MaxPerSource {
		if err := <-refused; oauth.From(err).Code != oauth.TemporarilyUnavailable || !oauth.From(err).Limited {
			t.Fatalf("beyond the share: got %v, want a limit", err)
		}
	}
	done := make(chan error, 1)
	go func() {
		e := post("a", "chosen")
		e.Source = there
		_, err := a.Authenticate(t.Context(), e)
		done <- err
	}()
	close(gate)
	if err := <-done; err != nil {
		t.Errorf("from another source: got %v", err)
	}
	flood.Wait()
}
