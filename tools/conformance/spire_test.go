//go:build conformance

package conformance_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/attach/spiffe"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
	"github.com/grantorhq/grantor/service/trust"
)

const spireDomain = "prod.example.com"

// spire is a SPIRE server with an agent, which attests the processes of this test's user.
type spire struct {
	dir, bin string
}

// newSPIRE builds and starts SPIRE, which stops when the test ends. The first build takes minutes.
func newSPIRE(t *testing.T) *spire {
	t.Helper()
	dir := must.Get(os.MkdirTemp("", "spire")) //nolint:usetesting // t.TempDir is too long for the path of a socket
	s := &spire{dir: dir, bin: t.TempDir()}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	buildSPIRE(t, s.bin)
	port := freeport.New(t)
	s.write(t, "server.conf", fmt.Sprintf(`server {
  bind_address = "127.0.0.1" bind_port = "%d" socket_path = "%s/server.sock" trust_domain = "%s" data_dir = "%[2]s/server"
  log_level = "WARN" ca_ttl = "1h"
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "%[2]s/server.sqlite3" } }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
}`, port, dir, spireDomain))
	s.write(t, "agent.conf", fmt.Sprintf(`agent {
  server_address = "127.0.0.1" server_port = "%d" socket_path = "%s/agent.sock" trust_domain = "%s" data_dir = "%[2]s/agent"
  log_level = "WARN" insecure_bootstrap = true
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}`, port, dir, spireDomain))
	must.Succeed(t, os.MkdirAll(dir+"/server", 0o700))
	s.start(t, "spire-server", "run", "-config", dir+"/server.conf")
	must.Eventually(t, "the server is healthy", func() bool { return s.command(t, "healthcheck") == nil })
	out := new(bytes.Buffer)
	must.Succeed(t, s.run(t, out, "token", "generate", "-spiffeID", "spiffe://"+spireDomain+"/node", "-output", "json"))
	var made struct {
		Value string `json:"value"`
	}
	must.Succeed(t, json.Unmarshal(out.Bytes(), &made))
	s.start(t, "spire-agent", "run", "-config", dir+"/agent.conf", "-joinToken", made.Value)
	return s
}

// buildSPIRE builds the programs of SPIRE in a directory.
func buildSPIRE(t *testing.T, dir string) {
	t.Helper()
	began := time.Now()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "github.com/spiffe/spire/cmd/spire-server", "github.com/spiffe/spire/cmd/spire-agent")
	build.Dir = "../spire"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building SPIRE: %v\n%s", err, out)
	}
	t.Logf("built SPIRE in %s", time.Since(began).Round(time.Second))
}

// TestPrograms builds what the other tests build. They do not need it, but take minutes less with its build cache.
func TestPrograms(t *testing.T) {
	buildTraefik(t)
	buildSPIRE(t, t.TempDir())
}

func (s *spire) write(t *testing.T, name, text string) {
	t.Helper()
	// The configuration is in HCL, where each assignment has its own line.
	text = strings.NewReplacer(`" `, "\"\n", `true `, "true\n").Replace(text)
	text = strings.NewReplacer("\"\n= ", `" = `, "\"\n{", `" {`).Replace(text)
	must.Succeed(t, os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600))
}

// start runs a program until the test ends.
func (s *spire) start(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 10 * time.Second
	output := new(must.Buffer)
	command.Stdout, command.Stderr = output, output
	must.Succeed(t, command.Start())
	done := make(chan struct{})
	go func() { defer close(done); _ = command.Wait() }()
	t.Cleanup(func() {
		cancel()
		<-done
		if t.Failed() {
			t.Logf("%s: %s", name, output.String())
		}
	})
}

// command calls the server's command line.
func (s *spire) command(t *testing.T, args ...string) error {
	return s.run(t, new(bytes.Buffer), args...)
}

func (s *spire) run(t *testing.T, out *bytes.Buffer, args ...string) error {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(s.bin, "spire-server"), append(args, "-socketPath", s.dir+"/server.sock")...)
	command.Stdout, command.Stderr = out, out
	return command.Run()
}

// entry registers the processes of this user as the workload with an ID, whose SVIDs live for seconds.
func (s *spire) entry(t *testing.T, path string, seconds int) {
	t.Helper()
	ttl := fmt.Sprint(seconds)
	must.Succeed(t, s.command(t, "entry", "create", "-parentID", "spiffe://"+spireDomain+"/node", "-spiffeID", "spiffe://"+spireDomain+path,
		"-selector", fmt.Sprintf("unix:uid:%d", os.Getuid()), "-x509SVIDTTL", ttl, "-jwtSVIDTTL", ttl))
}

// boundTo returns the client of a token and the thumbprint of its certificate.
func boundTo(t *testing.T, token string) (client, bound string) {
	t.Helper()
	var c struct {
		Client string            `json:"client_id"`
		Bound  map[string]string `json:"cnf"`
	}
	must.Succeed(t, json.Unmarshal(must.Get(base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])), &c))
	return c.Client, c.Bound["x5t#S256"]
}

// TestConformanceSPIRE authenticates by both kinds of SVIDs of SPIRE, whose bundle the issuer gets from the Workload API, and calls
// a service while the X509-SVID is replaced.
func TestConformanceSPIRE(t *testing.T) {
	s := newSPIRE(t)
	s.entry(t, "/shop/orders", 20)
	server := httptest.NewTLSServer(http.NotFoundHandler()) // has a certificate for 127.0.0.1, and a client that trusts it
	t.Cleanup(server.Close)
	issuer := tokentest.New(t, tokentest.TLS(server.TLS.Certificates[0]), tokentest.TrustDirectories(s.dir))
	scopes := must.Get(oauth.ParseScopes("orders.read"))
	issuer.Apply(t, registry.Manifest{
		Resources: []registry.Resource{{ID: must.Get(oauth.ParseResource("https://orders.internal")), Scopes: scopes}},
		Clients: []registry.ClientSpec{{Client: registry.Client{
			ID: must.Get(oauth.ParseClientID("orders")), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes,
			SPIFFEID: "spiffe://" + spireDomain + "/shop/orders", CertificateBoundTokens: true,
		}}},
		Issuers: []trust.Issuer{{TrustDomain: spireDomain, WorkloadAPI: "unix://" + s.dir + "/agent.sock"}},
		Workloads: []trust.Workload{{
			ClientID: must.Get(trust.ParsePattern("spiffe:{name}")), Scopes: scopes,
			Rule: trust.Rule{SPIFFEID: must.Get(trust.ParsePattern("spiffe://" + spireDomain + "/shop/{name}"))},
		}},
	})
	socket := spiffe.Socket("unix://" + s.dir + "/agent.sock")
	https := attach.HTTPClient(server.Client())
	jwt := attach.ClientCredentials(issuer.URL, "", "", spiffe.JWT(t.Context(), socket), https)
	must.Eventually(t, "the agent knows the workload", func() bool { _, err := jwt.Token(); return err == nil })
	if client, _ := boundTo(t, must.Get(jwt.Token()).AccessToken); client != "spiffe:orders" {
		t.Errorf("JWT-SVID: got the client %s", client)
	}

	x509 := attach.ClientCredentials(issuer.URL, "orders", "", spiffe.X509(t.Context(), socket), https)
	service := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A service compares the token with the certificate of the connection.
		_, bound := boundTo(t, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if bound != thumbprint(r.TLS.PeerCertificates[0].Raw) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	service.TLS = &tls.Config{Certificates: server.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	service.StartTLS()
	t.Cleanup(service.Close)
	client := &http.Client{Transport: x509.Transport(server.Client().Transport)}
	seen := make(map[string]bool)
	for end := time.Now().Add(45 * time.Second); time.Now().Before(end) && len(seen) < 3; time.Sleep(50 * time.Millisecond) {
		answer := must.Get(client.Post(service.URL, "text/plain", strings.NewReader("x")))
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("a call while the SVID is replaced: got %s", answer.Status)
		}
		_, bound := boundTo(t, must.Get(x509.Token()).AccessToken)
		seen[bound] = true
	}
	if len(seen) < 2 {
		t.Errorf("got tokens that are bound to %d X509-SVIDs, want several", len(seen))
	}
	t.Logf("tokens were bound to %d X509-SVIDs", len(seen))
}

func thumbprint(der []byte) string {
	hash := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(hash[:])
}
