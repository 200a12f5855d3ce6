package attach_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// An issuer with a path is found by its metadata, issues over both wires, and its tokens are verified, whether or not a
// proxy removes the path.
func TestIssuerWithAPath(t *testing.T) {
	issuer := tokentest.New(t, tokentest.Path("/tenant1/a"))
	issuer.AddClient(t, "billing", resource, "orders.read")
	stripping := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(must.Get(url.Parse(strings.TrimSuffix(issuer.URL, "/tenant1/a"))))
		path := strings.TrimPrefix(r.In.URL.Path, "/tenant1/a")
		r.Out.URL.Path = strings.TrimSuffix(path, "/tenant1/a") // from the end of RFC 8414's place
	}})
	t.Cleanup(stripping.Close)
	for name, c := range map[string]struct {
		attach []attach.Option
		verify []verify.Option
	}{
		"HTTP":                {},
		"gRPC":                {attach: []attach.Option{attach.OverGRPC(issuer.Conn(t))}, verify: []verify.Option{verify.OverGRPC(issuer.Conn(t))}},
		"a proxy":             {verify: []verify.Option{verify.FetchFrom(stripping.URL + "/tenant1/a")}},
		"inside without path": {verify: []verify.Option{verify.FetchFrom(strings.TrimSuffix(issuer.URL, "/tenant1/a"))}},
	} {
		t.Run(name, func(t *testing.T) {
			source := attach.ClientCredentials(issuer.URL, "billing", tokentest.Secret, append(c.attach, attach.Resources(resource))...)
			verifier, err := verify.New(t.Context(), issuer.URL, append(c.verify, verify.Audience(resource), verify.Now(issuer.Now), verify.RefuseWhenStale())...)
			must.Succeed(t, err)
			t.Cleanup(verifier.Close)
			request := httptest.NewRequest(http.MethodGet, "/", nil)
			request.Header.Set("Authorization", "Bearer "+accessToken(t, source))
			answer := httptest.NewRecorder()
			verify.HTTP(verifier, verify.Scopes("orders.read"))(http.NotFoundHandler()).ServeHTTP(answer, request)
			if answer.Code != http.StatusNotFound {
				t.Errorf("got %d, want the call to pass the verifier", answer.Code)
			}
		})
	}
	_, err := verify.New(t.Context(), issuer.URL+"/", verify.Audience(resource))
	if err == nil || !strings.Contains(err.Error(), "it calls itself \""+issuer.URL+"\"") {
		t.Errorf("with a slash at the end: got %v, want both names", err)
	}
}
