package extauthz_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/guard/extauthz"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
	"github.com/grantorhq/grantor/service/tokentest"
)

// headers returns the headers of an answer as "name: value", and the values that are appended with a plus.
func headers(all []*corev3.HeaderValueOption) (texts []string) {
	for _, h := range all {
		text := h.GetHeader().GetKey() + ": " + h.GetHeader().GetValue()
		if h.GetAppendAction() == corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
			text = "+" + text
		}
		texts = append(texts, text)
	}
	return texts
}

// TestCheck checks all of the answers: for an HTTP request and for a gRPC call, admitted and refused.
func TestCheck(t *testing.T) {
	reader, empty := "Authorization: Bearer "+newToken("orders.read"), "Authorization: Bearer "+newToken("")
	server := extauthz.New(newGuard(t, newVerifier(), guard.Config{RemoveToken: true}))
	dpopChallenge := `+www-authenticate: DPoP algs="` + strings.Join(dpop.Algorithms(), " ") + `"`
	call := func(headers ...string) *sent {
		return request("POST", "orders.example.com", "/orders.v1.Orders/Get", append(headers, "Content-Type: application/grpc+proto")...)
	}
	for name, test := range map[string]struct {
		sent    *sent
		code    codes.Code
		status  int
		body    string
		headers []string
		remove  []string
	}{
		"admitted": {order(reader, "x_grantor_scopes: all"), codes.OK, 0, "", []string{"x-grantor-client-id: billing", "x-grantor-scopes: orders.read"}, []string{"x_grantor_scopes", "authorization"}},
		"public":   {request("GET", "orders.example.com", "/public/a", "X-Grantor-Client-Id: root"), codes.OK, 0, "", nil, []string{"x-grantor-client-id"}},
		"no token": {order(), codes.Unauthenticated, 401, `{"error":"invalid_token","error_description":"A bearer token is required."}`, []string{
			"cache-control: no-store", "content-type: application/json", "www-authenticate: Bearer", dpopChallenge,
		}, nil},
		"no scope": {order(empty), codes.PermissionDenied, 403, `{"error":"insufficient_scope","error_description":"The access token lacks the scope: orders.read"}`, []string{
			"cache-control: no-store", "content-type: application/json", `www-authenticate: Bearer error="insufficient_scope", scope="orders.read"`,
		}, nil},
		"no rule": {request("GET", "orders.example.com", "/x", reader), codes.PermissionDenied, 403, `{"error":"no_rule","error_description":"No rule allows this request."}`, []string{
			"cache-control: no-store", "content-type: application/json",
		}, nil},
		"ambiguous": {request("GET", "orders.example.com", "/public//a", reader), codes.PermissionDenied, 403, `{"error":"ambiguous_request","error_description":"The path has an empty segment."}`, []string{
			"cache-control: no-store", "content-type: application/json",
		}, nil},
		"gRPC, admitted": {call(reader), codes.OK, 0, "", []string{"x-grantor-client-id: billing", "x-grantor-scopes: orders.read"}, []string{"authorization"}},
		"gRPC, no token": {call(), codes.Unauthenticated, 401, "A bearer token is required.", []string{
			"cache-control: no-store", "grpc-status: 16", "grpc-status-details-bin: invalid_token", "www-authenticate: Bearer", dpopChallenge,
		}, nil},
		"gRPC, no scope": {call(empty), codes.PermissionDenied, 403, "The access token lacks the scope: orders.read", []string{
			"cache-control: no-store", "grpc-status: 7", "grpc-status-details-bin: insufficient_scope", `www-authenticate: Bearer error="insufficient_scope", scope="orders.read"`,
		}, nil},
	} {
		for _, raw := range []bool{false, true} {
			answer := must.Get(server.Check(t.Context(), test.sent.check(raw)))
			if got := codes.Code(answer.GetStatus().GetCode()); got != test.code {
				t.Errorf("%s: got %s, want %s", name, got, test.code)
			}
			ok, denied := answer.GetOkResponse(), answer.GetDeniedResponse()
			got := headers(append(ok.GetHeaders(), denied.GetHeaders()...))
			for i, h := range got {
				if encoded, isDetails := strings.CutPrefix(h, "grpc-status-details-bin: "); isDetails {
					got[i] = "grpc-status-details-bin: " + reason(t, encoded, test.code)
				}
			}
			if int(denied.GetStatus().GetCode()) != test.status || denied.GetBody() != test.body || !slices.Equal(got, test.headers) || !slices.Equal(ok.GetHeadersToRemove(), test.remove) {
				t.Errorf("%s: got %d %s %q %q, want %d %s %q %q", name, denied.GetStatus().GetCode(), denied.GetBody(), got, ok.GetHeadersToRemove(),
					test.status, test.body, test.headers, test.remove)
			}
			if (ok == nil) == (denied == nil) {
				t.Errorf("%s: got %v", name, answer)
			}
		}
	}
}

// reason returns that of the google.rpc.ErrorInfo in an encoded status, as a client of gRPC reads it.
func reason(t *testing.T, encoded string, code codes.Code) string {
	t.Helper()
	var s rpcstatus.Status
	must.Succeed(t, proto.Unmarshal(must.Get(base64.RawStdEncoding.DecodeString(encoded)), &s))
	details := status.FromProto(&s).Details()
	info, ok := details[0].(*errdetails.ErrorInfo)
	if !ok || info.GetDomain() != "grantor" || codes.Code(s.GetCode()) != code {
		t.Errorf("got %v", &s)
	}
	return info.GetReason()
}

// TestContentTypes checks which requests are gRPC calls, whose refusal has a text for its message.
func TestContentTypes(t *testing.T) {
	server := extauthz.New(newGuard(t, newVerifier(), guard.Config{}))
	for contentType, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;x=y": true, "application/grpc-web": false,
		"application/grpc-web+proto": false, "application/json": false, "": false, "x application/grpc": false,
	} {
		answer := must.Get(server.Check(t.Context(), order("Content-Type: "+contentType).check(true)))
		if got := !strings.HasPrefix(answer.GetDeniedResponse().GetBody(), "{"); got != want {
			t.Errorf("%q: got %t, want %t", contentType, got, want)
		}
	}
}

// TestHostileChecks sends malformed questions over a real connection. All are refused, and the server goes on.
func TestHostileChecks(t *testing.T) {
	conn := connect(t, extauthz.New(newGuard(t, newVerifier(), guard.Config{})))
	client := authv3.NewAuthorizationClient(conn)
	http := func(change func(*authv3.AttributeContext_HttpRequest)) *authv3.CheckRequest {
		m := request("GET", "orders.example.com", "/public/a").check(true)
		change(m.GetAttributes().GetRequest().GetHttp())
		return m
	}
	for name, m := range map[string]*authv3.CheckRequest{
		"nothing":            {},
		"no request":         {Attributes: &authv3.AttributeContext{}},
		"no HTTP attributes": {Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{}}},
		"empty attributes":   {Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{}}}},
		"no method":          http(func(r *authv3.AttributeContext_HttpRequest) { r.Method = "" }),
		"no path":            http(func(r *authv3.AttributeContext_HttpRequest) { r.Path = "" }),
		"no host":            http(func(r *authv3.AttributeContext_HttpRequest) { r.Host = "" }),
		"1000 tokens": http(func(r *authv3.AttributeContext_HttpRequest) {
			r.Path = "/orders/1"
			for range 1000 {
				r.HeaderMap.Headers = append(r.HeaderMap.Headers, &corev3.HeaderValue{Key: "authorization", Value: "Bearer " + newToken("orders.read")})
			}
		}),
		"100,000 headers": http(func(r *authv3.AttributeContext_HttpRequest) {
			r.HeaderMap.Headers = slices.Repeat([]*corev3.HeaderValue{{Key: "a", Value: "b"}}, 100_000)
		}),
		"a header of 3 MB that overrides": http(func(r *authv3.AttributeContext_HttpRequest) {
			r.HeaderMap.Headers = append(r.HeaderMap.Headers, &corev3.HeaderValue{Key: "x-http-method", Value: strings.Repeat("a", 3<<20)})
		}),
		"a path of 3 MB":   http(func(r *authv3.AttributeContext_HttpRequest) { r.Path += strings.Repeat("/a", 3<<19) }),
		"a host of 3 MB":   http(func(r *authv3.AttributeContext_HttpRequest) { r.Host += strings.Repeat(".a", 3<<19) }),
		"a method of 3 MB": http(func(r *authv3.AttributeContext_HttpRequest) { r.Method += strings.Repeat("A", 3<<20) }),
		"a name of bytes": http(func(r *authv3.AttributeContext_HttpRequest) {
			r.HeaderMap.Headers = append(r.HeaderMap.Headers, &corev3.HeaderValue{Key: "x\x00grantor\x00scopes", RawValue: []byte{0xff}})
		}),
		"both forms of headers": func() *authv3.CheckRequest {
			m := order("Authorization: Bearer " + newToken("orders.read")).check(true)
			m.GetAttributes().GetRequest().GetHttp().Headers = map[string]string{"authorization": "Bearer " + newToken("orders.read")}
			return m
		}(),
	} {
		answer, err := client.Check(t.Context(), m)
		if err != nil || answer.GetStatus().GetCode() == 0 || answer.GetDeniedResponse().GetStatus().GetCode() < 400 {
			t.Errorf("%s: got %v, %v, want a refusal", name, answer, err)
		}
	}
	if answer, err := client.Check(t.Context(), http(func(*authv3.AttributeContext_HttpRequest) {})); err != nil || answer.GetOkResponse() == nil {
		t.Errorf("afterwards: got %v, %v", answer, err)
	}
	if answer, err := extauthz.New(nil).Check(t.Context(), nil); err != nil || answer.GetDeniedResponse().GetStatus().GetCode() != 500 {
		t.Errorf("no guard and no question: got %v, %v", answer, err)
	}
	testInvalidUTF8(t, conn)
}

// testInvalidUTF8 sends attributes that are no UTF-8, which the gRPC server itself refuses.
func testInvalidUTF8(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	nest := func(encoded []byte, numbers ...protowire.Number) []byte {
		for _, n := range numbers {
			encoded = protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), encoded)
		}
		return encoded
	}
	for name, encoded := range map[string][]byte{
		"a path":            nest([]byte("/public/\xff"), 4, 2, 4, 1),
		"a host":            nest([]byte("\xc0\xae"), 5, 2, 4, 1),
		"a header":          nest(append(nest([]byte("authorization"), 1), nest([]byte("Bearer \xff"), 2)...), 3, 2, 4, 1),
		"a certificate":     nest([]byte("\xfe"), 5, 1, 1),
		"a truncated field": {0x0a, 0xff},
		"garbage":           {0xff, 0xff, 0xff},
	} {
		err := conn.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, encoded, &authv3.CheckResponse{}, grpc.ForceCodecV2(bytesCodec{}))
		if status.Code(err) == codes.OK {
			t.Errorf("%s: got %v, want an error", name, err)
		}
	}
}

// bytesCodec sends bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

func (bytesCodec) Name() string { return "proto" }

// TestRevocation checks that a revoked token of a real issuer is refused from the next question on.
func TestRevocation(t *testing.T) {
	issuer := tokentest.New(t)
	issuer.AddClient(t, "billing", orders, "orders.read")
	verifier := must.Get(verify.New(t.Context(), issuer.URL, verify.Audience(orders), verify.Now(issuer.Now)))
	defer verifier.Close()
	client := authv3.NewAuthorizationClient(connect(t, extauthz.New(newGuard(t, verifier, guard.Config{}))))
	raw := issuer.Token(t, "billing", orders, "orders.read")
	ask := func() string {
		return resultOf(t, must.Get(client.Check(t.Context(), order("Authorization: Bearer "+raw).check(true)))).String()
	}
	if got := ask(); got != "200 billing orders.read" {
		t.Fatalf("got %s", got)
	}
	_, err := grantorv1.NewTokenServiceClient(issuer.Conn(t)).RevokeToken(t.Context(), &grantorv1.RevokeTokenRequest{
		ClientId: "billing", ClientSecret: tokentest.Secret, Token: raw,
	})
	must.Succeed(t, err)
	start := time.Now()
	must.Eventually(t, "the token is refused", func() bool { return ask() == "401 invalid_token" })
	t.Logf("refused after %v", time.Since(start))
}

// TestCertificates checks tokens that are bound to the certificate of the client's connection, for which the proxy vouches.
func TestCertificates(t *testing.T) {
	mine, other := certtest.SelfSigned(), certtest.SelfSigned()
	encode := func(der []byte) string {
		return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	raw := newToken("orders.read", func(c *token.Claims) { c.Confirmation.CertificateThumbprint = certificate.Thumbprint(mine.Leaf) })
	server := extauthz.New(newGuard(t, newVerifier(), guard.Config{}))
	for range 2 { // from the cache the second time
		for name, test := range map[string]struct{ certificate, want string }{
			"the certificate":           {encode(mine.Leaf.Raw), "200 billing orders.read"},
			"the certificate and more":  {encode(mine.Leaf.Raw) + encode(other.Leaf.Raw), "200 billing orders.read"},
			"another":                   {encode(other.Leaf.Raw), "401 invalid_token"},
			"another, then it":          {encode(other.Leaf.Raw) + encode(mine.Leaf.Raw), "401 invalid_token"},
			"none":                      {"", "401 invalid_token"},
			"not escaped":               {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: mine.Leaf.Raw})), "200 billing orders.read"},
			"a malformed escape":        {"%zz", "401 invalid_token"},
			"no PEM":                    {"garbage", "401 invalid_token"},
			"another type":              {url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: mine.Leaf.Raw}))), "401 invalid_token"},
			"truncated":                 {encode(mine.Leaf.Raw[:100]), "401 invalid_token"},
			"longer than a certificate": {encode(mine.Leaf.Raw) + strings.Repeat("%0A", 6000), "401 invalid_token"},
		} {
			m := order("Authorization: Bearer " + raw).check(true)
			m.GetAttributes().GetSource().Certificate = test.certificate
			if got := resultOf(t, must.Get(server.Check(t.Context(), m))).String(); got != test.want {
				t.Errorf("%s: got %s, want %s", name, got, test.want)
			}
		}
	}
	strict := extauthz.New(newGuard(t, newVerifier(verify.RequireBoundTokens()), guard.Config{}))
	if got := resultOf(t, must.Get(strict.Check(t.Context(), order("Authorization: Bearer "+newToken("orders.read")).check(true)))).String(); got != "401 invalid_token" {
		t.Errorf("a bearer token where bound ones are required: got %s", got)
	}
}

// TestCertificatePanic checks that a certificate which makes the parser panic counts as malformed, and ends nothing.
func TestCertificatePanic(t *testing.T) {
	sent := url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})))
	calls := 0
	got := extauthz.ParseCertificate(sent, func([]byte) (*x509.Certificate, error) {
		calls++
		panic("a certificate")
	})
	if got != nil || calls != 1 {
		t.Errorf("got %v after %d calls", got, calls)
	}
}

// TestDPoP checks proofs, and that the client gets the nonce for the next one.
func TestDPoP(t *testing.T) {
	prover := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	raw := newToken("orders.read", func(c *token.Claims) { c.Confirmation.KeyThumbprint = prover.Thumbprint() })
	server := extauthz.New(newGuard(t, newVerifier(verify.RequireDPoPNonce(nil)), guard.Config{RemoveToken: true}))
	ask := func(nonce string, headers ...string) *authv3.CheckResponse {
		proof := must.Get(prover.Sign(dpop.Claims{Method: "GET", URL: "https://orders.example.com/orders/1", Token: raw, Time: time.Now(), Nonce: nonce}))
		return must.Get(server.Check(t.Context(), order(append(headers, "Authorization: DPoP "+raw, "DPoP: "+proof)...).check(true)))
	}
	first := ask("")
	nonce := ""
	for _, h := range first.GetDeniedResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "dpop-nonce" {
			nonce = h.GetHeader().GetValue()
		}
	}
	if got := resultOf(t, first).String(); got != "401 use_dpop_nonce" || nonce == "" {
		t.Fatalf("without a nonce: got %s, the nonce %q", got, nonce)
	}
	second := ask(nonce)
	if got := resultOf(t, second); got.String() != "200 billing orders.read" || !slices.Equal(got.removed, []string{"authorization", "dpop"}) {
		t.Errorf("with the nonce: got %s, removed %q", got, got.removed)
	}
	if got := resultOf(t, ask(nonce, "DPoP: x")).String(); got != "401 invalid_dpop_proof" {
		t.Errorf("two proofs: got %s", got)
	}
}

// TestStale checks that requests are refused with 503 while the knowledge of revocations is too old, if the guard is to refuse
// them.
func TestStale(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	verifier := must.Get(verify.New(ctx, testIssuer, verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public())), verify.OverGRPC(deadFeed{}),
		verify.MaxStaleness(time.Nanosecond), verify.RefuseWhenStale()))
	defer verifier.Close()
	server := extauthz.New(newGuard(t, verifier, guard.Config{}))
	for wire, s := range map[string]*sent{
		"HTTP": order("Authorization: Bearer " + newToken("orders.read")),
		"gRPC": request("POST", "h", "/orders.v1.Orders/Get", "Authorization: Bearer "+newToken("orders.read"), "Content-Type: application/grpc"),
	} {
		denied := must.Get(server.Check(t.Context(), s.check(true))).GetDeniedResponse()
		got := headers(denied.GetHeaders())
		if denied.GetStatus().GetCode() != http.StatusServiceUnavailable || !slices.Contains(got, "retry-after: 5") || slices.Contains(got, "grpc-status: 14") != (wire == "gRPC") {
			t.Errorf("%s: got %v", wire, denied)
		}
	}
	if got := resultOf(t, must.Get(server.Check(t.Context(), request("GET", "orders.example.com", "/public/a").check(true)))).String(); got != "200" {
		t.Errorf("public: got %s", got)
	}
}

// deadFeed is a connection to an issuer that is away.
type deadFeed struct{}

func (deadFeed) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return status.Error(codes.Unavailable, "away")
}

func (deadFeed) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unavailable, "away")
}

// TestLimitStreams checks that Envoy learns how long the token lives, and from this server alone.
func TestLimitStreams(t *testing.T) {
	const name = "x-envoy-upstream-stream-duration-ms"
	g := newGuard(t, newVerifier(), guard.Config{})
	for _, limit := range []bool{false, true} {
		options := []extauthz.Option{nil}
		if limit {
			options = append(options, extauthz.LimitStreams())
		}
		server := extauthz.New(g, options...)
		raw := newToken("orders.read", func(c *token.Claims) { c.ExpiresAt = c.IssuedAt.Add(10 * time.Minute) })
		left := 0
		for _, h := range must.Get(server.Check(t.Context(), order("Authorization: Bearer "+raw).check(true))).GetOkResponse().GetHeaders() {
			if h.GetHeader().GetKey() == name {
				left = must.Get(strconv.Atoi(h.GetHeader().GetValue()))
			}
		}
		if limit != (left > 590_000 && left <= 600_000) {
			t.Errorf("limit %t: got %d ms", limit, left)
		}
		if got := headers(must.Get(server.Check(t.Context(), request("GET", "orders.example.com", "/public/a").check(true))).GetOkResponse().GetHeaders()); got != nil {
			t.Errorf("public: got %q", got)
		}
	}
}

// TestConcurrentChecks asks concurrently, while the table is replaced.
func TestConcurrentChecks(t *testing.T) {
	g := newGuard(t, newVerifier(), guard.Config{})
	client := authv3.NewAuthorizationClient(connect(t, extauthz.New(g)))
	raw := newToken("orders.read")
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 100 {
				s, want := order("Authorization: Bearer "+raw), "200 billing orders.read"
				if i%2 == 0 {
					s, want = order(fmt.Sprintf("x_grantor_scopes: %d", i)), "401 invalid_token"
				}
				if answer, err := client.Check(t.Context(), s.check(i%4 < 2)); err != nil || resultOf(t, answer).String() != want {
					t.Errorf("got %v, %v, want %s", answer, err, want)
					return
				}
			}
		})
	}
	for range 100 {
		g.SetTable(must.Get(guard.NewTable(testRoutes())))
	}
	group.Wait()
}

// FuzzCheck checks that no question panics, and that none is answered by more than one of the responses.
func FuzzCheck(f *testing.F) {
	for _, s := range []*sent{order("Authorization: Bearer x"), request("GET", "orders.example.com", "/public/a", "x_grantor_scopes: a")} {
		f.Add(must.Get(proto.Marshal(s.check(true))))
		f.Add(must.Get(proto.Marshal(s.check(false))))
	}
	f.Add([]byte{})
	server := extauthz.New(newGuard(f, newVerifier(), guard.Config{}))
	f.Fuzz(func(t *testing.T, encoded []byte) {
		m := new(authv3.CheckRequest)
		if proto.Unmarshal(encoded, m) != nil {
			return
		}
		answer, err := server.Check(t.Context(), m)
		if err != nil || (answer.GetOkResponse() == nil) == (answer.GetDeniedResponse() == nil) || (answer.GetStatus().GetCode() == 0) != (answer.GetOkResponse() != nil) {
			t.Fatalf("got %v, %v", answer, err)
		}
		path, _, _ := strings.Cut(m.GetAttributes().GetRequest().GetHttp().GetPath(), "?")
		decoded, err := url.PathUnescape(path)
		public := err == nil && (strings.HasPrefix(decoded, "/public") || strings.HasPrefix(decoded, "/admin"))
		if answer.GetOkResponse() != nil && !public { // no token here is valid
			t.Fatalf("%q was admitted", path)
		}
		if _, err := proto.Marshal(answer); err != nil {
			t.Fatal(err)
		}
	})
}
