package rest_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// edge lists headers that gateways and proxies act on, as a caller could send them.
var edge = []string{
	"Grpc-Timeout: 1n", "Grpc-Timeout: 0S", "Grpc-Timeout: soon", "Grpc-Encoding: gzip", "Grpc-Accept-Encoding: gzip",
	"Accept: text/html", "Accept: application/x-www-form-urlencoded", "Accept: application/grpc", "Accept-Encoding: gzip",
	"TE: trailers", "X-HTTP-Method-Override: GET", "X-HTTP-Method-Override: DELETE", "X-Method-Override: GET",
	"X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: \xe9", "X-Forwarded-Host: evil.test", "X-Forwarded-Proto: http",
	"X-Forwarded-Prefix: /evil", "Forwarded: for=203.0.113.9;host=evil.test", "X-Original-URL: /evil", "X-Rewrite-URL: /evil",
	"X-Forwarded-Client-Cert: By=spiffe://a;Subject=\"CN=disabled\"", "X-Client-Cert: disabled", "Client-Cert: :ZGlzYWJsZWQ=:",
	"X-SSL-Client-S-DN: CN=disabled", "SSL-Client-Verify: SUCCESS",
	"Grpc-Metadata-Authorization: Basic x", "Grpc-Metadata-Client_id: disabled", "Grpc-Metadata-Key-Bin: ~", "Grpcgateway-Authorization: Basic x",
	"Range: bytes=0-1", "If-None-Match: *", "If-Match: x", "Traceparent: x", "Origin: https://evil.test", "Cookie: a=b",
	"Access-Control-Request-Method: POST", "Upgrade-Insecure-Requests: 1", "Content-Language: x", "Transfer: x",
}

// TestEdgeHeaders sends each header with requests that succeed and with requests that fail. No answer changes.
func TestEdgeHeaders(t *testing.T) {
	issuer := newIssuer(t)
	granted := post(t, issuer, good())
	wantToken(t, granted)
	refused := post(t, issuer, onlyGrant())
	wantRefusal(t, refused, http.StatusUnauthorized, "invalid_client")
	wrongMethod := send(t, issuer, request{method: http.MethodGet})
	keys := request{method: http.MethodGet, target: "/.well-known/jwks.json"}
	document := send(t, issuer, keys)
	for _, line := range edge {
		t.Run(line, func(t *testing.T) {
			a := post(t, issuer, good(), line)
			wantToken(t, a)
			wantSame(t, &answer{a.status, a.header, ""}, &answer{granted.status, granted.header, ""})
			wantSame(t, post(t, issuer, onlyGrant(), line), refused)
			wantSame(t, send(t, issuer, request{method: http.MethodGet, headers: []string{line}}), wrongMethod)
			if !strings.HasPrefix(line, "If-") && !strings.HasPrefix(line, "Range") { // which apply to a document
				keys.headers = []string{line}
				wantSame(t, send(t, issuer, keys), document)
			}
		})
	}
}

// TestEdgeCredentials sends valid credentials in headers that are ignored.
func TestEdgeCredentials(t *testing.T) {
	issuer := newIssuer(t)
	right := basic("svc", secret)
	for _, line := range []string{
		"Grpc-Metadata-Authorization: " + right, "Grpc-Metadata-authorization: " + right, "Grpcgateway-Authorization: " + right,
		"Proxy-Authorization: " + right, "X-Authorization: " + right, "X-Forwarded-Authorization: " + right,
		"X-Forwarded-Access-Token: " + right, "Grpc-Metadata-Client_secret: " + secret, "X-Forwarded-User: svc", "Cookie: authorization=" + right,
	} {
		t.Run(line, func(t *testing.T) {
			wantRefusal(t, post(t, issuer, onlyGrant(), line), http.StatusUnauthorized, "invalid_client", right, secret)
			wantRefusal(t, post(t, issuer, onlyGrant(), line, "Authorization: "+basic("svc", wrong)), http.StatusUnauthorized, "invalid_client", right, secret)
		})
	}
}

// TestMethodOverride tries to override the method of a request.
func TestMethodOverride(t *testing.T) {
	issuer := newIssuer(t)
	for _, target := range []string{"/.well-known/jwks.json", "/.well-known/openid-configuration"} {
		a := send(t, issuer, request{target: target, headers: []string{"X-HTTP-Method-Override: GET"}, body: good().Encode()})
		wantOpen(t, a)
		wantRefusal(t, a, http.StatusMethodNotAllowed, "invalid_request")
		a = send(t, issuer, request{method: http.MethodGet, target: target, headers: []string{"X-HTTP-Method-Override: POST"}})
		wantDocument(t, a, "public, max-age=300")
	}
	a := send(t, issuer, request{method: http.MethodGet, headers: []string{"X-HTTP-Method-Override: POST"}, body: good().Encode()})
	wantRefusal(t, a, http.StatusMethodNotAllowed, "invalid_request")
}

// TestTwoAuthorizationValues sends two values of one key as gRPC metadata.
func TestTwoAuthorizationValues(t *testing.T) {
	issuer := newIssuer(t)
	tokens := grantorv1.NewTokenServiceClient(issuer.Conn(t))
	right := basic("svc", secret)
	for name, values := range map[string][]string{
		"the same": {right, right}, "right first": {right, "Bearer x"}, "right last": {"Bearer x", right}, "empty": {"", right},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": values})
			_, err := tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{GrantType: "client_credentials"})
			wantStatus(t, err, codes.InvalidArgument, "invalid_request")
		})
	}
}
