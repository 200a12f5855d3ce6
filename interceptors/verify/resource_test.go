package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

// resourceVerifier returns a verifier whose only audience is the resource.
func resourceVerifier(resource string, options ...verify.Option) (*verify.Verifier, error) {
	options = append([]verify.Option{verify.Audience(resource), verify.Keys(jwks.NewSet(newSigner().Public()))}, options...)
	return verify.New(context.Background(), testIssuer, options...)
}

func TestMetadataDocument(t *testing.T) {
	const algorithms = `["ES256","ES384","ES512","Ed25519","EdDSA","PS256","PS384","PS512","RS256","RS384","RS512"]`
	tests := map[string]struct {
		resource verify.ProtectedResource
		options  []verify.Option
		want     string
	}{
		"nothing said": {
			verify.ProtectedResource{}, nil,
			`{"resource":"https://orders.internal","authorization_servers":["https://auth.internal"],"bearer_methods_supported":["header"],` +
				`"dpop_signing_alg_values_supported":` + algorithms + `}`,
		},
		"all": {
			verify.ProtectedResource{
				Identifier: orders, Scopes: []string{"orders.read", "orders.write"}, Name: `Orders "R" Us`,
				Documentation: "https://orders.internal/docs", ClientCertificates: true,
			},
			nil,
			`{"resource":"https://orders.internal","authorization_servers":["https://auth.internal"],` +
				`"scopes_supported":["orders.read","orders.write"],"bearer_methods_supported":["header"],` +
				`"dpop_signing_alg_values_supported":` + algorithms + `,"tls_client_certificate_bound_access_tokens":true,` +
				`"resource_name":"Orders \"R\" Us","resource_documentation":"https://orders.internal/docs"}`,
		},
		"bound tokens": {
			verify.ProtectedResource{}, []verify.Option{verify.RequireBoundTokens()},
			`{"resource":"https://orders.internal","authorization_servers":["https://auth.internal"],"bearer_methods_supported":["header"],` +
				`"dpop_signing_alg_values_supported":` + algorithms + `,"dpop_bound_access_tokens_required":true}`,
		},
		"bound tokens, by certificate too": {
			verify.ProtectedResource{ClientCertificates: true}, []verify.Option{verify.RequireBoundTokens()},
			`{"resource":"https://orders.internal","authorization_servers":["https://auth.internal"],"bearer_methods_supported":["header"],` +
				`"dpop_signing_alg_values_supported":` + algorithms + `,"tls_client_certificate_bound_access_tokens":true}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			verifier, err := resourceVerifier(orders, append(test.options, verify.DescribeResource(test.resource))...)
			must.Succeed(t, err)
			_, handler := verify.MetadataHandler(verifier)
			answer := serve(handler, httptest.NewRequest(http.MethodGet, "/", nil))
			if got := string(must.Get(io.ReadAll(answer.Body))); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestMetadataLocation(t *testing.T) {
	for resource, want := range map[string]struct{ pattern, url string }{
		"https://orders.internal":         {"", "https://orders.internal/.well-known/oauth-protected-resource"},
		"https://orders.internal/":        {"", "https://orders.internal/.well-known/oauth-protected-resource"},
		"https://orders.internal:8443/v1": {"/v1", "https://orders.internal:8443/.well-known/oauth-protected-resource/v1"},
		"https://orders.internal/a/b":     {"/a/b", "https://orders.internal/.well-known/oauth-protected-resource/a/b"},
		"https://orders.internal/a/":      {"/a/{$}", "https://orders.internal/.well-known/oauth-protected-resource/a/"},
		"https://orders.internal/a%2Fb":   {"/a%2Fb", "https://orders.internal/.well-known/oauth-protected-resource/a%2Fb"},
		"https://orders.internal/v1?t=1":  {"/v1", "https://orders.internal/.well-known/oauth-protected-resource/v1?t=1"},
		"https://orders.internal?t=1":     {"", "https://orders.internal/.well-known/oauth-protected-resource?t=1"},
		"http://[::1]:8080/mcp":           {"/mcp", "http://[::1]:8080/.well-known/oauth-protected-resource/mcp"},
	} {
		verifier, err := resourceVerifier(resource, verify.DescribeResource(verify.ProtectedResource{}))
		if err != nil {
			t.Errorf("%s: %v", resource, err)
			continue
		}
		mux := http.NewServeMux()
		pattern, handler := verify.MetadataHandler(verifier)
		mux.Handle(pattern, handler)
		mux.Handle("/", verify.HTTP(verifier, verify.Authenticated())(http.NotFoundHandler()))
		if pattern != "/.well-known/oauth-protected-resource"+want.pattern {
			t.Errorf("%s: the pattern is %s", resource, pattern)
		}
		challenge := serve(mux, httptest.NewRequest(http.MethodGet, "/orders", nil)).Header.Get("WWW-Authenticate")
		if challenge != `Bearer resource_metadata="`+want.url+`"` {
			t.Errorf("%s: the challenge is %s, want the URL %s", resource, challenge, want.url)
		}
		answer := serve(mux, httptest.NewRequest(http.MethodGet, want.url, nil))
		if document := string(must.Get(io.ReadAll(answer.Body))); answer.StatusCode != http.StatusOK || !strings.HasPrefix(document, `{"resource":"`+resource+`"`) {
			t.Errorf("%s: %d %s", want.url, answer.StatusCode, document)
		}
		below := strings.TrimSuffix(strings.TrimSuffix(want.url, "?t=1"), "/") + "/below"
		if answer := serve(mux, httptest.NewRequest(http.MethodGet, below, nil)); answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", below, answer.StatusCode)
		}
	}
}

func TestMetadataMethods(t *testing.T) {
	verifier, err := resourceVerifier(orders, verify.DescribeResource(verify.ProtectedResource{}))
	must.Succeed(t, err)
	server := httptest.NewServer(func() http.Handler { _, handler := verify.MetadataHandler(verifier); return handler }())
	defer server.Close()
	const cached, uncached = "public, max-age=300", ""
	for method, want := range map[string]struct {
		status       int
		cache, allow string
		body         bool
	}{
		http.MethodGet:     {200, cached, "", true},
		http.MethodHead:    {200, cached, "", false},
		http.MethodOptions: {204, uncached, "GET, HEAD, OPTIONS", false},
		http.MethodPost:    {405, uncached, "GET, HEAD, OPTIONS", true},
		http.MethodDelete:  {405, uncached, "GET, HEAD, OPTIONS", true},
	} {
		request := must.Get(http.NewRequestWithContext(t.Context(), method, server.URL, nil))
		request.Header.Set("Origin", "https://console.example.com")
		request.Header.Set("Access-Control-Request-Method", "GET")
		request.Header.Set("Access-Control-Request-Headers", "mcp-protocol-version")
		answer := must.Get(server.Client().Do(request))
		text := must.Get(io.ReadAll(answer.Body))
		must.Succeed(t, answer.Body.Close())
		h := answer.Header
		if answer.StatusCode != want.status || h.Get("Cache-Control") != want.cache || h.Get("Allow") != want.allow ||
			h.Get("Access-Control-Allow-Origin") != "*" || (len(text) > 0) != want.body {
			t.Errorf("%s: %d %v %q", method, answer.StatusCode, h, text)
		}
		if want.status == http.StatusOK && (h.Get("Content-Type") != "application/json" || answer.ContentLength < 100) {
			t.Errorf("%s: %v", method, h)
		}
		if method == http.MethodOptions && (h.Get("Access-Control-Allow-Headers") != "*" || h.Get("Access-Control-Allow-Methods") != "GET, HEAD") {
			t.Errorf("the preflight permits %v", h)
		}
	}
}

func TestMistakesOfDescribeResource(t *testing.T) {
	described := func(r verify.ProtectedResource) verify.Option { return verify.DescribeResource(r) }
	tests := map[string]struct {
		audience string
		options  []verify.Option
		want     string
	}{
		"not in the audience": {orders, []verify.Option{described(verify.ProtectedResource{Identifier: orders + "/"})}, "Audience lacks the identifier"},
		"several":             {orders, []verify.Option{verify.Audience("https://stock.internal"), described(verify.ProtectedResource{})}, "Audience has several"},
		"URN":                 {"urn:orders", []verify.Option{described(verify.ProtectedResource{})}, "is not an https URL"},
		"relative":            {"/orders", []verify.Option{described(verify.ProtectedResource{})}, "is not an https URL"},
		"userinfo":            {"https://u:secret@orders.internal", []verify.Option{described(verify.ProtectedResource{})}, "is not an https URL"},
		"fragment":            {"https://orders.internal/#a", []verify.Option{described(verify.ProtectedResource{})}, "is not an https URL"},
		"a quote":             {`https://orders.internal/?"`, []verify.Option{described(verify.ProtectedResource{})}, "is not an"},
		"plain http":          {"http://orders.internal", []verify.Option{described(verify.ProtectedResource{})}, "plain http"},
		"dots":                {"https://orders.internal/a/../b", []verify.Option{described(verify.ProtectedResource{})}, "dot segment"},
		"escaped dots":        {"https://orders.internal/a/%2e%2e/b", []verify.Option{described(verify.ProtectedResource{})}, "dot segment"},
		"two slashes":         {"https://orders.internal//a", []verify.Option{described(verify.ProtectedResource{})}, "empty segment"},
		"slashes at the end":  {"https://orders.internal/a//", []verify.Option{described(verify.ProtectedResource{})}, "empty segment"},
		"a bad scope":         {orders, []verify.Option{described(verify.ProtectedResource{Scopes: []string{"a b"}})}, `the scope "a b"`},
		"a bad page":          {orders, []verify.Option{described(verify.ProtectedResource{Documentation: "javascript:alert(1)"})}, "is not the URL of a page"},
		"another URL": {
			orders,
			[]verify.Option{described(verify.ProtectedResource{}), verify.ResourceMetadata("https://orders.internal/metadata")},
			`ResourceMetadata is "https://orders.internal/metadata"`,
		},
	}
	for name, test := range tests {
		verifier, err := resourceVerifier(test.audience, test.options...)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") || verifier != nil {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	for name, options := range map[string][]verify.Option{
		"the same URL twice": {verify.ResourceMetadata("http://orders.internal/.well-known/oauth-protected-resource")},
		"in a mesh":          nil,
	} {
		options = append(options, verify.DescribeResource(verify.ProtectedResource{}), verify.AllowInsecurePlaintextToRemoteHosts())
		if _, err := resourceVerifier("http://orders.internal", options...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoMetadata(t *testing.T) {
	for name, verifier := range map[string]*verify.Verifier{"nil": nil, "zero": {}, "not described": newVerifier(newSigner())} {
		pattern, handler := verify.MetadataHandler(verifier)
		if answer := serve(handler, httptest.NewRequest(http.MethodGet, pattern, nil)); answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", name, answer.StatusCode)
		}
	}
}

// The document lists the issuers whose tokens for the resource are accepted.
func TestMetadataOfIssuers(t *testing.T) {
	keys := verify.Keys(jwks.NewSet(newSigner().Public()))
	member := func(issuer, audience string, options ...verify.Option) *verify.Verifier {
		return must.Get(verify.New(t.Context(), issuer, append(options, keys, verify.Audience(audience))...))
	}
	described := verify.DescribeResource(verify.ProtectedResource{})
	old := member("https://old.internal", orders)
	foreign := member("https://foreign.internal", "https://stock.internal")
	bound := member("https://auth.internal", orders, described, verify.RequireBoundTokens())
	type document struct {
		Issuers      []string `json:"authorization_servers"`
		RequiresDPoP bool     `json:"dpop_bound_access_tokens_required"`
	}
	for name, test := range map[string]struct {
		verifiers []*verify.Verifier
		want      string
	}{
		"one accepts bearer tokens": {[]*verify.Verifier{bound, old, foreign}, `{["https://auth.internal" "https://old.internal"] false}`},
		"one has the resource":      {[]*verify.Verifier{bound, foreign}, `{["https://auth.internal"] true}`},
	} {
		_, handler := verify.MetadataHandler(must.Get(verify.Issuers(test.verifiers...)))
		var got document
		must.Succeed(t, json.NewDecoder(serve(handler, httptest.NewRequest(http.MethodGet, "/", nil)).Body).Decode(&got))
		if text := fmt.Sprintf("{%q %t}", got.Issuers, got.RequiresDPoP); text != test.want {
			t.Errorf("%s: got %s, want %s", name, text, test.want)
		}
	}
	if _, handler := verify.MetadataHandler(must.Get(verify.Issuers(old, bound))); serve(handler, httptest.NewRequest(http.MethodGet, "/", nil)).StatusCode != http.StatusNotFound {
		t.Error("the metadata of another verifier than the first are published")
	}
}

// A client that knows the URL of a server alone finds the issuer's token endpoint.
func TestClientFindsTheIssuer(t *testing.T) {
	issuer := newIssuer(t)
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	resource := server.URL + "/mcp"
	verifier := must.Get(verify.New(t.Context(), issuer.url, verify.Audience(resource), verify.HTTPClient(issuer.client),
		verify.DescribeResource(verify.ProtectedResource{Scopes: []string{"mcp.call"}})))
	defer verifier.Close()
	mux.Handle(verify.MetadataHandler(verifier))
	mux.Handle("/mcp", verify.HTTP(verifier, verify.Scopes("mcp.call"))(http.NotFoundHandler()))

	refused := must.Get(server.Client().Get(resource))
	must.Succeed(t, refused.Body.Close())
	named := regexp.MustCompile(`resource_metadata="([^"]*)"`).FindStringSubmatch(refused.Header.Get("WWW-Authenticate"))
	if refused.StatusCode != http.StatusUnauthorized || named == nil {
		t.Fatalf("got %d %q, want 401 and resource_metadata", refused.StatusCode, refused.Header.Get("WWW-Authenticate"))
	}
	answer := must.Get(server.Client().Get(named[1]))
	defer func() { _ = answer.Body.Close() }()
	var document struct {
		Resource string   `json:"resource"`
		Issuers  []string `json:"authorization_servers"`
		Scopes   []string `json:"scopes_supported"`
	}
	must.Succeed(t, json.NewDecoder(answer.Body).Decode(&document))
	if document.Resource != resource || len(document.Issuers) != 1 || len(document.Scopes) != 1 { // RFC 9728 §3.3
		t.Fatalf("the document of %s is %+v", resource, document)
	}
	discovery := oauth.Discovery{Client: issuer.client}
	metadata := must.Get(discovery.Metadata(t.Context(), document.Issuers[0]))
	if metadata.TokenEndpoint != issuer.url+"/connect/token" {
		t.Errorf("the token endpoint is %s", metadata.TokenEndpoint)
	}
}
