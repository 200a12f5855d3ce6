package verify_test

import (
	"errors"
	"net/http"
	"testing"

	"google.golang.org/grpc"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// TestReadyKeys starts a verifier while its issuer is down: it is ready once the issuer is back, without a call.
func TestReadyKeys(t *testing.T) {
	i := newIssuer(t)
	i.down.Store(true)
	options := []verify.Option{verify.HTTPClient(i.client)}
	verifier := startVerifier(shortContext(t), t, i.url, options...)
	both := must.Get(verify.Issuers(verifier, newVerifier(newSigner())))
	for name, v := range map[string]*verify.Verifier{"one": verifier, "several": both} {
		if err := v.Ready(t.Context()); !errors.Is(err, token.ErrNoKeys) {
			t.Errorf("%s: got %v, want %v", name, err, token.ErrNoKeys)
		}
	}
	i.down.Store(false)
	must.Eventually(t, "readiness", func() bool { return verifier.Ready(t.Context()) == nil })
	must.Succeed(t, both.Ready(t.Context()))
	must.Succeed(t, newVerifier(newSigner()).Ready(t.Context()))
	for name, v := range map[string]*verify.Verifier{"nil": nil, "not made": {}} {
		if err := v.Ready(t.Context()); !errors.Is(err, verify.ErrFault) {
			t.Errorf("%s: got %v, want %v", name, err, verify.ErrFault)
		}
	}
}

// TestReadyFeed expects a verifier not to be ready before it knows all revocations. After an outage of the feed it stays
// ready, unless it refuses calls then.
func TestReadyFeed(t *testing.T) {
	i := newIssuer(t)
	address, stop := serveWithoutFeed(t)
	i.grpc = address
	verifier := startVerifier(shortContext(t), t, i.url, verify.HTTPClient(i.client))
	strict := startVerifier(shortContext(t), t, i.url, verify.HTTPClient(i.client), verify.RefuseWhenStale(), verify.MaxStaleness(1))
	for name, v := range map[string]*verify.Verifier{"default": verifier, "refuses when stale": strict} {
		if err := v.Ready(t.Context()); err == nil {
			t.Errorf("%s: ready without the revocations", name)
		}
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
	must.Eventually(t, "readiness", func() bool { return verifier.Ready(t.Context()) == nil })
	must.Eventually(t, "the revocations", func() bool { return strict.Feed().Complete })
	if err := strict.Ready(t.Context()); !errors.Is(err, verify.ErrStale) {
		t.Errorf("got %v, want %v", err, verify.ErrStale)
	}
	if got := statusFor(strict, must.Get(i.Sign(claims(i.url, "")))); got != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", got)
	}
}
