package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// guarded is an API behind a verifier that follows the issuer's feed.
type guarded struct {
	*verify.Verifier
	api http.Handler
}

func newGuarded(t testing.TB, issuer string, options ...verify.Option) *guarded {
	t.Helper()
	v, err := verify.New(t.Context(), issuer, append(options, verify.Audience("https://orders.internal"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return &guarded{v, verify.HTTP(v, verify.Scopes("api1"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))}
}

// admits reports whether the API accepts the token.
func (g *guarded) admits(token string) bool { return g.status(token) == http.StatusOK }

// status returns the status of a request with the token.
func (g *guarded) status(token string) int {
	call := httptest.NewRequest(http.MethodGet, "/", nil)
	call.Header.Set("Authorization", "Bearer "+token)
	answer := httptest.NewRecorder()
	g.api.ServeHTTP(answer, call)
	return answer.Code
}

// revoke revokes a token as its client.
func revoke(t testing.TB, r *servetest.Replica, token string) {
	t.Helper()
	answer, err := http.PostForm(r.URL("/connect/revoke"), url.Values{
		"client_id": {"background-service"}, "client_secret": {"service-secret-here"}, "token": {token},
	})
	if err != nil {
		t.Fatal(err)
	}
	if body := servetest.ReadBody(t, answer); answer.StatusCode != http.StatusOK || body != "{}" {
		t.Fatalf("revoking: got %s %s, want 200 {}", answer.Status, body)
	}
}

// TestRevocationReaches revokes a token at one replica, and expects a verifier that follows the other one to refuse it.
func TestRevocationReaches(t *testing.T) {
	redis := redistest.New(t)
	args := servetest.Production(redis, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest))
	first, err := servetest.Try(t, append(args, "--issuer=http://localhost:1")...)
	if err != nil {
		t.Fatal(err)
	}
	second, err := servetest.Try(t, append(args, "--issuer=http://localhost:1")...)
	if err != nil {
		t.Fatal(err)
	}
	api := newGuarded(t, "http://localhost:1", verify.OverGRPC(servetest.Dial(t, second.GRPCAddr())))
	kept, revoked := first.Token(t), first.Token(t)
	if !api.admits(kept) || !api.admits(revoked) {
		t.Fatal("a good token is refused")
	}
	revoke(t, first, revoked)
	must.Eventually(t, "refusing the revoked token", func() bool { return !api.admits(revoked) })
	if !api.admits(kept) {
		t.Error("a token that was not revoked is refused")
	}
}

// BenchmarkRevocationReaches measures the time from the response to a revocation to the refusal of the token by the
// last of 1, 10 and 100 verifiers, each of which has the token in its cache. It reports the median and the 99th
// percentile.
func BenchmarkRevocationReaches(b *testing.B) {
	for _, verifiers := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("verifiers=%d", verifiers), func(b *testing.B) {
			redis := redistest.New(b)
			r, err := servetest.Try(b, append(servetest.Production(redis, servetest.KEKFile(b), servetest.WriteFile(b, "clients.yaml", servetest.Manifest)), "--issuer=http://localhost:1", "--log-level=error")...)
			if err != nil {
				b.Fatal(err)
			}
			apis := make([]*guarded, verifiers)
			for i := range apis {
				apis[i] = newGuarded(b, "http://localhost:1", verify.OverGRPC(servetest.Dial(b, r.GRPCAddr())))
			}
			var took []time.Duration
			for b.Loop() {
				token := r.Token(b)
				for _, api := range apis {
					if !api.admits(token) {
						b.Fatal("a good token is refused")
					}
				}
				revoke(b, r, token)
				took = append(took, untilRefused(apis, token))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
		})
	}
}

// untilRefused returns how long it takes until the last API refuses the token.
func untilRefused(apis []*guarded, token string) time.Duration {
	start := time.Now()
	var asking sync.WaitGroup
	for _, api := range apis {
		asking.Go(func() {
			// Polling without a pause would take processor time from what is measured.
			for ticker := time.NewTicker(time.Millisecond); api.admits(token); <-ticker.C {
			}
		})
	}
	asking.Wait()
	return time.Since(start)
}
