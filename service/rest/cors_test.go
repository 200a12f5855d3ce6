package rest_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/rest"
)

// wantOpen checks that any web page may read the answer, and removes the header that says so.
func wantOpen(t *testing.T, a *answer) {
	t.Helper()
	const name = "Access-Control-Allow-Origin"
	if got := a.header.Values(name); !slices.Equal(got, []string{"*"}) {
		t.Errorf("%s: got %q, want *", name, got)
	}
	a.header.Del(name)
}

const console = "https://console.example.com"

// browse sends a request as a browser does for a page of the origins, and returns the answer and its CORS headers.
func browse(t *testing.T, handler http.Handler, method, target, body string, headers http.Header) (*answer, map[string]string) {
	t.Helper()
	request := httptest.NewRequest(method, target, strings.NewReader(body))
	request.Header = headers.Clone()
	if method == http.MethodPost && request.Header.Get("Content-Type") == "" {
		request.Header.Set("Content-Type", formType)
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	a := &answer{recorder.Code, recorder.Header(), recorder.Body.String()}
	found := make(map[string]string)
	for name, values := range a.header {
		if strings.HasPrefix(name, "Access-Control-") || name == "Vary" {
			found[name] = strings.Join(values, " | ")
			a.header.Del(name)
		}
	}
	return a, found
}

// TestTokenCORS requests tokens as pages of named and of other origins do. Refusals have the headers of the protocol too.
func TestTokenCORS(t *testing.T) {
	r := newReplica(t, time.Hour)
	r.run(t)
	issuer := must.Get(oauth.ParseIssuer("https://issuer.test"))
	named := must.Get(rest.New(t.Context(), issuer, r.service, must.Get(rest.ParseOrigin(console)), must.Get(rest.ParseOrigin("http://localhost:3000"))))
	const vary, expose = "Origin", "DPoP-Nonce, Retry-After, WWW-Authenticate"
	for _, c := range []struct {
		name    string
		origins []string
		// allowed is the origin that the answer names.
		allowed string
	}{
		{"named", []string{console}, console},
		{"the other named", []string{"http://localhost:3000"}, "http://localhost:3000"},
		{"none", nil, ""},
		{"empty", []string{""}, ""},
		{"another", []string{"https://evil.example"}, ""},
		{"null", []string{"null"}, ""},
		{"any", []string{"*"}, ""},
		{"other letter case", []string{"https://Console.example.com"}, ""},
		{"another scheme", []string{"http://console.example.com"}, ""},
		{"another port", []string{console + ":8443"}, ""},
		{"the default port", []string{console + ":443"}, ""},
		{"a slash more", []string{console + "/"}, ""},
		{"a subdomain", []string{"https://a.console.example.com"}, ""},
		{"a suffix", []string{console + ".evil.example"}, ""},
		{"a prefix", []string{"https://console.example.co"}, ""},
		{"two", []string{console, "https://evil.example"}, ""},
		{"two in one", []string{console + " https://evil.example"}, ""},
		{"twice", []string{console, console}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := http.Header{}
			if c.origins != nil {
				headers["Origin"] = c.origins
			}
			want := map[string]string{"Vary": vary}
			if c.allowed != "" {
				want = map[string]string{"Vary": vary, "Access-Control-Allow-Origin": c.allowed, "Access-Control-Expose-Headers": expose}
			}
			check := func(a *answer, got map[string]string) *answer {
				t.Helper()
				wantMap(t, got, want)
				return a
			}
			wantToken(t, check(browse(t, named, "POST", "/connect/token", good().Encode(), headers)))
			wantRefusal(t, check(browse(t, named, "POST", "/connect/token", good("client_secret", wrong).Encode(), headers)), 401, "invalid_client", c.origins...)
			wantRefusal(t, check(browse(t, named, "POST", "/connect/token", "%", headers)), 400, "invalid_request", c.origins...)
			wantRefusal(t, check(browse(t, named, "GET", "/connect/token", "", headers)), 405, "invalid_request", c.origins...)
			wantRefusal(t, check(browse(t, named, "OPTIONS", "/connect/token", "", headers)), 405, "invalid_request", c.origins...)

			headers.Set("Access-Control-Request-Method", "POST")
			headers.Set("Access-Control-Request-Headers", "authorization,x-evil")
			if c.allowed != "" {
				want["Access-Control-Allow-Methods"], want["Access-Control-Allow-Headers"] = "POST", "Authorization, Content-Type, DPoP"
				want["Access-Control-Max-Age"] = "7200"
				a := check(browse(t, named, "OPTIONS", "/connect/token", "", headers))
				if a.status != http.StatusNoContent || a.body != "" {
					t.Errorf("preflight: got %d %s, want 204", a.status, a.body)
				}
				return
			}
			wantRefusal(t, check(browse(t, named, "OPTIONS", "/connect/token", "", headers)), 405, "invalid_request", c.origins...)
		})
	}
}

// TestCallCORS calls by Connect and gRPC-Web as pages of named and of other origins do.
func TestCallCORS(t *testing.T) {
	r := newReplica(t, time.Hour)
	r.run(t)
	named := must.Get(rest.New(t.Context(), must.Get(oauth.ParseIssuer("https://issuer.test/tenant1")), r.service, must.Get(rest.ParseOrigin(console))))
	const expose = "DPoP-Nonce, Retry-After, WWW-Authenticate, Grpc-Message, Grpc-Status, Grpc-Status-Details-Bin"
	open := map[string]string{"Vary": "Origin", "Access-Control-Allow-Origin": console, "Access-Control-Expose-Headers": expose}
	closed := map[string]string{"Vary": "Origin"}
	for _, c := range []struct {
		name    string
		handler http.Handler
		origin  string
		want    map[string]string
	}{
		{"named", named, console, open}, {"another", named, "https://evil.example", closed}, {"null", named, "null", closed},
		{"none is named", r.handler, console, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, base := range []string{"", "/tenant1"} {
				if base != "" && c.handler != named {
					continue
				}
				for method := range map[string]bool{"IssueToken": true, "RevokeToken": true, "GetKeySet": true} {
					target := base + "/grantor.v1.TokenService/" + method
					for _, mediaType := range []string{"application/json", "application/grpc-web+proto", "text/plain"} {
						headers := http.Header{"Origin": {c.origin}, "Content-Type": {mediaType}}
						for _, body := range []string{"{}", "{", "\x00\x00\x00\x00\x00"} {
							_, got := browse(t, c.handler, "POST", target, body, headers)
							wantMap(t, got, c.want)
						}
					}
					preflight := http.Header{
						"Origin": {c.origin}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"connect-protocol-version,content-type"},
					}
					a, got := browse(t, c.handler, "OPTIONS", target, "", preflight)
					if c.want["Access-Control-Allow-Origin"] == "" {
						wantMap(t, got, c.want)
						wantRefusal(t, a, http.StatusMethodNotAllowed, "invalid_request")
						continue
					}
					want := maps.Clone(c.want)
					want["Access-Control-Allow-Methods"], want["Access-Control-Max-Age"] = "POST", "7200"
					want["Access-Control-Allow-Headers"] = "Authorization, Connect-Protocol-Version, Connect-Timeout-Ms, Content-Type, DPoP, Grpc-Timeout, X-Grpc-Web, X-User-Agent"
					if wantMap(t, got, want); a.status != http.StatusNoContent || a.body != "" {
						t.Errorf("preflight: got %d %s, want 204", a.status, a.body)
					}
				}
			}
		})
	}
	r.service.SetLimits(limit.Limits{RequestsPerSource: 1})
	must.Eventually(t, "a second has too many requests", func() bool {
		a, got := browse(t, named, "POST", "/grantor.v1.TokenService/IssueToken", "{}", http.Header{"Origin": {console}, "Content-Type": {"application/json"}})
		wantMap(t, got, open)
		return a.status == http.StatusTooManyRequests && strings.Contains(a.body, "resource_exhausted")
	})
}

// TestTokenCORSOverLimit expects a refusal that precedes everything else to have the headers too.
func TestTokenCORSOverLimit(t *testing.T) {
	r := newReplica(t, time.Hour)
	r.run(t)
	named := must.Get(rest.New(t.Context(), must.Get(oauth.ParseIssuer("https://issuer.test")), r.service, must.Get(rest.ParseOrigin(console))))
	r.service.SetLimits(limit.Limits{RequestsPerSource: 1})
	must.Eventually(t, "a second has too many requests", func() bool {
		a, got := browse(t, named, "POST", "/connect/token", good().Encode(), http.Header{"Origin": {console}})
		if got["Access-Control-Allow-Origin"] != console || !strings.Contains(got["Access-Control-Expose-Headers"], "Retry-After") {
			t.Errorf("got %d with %v", a.status, got)
		}
		return a.status == http.StatusTooManyRequests
	})
}

// TestDocumentCORSOverLimit expects any page to be able to read why it gets no document.
func TestDocumentCORSOverLimit(t *testing.T) {
	r := newReplica(t, time.Hour)
	r.run(t)
	r.service.SetLimits(limit.Limits{RequestsPerSource: 1})
	must.Eventually(t, "a second has too many requests", func() bool {
		a, got := browse(t, r.handler, "GET", "/.well-known/jwks.json", "", http.Header{"Origin": {console}})
		wantMap(t, got, map[string]string{"Access-Control-Allow-Origin": "*"})
		return a.status == http.StatusTooManyRequests
	})
}

// wantMap compares two maps.
func wantMap(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: got %q, want %q", name, got[name], value)
		}
	}
	for name, value := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("got %s: %s, want none", name, value)
		}
	}
}

// TestTokenCORSIsOff expects no page to get a token unless its origin is named, and no other endpoint to be open ever.
func TestTokenCORSIsOff(t *testing.T) {
	r := newReplica(t, time.Hour)
	r.run(t)
	issuer := must.Get(oauth.ParseIssuer("https://issuer.test"))
	named := must.Get(rest.New(t.Context(), issuer, r.service, must.Get(rest.ParseOrigin(console))))
	page := http.Header{"Origin": {console}}
	preflight := http.Header{"Origin": {console}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"authorization"}}
	for name, c := range map[string]struct {
		handler http.Handler
		targets []string
	}{
		"no origin is named":  {r.handler, []string{"/connect/token", "/connect/introspect", "/connect/revoke", "/v1/clients", "/", "/nothing"}},
		"an origin is named ": {named, []string{"/connect/introspect", "/connect/revoke", "/v1/clients", "/", "/nothing"}},
	} {
		for _, target := range c.targets {
			for _, method := range []string{"GET", "POST", "OPTIONS"} {
				a, got := browse(t, c.handler, method, target, good("token", "x").Encode(), page)
				if target == "/" && method == "GET" {
					delete(got, "Vary") // by Accept
				}
				wantMap(t, got, nil)
				if method == "OPTIONS" && a.status/100 != 4 {
					t.Errorf("%s, OPTIONS %s: got %d", name, target, a.status)
				}
			}
			a, got := browse(t, c.handler, "OPTIONS", target, "", preflight)
			wantMap(t, got, nil)
			if a.status/100 != 4 {
				t.Errorf("%s, preflight of %s: got %d", name, target, a.status)
			}
		}
	}
}

// TestDocumentCORS reads the public documents as any page.
func TestDocumentCORS(t *testing.T) {
	r := newReplica(t, time.Hour)
	r.run(t)
	for _, target := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/.well-known/jwks.json"} {
		for _, origin := range []string{"", console, "null", "https://evil.example"} {
			headers := http.Header{}
			if origin != "" {
				headers.Set("Origin", origin)
			}
			open := map[string]string{"Access-Control-Allow-Origin": "*"}
			for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "OPTIONS": 405} {
				a, got := browse(t, r.handler, method, target, "", headers)
				wantMap(t, got, open)
				if a.status != want {
					t.Errorf("%s %s: got %d, want %d", method, target, a.status, want)
				}
			}
			if origin == "" {
				continue
			}
			headers.Set("Access-Control-Request-Method", "GET")
			headers.Set("Access-Control-Request-Headers", "if-none-match")
			a, got := browse(t, r.handler, "OPTIONS", target, "", headers)
			wantMap(t, got, map[string]string{
				"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "GET, HEAD", "Access-Control-Allow-Headers": "*", "Access-Control-Max-Age": "7200",
			})
			if a.status != http.StatusNoContent {
				t.Errorf("preflight of %s: got %d, want 204", target, a.status)
			}
		}
	}
}

// TestParseOrigin parses origins as browsers send them, and texts that no browser sends.
func TestParseOrigin(t *testing.T) {
	for _, s := range []string{"https://console.example.com", "https://console.example.com:8443", "http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:3000", "https://xn--bcher-kva.example", "https://10.0.0.1"} {
		if origin, err := rest.ParseOrigin(s); err != nil || origin.String() != s {
			t.Errorf("%s: got %s, %v", s, origin, err)
		}
	}
	for _, s := range []string{
		"", "*", "null", "https://*", "https://*.example.com", "https://", "console.example.com", "https://console.example.com/", "https://console.example.com/a",
		"https://console.example.com?a", "https://console.example.com#a", "https://user@console.example.com", "https://Console.example.com", "HTTPS://console.example.com",
		"https://console.example.com:443", "http://localhost:80", "http://console.example.com", "https://console.example.com:", "https://console.example.com:08443",
		"https://console.example.com:99999", "https://bücher.example", "https://a b", "https://a.example, https://b.example", "https://a.example https://b.example",
		"ftp://a.example", "chrome-extension://abc", "file://", "https://a.example\n", "//a.example", "https:a.example",
	} {
		if origin, err := rest.ParseOrigin(s); err == nil {
			t.Errorf("%q: got the origin %s, want an error", s, origin)
		}
	}
}
