package service_test

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/must"

	"google.golang.org/grpc/codes"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
)

// outage is short by default, so that these tests run with all others; make faults has longer ones.
var outage = flag.Duration("outage", 5*time.Second, "how long the outage lasts in the tests TestOutage...")

// guarded is another service: an API behind a verifier that follows a replica.
type guarded struct {
	*verify.Verifier
	api http.Handler
}

func (r *replica) guard(t testing.TB, options ...verify.Option) *guarded {
	t.Helper()
	v, err := verify.New(t.Context(), "https://issuer.test", append(options, verify.Audience(resource), verify.OverGRPC(r.conn))...)
	must.Succeed(t, err)
	t.Cleanup(v.Close)
	return &guarded{v, verify.HTTP(v, verify.Scopes("api1"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))}
}

// status is what a caller with the token gets.
func (g *guarded) status(raw string) int {
	call := httptest.NewRequest(http.MethodGet, "/", nil)
	call.Header.Set("Authorization", "Bearer "+raw)
	answer := httptest.NewRecorder()
	g.api.ServeHTTP(answer, call)
	return answer.Code
}

// frozen is an outage of the Redis and what each call made in it must come to.
type frozen struct {
	*testing.T
	since time.Time
	// limit is how old the knowledge may be.
	limit time.Duration
}

// expect makes a call that goes on until the knowledge is too old and is refused from then on. When the Redis froze, the
// knowledge may have been a second old already, on a busy machine.
func (f *frozen) expect(what string, call func() (refused bool)) {
	f.Helper()
	began := time.Since(f.since)
	refused := call()
	ended := time.Since(f.since)
	if refused && ended < f.limit-time.Second {
		f.Errorf("%s: refused after %s, want that only after %s", what, ended, f.limit)
	}
	if !refused && began > f.limit+500*time.Millisecond {
		f.Errorf("%s: answered after %s, want no answer after %s", what, began, f.limit)
	}
}

// TestOutageOfStore freezes the Redis under two replicas and the services that follow them. What the README's table says
// holds all the while, and afterwards everything goes on by itself.
func TestOutageOfStore(t *testing.T) {
	c := newCluster(t)
	c.staleness = *outage / 2
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	must.Succeed(t, b.CatchUp(within(t, patience)))
	left, acknowledged, tried := a.token(t), a.token(t), a.token(t)
	replicas := []*replica{a, b}
	var lenient, strict []*guarded
	for _, r := range replicas {
		r.token(t) // from here on its client is in memory, and with the next line so is the other one
		r.expectActive(t, left, true)
		lenient = append(lenient, r.guard(t, verify.MaxStaleness(c.staleness)))
		strict = append(strict, r.guard(t, verify.MaxStaleness(c.staleness), verify.RefuseWhenStale()))
	}
	services := slices.Concat(lenient, strict)

	must.Succeed(t, a.revoke(t.Context(), acknowledged)) // and nobody has time to hear of it
	c.redis.Freeze()
	t.Cleanup(c.redis.Thaw) // for a test that fails, whose replicas could not stop otherwise
	f := &frozen{t, time.Now(), c.staleness}
	// These need the Redis, so they wait for it in vain; who asks beside them must not.
	var waiting sync.WaitGroup
	waiting.Go(func() { expectCode(t, a.revoke(t.Context(), tried), codes.Unavailable) })
	waiting.Go(func() { expectCode(t, b.revokeOther(t), codes.Unavailable) })
	waiting.Go(func() {
		_, err := b.tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
			GrantType: "client_credentials", ClientId: "unheard-of", ClientSecret: secret,
		})
		expectCode(t, err, codes.Unavailable)
	})
	for tick := time.NewTicker(50 * time.Millisecond); time.Since(f.since) < *outage; <-tick.C {
		for i, r := range replicas {
			f.expect("issuing", func() bool {
				_, err := r.issue(t.Context())
				return unavailable(t, err)
			})
			f.expect("introspecting", func() bool {
				answer, err := r.ask(t.Context(), left)
				if err == nil && !answer.GetActive() {
					t.Error("introspecting: a good token is called inactive")
				}
				return unavailable(t, err)
			})
			f.expect("verifying with RefuseWhenStale", func() bool {
				status := strict[i].status(left)
				if status != http.StatusOK && status != http.StatusServiceUnavailable {
					t.Errorf("verifying with RefuseWhenStale: got %d", status)
				}
				return status != http.StatusOK
			})
			if status := lenient[i].status(left); status != http.StatusOK {
				t.Errorf("verifying: got %d, want it to go on", status)
			}
		}
	}
	waiting.Wait()
	for _, r := range replicas {
		expectCode(t, r.revoke(t.Context(), tried), codes.Unavailable)
		expectCode(t, r.revokeOther(t), codes.Unavailable)
		if r.Ready() == nil {
			t.Error("a replica calls itself ready")
		}
		if got := r.log.count("the feed cannot be read"); got != 1 {
			t.Errorf("the log tells %d times of the outage, want once", got)
		}
	}
	for _, g := range services {
		if got := g.Feed(); !got.Complete || got.StaleCalls == 0 || got.Age < *outage-time.Second/2 || got.Age > *outage+patience {
			t.Errorf("got %+v after an outage of %s", got, *outage)
		}
	}

	c.redis.Thaw()
	for _, r := range replicas {
		must.Eventually(t, "it issues again", func() bool {
			_, err := r.issue(t.Context())
			return !unavailable(t, err)
		})
	}
	must.Eventually(t, "what was refused can be done now", func() bool { return a.revoke(t.Context(), tried) == nil })
	late := b.token(t)
	must.Succeed(t, b.revoke(t.Context(), late))
	for _, r := range replicas {
		must.Succeed(t, r.CatchUp(within(t, patience)))
		r.expectActive(t, left, true)
	}
	for _, g := range services {
		must.Eventually(t, "a service knows what it may", func() bool { return g.Feed().Age < c.staleness })
		if got := g.status(left); got != http.StatusOK {
			t.Errorf("a good token: got %d", got)
		}
	}
	for name, raw := range map[string]string{
		"before the outage": acknowledged, "again after the outage": tried, "after the outage": late,
	} {
		for _, r := range replicas {
			r.expectActive(t, raw, false)
		}
		for _, g := range services {
			must.Eventually(t, "a service refuses the token that was revoked "+name, func() bool {
				return g.status(raw) == http.StatusUnauthorized
			})
		}
	}
}

// unavailable reports whether a call failed, which it may for one reason only.
func unavailable(t *testing.T, err error) bool {
	t.Helper()
	if err != nil {
		expectCode(t, err, codes.Unavailable)
	}
	return err != nil
}

// revokeOther takes back all tokens of a client that has none: what is not acknowledged may take place all the same.
func (r *replica) revokeOther(t *testing.T) error {
	t.Helper()
	_, err := r.tokens.RevokeClientTokens(t.Context(), &grantorv1.RevokeClientTokensRequest{ClientId: "res1", ClientSecret: secret})
	return err
}
