package service_test

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
)

// outage is short by default, so that these tests run with all others; make faults sets a longer one.
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

// status returns the HTTP status that a caller with the token gets.
func (g *guarded) status(raw string) int {
	call := httptest.NewRequest(http.MethodGet, "/", nil)
	call.Header.Set("Authorization", "Bearer "+raw)
	answer := httptest.NewRecorder()
	g.api.ServeHTTP(answer, call)
	return answer.Code
}

// frozen is an outage of the Redis, and what is expected of each call during it.
type frozen struct {
	*testing.T
	// recent is a time before the outage at which the knowledge of all replicas and services was at most a second old.
	recent, since time.Time
	// limit is the maximum age of the knowledge.
	limit time.Duration
}

// expect makes a call that succeeds until the knowledge is too old, and is refused from then on.
func (f *frozen) expect(what string, call func() (refused bool)) {
	f.Helper()
	began := time.Since(f.since)
	refused := call()
	if ended := time.Since(f.recent); refused && ended < f.limit-time.Second {
		f.Errorf("%s: refused %s after the knowledge was at most a second old, want that only when it is older than %s", what, ended, f.limit)
	}
	if !refused && began > f.limit+500*time.Millisecond {
		f.Errorf("%s: answered after %s, want no answer after %s", what, began, f.limit)
	}
}

// TestOutageOfStore freezes the Redis under two replicas and the services that follow them. The documented behaviour holds
// throughout, and afterwards everything recovers by itself.
func TestOutageOfStore(t *testing.T) {
	c := newCluster(t)
	c.staleness = *outage / 2
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	must.Succeed(t, b.CatchUp(withTimeout(t, timeout)))
	left, acknowledged, tried := a.token(t), a.token(t), a.token(t)
	replicas := []*replica{a, b}
	var lenient, strict []*guarded
	for _, r := range replicas {
		r.token(t) // from here on its client is in memory; with the next line the other one is too
		r.expectActive(t, left, true)
		lenient = append(lenient, r.guard(t, verify.MaxStaleness(c.staleness)))
		strict = append(strict, r.guard(t, verify.MaxStaleness(c.staleness), verify.RefuseWhenStale()))
	}
	services := slices.Concat(lenient, strict)

	f := &frozen{T: t, limit: c.staleness}
	must.Eventually(t, "the knowledge is recent", func() bool {
		f.recent = time.Now()
		return !slices.ContainsFunc(replicas, func(r *replica) bool { return r.Status().FeedAge > time.Second }) &&
			!slices.ContainsFunc(services, func(g *guarded) bool { f := g.Feed(); return !f.Complete || f.Age > time.Second })
	})
	must.Succeed(t, a.revoke(t.Context(), acknowledged)) // and no other replica has time to read it
	c.redis.Freeze()
	t.Cleanup(c.redis.Thaw) // so that the replicas of a failing test can stop
	f.since = time.Now()
	// These calls need the Redis and wait for it in vain; concurrent calls must not.
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
					t.Error("introspecting: a valid token is reported as inactive")
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
				t.Errorf("verifying: got %d, want %d", status, http.StatusOK)
			}
		}
	}
	waiting.Wait()
	for _, r := range replicas {
		expectCode(t, r.revoke(t.Context(), tried), codes.Unavailable)
		expectCode(t, r.revokeOther(t), codes.Unavailable)
		if r.Ready() == nil {
			t.Error("a replica reports that it is ready")
		}
		if got := r.log.count("the feed cannot be read"); got != 1 {
			t.Errorf("the outage is logged %d times, want once", got)
		}
	}
	for _, g := range services {
		if got := g.Feed(); !got.Complete || got.StaleCalls == 0 || got.Age < *outage-time.Second/2 || got.Age > *outage+timeout {
			t.Errorf("got %+v after an outage of %s", got, *outage)
		}
	}

	c.redis.Thaw()
	for _, r := range replicas {
		must.Eventually(t, "the replica issues again", func() bool {
			_, err := r.issue(t.Context())
			return !unavailable(t, err)
		})
	}
	must.Eventually(t, "the refused revocation succeeds", func() bool { return a.revoke(t.Context(), tried) == nil })
	late := b.token(t)
	must.Succeed(t, b.revoke(t.Context(), late))
	for _, r := range replicas {
		must.Succeed(t, r.CatchUp(withTimeout(t, timeout)))
		r.expectActive(t, left, true)
	}
	for _, g := range services {
		must.Eventually(t, "the knowledge of a service is recent", func() bool { return g.Feed().Age < c.staleness })
		if got := g.status(left); got != http.StatusOK {
			t.Errorf("a valid token: got %d", got)
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

// unavailable reports whether a call failed. It may fail with one code only.
func unavailable(t *testing.T, err error) bool {
	t.Helper()
	if err != nil {
		expectCode(t, err, codes.Unavailable)
	}
	return err != nil
}

// revokeOther revokes all tokens of a client that has none, because a revocation that is not acknowledged may still be made.
func (r *replica) revokeOther(t *testing.T) error {
	t.Helper()
	_, err := r.tokens.RevokeClientTokens(t.Context(), &grantorv1.RevokeClientTokensRequest{ClientId: "res1", ClientSecret: secret})
	return err
}
