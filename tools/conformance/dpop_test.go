//go:build conformance

package conformance_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestConformanceDPoP runs the two clients from npm that support DPoP (RFC 9449) against the token endpoint and against servers
// that interceptors/verify guards, with and without nonces, and lets one of them check a request of interceptors/attach.
func TestConformanceDPoP(t *testing.T) {
	dir := workingCopy(t, "npm", "node", "npm")
	run(t, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	const id = "orders"
	environment := []string{"CLIENT_ID=" + id, "CLIENT_SECRET=" + tokentest.Secret, "RESOURCE=" + res1, "SCOPE=api1"}
	var plain *tokentest.Issuer
	for prefix, options := range map[string]struct {
		issuer []tokentest.Option
		server []verify.Option
	}{
		"":       {nil, nil},
		"NONCE_": {[]tokentest.Option{tokentest.DPoPNonces()}, []verify.Option{verify.RequireDPoPNonce(nil)}},
	} {
		issuer := newIssuer(t, options.issuer...)
		issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{client(id, tokentest.Secret, "api1")}})
		verifier := must.Get(verify.New(t.Context(), issuer.URL, append(options.server, verify.Audience(res1))...))
		t.Cleanup(verifier.Close)
		server := httptest.NewServer(verify.HTTP(verifier, verify.Scopes("api1"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		t.Cleanup(server.Close)
		environment = append(environment, prefix+"ISSUER="+issuer.URL, prefix+"API="+server.URL+"/orders?page=1")
		if prefix == "" {
			plain = issuer
		}
	}
	received := make(chan *http.Request, 1)
	capture := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { received <- r }))
	t.Cleanup(capture.Close)
	source := attach.ClientCredentials(plain.URL, id, tokentest.Secret, attach.DPoP(), attach.Resources(res1))
	answer, err := (&http.Client{Transport: source}).Get(capture.URL + "/orders?page=1")
	must.Succeed(t, err)
	_ = answer.Body.Close()
	request := <-received
	run(t, dir, append(environment, "ATTACH_URL="+capture.URL+"/orders?page=1", "ATTACH_AUTHORIZATION="+request.Header.Get("Authorization"),
		"ATTACH_PROOF="+request.Header.Get("DPoP")), "node", "dpop.js")
}
