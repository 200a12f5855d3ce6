package tokentest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"testing"
	"time"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

const resource = "https://orders.internal"

// TestIssuer requests a token from the issuer over REST. A verifier with the same clock checks it, and tokens that no
// issuer would issue.
func TestIssuer(t *testing.T) {
	issuer := tokentest.New(t)
	issuer.AddClient(t, "svc", resource, "orders.read")
	verifier, err := verify.New(t.Context(), issuer.URL, verify.Audience(resource), verify.Now(issuer.Now))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)

	issued := request(t, issuer, "svc")
	for _, c := range []struct {
		name, token string
		valid       bool
	}{
		{"issued", issued, true},
		{"signed", issuer.Token(t, "any", resource, "orders.read"), true},
		{"expired", issuer.Expired(t, "any", resource, "orders.read"), false},
		{"forged", issuer.Forge(t, map[string]any{"aud": resource}), false},
		{"without jti", issuer.Sign(t, map[string]any{"aud": resource, "jti": nil}), false},
		{"for another audience", issuer.Token(t, "any", "https://other.internal", "orders.read"), false},
	} {
		if got := admits(verifier, c.token); got != c.valid {
			t.Errorf("%s: got admitted=%t, want %t", c.name, got, c.valid)
		}
	}

	issuer.Advance(time.Hour + time.Second)
	if admits(verifier, issued) {
		t.Error("a token is valid after its expiry")
	}
	if !admits(verifier, request(t, issuer, "svc")) {
		t.Error("a token issued after the clock moved is refused")
	}
}

// TestOptions requests a token from an issuer with a path and TLS, over gRPC. A verifier, which finds the keys over REST and
// the feed over gRPC, checks it.
func TestOptions(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler()) // has a certificate for 127.0.0.1, and a client that trusts it
	t.Cleanup(server.Close)
	issuer := tokentest.New(t, tokentest.Path("/tenant1"), tokentest.TLS(server.TLS.Certificates[0]))
	issuer.AddClient(t, "svc", resource, "orders.read")
	source := attach.ClientCredentials(issuer.URL, "svc", tokentest.Secret, attach.OverGRPC(issuer.Conn(t)), attach.Resources(resource))
	issued, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := verify.New(t.Context(), issuer.URL, verify.Audience(resource), verify.Now(issuer.Now),
		verify.HTTPClient(server.Client()), verify.RefuseWhenStale())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	if !admits(verifier, issued.AccessToken) || !verifier.Feed().Complete {
		t.Errorf("got the token refused, or no feed: %+v", verifier.Feed())
	}
}

// admits reports whether an API behind the verifier accepts the token.
func admits(verifier *verify.Verifier, token string) bool {
	call := httptest.NewRequest(http.MethodGet, "/", nil)
	call.Header.Set("Authorization", "Bearer "+token)
	answer := httptest.NewRecorder()
	verify.HTTP(verifier, verify.Scopes("orders.read"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(answer, call)
	return answer.Code == http.StatusOK
}

// request requests a token over REST.
func request(t *testing.T, issuer *tokentest.Issuer, client string) string {
	t.Helper()
	answer, err := http.PostForm(issuer.URL+"/connect/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {client}, "client_secret": {tokentest.Secret},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var body struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil || body.Token == "" {
		t.Fatalf("got %s and %v, want a token", answer.Status, err)
	}
	return body.Token
}

// endedTest is a test that records why it was ended.
type endedTest struct {
	testing.TB

	why string
}

func (*endedTest) Helper() {}

func (e *endedTest) Fatal(args ...any) {
	e.why = fmt.Sprint(args...)
	runtime.Goexit()
}

// A mistake of a test ends that test, and does not panic.
func TestMistakes(t *testing.T) {
	made := tokentest.New(t)
	unowned := must.Get(oauth.ParseScopes("a"))
	for _, none := range []*tokentest.Issuer{nil, {}} {
		for name, call := range map[string]func(testing.TB, *tokentest.Issuer){
			"AddClient": func(t testing.TB, i *tokentest.Issuer) { i.AddClient(t, "svc", resource, "bad scope") },
			"Apply": func(t testing.TB, i *tokentest.Issuer) {
				i.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{Scopes: unowned}}}})
			},
			"ExpireSecrets": func(t testing.TB, i *tokentest.Issuer) { i.ExpireSecrets(t, "nobody") },
			"Token":         func(t testing.TB, i *tokentest.Issuer) { i.Token(t, "svc", resource, "bad scope") },
			"Expired":       func(t testing.TB, i *tokentest.Issuer) { i.Expired(t, "svc", "no resource", "a") },
			"Sign":          func(t testing.TB, i *tokentest.Issuer) { i.Sign(t, map[string]any{"a": func() {}}) },
			"Forge":         func(t testing.TB, i *tokentest.Issuer) { i.Forge(t, map[string]any{"a": func() {}}) },
		} {
			for _, issuer := range []*tokentest.Issuer{none, made} {
				ended, done := &endedTest{TB: t}, make(chan struct{})
				go func() { defer close(done); call(ended, issuer) }()
				if <-done; ended.why == "" {
					t.Errorf("%s: the test was not ended", name)
				}
			}
		}
	}
}
