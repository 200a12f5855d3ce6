package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/tools/local"
)

// replica is a running `grantor serve`.
type replica struct {
	redis *redistest.Server
	// rest and ops are base URLs, grpc is an address.
	rest, grpc, ops string
	// trust trusts the certificate of the ports for REST and gRPC.
	trust *tls.Config
}

// startReplica starts a replica with the clients of the load, which may have 4 tokens each. It ends with the test.
func startReplica(t *testing.T) *replica {
	t.Helper()
	dir := t.TempDir()
	binary := must.Get(build(t.Context(), dir))
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must.Succeed(t, local.Certify(cert, key))
	must.Succeed(t, writeClients(dir))
	ports := must.Get(local.FreePorts(3))
	r := &replica{
		redis: redistest.New(t), trust: must.Get(trustFile(cert)),
		rest: "https://localhost:" + ports[0], grpc: "localhost:" + ports[1], ops: "http://localhost:" + ports[2],
	}
	var output bytes.Buffer
	command := exec.Command(binary, "serve", "--redis="+r.redis.URL(), "--issuer=http://localhost:1", "--grpc-endpoint=localhost:1",
		"--key-encryption-key-file="+filepath.Join(dir, "kek"), "--apply="+filepath.Join(dir, "clients.yaml"),
		"--http-listen=localhost:"+ports[0], "--grpc-listen="+r.grpc, "--ops-listen=localhost:"+ports[2],
		"--tls-cert-file="+cert, "--tls-key-file="+key, "--tokens-per-client=4", "--shutdown-delay=0s")
	command.Stdout, command.Stderr = &output, &output
	must.Succeed(t, command.Start())
	running, ended := context.WithCancelCause(context.Background())
	go func() { ended(fmt.Errorf("the replica ended: %w", command.Wait())) }()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		<-running.Done()
		if code := command.ProcessState.ExitCode(); code != 0 {
			t.Errorf("got exit code %d, want 0\n%s", code, &output)
		}
	})
	must.Succeed(t, awaitOK(running, r.ops+"/readyz"))
	return r
}

// exercise makes the replica record every metric: it requests tokens with right and wrong credentials, introspects, revokes,
// follows the revocations and stops Redis. It returns the metrics that the replica reports then.
func (r *replica) exercise(t *testing.T) metrics {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: r.trust}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	post := func(path string, form url.Values) string {
		t.Helper()
		return read(t, must.Get(client.PostForm(r.rest+path, form)))
	}
	form := func(id, secret string, more ...string) url.Values {
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}}
		for i := 0; i < len(more); i += 2 {
			form.Set(more[i], more[i+1])
		}
		return form
	}
	for range 2 { // the first computes a slow hash, the second finds the outcome in memory
		post("/connect/token", form("legacy", chosen))
	}
	var issued struct {
		Token string `json:"access_token"`
	}
	must.Succeed(t, json.Unmarshal([]byte(post("/connect/token", form("legacy", chosen))), &issued))
	post("/connect/token", form("legacy", "wrong"))
	post("/connect/token", form("unknown", generated))
	post("/connect/token", form("legacy", chosen, "scope", "invoices.read"))
	for range 2 {
		post("/connect/introspect", form("orders", generated, "token", issued.Token))
	}
	post("/connect/introspect", form("legacy", chosen, "token", issued.Token))
	for range 2 { // the second exceeds the quota
		post("/connect/token", form("legacy", chosen))
	}
	post("/nowhere", nil)
	conn := must.Get(grpc.NewClient(r.grpc, grpc.WithTransportCredentials(credentials.NewTLS(r.trust))))
	t.Cleanup(func() { _ = conn.Close() })
	stream := must.Get(grantorv1.NewRevocationServiceClient(conn).WatchRevocations(t.Context(), &grantorv1.WatchRevocationsRequest{}))
	must.Get(stream.Recv())
	post("/connect/revoke", form("legacy", chosen, "token", issued.Token))
	r.redis.Stop()
	post("/connect/token", form("another", generated))
	body := read(t, must.Get(http.Get(r.ops+"/metrics")))
	r.redis.Start() // the replica needs it to shut down cleanly
	return parse(body)
}

// parse returns the metrics in the text that /metrics has.
func parse(text string) metrics {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return must.Get(parser.TextToMetricFamilies(strings.NewReader(text)))
}

// guardMetrics returns what a guard reports that has refused a request because it does not reach the issuer.
func guardMetrics(t *testing.T) metrics {
	t.Helper()
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.yaml")
	must.Succeed(t, os.WriteFile(rules, []byte("rules: [{path: /orders, authenticated: true}]\n"), 0o600))
	ports := must.Get(local.FreePorts(3))
	command := exec.Command(must.Get(build(t.Context(), dir)), "guard", "--issuer=http://localhost:1", "--audience=https://orders.internal",
		"--rules="+rules, "--forward-auth=x-original", "--trusted-proxies=127.0.0.0/8", "--shutdown-delay=0s",
		"--grpc-listen=localhost:"+ports[0], "--http-listen=localhost:"+ports[1], "--ops-listen=localhost:"+ports[2])
	must.Succeed(t, command.Start())
	running, ended := context.WithCancelCause(context.Background())
	go func() { ended(fmt.Errorf("the guard ended: %w", command.Wait())) }()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		<-running.Done()
	})
	must.Succeed(t, awaitOK(running, "http://localhost:"+ports[2]+"/healthz"))
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+ports[1]+"/authorize", nil))
	request.Header = http.Header{
		"X-Original-Method": {"GET"}, "X-Original-Uri": {"/orders"}, "X-Original-Host": {"localhost"}, "X-Original-Proto": {"https"},
		"Authorization": {"Bearer unknown"},
	}
	answer := must.Get(http.DefaultClient.Do(request))
	read(t, answer)
	if answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s without the issuer, want 503", answer.Status)
	}
	return parse(read(t, must.Get(http.Get("http://localhost:"+ports[2]+"/metrics"))))
}

// read returns the body of a response and closes it.
func read(t *testing.T, response *http.Response) string {
	t.Helper()
	defer func() { _ = response.Body.Close() }()
	return string(must.Get(io.ReadAll(response.Body)))
}

// readFile returns the content of a file of the repository.
func readFile(path string) []byte { return must.Get(os.ReadFile(filepath.Join(root, path))) }
