package serve_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/must"
)

// TestCertificates authenticates clients by the certificates of their connections, on both wires, and binds tokens to them.
func TestCertificates(t *testing.T) {
	c := newCertified(t, true, "--client-certificates=request")
	foreign := certtest.NewAuthority()
	uri := certtest.URIs(ordersID)
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	forServers := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	const ok, bound, denied, invalid = "", "bound", "invalid_client", "invalid_request"
	for wire, issue := range issuers {
		for name, test := range map[string]struct {
			sent              sent
			id, secret, scope string
			want              string
		}{
			"by name":                       {certificates(c.mine), "named", "", "", ok},
			"by name, deep":                 {certificates(c.root.Intermediate().Sign(uri)), "named", "", "", ok},
			"by key, bound":                 {certificates(c.keyed), "keyed", "", "", bound},
			"bound for the resource":        {certificates(c.mine), "named", "", "bound.read", bound},
			"bound for any":                 {certificates(c.mine), "named", "", "any.read", bound},
			"for both resources":            {certificates(c.mine), "named", "", "orders.read bound.read", bound},
			"without a DPoP proof":          {certificates(c.mine), "named", "", "dpop.read", invalid},
			"no certificate":                {sent{}, "named", "", "", denied},
			"expired":                       {certificates(c.root.Sign(uri, expired)), "named", "", "", denied},
			"of another authority":          {certificates(foreign.Sign(uri)), "named", "", "", denied},
			"two URIs":                      {certificates(c.root.Sign(certtest.URIs(ordersID, "spiffe://example.com/x"))), "named", "", "", denied},
			"without the purpose":           {certificates(c.root.Sign(uri, forServers)), "named", "", "", denied},
			"self-signed with the name":     {certificates(certtest.SelfSigned(uri)), "named", "", "", denied},
			"another key":                   {certificates(certtest.SelfSigned()), "keyed", "", "", denied},
			"unknown client":                {certificates(c.mine), "nobody", "", "", denied},
			"a secret, no certificate":      {sent{}, "secret", longSecret, "", ok},
			"a secret and a certificate":    {certificates(c.mine), "secret", longSecret, "", ok},
			"a secret and a foreign one":    {certificates(certtest.SelfSigned()), "secret", longSecret, "", ok},
			"a secret, bound":               {certificates(certtest.SelfSigned()), "secret", longSecret, "bound.read", bound},
			"a secret, required and absent": {sent{}, "secret", longSecret, "bound.read", invalid},
			"a wrong secret, certificate":   {certificates(c.mine), "named", "wrong", "", denied},
			"a header is no certificate": {
				sent{headers: []string{"client-cert", ":" + base64.StdEncoding.EncodeToString(c.mine.Certificate[0]) + ":"}}, "named", "", "", denied,
			},
		} {
			got := issue(c, t, test.sent, test.id, test.secret, test.scope)
			wantError, want := test.want, ""
			if test.want == bound {
				wantError, want = "", certificate.Thumbprint(test.sent.certificates[0].Leaf)
			}
			if got.text("error") != wantError || (wantError == "") != (got.text("access_token") != "") {
				t.Errorf("%s, %s: got %v", wire, name, got)
			} else if wantError == "" && (confirmation(t, got.text("access_token")) != want || got.text("token_type") != "Bearer") {
				t.Errorf("%s, %s: bound to %q, want %q", wire, name, confirmation(t, got.text("access_token")), want)
			}
		}
	}
	c.expectIntrospection(t)
	c.expectMetadata(t, true)
	for _, event := range []string{
		"auth_method=tls_client_auth identity=" + ordersID, "auth_method=self_signed_tls_client_auth client_id=keyed", "reason=wrong_certificate client_id=named",
	} {
		if !hasAttributes(c.Log.String(), event) {
			t.Errorf("the audit log has no event with %s", event)
		}
	}
}

// hasAttributes reports whether a line of a log in JSON has the attributes, name=value separated by spaces.
func hasAttributes(log, attributes string) bool {
	return slices.ContainsFunc(strings.Split(log, "\n"), func(line string) bool {
		for pair := range strings.FieldsSeq(attributes) {
			name, value, _ := strings.Cut(pair, "=")
			if !strings.Contains(line, `"`+name+`":"`+value+`"`) {
				return false
			}
		}
		return true
	})
}

// expectIntrospection checks that introspection says which certificate a token is bound to, on both wires.
func (c *certified) expectIntrospection(t *testing.T) {
	t.Helper()
	raw := issuers["REST"](c, t, certificates(c.mine), "named", "", "bound.read").text("access_token")
	want := certificate.Thumbprint(c.mine.Leaf)
	const secret = "another secret that is long enough"
	got := c.post(t, "/connect/introspect", sent{}, url.Values{"client_id": {"api"}, "client_secret": {secret}, "token": {raw}})
	if members, _ := got["cnf"].(map[string]any); got["active"] != true || len(members) != 1 || members["x5t#S256"] != want {
		t.Errorf("REST: got %v", got)
	}
	ctx, conn := c.dial(t, sent{})
	answered := must.Get(grantorv1.NewTokenServiceClient(conn).IntrospectToken(ctx, &grantorv1.IntrospectTokenRequest{ClientId: "api", ClientSecret: secret, Token: raw}))
	if fields := answered.GetCnf().GetFields(); len(fields) != 1 || fields["x5t#S256"].GetStringValue() != want {
		t.Errorf("gRPC: got %v", answered)
	}
}

// expectMetadata checks whether the metadata say that clients authenticate by certificates.
func (c *certified) expectMetadata(t *testing.T, want bool) {
	t.Helper()
	ctx, conn := c.dial(t, sent{})
	got := must.Get(grantorv1.NewTokenServiceClient(conn).GetServerMetadata(ctx, &grantorv1.GetServerMetadataRequest{}))
	for _, method := range []string{"tls_client_auth", "self_signed_tls_client_auth"} {
		if slices.Contains(got.GetTokenEndpointAuthMethodsSupported(), method) != want {
			t.Errorf("the metadata list %v", got.GetTokenEndpointAuthMethodsSupported())
		}
	}
	if got.GetTlsClientCertificateBoundAccessTokens() != want {
		t.Errorf("tls_client_certificate_bound_access_tokens is %t", !want)
	}
}

// TestBoundAdministration calls an administrative method with a token that is bound to a certificate, on both wires.
func TestBoundAdministration(t *testing.T) {
	c := newCertified(t, true, "--client-certificates=request")
	raw := issuers["REST"](c, t, certificates(c.keyed), "keyed", "", "grantor:clients.read").text("access_token")
	if raw == "" {
		t.Fatal("no token")
	}
	for name, test := range map[string]struct {
		sent sent
		want string
	}{
		"its certificate":     {certificates(c.keyed), ""},
		"another certificate": {certificates(c.mine), "invalid_token"},
		"no certificate":      {sent{}, "invalid_token"},
	} {
		ctx, conn := c.dial(t, test.sent)
		_, err := grantorv1.NewClientServiceClient(conn).ListClients(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+raw), &grantorv1.ListClientsRequest{})
		if err == nil != (test.want == "") || err != nil && grpcError(err).text("error") != test.want {
			t.Errorf("gRPC, %s: got %v", name, err)
		}
		if got := c.listClients(t, test.sent, raw); got.text("error") != test.want {
			t.Errorf("REST, %s: got %v", name, got)
		}
	}
	if !hasAttributes(c.Log.String(), "event=admin.refused reason=wrong_proof") {
		t.Errorf("the audit log does not say why: %s", c.Log.String())
	}
}

// listClients lists the clients over REST.
func (c *certified) listClients(t *testing.T, s sent, raw string) answer {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: c.settings(s.certificates...)}
	defer transport.CloseIdleConnections()
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+c.HTTPAddr()+"/v1/clients", http.NoBody))
	request.Header.Set("Authorization", "Bearer "+raw)
	response := must.Get(transport.RoundTrip(request))
	defer func() { _ = response.Body.Close() }()
	var got answer
	must.Succeed(t, json.Unmarshal(must.Get(io.ReadAll(response.Body)), &got))
	return got
}

// TestNoCertificates has a server that does not ask for certificates: a client that has one authenticates by its secret, and
// by nothing else.
func TestNoCertificates(t *testing.T) {
	root := certtest.NewAuthority()
	own := root.Sign()
	r := servetest.Dev(t, "--tls-cert-file="+servetest.WriteFile(t, "cert.pem", certtest.PEM(own.Certificate...)),
		"--tls-key-file="+servetest.WriteFile(t, "key.pem", certtest.KeyPEM(own)))
	c := &certified{Replica: r, root: root, overTLS: true}
	c.expectMetadata(t, false)
	for wire, issue := range issuers {
		if got := issue(c, t, certificates(root.Sign()), "background-service", "service-secret-here", "api1"); got.text("error") != "" {
			t.Errorf("%s: got %v", wire, got)
		}
		if got := issue(c, t, certificates(root.Sign()), "background-service", "", "api1"); got.text("error") != "invalid_client" {
			t.Errorf("%s: got %v", wire, got)
		}
	}
}

// TestReloadedAuthorities changes the file with the authorities while the server runs.
func TestReloadedAuthorities(t *testing.T) {
	c := newCertified(t, true, "--client-certificates=request")
	next := certtest.NewAuthority()
	replaced := next.Sign(certtest.URIs(ordersID))
	if got := issuers["gRPC"](c, t, certificates(replaced), "named", "", ""); got.text("error") != "invalid_client" {
		t.Fatalf("before: got %v", got)
	}
	must.Succeed(t, os.WriteFile(c.caFile, []byte(certtest.PEM(next.Certificate.Raw)), 0o600))
	must.Eventually(t, "the new authority counts", func() bool {
		return issuers["gRPC"](c, t, certificates(replaced), "named", "", "").text("access_token") != ""
	})
	if got := issuers["REST"](c, t, certificates(c.mine), "named", "", ""); got.text("error") != "invalid_client" {
		t.Errorf("the old authority: got %v", got)
	}
}

// forwarded returns the headers of a certificate in each form.
func forwarded(c tls.Certificate, form string) string {
	pem, der := url.PathEscape(certtest.PEM(c.Certificate...)), base64.StdEncoding.EncodeToString(c.Certificate[0])
	return map[string]string{
		"rfc9440": ":" + der + ":", "xfcc": `Hash=00;Cert="` + pem + `";Subject="CN=orders"`, "escaped-pem": pem, "base64-der": der,
	}[form]
}

// TestForwardedCertificates takes certificates from the header of a proxy, in each form and on both wires, and never from any
// other sender.
func TestForwardedCertificates(t *testing.T) {
	for _, form := range []string{"rfc9440", "xfcc", "escaped-pem", "base64-der"} {
		t.Run(form, func(t *testing.T) {
			for _, trusted := range []bool{true, false} {
				proxies := "127.0.0.1/32"
				if !trusted {
					proxies = "192.0.2.0/24"
				}
				c := newCertified(t, false, "--trusted-proxies="+proxies, "--client-certificate-header=X-Cert", "--client-certificate-form="+form)
				c.expectMetadata(t, true)
				good, keyed := forwarded(c.mine, form), forwarded(c.keyed, form)
				for wire, issue := range issuers {
					for name, test := range map[string]struct {
						headers []string
						id      string
						// want is the outcome from a trusted proxy; others are refused as without a certificate.
						want string
					}{
						"by name":          {[]string{"X-Cert", good}, "named", ""},
						"by key":           {[]string{"X-Cert", keyed}, "keyed", ""},
						"lower case":       {[]string{"x-cert", good}, "named", ""},
						"another header":   {[]string{"X-Certificate", good}, "named", "invalid_client"},
						"none":             {nil, "named", "invalid_client"},
						"empty":            {[]string{"X-Cert", ""}, "named", "invalid_client"},
						"twice":            {[]string{"X-Cert", good, "X-Cert", good}, "named", "invalid_request"},
						"two letter cases": {[]string{"X-Cert", good, "x-cert", good}, "named", "invalid_request"},
						"malformed":        {[]string{"X-Cert", good[:len(good)-9]}, "named", "invalid_request"},
						"no certificate":   {[]string{"X-Cert", "x"}, "named", "invalid_request"},
						"too long":         {[]string{"X-Cert", strings.Repeat("A", 12<<10+1)}, "named", "invalid_request"},
					} {
						want := test.want
						if !trusted {
							want = "invalid_client"
						}
						if got := issue(c, t, sent{headers: test.headers}, test.id, "", ""); got.text("error") != want {
							t.Errorf("trusted %t, %s, %s: got %v", trusted, wire, name, got)
						}
					}
				}
			}
		})
	}
}

// TestProxyCertificate has a proxy that authenticates itself by a certificate: it is not that of the clients behind it.
func TestProxyCertificate(t *testing.T) {
	c := newCertified(t, true, "--client-certificates=request", "--trusted-proxies=127.0.0.1/32", "--client-certificate-header=Client-Cert")
	for wire, issue := range issuers {
		if got := issue(c, t, certificates(c.mine), "named", "", ""); got.text("error") != "invalid_client" {
			t.Errorf("%s, no header: got %v", wire, got)
		}
		if got := issue(c, t, certificates(c.mine), "secret", longSecret, "bound.read"); got.text("error") != "invalid_request" {
			t.Errorf("%s, bound to that of the proxy: got %v", wire, got)
		}
		behind := sent{certificates(c.mine).certificates, []string{"Client-Cert", forwarded(c.keyed, "rfc9440")}}
		got := issue(c, t, behind, "keyed", "", "")
		if confirmation(t, got.text("access_token")) != certificate.Thumbprint(c.keyed.Leaf) {
			t.Errorf("%s, forwarded: got %v", wire, got)
		}
	}
}

// TestCurl requests a token with curl --cert.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl")
	}
	c := newCertified(t, true, "--client-certificates=request")
	command := exec.CommandContext(t.Context(), curl, "--silent", "--show-error", "--cacert", c.caFile,
		"--cert", servetest.WriteFile(t, "mine.pem", certtest.PEM(c.mine.Certificate...)), "--key", servetest.WriteFile(t, "mine.key", certtest.KeyPEM(c.mine)),
		"--resolve", "localhost:"+c.HTTPAddr()[strings.LastIndexByte(c.HTTPAddr(), ':')+1:]+":127.0.0.1",
		"-d", "grant_type=client_credentials", "-d", "client_id=named", "-d", "scope=bound.read",
		"https://localhost:"+c.HTTPAddr()[strings.LastIndexByte(c.HTTPAddr(), ':')+1:]+"/connect/token")
	var failure bytes.Buffer
	command.Stderr = &failure
	var got answer
	if err := json.Unmarshal(must.Get(command.Output()), &got); err != nil || confirmation(t, got.text("access_token")) != certificate.Thumbprint(c.mine.Leaf) {
		t.Errorf("got %v, %v, %s", got, err, failure.String())
	}
}
