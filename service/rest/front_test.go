package rest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/grantorhq/grantor/service/must"
)

// TestFront reads the root as a browser does and as programs do.
func TestFront(t *testing.T) {
	issuer := newIssuer(t)
	const page, data = "text/html;charset=UTF-8", "application/json;charset=UTF-8"
	for _, c := range []struct {
		name   string
		accept []string
		want   string
	}{
		{"a browser", []string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, page},
		{"only HTML", []string{"text/html"}, page},
		{"other letter case", []string{"Text/HTML"}, page},
		{"two lines", []string{"application/xml", "text/html;q=0.5"}, page},
		{"HTML rather than JSON", []string{"application/json;q=0.5, text/html;q=0.6"}, page},
		{"JSON rather than HTML", []string{"application/json, text/html;q=0.9"}, data},
		{"no HTML", []string{"text/html;q=0, */*"}, data},
		{"a malformed weight", []string{"text/html;q=NaN"}, data},
		{"a program", []string{"*/*"}, data},
		{"JSON", []string{"application/json"}, data},
		{"text", []string{"text/plain"}, data},
		{"a no-break space", []string{"text/html\u00a0"}, data},
		{"a next line", []string{"text/html\u0085"}, data},
		{"an em space", []string{"\u2003text/html"}, data},
		{"a dotted I", []string{"appl\u0130cation/json, text/html;q=0.5"}, page},
		{"malformed", []string{";;,text/html;q"}, data},
		{"nothing", nil, data},
	} {
		t.Run(c.name, func(t *testing.T) {
			var headers []string
			for _, line := range c.accept {
				headers = append(headers, "Accept: "+line)
			}
			get := send(t, issuer, request{method: http.MethodGet, target: "/", contentType: "-", headers: headers})
			if get.status != http.StatusOK || get.header.Get("Content-Type") != c.want {
				t.Fatalf("got %d with %s, want %s", get.status, get.header.Get("Content-Type"), c.want)
			}
			for name, want := range map[string]string{
				"Vary": "Accept", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
				"Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
				"Content-Length":          fmt.Sprint(len(get.body)),
			} {
				if got := get.header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			for _, link := range []string{issuer.URL + "/.well-known/oauth-authorization-server", issuer.URL + "/.well-known/jwks.json", issuer.URL + "/connect/token"} {
				if !strings.Contains(get.body, link) {
					t.Errorf("got %s, want %s in it", get.body, link)
				}
			}
			head := send(t, issuer, request{method: http.MethodHead, target: "/", contentType: "-", headers: headers})
			if head.status != http.StatusOK || head.body != "" || !maps.EqualFunc(head.header, get.header, slices.Equal[[]string]) {
				t.Errorf("HEAD: got %d %v %s, want the headers %v", head.status, head.header, head.body, get.header)
			}
			if c.want == data {
				var fields map[string]string
				must.Succeed(t, json.Unmarshal([]byte(get.body), &fields))
				return
			}
			wantHarmless(t, get.body)
		})
	}
	t.Run("what a request contains", func(t *testing.T) {
		target := "/?" + url.QueryEscape("<script>canary")
		a := send(t, issuer, request{method: http.MethodGet, target: target, headers: []string{"Accept: text/html", "Host: canary.test", "X-Forwarded-Host: canary.test"}})
		if strings.Contains(a.body, "canary") {
			t.Errorf("the page contains a part of the request: %s", a.body)
		}
	})
}

// wantHarmless checks that a page is well-formed, and that its only attributes are those of links, language and character
// set.
func wantHarmless(t *testing.T, page string) {
	t.Helper()
	var links []string
	for node := range must.Get(html.Parse(strings.NewReader(page))).Descendants() {
		if node.Type == html.ElementNode && !slices.Contains([]string{"html", "head", "meta", "title", "body", "h1", "p", "ul", "li", "a", "code"}, node.Data) {
			t.Errorf("the page has the element %s", node.Data)
		}
		for _, attribute := range node.Attr {
			switch attribute.Key {
			case "href":
				links = append(links, attribute.Val)
			case "lang", "charset":
			default:
				t.Errorf("the page has the attribute %s", attribute.Key)
			}
		}
	}
	if len(links) != 2 {
		t.Errorf("got the links %q, want those to the metadata and the keys", links)
	}
}

// TestElsewhere requests the paths that the endpoints have at other servers. The refusal names the path here.
func TestElsewhere(t *testing.T) {
	issuer := newIssuer(t)
	for _, c := range []struct {
		want    string
		targets []string
	}{
		{"The token endpoint is " + issuer.URL + "/connect/token.", []string{
			"/token", "/oauth/token", "/oauth2/token", "/oauth2/v1/token", "/oauth2/default/v1/token", "/oauth2/v2.0/token", "/common/oauth2/v2.0/token",
			"/realms/master/protocol/openid-connect/token", "/auth/realms/master/protocol/openid-connect/token", "/oauth/v2/token", "/as/token.oauth2",
			"/as/token", "/am/oauth2/access_token", "/login/oauth/access_token", "/oauth/access_token", "/application/o/token/", "/o/token/", "/dex/token",
			"/api/oidc/token", "/oidc/token", "/services/oauth2/token", "/identity/connect/token", "/oauth2/token.php", "/oauth/Token", "/OAuth2/Token",
			"/connect/token/", "/connect/Token", "/v1/token", "/v1/oauth/token", "/v1/oauth2/accesstoken", "/tenant/connect/token",
		}},
		{"The introspection endpoint is " + issuer.URL + "/connect/introspect.", []string{
			"/oauth2/introspect", "/introspect", "/oauth2/v1/introspect", "/realms/master/protocol/openid-connect/token/introspect", "/oauth/check_token",
			"/as/introspect.oauth2", "/oauth/introspection", "/connect/introspect/",
		}},
		{"The revocation endpoint is " + issuer.URL + "/connect/revoke.", []string{
			"/oauth/revoke", "/oauth2/revoke", "/revoke", "/connect/revocation", "/as/revoke_token.oauth2", "/realms/master/protocol/openid-connect/revoke",
		}},
		{"The key set is " + issuer.URL + "/.well-known/jwks.json.", []string{
			"/jwks", "/jwks.json", "/oauth2/jwks", "/oauth2/v1/keys", "/discovery/v2.0/keys", "/realms/master/protocol/openid-connect/certs", "/.well-known/jwks",
			"/oauth/discovery/keys", "/oauth2/jwks.json",
		}},
		{"The metadata document is " + issuer.URL + "/.well-known/oauth-authorization-server.", []string{
			"/oauth2/default/.well-known/oauth-authorization-server", "/realms/master/.well-known/openid-configuration", "/.well-known/OpenID-Configuration",
		}},
		{"", []string{"/tokens2", "/tokenize", "/oauth", "/oauth2/authorize", "/userinfo", "/token/x", "/%74oken", "/token%2F"}},
	} {
		for _, target := range c.targets {
			for _, method := range []string{"POST", "GET"} {
				a := send(t, issuer, request{method: method, target: target, body: good().Encode()})
				wantRefusal(t, a, http.StatusNotFound, "invalid_request", secret)
				if c.want != "" && !strings.HasSuffix(a.body, " "+c.want+`"}`) || c.want == "" && strings.Contains(a.body, issuer.URL) {
					t.Errorf("%s %s: got %s, want %s", method, target, a.body, c.want)
				}
			}
		}
	}
	head := send(t, issuer, request{method: http.MethodHead, target: "/oauth/token"})
	if head.status != http.StatusNotFound || head.body != "" {
		t.Errorf("HEAD: got %d %s, want 404 without a body", head.status, head.body)
	}
}
