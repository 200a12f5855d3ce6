package serve_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
)

// certified is a server with clients that have certificates.
type certified struct {
	*servetest.Replica

	root *certtest.Authority
	// mine is the certificate of the client "named" and keyed that of the client "keyed", which signs itself.
	mine, keyed tls.Certificate
	overTLS     bool
	caFile      string
}

// ordersID is the SPIFFE ID in certificates of the client "named".
const ordersID = "spiffe://example.com/orders"

// newCertified starts a server with the arguments, which trusts the authority root for the certificates of clients.
func newCertified(t *testing.T, overTLS bool, args ...string) *certified {
	t.Helper()
	c := &certified{root: certtest.NewAuthority(), keyed: certtest.SelfSigned(), overTLS: overTLS}
	c.mine = c.root.Sign(certtest.URIs(ordersID))
	key := must.Get(must.Get(jwks.NewKey(jwks.ES256, c.keyed.Leaf.PublicKey)).JWK())
	manifest := fmt.Sprintf(`resources:
  - {resource: https://orders.internal, scopes: [orders.read]}
  - {resource: https://bound.internal, scopes: [bound.read], require_bound_tokens: certificate}
  - {resource: https://any.internal, scopes: [any.read], require_bound_tokens: any}
  - {resource: https://dpop.internal, scopes: [dpop.read], require_bound_tokens: dpop}
clients:
  - client_id: named
    tls_client_auth_san_uri: %s
    scopes: [orders.read, bound.read, any.read, dpop.read]
    default_scopes: [orders.read]
  - client_id: keyed
    jwks: {keys: [%s]}
    auth_methods: [self_signed_tls_client_auth]
    scopes: [orders.read, "grantor:clients.read"]
    default_scopes: [orders.read]
    tls_client_certificate_bound_access_tokens: true
  - client_id: secret
    client_secret: a secret that is long enough
    scopes: [orders.read, bound.read]
    default_scopes: [orders.read]
  - client_id: api
    client_secret: another secret that is long enough
    resources: [https://bound.internal]
`, ordersID, must.Get(json.Marshal(key)))
	c.caFile = servetest.WriteFile(t, "clients.pem", certtest.PEM(c.root.Certificate.Raw))
	args = append(args, "--apply="+servetest.WriteFile(t, "manifest.yaml", manifest), "--client-certificate-ca-file="+c.caFile,
		"--failures-per-client=0", "--failures-per-source=0")
	if overTLS {
		own := c.root.Sign()
		args = append(args, "--tls-cert-file="+servetest.WriteFile(t, "cert.pem", certtest.PEM(own.Certificate...)),
			"--tls-key-file="+servetest.WriteFile(t, "key.pem", certtest.KeyPEM(own)))
	}
	c.Replica = servetest.Dev(t, args...)
	return c
}

// settings returns the settings of a client with the certificate, which it sends whichever authorities the server names.
func (c *certified) settings(certificates ...tls.Certificate) *tls.Config {
	settings := &tls.Config{RootCAs: c.root.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if len(certificates) > 0 {
		settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificates[0], nil }
	}
	return settings
}

// sent is what a request has besides its form.
type sent struct {
	certificates []tls.Certificate
	// headers are pairs of a name and a value.
	headers []string
}

// answer is the response to a request: the OAuth error, or members of the JSON.
type answer map[string]any

func (a answer) text(name string) string { s, _ := a[name].(string); return s }

// post sends a form over REST.
func (c *certified) post(t *testing.T, path string, s sent, form url.Values) answer {
	t.Helper()
	target := "http://" + c.HTTPAddr() + path
	if c.overTLS {
		target = "https://" + c.HTTPAddr() + path
	}
	return c.postTo(t, target, s, form.Encode())
}

// postTo sends an encoded form to a URL.
func (c *certified) postTo(t *testing.T, target string, s sent, form string) answer {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: c.settings(s.certificates...), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(form)))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(s.headers); i += 2 {
		request.Header[s.headers[i]] = append(request.Header[s.headers[i]], s.headers[i+1]) // in the letter case as given
	}
	response := must.Get(transport.RoundTrip(request))
	defer func() { _ = response.Body.Close() }()
	var got answer
	must.Succeed(t, json.Unmarshal(must.Get(io.ReadAll(response.Body)), &got))
	if want := statuses[got.text("error")].http; response.StatusCode != want {
		t.Errorf("got %s with %q, want %d", response.Status, got.text("error"), want)
	}
	return got
}

// statuses maps an OAuth error to its gRPC code and its HTTP status.
var statuses = map[string]struct {
	grpc codes.Code
	http int
}{
	"":                {codes.OK, http.StatusOK},
	"invalid_request": {codes.InvalidArgument, http.StatusBadRequest},
	"invalid_client":  {codes.Unauthenticated, http.StatusUnauthorized},
	"invalid_token":   {codes.Unauthenticated, http.StatusUnauthorized},
}

// dial returns a connection to the gRPC port, and a context that sends the headers.
func (c *certified) dial(t *testing.T, s sent) (context.Context, *grpc.ClientConn) {
	t.Helper()
	security := insecure.NewCredentials()
	if c.overTLS {
		security = credentials.NewTLS(c.settings(s.certificates...))
	}
	conn := must.Get(grpc.NewClient(c.GRPCAddr(), grpc.WithTransportCredentials(security)))
	t.Cleanup(func() { _ = conn.Close() })
	return withHeaders(t.Context(), s.headers), conn
}

// withHeaders returns a context that sends the headers.
func withHeaders(ctx context.Context, headers []string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, headers...)
}

// grpcError returns the answer to a refused call. If its code is not that of its reason, the answer has the whole error.
func grpcError(err error) answer {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(interface{ GetReason() string }); ok && statuses[info.GetReason()].grpc == status.Code(err) {
			return answer{"error": info.GetReason()}
		}
	}
	return answer{"error": err.Error()}
}

// issuers are functions that request a token over each of the wires.
var issuers = map[string]func(c *certified, t *testing.T, s sent, id, secret, scope string) answer{
	"REST": func(c *certified, t *testing.T, s sent, id, secret, scope string) answer {
		return c.post(t, "/connect/token", s, url.Values{
			"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {scope},
		})
	},
	"gRPC": func(c *certified, t *testing.T, s sent, id, secret, scope string) answer {
		ctx, conn := c.dial(t, s)
		got, err := grantorv1.NewTokenServiceClient(conn).IssueToken(ctx, &grantorv1.IssueTokenRequest{
			GrantType: "client_credentials", ClientId: id, ClientSecret: secret, Scope: scope,
		})
		if err != nil {
			return grpcError(err)
		}
		return answer{"access_token": got.GetAccessToken(), "token_type": got.GetTokenType()}
	},
}

// confirmation returns the "x5t#S256" of a token.
func confirmation(t *testing.T, raw string) string {
	t.Helper()
	var claims struct {
		Confirmation map[string]string `json:"cnf"`
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return "no token"
	}
	must.Succeed(t, json.Unmarshal(must.Get(base64.RawURLEncoding.DecodeString(parts[1])), &claims))
	return claims.Confirmation["x5t#S256"]
}

func certificates(c ...tls.Certificate) sent { return sent{certificates: c} }

const longSecret = "a secret that is long enough"
