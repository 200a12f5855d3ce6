//go:build conformance

package conformance_test

import (
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestConformanceCSharp compiles the example in C# as its README says and runs it with Mono. It has no gRPC and no server.
func TestConformanceCSharp(t *testing.T) {
	t.Parallel()
	e := example{name: "csharp", client: "mono bin/Invoices.exe"}
	dir := e.copy(t)
	shell(t, dir, commands(t, dir, first))
	issuer := newInvoicesIssuer(t)
	t.Run("renewal", func(t *testing.T) {
		t.Parallel()
		front := newTokenCounter(t, issuer)
		log, stop := e.startClient(t, dir, "short-lived", front, newGoAPI(t, issuer.URL))
		wantListedHTTP(t, log, 20)
		if got := front.count(); got != 1 {
			t.Errorf("got %d token requests for 20 calls, want 1", got)
		}
		until(t, log, "the token is renewed", func() bool { return front.count() > 1 })
		wantListedHTTP(t, log, strings.Count(log.String(), "over=http")+20)
		stop()
		age := front.times[1].Sub(front.times[0])
		if age < 7*time.Second || age > 9500*time.Millisecond || strings.Contains(log.String(), "failed") {
			t.Errorf("got a renewal after %s, want 8 s and no failure:\n%s", age, log)
		}
	})
	t.Run("outage", func(t *testing.T) {
		t.Parallel()
		e.testOutageHTTP(t, dir, issuer)
	})
}

// testOutageHTTP runs the client while the issuer is down and back, and while the API refuses its token.
func (e example) testOutageHTTP(t *testing.T, dir string, issuer *tokentest.Issuer) {
	t.Helper()
	api := &moodyAPI{}
	front := newTokenCounter(t, issuer)
	front.down.Store(true)
	log, _ := e.startClient(t, dir, "background-service", front, api.serve(t))
	until(t, log, "calls fail without a token", func() bool { return strings.Contains(log.String(), "failed over=http") })
	front.down.Store(false)
	wantListedHTTP(t, log, 1)
	failures := strings.Count(log.String(), "listing failed")

	api.refuseHTTP.Store(api.seen.Load())
	until(t, log, "the client has a second token", func() bool { return front.count() == 2 })
	front.down.Store(true)
	wantListedHTTP(t, log, strings.Count(log.String(), "listed over=http")+20)
	if got := strings.Count(log.String(), "listing failed"); got != failures || front.count() != 2 {
		t.Errorf("got %d failures and %d token requests, want %d and 2:\n%s", got, front.count(), failures, log)
	}

	// With the issuer down, a token that is refused cannot be replaced. The loop goes on.
	refused := api.seen.Load()
	api.refuseHTTP.Store(refused)
	until(t, log, "calls fail", func() bool { return strings.Count(log.String(), "listing failed") > failures })
	front.down.Store(false)
	until(t, log, "the client has another token", func() bool { return api.seen.Load() != refused })
	wantListedHTTP(t, log, strings.Count(log.String(), "listed over=http")+5)
}

// wantListedHTTP waits until the client has listed the invoices n times.
func wantListedHTTP(t *testing.T, log *must.Buffer, n int) {
	t.Helper()
	until(t, log, "the client lists invoices", func() bool {
		return strings.Count(log.String(), "listed over=http invoices=2026-001") >= n
	})
}
