//go:build conformance

package conformance_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	invoicesv1 "github.com/grantorhq/grantor/examples/invoices/v1"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// testTokens calls a server with good and bad tokens. Both of its halves must agree.
func (e example) testTokens(t *testing.T, issuer *tokentest.Issuer, api invoicesAPI) {
	t.Helper()
	const svc = "background-service"
	claims := func(change map[string]any) string {
		all := map[string]any{"aud": orders, "scope": "api1"}
		for name, value := range change {
			all[name] = value
		}
		return issuer.Sign(t, all)
	}
	good := issuer.Token(t, svc, orders, "api1")
	for name, test := range map[string]struct {
		authorization []string
		want          int
	}{
		"good":              {bearers(good), 200},
		"lower-case scheme": {[]string{"bearer " + good}, 200},
		"both scopes":       {bearers(issuer.Token(t, svc, orders, "api1", "invoices.write")), 200},
		"several audiences": {bearers(claims(map[string]any{"aud": []string{"https://elsewhere.internal", orders}})), 200},
		"dated ahead":       {bearers(claims(map[string]any{"iat": time.Now().Add(25 * time.Second).Unix()})), 200},
		"another scope":     {bearers(issuer.Token(t, svc, orders, "invoices.write")), 403},
		"a longer scope":    {bearers(claims(map[string]any{"scope": "api1.read api10"})), 403},
		"no scope":          {bearers(claims(map[string]any{"scope": nil})), 403},
		"none":              {nil, 401},
		"another scheme":    {[]string{"Basic " + good}, 401},
		"no scheme":         {[]string{good}, 401},
		"empty":             {[]string{"Bearer "}, 401},
		"twice":             {bearers(good, good), 401},
		"good and bad":      {bearers(good, "bad"), 401},
		"bad and good":      {bearers("bad", good), 401},
		"two in one value":  {[]string{"Bearer " + good + ", Bearer " + good}, 401},
		"garbage":           {bearers("a.b.c"), 401},
		"expired":           {bearers(issuer.Expired(t, svc, orders, "api1")), 401},
		"just expired":      {bearers(claims(map[string]any{"exp": time.Now().Add(-time.Second).Unix()})), 401},
		"another audience":  {bearers(claims(map[string]any{"aud": "https://elsewhere.internal"})), 401},
		"no audience":       {bearers(claims(map[string]any{"aud": nil})), 401},
		"another issuer":    {bearers(claims(map[string]any{"iss": "https://elsewhere.internal"})), 401},
		"never expires":     {bearers(claims(map[string]any{"exp": nil})), 401},
		"no client":         {bearers(claims(map[string]any{"client_id": nil})), 401},
		"bound to a key":    {bearers(claims(map[string]any{"cnf": map[string]string{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}})), 401},
		"forged":            {bearers(issuer.Forge(t, map[string]any{"aud": orders, "scope": "api1"})), 401},
		"unsigned":          {bearers(resigned(t, good, "none")), 401},
		"signed with HMAC":  {bearers(resigned(t, good, "HS256")), 401},
	} {
		if got := api.list(t, test.authorization...); got != test.want {
			t.Errorf("HTTP, %s: got %d, want %d", name, got, test.want)
		}
		want := codeFor[test.want]
		if e.dropsRepeated && len(test.authorization) > 1 && test.authorization[0] == "Bearer "+good {
			want = codes.OK
		}
		if got := api.listGRPC(t, test.authorization...); got != want {
			t.Errorf("gRPC, %s: got %s, want %s", name, got, want)
		}
	}
	for token, want := range map[string]int{good: 403, issuer.Token(t, svc, orders, "invoices.write"): 201} {
		if got := api.create(t, token); got != want {
			t.Errorf("HTTP: creating: got %d, want %d", got, want)
		}
		if got := api.createGRPC(t, token); got != codeFor[want] {
			t.Errorf("gRPC: creating: got %s, want %s", got, codeFor[want])
		}
	}
}

// testRevoked revokes a token. The examples accept it until it expires, as their pages say; interceptors/verify refuses it.
func testRevoked(t *testing.T, issuer *tokentest.Issuer, goAPI, api invoicesAPI) {
	t.Helper()
	tokens := grantorv1.NewTokenServiceClient(issuer.Conn(t))
	issued := must.Get(tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
		GrantType: "client_credentials", ClientId: "background-service", ClientSecret: tokentest.Secret, Scope: "api1",
	}))
	token := bearers(issued.GetAccessToken())
	must.Get(tokens.RevokeToken(t.Context(), &grantorv1.RevokeTokenRequest{
		ClientId: "background-service", ClientSecret: tokentest.Secret, Token: issued.GetAccessToken(),
	}))
	must.Eventually(t, "the revoked token is refused in Go", func() bool { return goAPI.list(t, token...) == 401 })
	if code, status := api.list(t, token...), api.listGRPC(t, token...); code != 200 || status != codes.OK {
		t.Errorf("got %d and %s for a revoked token, want it accepted: change the README", code, status)
	}
}

// testKeys starts the server with an issuer that is down at first, and then publishes a key. The issuer also signs what is no access
// token.
func (e example) testKeys(t *testing.T, dir string) {
	t.Helper()
	signer := jwstest.NewSigner("ES256")
	var up atomic.Bool
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(w, jwstest.Set(signer))
	}))
	t.Cleanup(issuer.Close)
	sign := func(typ string) []string {
		return bearers(signer.Sign(jwstest.Object{"alg": "ES256", "typ": typ, "kid": signer.JWK().ID}, jwstest.Object{
			"iss": issuer.URL, "aud": orders, "sub": "svc", "client_id": "svc", "scope": "api1", "jti": "1",
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		}))
	}
	api := e.startServer(t, dir, issuer.URL)
	for _, test := range []struct {
		up   bool
		typ  string
		want int
	}{{false, "at+jwt", 503}, {true, "at+jwt", 200}, {true, "JWT", 401}, {true, "client-authentication+jwt", 401}} {
		up.Store(test.up)
		if code, status := api.list(t, sign(test.typ)...), api.listGRPC(t, sign(test.typ)...); code != test.want || status != codeFor[test.want] {
			t.Errorf("%+v: got %d and %s, want %d and %s", test, code, status, test.want, codeFor[test.want])
		}
	}
}

// bearers returns the values of an Authorization header for each token.
func bearers(tokens ...string) []string {
	values := make([]string, len(tokens))
	for i, token := range tokens {
		values[i] = "Bearer " + token
	}
	return values
}

// resigned returns a token with the algorithm of its header changed, and signed accordingly: not at all, or with what an attacker
// knows.
func resigned(t *testing.T, token, algorithm string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	header := map[string]any{}
	must.Succeed(t, json.Unmarshal(must.Get(base64.RawURLEncoding.DecodeString(parts[0])), &header))
	header["alg"] = algorithm
	input := base64.RawURLEncoding.EncodeToString(must.Get(json.Marshal(header))) + "." + parts[1]
	if algorithm == "none" {
		return input + "."
	}
	mac := hmac.New(sha256.New, fmt.Append(nil, header["kid"]))
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// codeFor maps a status of HTTP to that of gRPC for the same outcome.
var codeFor = map[int]codes.Code{
	200: codes.OK, 201: codes.OK, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 503: codes.Unavailable,
}

// list lists invoices over HTTP and returns the status, or 0 without an answer. It checks the challenge.
func (a invoicesAPI) list(t *testing.T, authorization ...string) int {
	t.Helper()
	return a.do(t, http.MethodGet, "", authorization)
}

func (a invoicesAPI) create(t *testing.T, token string) int {
	t.Helper()
	return a.do(t, http.MethodPost, `{"cents":500}`, bearers(token))
}

func (a invoicesAPI) do(t *testing.T, method, body string, authorization []string) int {
	t.Helper()
	request := must.Get(http.NewRequestWithContext(t.Context(), method, "http://"+a.http+"/api/invoices", strings.NewReader(body)))
	request.Header["Authorization"] = authorization
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer func() { _ = answer.Body.Close() }()
	challenge := answer.Header.Get("WWW-Authenticate")
	want := map[int]string{401: `error="invalid_token"`, 403: `error="insufficient_scope"`}[answer.StatusCode]
	if !strings.Contains(challenge, want) {
		t.Errorf("got the challenge %q with the status %d", challenge, answer.StatusCode)
	}
	return answer.StatusCode
}

// listGRPC lists invoices over gRPC and returns the status.
func (a invoicesAPI) listGRPC(t *testing.T, authorization ...string) codes.Code {
	t.Helper()
	return a.call(t, authorization, func(ctx context.Context, client invoicesv1.InvoiceServiceClient) error {
		_, err := client.ListInvoices(ctx, &invoicesv1.ListInvoicesRequest{})
		return err
	})
}

func (a invoicesAPI) createGRPC(t *testing.T, token string) codes.Code {
	t.Helper()
	return a.call(t, bearers(token), func(ctx context.Context, client invoicesv1.InvoiceServiceClient) error {
		_, err := client.CreateInvoice(ctx, &invoicesv1.CreateInvoiceRequest{Cents: 500})
		return err
	})
}

func (a invoicesAPI) call(
	t *testing.T, authorization []string, call func(context.Context, invoicesv1.InvoiceServiceClient) error,
) codes.Code {
	t.Helper()
	conn := must.Get(grpc.NewClient(a.grpc, grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer func() { _ = conn.Close() }()
	ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": authorization})
	return status.Code(call(ctx, invoicesv1.NewInvoiceServiceClient(conn)))
}
