package verify_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
)

// Challenges name the resource's metadata if they are given, and then the scopes.
func TestResourceMetadata(t *testing.T) {
	const url = "https://orders.internal/.well-known/oauth-protected-resource"
	signer := newSigner()
	verifier := newVerifier(signer, verify.ResourceMetadata(url))
	good := must.Get(signer.Sign(claims(testIssuer, "orders.read")))
	for name, test := range map[string]struct {
		rule          verify.Rule
		authorization string
		want          string
	}{
		"no token, no scopes": {verify.Authenticated(), "", `Bearer resource_metadata="` + url + `"`},
		"no token":            {verify.Scopes("a", "b"), "", `Bearer scope="a b", resource_metadata="` + url + `"`},
		"garbage":             {verify.Scopes("a"), "Bearer x", `Bearer error="invalid_token", scope="a", resource_metadata="` + url + `"`},
		"scope":               {verify.Scopes("a"), "Bearer " + good, `Bearer error="insufficient_scope", scope="a", resource_metadata="` + url + `"`},
	} {
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		if test.authorization != "" {
			request.Header.Set("Authorization", test.authorization)
		}
		answer := serve(verify.HTTP(verifier, test.rule)(http.NotFoundHandler()), request)
		if got := answer.Header.Get("WWW-Authenticate"); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
	for _, bad := range []string{"", "/relative", `https://orders.internal/"x`, "https://orders.internal/\n"} {
		if _, err := verify.New(t.Context(), testIssuer, verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public())), verify.ResourceMetadata(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
