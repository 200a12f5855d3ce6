package service_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
	"github.com/grantorhq/grantor/service/trust"
)

// evidence proves the client of a token request. What is empty is not sent.
type evidence struct {
	id, assertion, assertionType string
	// certificate is that of the connection; nil for none.
	certificate *tls.Certificate
}

// wireAnswer is the answer to a token request.
type wireAnswer struct {
	// code and text are the error and its description; both are empty for a token.
	code, text string
	// client is the client of the token.
	client string
}

// outcome returns the client of the token, or the error code.
func (a wireAnswer) outcome() string { return a.client + a.code }

// onWires maps an error code to its gRPC code and HTTP status.
var onWires = map[string]struct {
	grpc codes.Code
	http int
}{
	"":                        {codes.OK, http.StatusOK},
	"invalid_client":          {codes.Unauthenticated, http.StatusUnauthorized},
	"temporarily_unavailable": {codes.Unavailable, http.StatusServiceUnavailable},
}

// wires is an issuer over TLS, of which a test requests tokens over REST and over gRPC.
type wires struct {
	*tokentest.Issuer

	roots *x509.CertPool
}

func newWires(t *testing.T, options ...tokentest.Option) *wires {
	t.Helper()
	root := certtest.NewAuthority()
	return &wires{tokentest.New(t, append(options, tokentest.TLS(root.Sign()))...), root.Pool()}
}

// expect requests a token on each wire, by fresh evidence. want is the ID of the client that gets it, or an error code.
// Both answers must be the same, and have the status of their error.
func (w *wires) expect(t *testing.T, what string, e func() evidence, want string) {
	t.Helper()
	rest, grpc := w.overREST(t, e()), w.overGRPC(t, e())
	if rest != grpc {
		t.Errorf("%s: got %+v over REST and %+v over gRPC", what, rest, grpc)
	}
	if got := rest.outcome(); got != want {
		t.Errorf("%s: got %q (%s), want %q", what, got, rest.text, want)
	}
	if want == "invalid_client" && rest.text != "Client authentication failed." {
		t.Errorf("%s: got the text %q", what, rest.text)
	}
}

// client returns the TLS configuration of a connection with the certificate.
func (w *wires) client(certificate *tls.Certificate) *tls.Config {
	config := &tls.Config{RootCAs: w.roots, MinVersion: tls.VersionTLS12}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	return config
}

func (w *wires) overREST(t *testing.T, e evidence) wireAnswer {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: w.client(e.certificate)}
	defer transport.CloseIdleConnections()
	return requestOverREST(t, &http.Client{Transport: transport}, w.URL, e)
}

// requestOverREST requests a token of the issuer at base.
func requestOverREST(t *testing.T, client *http.Client, base string, e evidence) wireAnswer {
	t.Helper()
	form := url.Values{"grant_type": {oauth.GrantClientCredentials}}
	for name, value := range map[string]string{"client_id": e.id, "client_assertion": e.assertion, "client_assertion_type": e.assertionType} {
		if value != "" {
			form.Set(name, value)
		}
	}
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/connect/token", strings.NewReader(form.Encode())))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := client.Do(request)
	must.Succeed(t, err)
	defer func() { _ = response.Body.Close() }()
	var body struct {
		Token string `json:"access_token"`
		Error string `json:"error"`
		Text  string `json:"error_description"`
	}
	must.Succeed(t, json.NewDecoder(response.Body).Decode(&body))
	if want, ok := onWires[body.Error]; !ok || response.StatusCode != want.http {
		t.Errorf("got %s with %q", response.Status, body.Error)
	}
	if challenged := response.Header.Get("WWW-Authenticate") != ""; challenged != (body.Error == "invalid_client") {
		t.Errorf("%s: got the challenge %q", body.Error, response.Header.Get("WWW-Authenticate"))
	}
	if retried := response.Header.Get("Retry-After") != ""; retried != (body.Error == "temporarily_unavailable") {
		t.Errorf("%s: got Retry-After %q", body.Error, response.Header.Get("Retry-After"))
	}
	return wireAnswer{body.Error, body.Text, clientOf(t, body.Token)}
}

func (w *wires) overGRPC(t *testing.T, e evidence) wireAnswer {
	t.Helper()
	conn := must.Get(grpc.NewClient(w.GRPCTarget, grpc.WithTransportCredentials(credentials.NewTLS(w.client(e.certificate)))))
	defer func() { _ = conn.Close() }()
	return requestOverGRPC(t, grantorv1.NewTokenServiceClient(conn), e)
}

// requestOverGRPC requests a token.
func requestOverGRPC(t *testing.T, tokens grantorv1.TokenServiceClient, e evidence) wireAnswer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	answer, err := tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: e.id, ClientAssertionType: e.assertionType, ClientAssertion: e.assertion,
	})
	if err == nil {
		return wireAnswer{client: clientOf(t, answer.GetAccessToken())}
	}
	got := wireAnswer{text: status.Convert(err).Message()}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			got.code = info.GetReason()
		}
	}
	if want, ok := onWires[got.code]; !ok || status.Code(err) != want.grpc {
		t.Errorf("got %v with %q", err, got.code)
	}
	return got
}

// clientOf returns the client of a token; "" for none.
func clientOf(t *testing.T, raw string) string {
	t.Helper()
	if raw == "" {
		return ""
	}
	var claims struct {
		ClientID string `json:"client_id"`
	}
	must.Succeed(t, json.Unmarshal(must.Get(base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])), &claims))
	return claims.ClientID
}

// trusting returns a manifest with the issuers, and with workloads that may have the scope of the resource.
func trusting(issuers []trust.Issuer, workloads ...trust.Workload) registry.Manifest {
	m := manifest()
	m.Clients = nil
	for i := range workloads {
		workloads[i].Scopes = must.Get(oauth.ParseScopes("api1"))
	}
	m.Issuers, m.Workloads = issuers, workloads
	return m
}

func pattern(text string) trust.Pattern { return must.Get(trust.ParsePattern(text)) }
