package extauthz_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/guard/extauthz"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

const (
	orders     = "https://orders.internal"
	testIssuer = "https://auth.internal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var signer = must.Get(token.NewSigner(jwks.ES256, must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))))

// newToken returns a valid token of the client "billing", altered by change.
func newToken(scopes string, change ...func(*token.Claims)) string {
	now := time.Now().Truncate(time.Second)
	c := &token.Claims{
		Issuer: testIssuer, Subject: "billing", ClientID: "billing", Audience: []string{orders}, Scope: must.Get(oauth.ParseScopes(scopes)),
		IssuedAt: now, ExpiresAt: now.Add(time.Hour), ID: token.NewID().String(),
	}
	for _, f := range change {
		f(c)
	}
	return must.Get(signer.Sign(c))
}

// newVerifier returns a verifier with a fixed key. It follows no feed and need not be closed.
func newVerifier(options ...verify.Option) *verify.Verifier {
	options = append([]verify.Option{verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public()))}, options...)
	return must.Get(verify.New(context.Background(), testIssuer, options...))
}

// testRoutes are the rules with which the requests of testdata were recorded, and one of a gRPC method.
func testRoutes() []guard.Route {
	return []guard.Route{
		{Host: "orders.example.com", Path: "/orders/{id}", Methods: []string{"GET"}, Rule: verify.Scopes("orders.read")},
		{Host: "orders.example.com", Path: "/public/{rest...}", Rule: verify.Public()},
		{Host: "orders.example.com", Path: "/admin/{rest...}", Rule: verify.Scopes("admin")},
		{Host: "other.example.com", Path: "/admin/{rest...}", Rule: verify.Public()},
		{Path: "/orders.v1.Orders/Get", Methods: []string{"POST"}, Rule: verify.Scopes("orders.read")},
	}
}

func newGuard(t testing.TB, verifier *verify.Verifier, config guard.Config) *guard.Guard {
	t.Helper()
	return must.Get(guard.New(verifier, must.Get(guard.NewTable(testRoutes())), config))
}

// connect serves the guard's decisions over a real connection.
func connect(t testing.TB, server authv3.AuthorizationServer) *grpc.ClientConn {
	t.Helper()
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, server)
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	conn := must.Get(grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		must.Succeed(t, <-served)
	})
	return conn
}

// sent is a request of a client, of which a header is a name and a value.
type sent struct {
	method, scheme, host, path string
	header                     [][2]string
}

// order returns the request for an order, with the headers "Name: value".
func order(headers ...string) *sent {
	return request("GET", "orders.example.com", "/orders/1", headers...)
}

func request(method, host, path string, headers ...string) *sent {
	s := &sent{method: method, scheme: "https", host: host, path: path}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		s.header = append(s.header, [2]string{name, value})
	}
	return s
}

// check returns the question that Envoy asks about a request: with the headers in a map, where it joins repeated values, or as it
// received them (encode_raw_headers).
func (s *sent) check(raw bool) *authv3.CheckRequest {
	attributes := &authv3.AttributeContext_HttpRequest{
		Id: "1", Method: s.method, Scheme: s.scheme, Host: s.host, Path: s.path, Protocol: "HTTP/2", Size: -1,
	}
	all := append([][2]string{
		{":authority", s.host}, {":method", s.method}, {":path", s.path}, {":scheme", s.scheme}, {"x-request-id", "1"},
		{"x-forwarded-proto", s.scheme}, {"user-agent", "test"},
	}, s.header...)
	if raw {
		attributes.HeaderMap = new(corev3.HeaderMap)
		for _, h := range all {
			attributes.HeaderMap.Headers = append(attributes.HeaderMap.Headers, &corev3.HeaderValue{Key: strings.ToLower(h[0]), RawValue: []byte(h[1])})
		}
	} else {
		joined := make(map[string]string)
		for _, h := range all {
			name := strings.ToLower(h[0])
			if value, ok := joined[name]; ok {
				h[1] = value + "," + h[1]
			}
			joined[name] = h[1]
		}
		attributes.Headers = joined
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{}, Request: &authv3.AttributeContext_Request{Http: attributes},
	}}
}

// result is what becomes of a request.
type result struct {
	// status is 200 if it is admitted.
	status int
	reason string
	// client and scopes are what the upstream gets, and removed what it does not.
	client, scopes string
	removed        []string
}

func (r result) String() string {
	if r.status == http.StatusOK {
		return strings.TrimSpace(fmt.Sprintf("200 %s %s", r.client, r.scopes))
	}
	return fmt.Sprintf("%d %s", r.status, r.reason)
}

// resultOf reads Envoy's answer.
func resultOf(t testing.TB, answer *authv3.CheckResponse) (r result) {
	t.Helper()
	if denied := answer.GetDeniedResponse(); answer.GetStatus().GetCode() != 0 || denied != nil {
		var body struct {
			Error string `json:"error"`
		}
		must.Succeed(t, json.Unmarshal([]byte(denied.GetBody()), &body))
		if answer.GetStatus().GetCode() == 0 || denied == nil || answer.GetOkResponse() != nil {
			t.Errorf("got %v, which is neither refused nor admitted", answer)
		}
		return result{status: int(denied.GetStatus().GetCode()), reason: body.Error}
	}
	ok := answer.GetOkResponse()
	r = result{status: http.StatusOK, removed: ok.GetHeadersToRemove()}
	for _, h := range ok.GetHeaders() {
		if h.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("the header %v does not overwrite", h)
		}
		switch h.GetHeader().GetKey() {
		case "x-grantor-client-id":
			r.client = h.GetHeader().GetValue()
		case "x-grantor-scopes":
			r.scopes = h.GetHeader().GetValue()
		}
	}
	return r
}

// wire asks about a request.
type wire func(t testing.TB, s *sent) result

// wires returns all ways in which a proxy can ask a guard.
func wires(t testing.TB, g *guard.Guard) map[string]wire {
	t.Helper()
	client := authv3.NewAuthorizationClient(connect(t, extauthz.New(g)))
	envoy := func(raw bool) wire {
		return func(t testing.TB, s *sent) result {
			return resultOf(t, must.Get(client.Check(t.Context(), s.check(raw))))
		}
	}
	forward := func(headers guard.ForwardHeaders, prefix string) wire {
		handler := must.Get(guard.ForwardAuth(g, guard.ForwardConfig{Headers: headers, Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}))
		return func(t testing.TB, s *sent) result {
			r := httptest.NewRequest(http.MethodGet, "/authorize", nil)
			for _, h := range s.header {
				r.Header.Add(h[0], h[1])
			}
			for name, value := range map[string]string{"Method": s.method, "Proto": s.scheme, "Host": s.host, "Uri": s.path} {
				r.Header.Set(prefix+name, value)
			}
			return forwardResult(t, handler, r)
		}
	}
	return map[string]wire{
		"ext_authz": envoy(false), "ext_authz raw": envoy(true),
		"x-forwarded": forward(guard.XForwarded, "X-Forwarded-"), "x-original": forward(guard.XOriginal, "X-Original-"),
	}
}

// forwardResult sends a subrequest to the handler.
func forwardResult(t testing.TB, handler http.Handler, r *http.Request) result {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	var body struct {
		Error string `json:"error"`
	}
	if recorder.Code != http.StatusOK {
		must.Succeed(t, json.Unmarshal(recorder.Body.Bytes(), &body))
	}
	return result{status: recorder.Code, reason: body.Error, client: recorder.Header().Get("X-Grantor-Client-Id"), scopes: recorder.Header().Get("X-Grantor-Scopes")}
}
