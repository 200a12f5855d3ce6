//go:build conformance

package conformance_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// boundResource requires tokens that are bound to a certificate.
const boundResource = "https://bound.internal"

// certified is an issuer over TLS with the clients named, whose certificate is by an authority, and keyed, whose key is
// registered and whose tokens are bound; and a server that accepts tokens for boundResource.
type certified struct {
	*tokentest.Issuer

	authority *certtest.Authority
	// clients maps a client to its certificate. The stranger, who has one by the same authority, is no client.
	clients map[string]tls.Certificate
	api     string
	trust   *http.Client
}

func newCertified(t *testing.T) *certified {
	t.Helper()
	const name = "spiffe://example.com/shop/orders"
	c := &certified{authority: certtest.NewAuthority()}
	c.clients = map[string]tls.Certificate{
		"named": c.authority.Sign(certtest.URIs(name)), "keyed": certtest.SelfSigned(), "stranger": c.authority.Sign(),
	}
	server := c.authority.Sign()
	c.Issuer = newIssuer(t, tokentest.TLS(server), tokentest.ClientAuthorities(c.authority.Pool()))
	named, keyed := client("named", "", "api1 bound.read"), client("keyed", "", "api1")
	named.Certificate = certificate.Subject{URI: name}
	keyed.Keys = must.Get(jwks.NewDocument(must.Get(jwks.NewKey(jwks.ES256, c.clients["keyed"].Leaf.PublicKey))))
	keyed.CertificateBoundTokens = true
	c.Apply(t, registry.Manifest{
		Resources: []registry.Resource{{
			ID: must.Get(oauth.ParseResource(boundResource)), Scopes: must.Get(oauth.ParseScopes("bound.read")),
			RequireBoundTokens: registry.BindCertificate,
		}},
		Clients: []registry.ClientSpec{named, keyed},
	})
	c.trust = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.authority.Pool()}}}
	t.Cleanup(c.trust.CloseIdleConnections)
	verifier := must.Get(verify.New(t.Context(), c.URL, verify.Audience(boundResource), verify.HTTPClient(c.trust)))
	t.Cleanup(verifier.Close)
	api := httptest.NewUnstartedServer(verify.HTTP(verifier, verify.Scopes("bound.read"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	api.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequestClientCert}
	api.StartTLS()
	t.Cleanup(api.Close)
	c.api = api.URL
	return c
}

// write writes the certificates and keys in PEM into a directory.
func (c *certified) write(t *testing.T, dir string) {
	t.Helper()
	files := map[string]string{"ca.pem": certtest.PEM(c.authority.Certificate.Raw)}
	for name, cert := range c.clients {
		files[name+".pem"], files[name+".key"] = certtest.PEM(cert.Certificate...), certtest.KeyPEM(cert)
	}
	for name, text := range files {
		must.Succeed(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
}

// TestConformanceCertificatesNPM runs the clients from npm with certificates, by both methods of RFC 8705 §2, and sends
// their bound tokens to a server that interceptors/verify guards.
func TestConformanceCertificatesNPM(t *testing.T) {
	dir := workingCopy(t, "npm", "node", "npm")
	run(t, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	c := newCertified(t)
	c.write(t, dir)
	output := run(t, dir, []string{
		"ISSUER=" + c.URL, "API=" + c.api, "RESOURCE=" + res1, "SCOPE=api1", "BOUND_RESOURCE=" + boundResource, "BOUND_SCOPE=bound.read",
	}, "node", "mtls.js")
	if got, want := strings.Split(strings.TrimSpace(output), "\n"), []string{"oauth4webapi", "openid-client 6", "openid-client 5"}; !slices.Equal(got, want) {
		t.Errorf("got tokens by %q, want %q", got, want)
	}
}

// TestConformanceCertificatesCurl runs curl --cert.
func TestConformanceCertificatesCurl(t *testing.T) {
	dir := t.TempDir()
	c := newCertified(t)
	c.write(t, dir)
	// send returns the body of an answer and its status.
	send := func(certificate string, arguments ...string) (body, status string) {
		output := run(t, dir, nil, "curl", append([]string{
			"--silent", "--show-error", "--cacert", "ca.pem", "--cert", certificate + ".pem", "--key", certificate + ".key",
			"--write-out", "\n%{http_code}",
		}, arguments...)...)
		at := strings.LastIndexByte(output, '\n')
		return output[:at], output[at+1:]
	}
	keys := oidc.NewRemoteKeySet(oidc.ClientContext(t.Context(), c.trust), c.URL+"/.well-known/jwks.json")
	for _, test := range []struct {
		certificate, client, resource, scope string
		bound                                bool
		status                               string
	}{
		{"named", "named", res1, "api1", false, "200"},
		{"named", "named", boundResource, "bound.read", true, "200"},
		{"keyed", "keyed", res1, "api1", true, "200"},
		{"stranger", "named", res1, "api1", false, "401"},
		{"stranger", "keyed", res1, "api1", false, "401"},
		{"keyed", "named", res1, "api1", false, "401"},
		{"named", "keyed", res1, "api1", false, "401"},
	} {
		t.Run(test.certificate+" as "+test.client+" for "+test.resource, func(t *testing.T) {
			body, status := send(test.certificate, "--data", "grant_type=client_credentials", "--data", "client_id="+test.client,
				"--data", "scope="+test.scope, "--data-urlencode", "resource="+test.resource, c.URL+"/connect/token")
			var answer struct {
				Token string `json:"access_token"`
				Error string `json:"error"`
			}
			must.Succeed(t, json.Unmarshal([]byte(body), &answer))
			if status != test.status {
				t.Fatalf("got %s %s, want %s", status, answer.Error, test.status)
			}
			if test.status != "200" {
				if answer.Error != "invalid_client" {
					t.Errorf("got %q", answer.Error)
				}
				return
			}
			payload, err := keys.VerifySignature(t.Context(), answer.Token)
			must.Succeed(t, err)
			c.expectBound(t, payload, test.certificate, test.bound)
			if test.resource == boundResource {
				for certificate, want := range map[string]string{test.certificate: "200", "stranger": "401"} {
					if _, got := send(certificate, "--header", "Authorization: Bearer "+answer.Token, c.api); got != want {
						t.Errorf("the API with the certificate of %s: got %s, want %s", certificate, got, want)
					}
				}
			}
		})
	}
}

// expectBound checks that the claims bind a token to the certificate of a client, or to none.
func (c *certified) expectBound(t *testing.T, payload []byte, name string, bound bool) {
	t.Helper()
	var claims struct {
		Confirmation map[string]string `json:"cnf"`
	}
	must.Succeed(t, json.Unmarshal(payload, &claims))
	want := ""
	if bound {
		sum := sha256.Sum256(c.clients[name].Leaf.Raw)
		want = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	if got := claims.Confirmation["x5t#S256"]; got != want {
		t.Errorf("got cnf %v, want x5t#S256 %q", claims.Confirmation, want)
	}
}
