//go:build conformance

package conformance_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	invoicesv1 "github.com/grantorhq/grantor/examples/invoices/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// testClient runs the client with the server of each language: many calls, one token.
func (e example) testClient(t *testing.T, dir string, issuer *tokentest.Issuer, apis map[string]invoicesAPI) {
	t.Helper()
	for language, api := range apis {
		front := newTokenCounter(t, issuer)
		log, stop := e.startClient(t, dir, "background-service", front, api)
		wantListed(t, log, 20)
		state := stop()
		if failed := strings.Count(log.String(), "failed"); failed > 0 || front.count() != 1 || state.ExitCode() != e.exitStatus {
			t.Errorf("%s: got %d token requests, %d failures and %s, want 1, 0 and exit status %d:\n%s", language, front.count(), failed, state, e.exitStatus, log)
		}
	}
}

// testRenewal runs the client until it has renewed a token that expires after 10 s. No call fails.
func (e example) testRenewal(t *testing.T, dir string, issuer *tokentest.Issuer, api invoicesAPI) {
	t.Helper()
	front := newTokenCounter(t, issuer)
	log, stop := e.startClient(t, dir, "short-lived", front, api)
	wantListed(t, log, 1)
	until(t, log, "the token is renewed", func() bool { return front.count() > 1 })
	wantListed(t, log, strings.Count(log.String(), "over=http")+20)
	stop()
	first, second := front.times[0], front.times[1]
	if age := second.Sub(first); age < 7*time.Second || age > 9500*time.Millisecond || strings.Contains(log.String(), "failed") {
		t.Errorf("got a renewal after %s, want 8 s and no failure:\n%s", age, log)
	}
}

// testOutage runs the client while the issuer is down, back, and down again, and while the API refuses its token.
func (e example) testOutage(t *testing.T, dir string, issuer *tokentest.Issuer) {
	t.Helper()
	api := &moodyAPI{}
	front := newTokenCounter(t, issuer)
	front.down.Store(true)
	log, _ := e.startClient(t, dir, "background-service", front, api.serve(t))
	until(t, log, "calls fail without a token", func() bool {
		return strings.Contains(log.String(), "failed over=http") && strings.Contains(log.String(), "failed over=grpc")
	})
	front.down.Store(false)
	wantListed(t, log, 1)
	failures := strings.Count(log.String(), "listing failed")

	// The API refuses the token over HTTP, and later the next one over gRPC: a new token, and no failure, each time.
	api.refuseHTTP.Store(api.seen.Load())
	until(t, log, "the client has a second token", func() bool { return front.count() == 2 })
	wantListed(t, log, strings.Count(log.String(), "over=grpc")+5)
	api.refuseGRPC.Store(api.seen.Load())
	until(t, log, "the client has a third token", func() bool { return front.count() == 3 })
	front.down.Store(true)
	wantListed(t, log, strings.Count(log.String(), "over=grpc")+20)
	if got := strings.Count(log.String(), "listing failed"); got != failures || front.count() != 3 {
		t.Errorf("got %d failures and %d token requests, want %d and 3:\n%s", got, front.count(), failures, log)
	}

	// With the issuer down, a token that is refused cannot be replaced. The loop goes on.
	refused := api.seen.Load()
	api.refuseHTTP.Store(refused)
	until(t, log, "calls fail", func() bool { return strings.Count(log.String(), "listing failed") > failures })
	front.down.Store(false)
	until(t, log, "the client has another token", func() bool { return api.seen.Load() != refused })
	wantListed(t, log, strings.Count(log.String(), "over=http")+5)
}

// startClient starts the client, which gets its tokens through front.
func (e example) startClient(t *testing.T, dir, id string, front *tokenCounter, api invoicesAPI) (log *must.Buffer, stop func() *os.ProcessState) {
	t.Helper()
	return startExample(t, dir, e.client, "ISSUER="+front.URL, "CLIENT_ID="+id, "CLIENT_SECRET="+tokentest.Secret,
		"HTTP_API=http://"+api.http, "GRPC_API="+api.grpc, "INTERVAL=0.02")
}

// wantListed waits until the client has listed the invoices n times in both ways.
func wantListed(t *testing.T, log *must.Buffer, n int) {
	t.Helper()
	until(t, log, "the client lists invoices", func() bool {
		text := log.String()
		return strings.Count(text, "listed over=http invoices=2026-001") >= n && strings.Count(text, "listed over=grpc invoices=2026-001") >= n
	})
}

// until waits for a condition for up to a minute: the machine runs several languages at once.
func until(t *testing.T, log *must.Buffer, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s\n%s", what, log)
		}
	}
}

// tokenCounter forwards token requests to an issuer, and remembers when. While down, it drops every connection.
type tokenCounter struct {
	URL  string
	down atomic.Bool

	mu    sync.Mutex
	times []time.Time
}

func newTokenCounter(t *testing.T, issuer *tokentest.Issuer) *tokenCounter {
	t.Helper()
	c := &tokenCounter{}
	forward := httputil.NewSingleHostReverseProxy(must.Get(url.Parse(issuer.URL)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.down.Load() {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path == "/connect/token" {
			c.mu.Lock()
			c.times = append(c.times, time.Now())
			c.mu.Unlock()
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

// count returns the number of token requests that the issuer has received.
func (c *tokenCounter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.times)
}

// moodyAPI is an API that accepts every token except two.
type moodyAPI struct {
	goAPI

	seen, refuseHTTP, refuseGRPC atomic.Value // Authorization headers
}

func (a *moodyAPI) serve(t *testing.T) invoicesAPI {
	t.Helper()
	server := grpc.NewServer()
	invoicesv1.RegisterInvoiceServiceServer(server, a)
	return serveGo(t, server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == a.refuseHTTP.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		a.seen.Store(r.Header.Get("Authorization"))
		serveInvoices(w, r)
	}))
}

func (a *moodyAPI) ListInvoices(
	ctx context.Context, request *invoicesv1.ListInvoicesRequest,
) (*invoicesv1.ListInvoicesResponse, error) {
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) != 1 || values[0] == a.refuseGRPC.Load() {
		return nil, status.Error(codes.Unauthenticated, "refused")
	}
	return a.goAPI.ListInvoices(ctx, request)
}
