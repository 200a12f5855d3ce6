package verify_test

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

// serveWithoutRoute serves HTTP/2 and answers 404 to everything, as an ingress without the route does.
func serveWithoutRoute(t *testing.T) (address string, stop func()) {
	t.Helper()
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Handler: http.NotFoundHandler(), Protocols: &http.Protocols{}, ReadHeaderTimeout: time.Second}
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	return listener.Addr().String(), func() { _ = server.Close(); <-served }
}

// serveWithoutFeed serves gRPC without the RevocationService, which is UNIMPLEMENTED then.
func serveWithoutFeed(t *testing.T) (address string, stop func()) {
	t.Helper()
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	server := grpc.NewServer()
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	return listener.Addr().String(), func() { server.Stop(); <-served }
}

// A feed that the issuer's metadata name and that answers UNIMPLEMENTED or 404 at first is an outage: calls count as
// stale, RefuseWhenStale refuses them, and the feed is followed once it answers.
func TestFeedNotThereYet(t *testing.T) {
	for name, serve := range map[string]func(*testing.T) (string, func()){
		"UNIMPLEMENTED": serveWithoutFeed, "HTTP 404": serveWithoutRoute,
	} {
		t.Run(name, func(t *testing.T) {
			lines := captureLog(t)
			i := newIssuer(t)
			address, stop := serve(t)
			i.grpc = address
			verifier := startVerifier(shortContext(t), t, i.url, verify.HTTPClient(i.client), verify.RefuseWhenStale())
			raw := must.Get(i.Sign(claims(i.url, "")))
			for range 2 {
				if got := statusFor(verifier, raw); got != http.StatusServiceUnavailable {
					t.Errorf("got %d, want 503", got)
				}
			}
			if got := verifier.Feed(); !got.Followed || got.Complete || got.StaleCalls != 2 || lines() != 1 {
				t.Errorf("got %+v and %d lines logged, want 2 stale calls and 1 line", got, lines())
			}
			stop()
			feed := &feedServer{address: address, watch: func(_ string, stream grpc.ServerStreamingServer[grantorv1.WatchRevocationsResponse]) error {
				if err := stream.Send(complete); err != nil {
					return err
				}
				<-stream.Context().Done()
				return nil
			}}
			feed.start(t)
			must.Eventually(t, "the feed is followed", func() bool { return statusFor(verifier, raw) == http.StatusOK })
		})
	}
}

// TestFeedOfferedLater checks that only the metadata can say that an issuer has no feed, and that they are fetched again at
// most once a minute.
func TestFeedOfferedLater(t *testing.T) {
	signer := newSigner()
	synctest.Test(t, func(t *testing.T) {
		var fetches atomic.Int32
		var offered atomic.Bool
		client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			metadata := oauth.Metadata{Issuer: testIssuer, JWKSURI: testIssuer + "/keys"}
			if offered.Load() {
				metadata.GRPCEndpoint = "127.0.0.1:1"
			}
			var answer any = metadata
			if r.URL.Path == "/keys" {
				answer = map[string]any{"keys": []jwks.JWK{must.Get(signer.Public().JWK())}}
			} else {
				fetches.Add(1)
			}
			return jsonAnswer(answer), nil
		})}
		began := time.Now()
		verifier := must.Get(verify.New(t.Context(), testIssuer, verify.Audience(orders), verify.HTTPClient(client), verify.RefuseWhenStale()))
		defer verifier.Close()
		if got := time.Since(began); got != 0 {
			t.Errorf("New took %s for an issuer without a feed", got)
		}
		raw := must.Get(signer.Sign(claims(testIssuer, "")))
		before := fetches.Load()
		for range 10 {
			if got := verifier.Feed(); got != (verify.FeedStatus{}) || statusFor(verifier, raw) != http.StatusOK {
				t.Fatalf("without a feed: got %+v, want none and an admitted call", got)
			}
			statusFor(verifier, raw)
			time.Sleep(time.Minute)
		}
		if got := fetches.Load() - before; got < 9 || got > 14 {
			t.Errorf("%d fetches of the metadata in 10 minutes, want one a minute, and those for the keys", got)
		}
		offered.Store(true)
		statusFor(verifier, raw)
		synctest.Wait()
		if got := verifier.Feed(); !got.Followed || got.Complete {
			t.Errorf("with a feed that cannot be reached: got %+v", got)
		}
		if got := statusFor(verifier, raw); got != http.StatusServiceUnavailable {
			t.Errorf("with a feed that cannot be reached: got %d, want 503", got)
		}
	})
}
