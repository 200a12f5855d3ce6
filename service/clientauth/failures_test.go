package clientauth_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

var here, there = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

func limiter(perClient, perSource int) *limit.Limiter {
	return limit.New(limit.Config{
		Limits: limit.Limits{FailuresPerClient: perClient, FailuresPerSource: perSource}, Now: func() time.Time { return start },
	})
}

func newLimited(clients registered, perClient, perSource int) *clientauth.Authenticator {
	return clientauth.New(clientauth.Config{
		Clients: clients, Hasher: hasher, Uses: &uses{}, Failures: limiter(perClient, perSource), Now: func() time.Time { return start },
	})
}

// try authenticates with the secret from the source and returns the error code, "429" for a limit or "" for success.
func try(t *testing.T, a *clientauth.Authenticator, id, secret string, source netip.Addr) string {
	t.Helper()
	e := post(id, secret)
	e.Source = source
	_, err := a.Authenticate(t.Context(), e)
	if err == nil {
		return ""
	}
	refusal := oauth.From(err)
	if !refusal.Limited {
		return string(refusal.Code)
	}
	if refusal.Code != oauth.TemporarilyUnavailable || refusal.Reason != oauth.TooManyFailures || refusal.RetryAfter <= 0 {
		t.Errorf("got %+v, want a limit with its reason and RetryAfter", refusal)
	}
	return "429"
}

// The limit is the same for every claimed client and every cause of failure. Beyond it, failures cost no slow hash.
func TestFailuresAreBounded(t *testing.T) {
	clients := clientsOfAllKinds()
	clients["elsewhere"] = client("elsewhere", "chosen", generated)
	clients["elsewhere"].AllowedNetworks = remoteaddr.Networks{netip.MustParsePrefix("198.51.100.0/24")}
	for _, id := range []string{"unknown", "fast", "slow", "bare", "three", "disabled", "post", "expired", "elsewhere", "no id"} {
		for _, secret := range []string{"guess", clientsecret.New()} {
			a := newLimited(clients, 3, 0)
			c := count(a)
			for n := range 6 {
				want := string(oauth.InvalidClient)
				if n >= 3 {
					want = "429"
				}
				if got := try(t, a, id, secret, here); got != want {
					t.Errorf("%s, try %d: got %q, want %q", id, n+1, got, want)
				}
			}
			if slow := c.slow.Load(); slow > 3 {
				t.Errorf("%s: %d slow hashes, want 3", id, slow)
			}
			if got := try(t, a, id, secret, there); got != string(oauth.InvalidClient) {
				t.Errorf("%s from another source: got %q", id, got)
			}
		}
	}
}

// A client with the right secret is not locked out by another caller that guesses.
func TestTrueClient(t *testing.T) {
	clients := registered{"fast": client("fast", generated), "slow": client("slow", "chosen"), "other": client("other", "chosen too")}
	a := newLimited(clients, 3, 5)
	if got := try(t, a, "slow", "chosen", here); got != "" {
		t.Fatalf("before: got %q", got)
	}
	for n := range 10 {
		for _, id := range []string{"fast", "slow"} {
			try(t, a, id, "guess "+fmt.Sprint(n), here)
			try(t, a, id, clientsecret.New(), here)
		}
	}
	for _, test := range []struct {
		name, id, secret string
		source           netip.Addr
		want             string
	}{
		{"generated, from the source of guesses", "fast", generated, here, ""},
		{"chosen and proven, from the source of guesses", "slow", "chosen", here, ""},
		{"chosen and not proven, from the source of guesses", "other", "chosen too", here, "429"},
		{"wrong, from the source of guesses, for an unknown client", "new", "guess", here, "429"},
		{"generated, from another source", "fast", generated, there, ""},
		{"wrong, from another source", "fast", "guess", there, "invalid_client"},
		{"chosen and not proven, from another source", "other", "chosen too", there, ""},
	} {
		if got := try(t, a, test.id, test.secret, test.source); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestAllowedNetworks(t *testing.T) {
	c := client("a", generated, "chosen")
	c.AllowedNetworks = remoteaddr.Networks{netip.MustParsePrefix("192.0.2.0/31"), netip.MustParsePrefix("2001:db8::/32")}
	a := newAuthenticator(registered{"a": c})
	for source, want := range map[string]string{
		"192.0.2.1": "", "::ffff:192.0.2.1": "", "192.0.2.2": "invalid_client", "::ffff:192.0.2.2": "invalid_client",
		"2001:db8::1": "", "2001:db8::1%eth0": "", "2001:db9::1": "invalid_client", "": "invalid_client", "::": "invalid_client",
	} {
		address, _ := netip.ParseAddr(source)
		for _, secret := range []string{generated, "chosen"} {
			if got := try(t, a, "a", secret, address); got != want {
				t.Errorf("%s from %q: got %q, want %q", secret, source, got, want)
			}
		}
	}
	e := post("a", generated)
	e.Source = there
	if _, err := a.Authenticate(t.Context(), e); oauth.From(err).Why() != oauth.NetworkNotAllowed {
		t.Errorf("got %v with the reason %q, want %q", err, oauth.From(err).Why(), oauth.NetworkNotAllowed)
	}
}

// Sources from which authentications failed, however many, leave half of the queue to the others.
func TestSuspectShare(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	a := newLimited(clients, 1000, 0)
	suspects := make([]netip.Addr, clientauth.MaxQueued)
	for i := range suspects {
		suspects[i] = netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
		if got := try(t, a, "a", clientsecret.New(), suspects[i]); got != "invalid_client" {
			t.Fatalf("got %q", got)
		}
	}
	gate := make(chan struct{})
	a.SetFind(func([]clientsecret.Secret, string, time.Time) int {
		<-gate
		return 0
	})
	var waiting sync.WaitGroup
	refused := make(chan error, clientauth.MaxQueued)
	for i, source := range suspects {
		waiting.Go(func() {
			e := post("a", fmt.Sprint("guess ", i))
			e.Source = source
			if _, err := a.Authenticate(t.Context(), e); err != nil {
				refused <- err
			}
		})
	}
	for range clientauth.MaxQueued - clientauth.MaxSuspects {
		if err := <-refused; !oauth.From(err).Limited {
			t.Fatalf("got %v, want a limit", err)
		}
	}
	done := make(chan string, 1)
	go func() { done <- try(t, a, "a", "chosen", there) }()
	close(gate)
	if got := <-done; got != "" {
		t.Errorf("from another source: got %q", got)
	}
	waiting.Wait()
}
