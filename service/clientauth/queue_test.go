package clientauth_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
)

// blocked makes an authenticator whose slow hashes take until the gate is closed.
func blocked(clients registered) (a *clientauth.Authenticator, underWay *atomic.Int64, gate chan struct{}) {
	a, underWay, gate = newAuthenticator(clients), &atomic.Int64{}, make(chan struct{})
	a.Pretend(func(secrets []clientsecret.Secret, secret string, now time.Time) int {
		if clientsecret.Generated(secret) {
			return hasher.Match(secrets, secret, now)
		}
		underWay.Add(1)
		<-gate
		return -1
	})
	return a, underWay, gate
}

// guesses numbers the guesses: the same secret of the same client takes one place, however many send it.
var guesses atomic.Int64

func guess() string { return fmt.Sprint("guess ", guesses.Add(1)) }

// TestSameSecretTakesOnePlace has a client whose many processes come at once with a secret that is not known yet.
func TestSameSecretTakesOnePlace(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	synctest.Test(t, func(t *testing.T) {
		a, gate := newAuthenticator(clients), make(chan struct{})
		a.Pretend(func([]clientsecret.Secret, string, time.Time) int {
			<-gate
			return 0
		})
		var group sync.WaitGroup
		for range 2 * clientauth.Queued {
			group.Go(func() {
				if _, _, err := a.Authenticate(t.Context(), post("a", "chosen")); err != nil {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		if s := a.Stats(); s.Queued != 1 || s.Rejected != 0 {
			t.Errorf("%d have a place and %d found none, want one and none", s.Queued, s.Rejected)
		}
		close(gate)
		group.Wait()
	})
}

func TestSlowHashesAreBounded(t *testing.T) {
	clients := registered{"a": client("a", "chosen"), "fast": client("fast", generated)}
	synctest.Test(t, func(t *testing.T) {
		a, underWay, gate := blocked(clients)
		var group sync.WaitGroup
		refused := make(chan *oauth.Error, 2*clientauth.Queued)
		for range clientauth.Queued + 10 {
			group.Go(func() {
				_, _, err := a.Authenticate(t.Context(), post("a", guess()))
				refused <- oauth.From(err)
			})
		}
		synctest.Wait()
		if got := underWay.Load(); got != int64(clientauth.Parallel()) {
			t.Errorf("%d slow hashes under way, want %d", got, clientauth.Parallel())
		}
		if len(refused) != 10 {
			t.Errorf("%d refused at once, want 10", len(refused))
		}
		if s := a.Stats(); s.Queued != clientauth.Queued || s.Running != clientauth.Parallel() || s.Rejected != 10 || s.Places != clientauth.Queued {
			t.Errorf("meanwhile: %+v", s)
		}
		for range len(refused) {
			if e := <-refused; e.Code != oauth.TemporarilyUnavailable || !e.Limited || e.RetryAfter <= 0 {
				t.Errorf("got %+v, want a limit with the time to wait", e)
			}
		}
		close(gate)
		group.Wait()
		for range clientauth.Queued {
			if e := <-refused; e.Code != oauth.InvalidClient {
				t.Errorf("got %v, want %s", e, oauth.InvalidClient)
			}
		}
		if s := a.Stats(); s.Queued != 0 || s.Running != 0 || s.Chosen.Wrong != uint64(clientauth.Queued) {
			t.Errorf("afterwards: %+v", s)
		}
	})
	// Generated secrets do not wait for chosen ones.
	synctest.Test(t, func(t *testing.T) {
		a, _, gate := blocked(clients)
		var group sync.WaitGroup
		for range clientauth.Queued {
			group.Go(func() { _, _, _ = a.Authenticate(t.Context(), post("a", guess())) })
		}
		synctest.Wait()
		if _, _, err := a.Authenticate(t.Context(), post("fast", generated)); err != nil {
			t.Errorf("got %v", err)
		}
		close(gate)
		group.Wait()
	})
}

func TestCallerStopsWaiting(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	synctest.Test(t, func(t *testing.T) {
		a, underWay, gate := blocked(clients)
		var group sync.WaitGroup
		for range clientauth.Parallel() {
			group.Go(func() { _, _, _ = a.Authenticate(t.Context(), post("a", guess())) })
		}
		synctest.Wait()
		// More than the queue holds: each gives its place back when it stops waiting.
		for range clientauth.Queued + 1 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _, err := a.Authenticate(ctx, post("a", guess()))
			cancel()
			if e := oauth.From(err); e.Code != oauth.TemporarilyUnavailable || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, want %s for %v", err, oauth.TemporarilyUnavailable, context.DeadlineExceeded)
			}
		}
		if got := underWay.Load(); got != int64(clientauth.Parallel()) {
			t.Errorf("%d slow hashes were begun, want %d", got, clientauth.Parallel())
		}
		close(gate)
		group.Wait()
	})
}

// One host cannot take more places by many IPv6 networks: all of its site count together.
func TestSiteShare(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	synctest.Test(t, func(t *testing.T) {
		a, _, gate := blocked(clients)
		var group sync.WaitGroup
		wait := func(format string, n int) {
			e := post("a", guess())
			e.Source = netip.MustParseAddr(fmt.Sprintf(format, n))
			group.Go(func() { _, _, _ = a.Authenticate(t.Context(), e) })
			synctest.Wait()
		}
		for n := range clientauth.SiteShare + 10 {
			wait("2001:db8:1:%x::1", n)
		}
		if s := a.Stats(); s.Queued != clientauth.SiteShare || s.Rejected != 10 {
			t.Errorf("of one site %d wait and %d were refused, want %d and 10", s.Queued, s.Rejected, clientauth.SiteShare)
		}
		for n := range clientauth.SourceShare + 1 {
			wait("2001:db8:2:1::%x", n)
		}
		if s := a.Stats(); s.Queued != clientauth.SiteShare+clientauth.SourceShare {
			t.Errorf("of two sites %d wait, want %d", s.Queued, clientauth.SiteShare+clientauth.SourceShare)
		}
		close(gate)
		group.Wait()
		if s := a.Stats(); s.Queued != 0 {
			t.Errorf("afterwards %d wait", s.Queued)
		}
		wait("2001:db8:1:%x::1", 0)
		if s := a.Stats(); s.Rejected != 11 {
			t.Error("the site has no places afterwards")
		}
	})
}

// One source cannot take every place in the queue: a client elsewhere gets in.
func TestSourceShare(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	a := newAuthenticator(clients)
	gate, entered := make(chan struct{}), make(chan struct{}, clientauth.Queued)
	a.Pretend(func([]clientsecret.Secret, string, time.Time) int {
		entered <- struct{}{}
		<-gate
		return 0
	})
	var flood sync.WaitGroup
	refused := make(chan error, clientauth.Queued)
	for range clientauth.Queued {
		flood.Go(func() {
			e := post("a", rand.Text())
			e.Source = here
			if _, _, err := a.Authenticate(t.Context(), e); err != nil {
				refused <- err
			}
		})
	}
	for range clientauth.Parallel() {
		<-entered
	}
	for range clientauth.Queued - clientauth.SourceShare {
		if err := <-refused; oauth.From(err).Code != oauth.TemporarilyUnavailable || !oauth.From(err).Limited {
			t.Fatalf("beyond the share: got %v, want a limit", err)
		}
	}
	done := make(chan error, 1)
	go func() {
		e := post("a", "chosen")
		e.Source = there
		_, _, err := a.Authenticate(t.Context(), e)
		done <- err
	}()
	close(gate)
	if err := <-done; err != nil {
		t.Errorf("from elsewhere: got %v, want in", err)
	}
	flood.Wait()
}
