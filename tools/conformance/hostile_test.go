//go:build conformance

package conformance_test

import (
	"fmt"
	"slices"
	"strings"
)

// hostile is a request that tries to get past a rule, or to confuse the programs that read it. Each is sent with a valid token for
// orders.read, unless it has its own Authorization.
type hostile struct{ name, raw string }

// bearer stands for the token of a hostile request.
const bearer = "Bearer TOKEN"

// target returns the hostile request for a path.
func target(name, path string) hostile { return request(name, "GET", path, "Authorization: "+bearer) }

// with returns the hostile request for an order with headers.
func with(name string, headers ...string) hostile {
	return request(name, "GET", "/orders/1", append([]string{"Authorization: " + bearer}, headers...)...)
}

func request(name, method, path string, headers ...string) hostile {
	return hostile{name, method + " " + path + " HTTP/1.1\r\nHost: orders.example.com\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"}
}

// hostileRequests returns the requests. Under the rules of the tests, /public is public, /orders requires orders.read and
// /admin requires a scope that the token does not have, on the host orders.example.com.
func hostileRequests() []hostile {
	return slices.Concat(hostilePaths(), hostileRequestLines(), hostileTokens(), hostileHeaders())
}

// hostilePaths returns requests for paths that servers may read in different ways.
func hostilePaths() []hostile {
	return []hostile{
		target("an order", "/orders/1"),
		request("no token", "GET", "/orders/1"),
		target("an encoded slash", "/public/..%2Fadmin/users"),
		target("an encoded slash in lower case", "/public%2f..%2fadmin/users"),
		target("an encoded slash in an order", "/orders/1%2F2"),
		target("a dot segment", "/public/../admin/users"),
		target("an encoded dot segment", "/public/%2e%2e/admin/users"),
		target("a half encoded dot segment", "/public/.%2E/admin/users"),
		target("a dot segment in the middle", "/public/./x/../../admin/users"),
		target("a dot segment at the end", "/public/../admin/users/.."),
		target("a dot segment above the root", "/../admin/users"),
		target("two leading slashes", "//admin/users"),
		target("two slashes after a public path", "/public//../admin/users"),
		target("an empty segment", "/admin//users"),
		target("matrix parameters", "/public/..;/admin/users"),
		target("matrix parameters of the protected path", "/admin;v=1/users"),
		target("encoded matrix parameters", "/public/..%3B/admin/users"),
		target("a backslash", `/public\..\admin\users`),
		target("an encoded backslash", "/public/..%5Cadmin/users"),
		target("an escaped letter", "/%61dmin/users"),
		target("an escaped letter in upper case", "/%41dmin/users"),
		target("another case", "/ADMIN/users"),
		target("a double escape", "/public/%252e%252e/admin/users"),
		target("a doubly escaped slash", "/public/..%252Fadmin/users"),
		target("an escaped NUL", "/admin%00/users"),
		target("an escaped line feed", "/public/%0a/../admin/users"),
		target("an invalid escape", "/public/%zz/../admin/users"),
		target("an escape that ends early", "/public/%2"),
		target("an overlong slash", "/public/..%c0%afadmin/users"),
		target("raw UTF-8", "/public/\xc3\xa9"),
		target("invalid UTF-8", "/public/\xff\xfe/../admin/users"),
		target("a trailing dot", "/admin./users"),
		target("a trailing slash", "/admin/users/"),
		target("a fragment", "/public/#/../../admin/users"),
		target("a question mark that is escaped", "/public/%3F/../../admin/users"),
		target("a path in the query", "/public/?/../../admin/users"),
		target("a path of 9000 bytes", "/public/"+strings.Repeat("a", 9000)),
	}
}

// hostileRequestLines returns requests with odd targets, hosts, methods and framing.
func hostileRequestLines() []hostile {
	return []hostile{
		target("a token in the query", "/orders/1?access_token=TOKEN"),
		request("a token in the query and nowhere else", "GET", "/orders/1?access_token=TOKEN"),
		target("an absolute URI", "http://orders.example.com/admin/users"),
		target("an absolute URI with another host", "http://other.example.com/admin/users"),
		target("an absolute URI with user information", "http://other.example.com@orders.example.com/admin/users"),
		target("a path without a slash", "admin/users"),
		target("an asterisk", "*"),
		target("a tab", "/public/\t/../admin/users"),
		{"a host in mixed case", "GET /admin/users HTTP/1.1\r\nHost: ORDERS.example.com\r\nAuthorization: " + bearer + "\r\n\r\n"},
		{"a host with a trailing dot", "GET /admin/users HTTP/1.1\r\nHost: orders.example.com.\r\nAuthorization: " + bearer + "\r\n\r\n"},
		{"a host with a port", "GET /admin/users HTTP/1.1\r\nHost: orders.example.com:443\r\nAuthorization: " + bearer + "\r\n\r\n"},
		{"two hosts", "GET /admin/users HTTP/1.1\r\nHost: other.example.com\r\nHost: orders.example.com\r\nAuthorization: " + bearer + "\r\n\r\n"},
		{"two hosts in one", "GET /admin/users HTTP/1.1\r\nHost: other.example.com, orders.example.com\r\nAuthorization: " + bearer + "\r\n\r\n"},
		{"a host with a space", "GET /admin/users HTTP/1.1\r\nHost: other.example.com orders.example.com\r\nAuthorization: " + bearer + "\r\n\r\n"},
		{"no host", "GET /admin/users HTTP/1.0\r\nAuthorization: " + bearer + "\r\n\r\n"},
		{"a header in two lines", "GET /orders/1 HTTP/1.1\r\nHost: orders.example.com\r\nAuthorization: " + bearer + "\r\nX-Grantor-Client-Id:\r\n admin\r\n\r\n"},
		{"a space before a colon", "GET /orders/1 HTTP/1.1\r\nHost: orders.example.com\r\nAuthorization: " + bearer + "\r\nX-Grantor-Client-Id : admin\r\n\r\n"},
		{"a method in lower case", "get /admin/users HTTP/1.1\r\nHost: orders.example.com\r\nAuthorization: " + bearer + "\r\n\r\n"},
		request("a method that no rule names", "DELETE", "/orders/1", "Authorization: "+bearer),
		request("HEAD", "HEAD", "/orders/1", "Authorization: "+bearer),
		request("a body that never comes", "POST", "/orders/1", "Authorization: "+bearer, "Content-Length: 10"),
		request("a body that never comes, of a public path", "POST", "/public/1", "Content-Length: 10"),
		request("chunks that never come", "POST", "/orders/1", "Authorization: "+bearer, "Transfer-Encoding: chunked"),
		request("a length and chunks", "POST", "/orders/1", "Authorization: "+bearer, "Content-Length: 30", "Transfer-Encoding: chunked"),
	}
}

// hostileTokens returns requests with too many tokens, or none.
func hostileTokens() []hostile {
	many := func(n int) []string {
		values := make([]string, n)
		for i := range values {
			values[i] = fmt.Sprintf("Authorization: Bearer t%d", i)
		}
		return values
	}
	return []hostile{
		request("64 Authorization values", "GET", "/orders/1", many(64)...),
		request("1000 Authorization values", "GET", "/orders/1", many(1000)...),
		with("a second token", "Authorization: Bearer another"),
		with("a second token in another case", "AUTHORIZATION: Bearer another"),
		request("two tokens in one value", "GET", "/orders/1", "Authorization: Bearer another, "+bearer),
		request("Basic", "GET", "/orders/1", "Authorization: Basic c3ZjOnNlY3JldA=="),
	}
}

// hostileHeaders returns requests with headers that imitate those of the guard or of a proxy.
func hostileHeaders() []hostile {
	requests := []hostile{
		with("an imitation", "X-Grantor-Client-Id: admin", "X-Grantor-Scopes: admin"),
		with("an imitation in lower case, twice", "x-grantor-client-id: admin", "x-grantor-client-id: root"),
		with("an imitation in upper case", "X-GRANTOR-CLIENT-ID: admin", "X-GRANTOR-SCOPES: admin"),
		with("an imitation with underscores", "X_Grantor_Client_Id: admin", "X_GRANTOR_SCOPES: admin"),
		with("an imitation with one underscore", "X-Grantor-Client_Id: admin", "X-Grantor_Scopes: admin"),
		request("an imitation on a public path", "GET", "/public/1", "X-Grantor-Client-Id: admin", "X_Grantor_Client_Id: admin", "X-Grantor-Scopes: admin"),
		with("an imitation that is a hop", "Connection: X-Grantor-Client-Id, X-Grantor-Scopes, Authorization"),
		with("headers of the proxy that are a hop", "Connection: close, X-Forwarded-Uri, X-Forwarded-Method, X-Forwarded-Host, X-Original-URI, X-Original-Method, X-Original-Host"),
		request("an upgrade to HTTP/2", "GET", "/public/1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
		request("an upgrade to HTTP/2 after one to WebSocket", "GET", "/public/1", "Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
		request("an upgrade to HTTP/2 or WebSocket", "GET", "/public/1", "Connection: Upgrade", "Upgrade: h2c, websocket"),
		with("an oversized header", "X-Large: "+strings.Repeat("a", 70_000)),
		with("a value that is invalid UTF-8", "X-Name: \xff\xfe"),
		with("a value with NUL", "X-Name: a\x00b"),
		with("a name that is not a token", "X(Grantor): a"),
	}
	for _, header := range []string{
		"X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE", "X_HTTP_Method_Override: DELETE",
		"X-Original-URL: /admin/users", "X-Rewrite-URL: /admin/users", "SCRIPT_NAME: /orders", "X-Script-Name: /orders", "PATH_INFO: /admin/users",
	} {
		name, _, _ := strings.Cut(header, ":")
		requests = append(requests, with(name, header))
	}
	// The caller says that its request for /admin is one for a public path.
	for _, headers := range [][]string{
		{"X-Forwarded-Uri: /public/1", "X-Forwarded-Method: GET", "X-Forwarded-Host: orders.example.com", "X-Forwarded-Proto: https"},
		{"X_Forwarded_Uri: /public/1", "X_Forwarded_Method: GET"},
		{"X-Original-URI: /public/1", "X-Original-Method: GET", "X-Original-Host: orders.example.com", "X-Original-Proto: https"},
		{"X-Original-Uri: /public/1", "X-ORIGINAL-URI: /public/2"},
		{"X_Original_URI: /public/1"},
		{"X-Envoy-Original-Path: /public/1", "X-Envoy-Original-Host: other.example.com"},
		{"Forwarded: host=other.example.com;proto=https"},
	} {
		requests = append(requests, request("/admin with "+strings.Join(headers, ", "), "GET", "/admin/users", append(headers, "Authorization: "+bearer)...))
	}
	return requests
}
