package extauthz_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/interceptors/guard"
)

// TestBypass sends requests that try to get past a rule, in each way in which a proxy can ask. The token has orders.read. The
// client may see /orders/{id} and /public/…, and must not see /admin/….
func TestBypass(t *testing.T) {
	raw := newToken("orders.read")
	bearer := "Authorization: Bearer " + raw
	path := func(path string) *sent { return request("GET", "orders.example.com", path, bearer) }
	const (
		ambiguous = "403 ambiguous_request"
		noRule    = "403 no_rule"
		noScope   = "403 insufficient_scope"
		invalid   = "401 invalid_token"
		admitted  = "200 billing orders.read"
	)
	tests := []struct {
		name string
		sent *sent
		want string
	}{
		{"an order", order(bearer), admitted},
		{"a trailing slash", path("/orders/1/"), admitted},
		{"a query", path("/orders/1?/../admin"), admitted},
		{"an escaped letter", path("/%6frders/1"), admitted},
		{"an escaped id", path("/orders/a%40example.com"), admitted},
		{"a public path", path("/public/a/b"), "200"},
		{"the public root", path("/public"), "200"},
		{"the admin's path", path("/admin/users"), noScope},
		{"an escaped letter of the admin's path", path("/%61dmin/users"), noScope},
		{"upper-case escapes", path("/%61%64%6D%69%6E/users"), noScope},
		{"another case", path("/ADMIN/users"), noRule},
		{"no rule", path("/"), noRule},
		{"a method without a rule", request("DELETE", "orders.example.com", "/orders/1", bearer), noRule},
		{"a method in lower case", request("get", "orders.example.com", "/orders/1", bearer), noRule},
		{"CONNECT", request("CONNECT", "orders.example.com", "", bearer), ambiguous},
		{"OPTIONS *", request("OPTIONS", "orders.example.com", "*", bearer), ambiguous},

		{"a dot segment", path("/public/../admin/users"), ambiguous},
		{"a dot segment at the end", path("/public/x/.."), ambiguous},
		{"a single dot", path("/public/./../admin/users"), ambiguous},
		{"an escaped dot segment", path("/public/%2e%2e/admin/users"), ambiguous},
		{"a half escaped dot segment", path("/public/.%2E/admin/users"), ambiguous},
		{"a dot segment above the root", path("/../admin/users"), ambiguous},
		{"an escaped slash", path("/public%2F..%2Fadmin/users"), ambiguous},
		{"an escaped slash in lower case", path("/public/..%2fadmin/users"), ambiguous},
		{"an escaped slash in an id", path("/orders/1%2F2"), ambiguous},
		{"two slashes", path("//admin/users"), ambiguous},
		{"two slashes in the middle", path("/public//admin/users"), ambiguous},
		{"two slashes at the end", path("/admin//"), ambiguous},
		{"a matrix parameter", path("/public/..;/admin/users"), ambiguous},
		{"a matrix parameter of the admin's path", path("/admin;x=y/users"), ambiguous},
		{"an escaped matrix parameter", path("/public/..%3B/admin/users"), ambiguous},
		{"a backslash", path(`/public\..\admin\users`), ambiguous},
		{"an escaped backslash", path("/public/..%5cadmin/users"), ambiguous},
		{"escaped twice", path("/public/%252e%252e/admin/users"), ambiguous},
		{"a slash escaped twice", path("/public/..%252Fadmin/users"), ambiguous},
		{"escaped twice in pieces", path("/public/%25%32%65%25%32%65/admin/users"), ambiguous},
		{"an overlong dot", path("/public/%c0%ae%c0%ae/admin/users"), ambiguous},
		{"an overlong slash", path("/public/..%c0%afadmin/users"), ambiguous},
		{"a wide escape", path("/public/%u002e%u002e/admin/users"), ambiguous},
		{"NUL", path("/admin%00/users"), ambiguous},
		{"a line feed", path("/public/%0a/admin/users"), ambiguous},
		{"a tab", path("/public/\t/admin/users"), ambiguous},
		{"a malformed escape", path("/public/%2/admin/users"), ambiguous},
		{"a fragment", path("/public/#/../../admin/users"), ambiguous},
		{"beyond ASCII", path("/public/é"), ambiguous},
		{"an absolute URI", path("http://orders.example.com/admin/users"), ambiguous},
		{"no slash", path("admin/users"), ambiguous},
		{"no path", path(""), ambiguous},
		{"only a query", path("?/public/"), ambiguous},
		{"a long path", path("/public/" + strings.Repeat("a", 8<<10)), ambiguous},

		{"a host in upper case", request("GET", "ORDERS.Example.COM", "/admin/users", bearer), noScope},
		{"a host with a dot", request("GET", "orders.example.com.", "/admin/users", bearer), noScope},
		{"a host with a port", request("GET", "orders.example.com:8443", "/admin/users", bearer), noScope},
		{"a host with all of them", request("GET", "Orders.example.com.:8443", "/orders/1", bearer), admitted},
		{"a host with two dots", request("GET", "other.example.com..", "/admin/users", bearer), ambiguous},
		{"two hosts", request("GET", "other.example.com,orders.example.com", "/admin/users", bearer), ambiguous},
		{"user information", request("GET", "other.example.com@orders.example.com", "/admin/users", bearer), ambiguous},
		{"an escaped host", request("GET", "other%2eexample.com", "/admin/users", bearer), ambiguous},
		{"a path in the host", request("GET", "other.example.com/x", "/admin/users", bearer), ambiguous},
		{"no host", request("GET", "", "/public/a", bearer), ambiguous},
		{"another host", request("GET", "evil.example.com", "/orders/1", bearer), noRule},

		{"X-HTTP-Method-Override", order(bearer, "X-HTTP-Method-Override: DELETE"), ambiguous},
		{"X-HTTP-Method", order(bearer, "X-HTTP-Method: DELETE"), ambiguous},
		{"X-Method-Override", order(bearer, "X-Method-Override: DELETE"), ambiguous},
		{"x_http_method_override", order(bearer, "x_http_method_override: DELETE"), ambiguous},
		{"X-Original-URL", request("GET", "orders.example.com", "/public/a", "X-Original-URL: /admin/users"), ambiguous},
		{"X-Rewrite-URL", request("GET", "orders.example.com", "/public/a", "X-Rewrite-URL: /admin/users"), ambiguous},
		{"X_ORIGINAL_URL", request("GET", "orders.example.com", "/public/a", "X_ORIGINAL_URL: /admin/users"), ambiguous},

		{"no token", order(), invalid},
		{"an empty token", order("Authorization: "), invalid},
		{"a scheme alone", order("Authorization: Bearer"), invalid},
		{"Basic", order("Authorization: Basic eDp5"), invalid},
		{"a token in the query", request("GET", "orders.example.com", "/orders/1?access_token="+raw), invalid},
		{"two tokens", order(bearer, bearer), invalid},
		{"a token and another", order(bearer, "authorization: Bearer x"), invalid},
		{"another and a token", order("AUTHORIZATION: Bearer x", bearer), invalid},
		{"a token and an empty one", order(bearer, "Authorization: "), invalid},
		{"two tokens in one", order(bearer + ", Bearer x"), invalid},
		{"900 tokens", order(slices.Repeat([]string{bearer}, 900)...), invalid},
		{"a long token", order("Authorization: Bearer " + strings.Repeat("a", 1<<20)), invalid},
		{"a token in Proxy-Authorization", order("Proxy-" + bearer), invalid},
	}
	g := newGuard(t, newVerifier(), guard.Config{})
	for name, ask := range wires(t, g) {
		for _, test := range tests {
			want := test.want
			if got := ask(t, test.sent).String(); got != want {
				t.Errorf("%s: %s: got %q, want %q", name, test.name, got, want)
			}
		}
	}
}

// TestImitations sends headers that imitate those for the upstream. Over ext_authz all of them are removed or overwritten;
// forward-auth leaves those with the exact names to the proxy, and refuses the others.
func TestImitations(t *testing.T) {
	bearer := "Authorization: Bearer " + newToken("orders.read")
	g := newGuard(t, newVerifier(), guard.Config{})
	exact := []string{"x-grantor-client-id", "X-Grantor-Client-Id", "X-GRANTOR-CLIENT-ID", "x-grantor-scopes", "X-Grantor-Scopes"}
	similar := []string{"x_grantor_client_id", "X_Grantor_Client_Id", "x-grantor_client-id", "X-Grantor-Client_ID", "x.grantor.client.id", "x_grantor_scopes", "X-GRANTOR_SCOPES", "x~grantor|scopes"}
	for wire, ask := range wires(t, g) {
		envoy := strings.HasPrefix(wire, "ext_authz")
		for _, name := range slices.Concat(exact, similar) {
			isExact := slices.Contains(exact, name)
			for _, public := range []bool{true, false} {
				s := order(bearer, name+": root", name+": root")
				want := "200 billing orders.read"
				if public {
					s, want = request("GET", "orders.example.com", "/public/1", name+": root", name+": root"), "200"
				}
				if !envoy && !isExact {
					want = "403 ambiguous_request"
				}
				got := ask(t, s)
				removed := slices.Contains(got.removed, strings.ToLower(name))
				// A name that is set must not be removed: Envoy removes last.
				if got.String() != want || removed != (envoy && (public || !isExact)) {
					t.Errorf("%s: %s, public %t: got %s, removed %q, want %s", wire, name, public, got, got.removed, want)
				}
			}
		}
		all := order(bearer)
		for _, name := range exact {
			all.header = append(all.header, [2]string{name, "root"})
		}
		if got := fmt.Sprint(ask(t, all)); got != "200 billing orders.read" {
			t.Errorf("%s: all exact names: got %s", wire, got)
		}
	}
}
