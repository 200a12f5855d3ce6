package serve_test

import (
	"crypto/tls"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
)

// TestHAProxy has a real proxy that ends TLS and forwards the certificates of its clients, over HTTP and gRPC.
func TestHAProxy(t *testing.T) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("there is no haproxy")
	}
	c := newCertified(t, false, "--trusted-proxies=127.0.0.1/32", "--client-certificate-header=X-Client-Cert", "--client-certificate-form=base64-der")
	own := c.root.Sign()
	front := [2]string{freeport.Address(t), freeport.Address(t)}
	config := fmt.Sprintf(`
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend rest
  bind %[1]s ssl crt %[3]s ca-file %[4]s verify optional crt-ignore-err all ca-ignore-err all alpn http/1.1
  http-request set-header X-Client-Cert %%[ssl_c_der,base64]
  use_backend rest
backend rest
  server one %[5]s
frontend grpc
  bind %[2]s ssl crt %[3]s ca-file %[4]s verify optional crt-ignore-err all ca-ignore-err all alpn h2
  http-request set-header X-Client-Cert %%[ssl_c_der,base64]
  use_backend grpc
backend grpc
  server one %[6]s proto h2
`, front[0], front[1], servetest.WriteFile(t, "front.pem", certtest.PEM(own.Certificate...)+certtest.KeyPEM(own)), c.caFile, c.HTTPAddr(), c.GRPCAddr())
	runProxy(t, exec.CommandContext(t.Context(), path, "-db", "-f", servetest.WriteFile(t, "haproxy.cfg", config)))
	(&fronted{c, front, "base64-der", "x-client-cert"}).expectForwarded(t)
}

// TestEnvoy has Envoy end TLS, which appends its element to the header that its client sends.
func TestEnvoy(t *testing.T) {
	path, err := exec.LookPath("envoy")
	if err != nil {
		t.Skip("there is no envoy: make test installs it")
	}
	c := newCertified(t, false, "--trusted-proxies=127.0.0.1/32", "--client-certificate-header=x-forwarded-client-cert", "--client-certificate-form=xfcc")
	own := c.root.Sign()
	front := [2]string{freeport.Address(t), freeport.Address(t)}
	cert, key := servetest.WriteFile(t, "front.pem", certtest.PEM(own.Certificate...)), servetest.WriteFile(t, "front.key", certtest.KeyPEM(own))
	listener := func(name, address, protocol string) string {
		return fmt.Sprintf(`{name: %[1]s, address: %[2]s, filter_chains: [{
      transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
        common_tls_context: {alpn_protocols: [%[3]s], tls_certificates: [{certificate_chain: {filename: %[4]s}, private_key: {filename: %[5]s}}],
          validation_context: {trusted_ca: {filename: %[6]s}, trust_chain_verification: ACCEPT_UNTRUSTED}}}},
      filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
        stat_prefix: x, forward_client_cert_details: APPEND_FORWARD, set_current_client_cert_details: {cert: true, subject: true},
        http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}],
        route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: %[1]s}}]}]}}}]}]}`,
			name, socketAddress(address), protocol, cert, key, c.caFile)
	}
	cluster := func(name, address, options string) string {
		return fmt.Sprintf(`{name: %s, type: STATIC, load_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}%s}`,
			name, socketAddress(address), options)
	}
	const http2 = `, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}`
	config := fmt.Sprintf("static_resources:\n  listeners:\n  - %s\n  - %s\n  clusters:\n  - %s\n  - %s\n",
		listener("rest", front[0], "http/1.1"), listener("grpc", front[1], "h2"),
		cluster("rest", c.HTTPAddr(), ""), cluster("grpc", c.GRPCAddr(), http2))
	runProxy(t, exec.CommandContext(t.Context(), path, "-c", servetest.WriteFile(t, "envoy.yaml", config), "--disable-hot-restart", "--concurrency", "1", "-l", "error"))
	(&fronted{c, front, "xfcc", "x-forwarded-client-cert"}).expectForwarded(t)
}

// socketAddress returns an address in the configuration of Envoy.
func socketAddress(address string) string {
	host, port, _ := strings.Cut(address, ":")
	return fmt.Sprintf(`{socket_address: {address: %s, port_value: %s}}`, host, port)
}

// runProxy runs a proxy until the test ends.
func runProxy(t *testing.T, command *exec.Cmd) {
	t.Helper()
	var log must.Buffer
	command.Stdout, command.Stderr = &log, &log
	must.Succeed(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM) // SIGINT is ignored in the background of a shell
		_ = command.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
}

// fronted is a server behind a proxy, with the addresses of the proxy for REST and gRPC.
type fronted struct {
	*certified

	front [2]string
	// form and header are those of the header that the proxy sends.
	form, header string
}

// expectForwarded sends requests with certificates and with forged headers.
func (f *fronted) expectForwarded(t *testing.T) {
	t.Helper()
	c := f.certified
	must.Eventually(t, "the proxy serves", func() bool {
		conn, err := tls.Dial("tcp", f.front[1], c.settings())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	for wire, issue := range map[string]func(*testing.T, sent, string) answer{"REST": f.overREST, "gRPC": f.overGRPC} {
		forged := []string{f.header, forwarded(c.mine, f.form)}
		for name, test := range map[string]struct {
			sent sent
			id   string
			want string
		}{
			"by name":                        {certificates(c.mine), "named", ""},
			"self-signed":                    {certificates(c.keyed), "keyed", certificate.Thumbprint(c.keyed.Leaf)},
			"none":                           {sent{}, "named", "invalid_client"},
			"another":                        {certificates(c.root.Sign()), "named", "invalid_client"},
			"forged":                         {sent{headers: forged}, "named", "invalid_client"},
			"forged, with a certificate":     {sent{certificates(c.keyed).certificates, forged}, "named", "invalid_client"},
			"forged twice":                   {sent{headers: append(forged, forged...)}, "named", "invalid_client"},
			"self-signed, another is forged": {sent{certificates(c.keyed).certificates, forged}, "keyed", certificate.Thumbprint(c.keyed.Leaf)},
		} {
			got := issue(t, test.sent, test.id)
			if got.text("error") != test.want && confirmation(t, got.text("access_token")) != test.want {
				t.Errorf("%s, %s: got %v", wire, name, got)
			}
		}
	}
}

func (f *fronted) overREST(t *testing.T, s sent, id string) answer {
	t.Helper()
	return f.postTo(t, "https://"+f.front[0]+"/connect/token", s, "grant_type=client_credentials&client_id="+id)
}

func (f *fronted) overGRPC(t *testing.T, s sent, id string) answer {
	t.Helper()
	conn := must.Get(grpc.NewClient(f.front[1], grpc.WithTransportCredentials(credentials.NewTLS(f.settings(s.certificates...)))))
	defer func() { _ = conn.Close() }()
	ctx := withHeaders(t.Context(), s.headers)
	got, err := grantorv1.NewTokenServiceClient(conn).IssueToken(ctx, &grantorv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: id})
	if err != nil {
		return grpcError(err)
	}
	return answer{"access_token": got.GetAccessToken()}
}
