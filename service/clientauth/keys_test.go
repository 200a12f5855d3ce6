package clientauth_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/egress"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

// keyServer serves a key set that a client registered by its URL.
type keyServer struct {
	*httptest.Server

	document atomic.Pointer[string]
	status   atomic.Int64
	requests atomic.Int64
}

func newKeyServer(t *testing.T, document string) *keyServer {
	t.Helper()
	s := &keyServer{}
	s.document.Store(&document)
	s.status.Store(http.StatusOK)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.requests.Add(1)
		if s.status.Load() == http.StatusFound {
			w.Header().Set("Location", "http://169.254.169.254/latest/meta-data")
		}
		w.WriteHeader(int(s.status.Load()))
		_, _ = io.WriteString(w, *s.document.Load())
	}))
	t.Cleanup(s.Close)
	return s
}

// remoteClient returns an authenticator of the client a, whose keys are at a URL, and the function that sets its clock.
func remoteClient(uri string) (*clientauth.Authenticator, func(time.Time)) {
	c := client("a")
	c.KeysURI = uri
	var now atomic.Pointer[time.Time]
	now.Store(&start)
	return clientauth.New(clientauth.Config{
		Issuer: must.Get(oauth.ParseIssuer(issuer)), Clients: registered{"a": c}, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0),
		Replays: &replays{}, Now: func() time.Time { return *now.Load() },
		Fetch: egress.NewClient(egress.Config{Allowed: remoteaddr.Networks{netip.MustParsePrefix("127.0.0.0/8")}}),
	}), func(at time.Time) { now.Store(&at) }
}

func TestKeysAtURL(t *testing.T) {
	old, fresh := jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.EdDSA)
	server := newKeyServer(t, jwstest.Set(old))
	a, setClock := remoteClient(server.URL + "/jwks.json")
	now := start
	try := func(s jwstest.Signer) oauth.Code {
		claims := payload("a").With(jwstest.Object{"iat": now.Unix(), "exp": now.Add(time.Minute).Unix()})
		if _, err := a.Authenticate(t.Context(), assertion(s.Sign(header(s), claims))); err != nil {
			return oauth.From(err).Code
		}
		return ""
	}
	expect := func(what string, s jwstest.Signer, want oauth.Code, requests int64) {
		t.Helper()
		if got := try(s); got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
		if got := server.requests.Load(); got != requests {
			t.Errorf("%s: %d requests for the keys, want %d", what, got, requests)
		}
	}
	expect("first", old, "", 1)
	expect("again", old, "", 1)
	expect("an unknown key right after", fresh, oauth.InvalidClient, 1)
	both := jwstest.Set(old, fresh)
	server.document.Store(&both)
	now = now.Add(10 * time.Second)
	setClock(now)
	expect("a new key", fresh, "", 2)
	server.status.Store(http.StatusInternalServerError)
	now = now.Add(time.Hour)
	setClock(now)
	if got := try(old); got != "" {
		t.Errorf("while the server fails: got %q", got)
	}
	now = now.Add(26 * time.Hour)
	setClock(now)
	if got := try(old); got != oauth.TemporarilyUnavailable {
		t.Errorf("a day after the server failed: got %q, want %q", got, oauth.TemporarilyUnavailable)
	}
}

// TestHostileKeyServers fetches keys from servers that misbehave: their own client does not authenticate, and others do.
func TestHostileKeyServers(t *testing.T) {
	s := jwstest.NewSigner(jwks.ES256)
	for name, test := range map[string]struct {
		document string
		status   int64
	}{
		"too large":     {jwstest.Set(s) + strings.Repeat(" ", 10<<20), http.StatusOK},
		"no JSON":       {"<html>", http.StatusOK},
		"no keys":       {`{"keys":[]}`, http.StatusOK},
		"symmetric":     {`{"keys":[{"kty":"oct","k":"AAAA","kid":"` + s.Key().ID() + `"}]}`, http.StatusOK},
		"a redirect":    {jwstest.Set(s), http.StatusFound},
		"not found":     {jwstest.Set(s), http.StatusNotFound},
		"no content":    {"", http.StatusNoContent},
		"an error page": {jwstest.Set(s), http.StatusBadGateway},
	} {
		server := newKeyServer(t, test.document)
		server.status.Store(test.status)
		a, _ := remoteClient(server.URL)
		_, err := a.Authenticate(t.Context(), assertion(s.Sign(header(s), payload("a"))))
		if got := oauth.From(err); got.Code != oauth.TemporarilyUnavailable || got.Reason != oauth.KeysUnreachable {
			t.Errorf("%s: got %v", name, err)
		}
	}
	a, _ := remoteClient("http://10.0.0.1/jwks.json")
	_, err := a.Authenticate(t.Context(), assertion(s.Sign(header(s), payload("a"))))
	if err == nil || !strings.Contains(err.Error(), "not a public address") {
		t.Errorf("a private address: got %v", err)
	}
}
