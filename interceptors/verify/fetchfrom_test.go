package verify_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// renamed serves as an issuer that calls itself by another URL than its own, and returns its own.
func renamed(t *testing.T, name, feed string, signer *token.Signer, start func(*httptest.Server)) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case oauth.WellKnownServer:
			_ = json.NewEncoder(w).Encode(oauth.Metadata{Issuer: name, JWKSURI: name + "/keys", GRPCEndpoint: feed})
		case "/keys":
			_ = json.NewEncoder(w).Encode(map[string]any{"keys": []jwks.JWK{must.Get(signer.Public().JWK())}})
		default:
			http.NotFound(w, r)
		}
	}))
	start(server)
	t.Cleanup(server.Close)
	return server.URL
}

// clusterClient dials every host at the address, as the resolver of a cluster would.
func clusterClient(address string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
}

// feedOf starts a feed that is complete at once.
func feedOf(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	server := grpc.NewServer(options...)
	grantorv1.RegisterRevocationServiceServer(server, &feedServer{watch: func(_ string, stream grpc.ServerStreamingServer[grantorv1.WatchRevocationsResponse]) error {
		if err := stream.Send(complete); err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}})
	return listen(t, server).Target()
}

// An issuer in plaintext at a name of the mesh is accepted with the option for it alone.
func TestPlaintextMesh(t *testing.T) {
	const name = "http://grantor.auth.svc:8080"
	signer := newSigner()
	address := strings.TrimPrefix(renamed(t, name, "grantor.auth.svc:8081", signer, (*httptest.Server).Start), "http://")
	client := verify.HTTPClient(clusterClient(address))
	if _, err := verify.New(t.Context(), name, verify.Audience(orders), client); err == nil || !strings.Contains(err.Error(), "neither https nor loopback") {
		t.Errorf("without the option: got %v", err)
	}
	verifier := startVerifier(t.Context(), t, name, client, verify.AllowInsecurePlaintextToRemoteHosts(), verify.FeedFrom(feedOf(t)), verify.RefuseWhenStale())
	if got := statusFor(verifier, must.Get(signer.Sign(claims(name, "")))); got != http.StatusOK {
		t.Errorf("got %d, want 200", got)
	}
	if got := verifier.Feed(); !got.Complete {
		t.Errorf("the feed: got %+v", got)
	}
}

// The issuer is reached at another URL than its name, which tokens and metadata must still have.
func TestFetchFrom(t *testing.T) {
	const name = "https://auth.example.com"
	signer := newSigner()
	_, port, err := net.SplitHostPort(feedOf(t))
	if err != nil {
		t.Fatal(err)
	}
	inside := renamed(t, name, "auth.example.com:"+port, signer, (*httptest.Server).Start)
	verifier := startVerifier(t.Context(), t, name, verify.FetchFrom(inside), verify.RefuseWhenStale())
	for issuer, want := range map[string]int{name: http.StatusOK, inside: http.StatusUnauthorized} {
		if got := statusFor(verifier, must.Get(signer.Sign(claims(issuer, "")))); got != want {
			t.Errorf("a token of %s: got %d, want %d", issuer, got, want)
		}
	}
	if got := verifier.Feed(); !got.Complete {
		t.Errorf("the feed: got %+v", got)
	}
	for from, want := range map[string]string{
		"http://grantor.auth.svc:8080": "neither https nor loopback", "grantor.auth.svc": "not a URL",
	} {
		if _, err := verify.New(t.Context(), name, verify.Audience(orders), verify.FetchFrom(from)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("from %s: got %v, want %q", from, err, want)
		}
	}
	if _, err := verify.New(t.Context(), "https://other.example.com", verify.Audience(orders), verify.FetchFrom(inside)); err == nil {
		t.Error("another issuer was accepted")
	}
}

// wrapped is a transport whose TLS settings cannot be known.
type wrapped struct{ http.RoundTripper }

// The feed of an issuer behind a wrapped transport uses the certificates of FeedTLS.
func TestFeedTLS(t *testing.T) {
	signer := newSigner()
	var server *httptest.Server
	start := func(s *httptest.Server) { s.StartTLS(); server = s }
	name := "https://auth.example.com"
	inside := renamed(t, name, "", signer, start)
	target := feedOf(t, grpc.Creds(credentials.NewServerTLSFromCert(&server.TLS.Certificates[0])))
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	transport := server.Client().Transport
	client := &http.Client{Transport: wrapped{transport}}
	follows := func(ctx context.Context, options ...verify.Option) bool {
		options = append([]verify.Option{verify.FetchFrom(inside), verify.FeedFrom(target)}, options...)
		return startVerifier(ctx, t, name, options...).Feed().Complete
	}
	if !follows(t.Context(), verify.HTTPClient(client), verify.FeedTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})) {
		t.Error("with FeedTLS: no feed")
	}
	if !follows(t.Context(), verify.HTTPClient(server.Client())) {
		t.Error("with an *http.Transport: no feed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if follows(ctx, verify.HTTPClient(client)) {
		t.Error("with the system's roots: the feed is trusted")
	}
}

// A stream is not renewed by a token that is not for the resource of the first one.
func TestRenewalOfAudience(t *testing.T) {
	s := newStreamServer(t, echo)
	first, _ := s.token("billing", "orders.read")
	stream := s.open(t, "Both", first, streamName)
	c := claims(testIssuer, "orders.read", func(c *token.Claims) { c.Audience = []string{"https://stock.internal"} })
	if got := s.renew(must.Get(s.signer.Sign(c)), streamName); got != codes.PermissionDenied {
		t.Errorf("got %v, want PERMISSION_DENIED", got)
	}
	s.wantEnd(t, stream, time.Now(), verify.ErrScope)
}

// The scheme of the URL at which the issuer is reached has no letter case: the feed of "HTTPS://…" is not plaintext.
func TestSchemeOfTheFeed(t *testing.T) {
	signer := newSigner()
	plain := feedOf(t)
	client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		var answer any = oauth.Metadata{Issuer: testIssuer, JWKSURI: testIssuer + "/keys"}
		if r.URL.Path == "/keys" {
			answer = map[string]any{"keys": []jwks.JWK{must.Get(signer.Public().JWK())}}
		}
		return jsonAnswer(answer), nil
	})}
	verifier := startVerifier(shortContext(t), t, testIssuer, verify.HTTPClient(client), verify.FetchFrom("HTTPS://inside.internal"),
		verify.FeedFrom(plain), verify.AllowInsecurePlaintextToRemoteHosts())
	if got := verifier.Feed(); !got.Followed || got.Complete {
		t.Errorf("got %+v, want no feed over plaintext", got)
	}
}
