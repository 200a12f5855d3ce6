package serve_test

import (
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/certificate/certtest"
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
	front := [2]string{servetest.FreeAddress(t), servetest.FreeAddress(t)}
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
	var log must.Buffer
	command := exec.CommandContext(t.Context(), path, "-db", "-f", servetest.WriteFile(t, "haproxy.cfg", config))
	command.Stdout, command.Stderr = &log, &log
	must.Succeed(t, command.Start())
	defer func() {
		_ = command.Process.Signal(os.Interrupt)
		_ = command.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	behind := &fronted{c, front}
	must.Eventually(t, "haproxy forwards", func() bool {
		conn, err := tls.Dial("tcp", front[1], c.settings())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	for wire, issue := range map[string]func(*testing.T, sent, string) answer{"REST": behind.overREST, "gRPC": behind.overGRPC} {
		forged := []string{"x-client-cert", forwarded(c.mine, "base64-der")}
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

// fronted is a server behind a proxy, with the addresses of the proxy for REST and gRPC.
type fronted struct {
	*certified

	front [2]string
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
