//go:build conformance

package conformance_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	invoicesv1 "github.com/grantorhq/grantor/examples/invoices/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// orders is the resource of the examples, as development mode registers it.
const orders = "https://orders.internal"

// example is an example of another language. Its README begins with the commands that set it up and ends with those that check it;
// its server and its client are commands of a shell in its directory.
type example struct {
	name, server, client string

	// dropsRepeated says that the gRPC library keeps the first value of a repeated "authorization" alone, so that the server cannot
	// refuse the call.
	dropsRepeated bool

	exitStatus int // of the client, after SIGTERM
}

var examples = []example{
	{
		name: "python", client: ".venv/bin/python client.py",
		server: `.venv/bin/uvicorn server:app --host 127.0.0.1 --port "${HTTP_LISTEN#*:}"`,
	},
	{name: "node", server: "node dist/server.js", client: "node dist/client.js", dropsRepeated: true}, // as the http2 of Node does
	{
		name: "java", client: "java -XX:TieredStopAtLevel=1 -cp 'target/invoices-1.0.0.jar:target/lib/*' example.Client",
		server: "java -XX:TieredStopAtLevel=1 -cp 'target/invoices-1.0.0.jar:target/lib/*' example.Server", exitStatus: 128 + 15, // as every JVM
	},
}

// TestConformanceExamples sets up each example as its README says, in a copy of what git knows of it, and runs its two halves
// unchanged: the server with good and bad tokens, the client with the server of each language, Go's included.
func TestConformanceExamples(t *testing.T) {
	t.Parallel()
	dirs := make([]string, len(examples))
	for i, e := range examples {
		dirs[i] = e.copy(t)
	}
	t.Run("setup", func(t *testing.T) {
		for i, e := range examples {
			t.Run(e.name, func(t *testing.T) {
				t.Parallel()
				shell(t, dirs[i], commands(t, dirs[i], first))
			})
		}
	})
	if t.Failed() {
		return
	}
	issuer := newInvoicesIssuer(t)
	apis := map[string]invoicesAPI{"go": newGoAPI(t, issuer.URL)}
	for i, e := range examples {
		apis[e.name] = e.startServer(t, dirs[i], issuer.URL)
	}
	for i, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			t.Run("checks", func(t *testing.T) {
				t.Parallel()
				shell(t, dirs[i], commands(t, dirs[i], last))
			})
			t.Run("server", func(t *testing.T) {
				t.Parallel()
				e.testTokens(t, issuer, apis[e.name])
				testRevoked(t, issuer, apis["go"], apis[e.name])
				e.testKeys(t, dirs[i])
			})
			t.Run("client", func(t *testing.T) {
				t.Parallel()
				e.testClient(t, dirs[i], issuer, apis)
			})
			t.Run("renewal", func(t *testing.T) {
				t.Parallel()
				e.testRenewal(t, dirs[i], issuer, apis["go"])
			})
			t.Run("outage", func(t *testing.T) {
				t.Parallel()
				e.testOutage(t, dirs[i], issuer)
			})
		})
	}
}

// copy copies the example, and the protos from which it generates code, to a directory of the test, and returns that of the example.
func (e example) copy(t *testing.T) string {
	t.Helper()
	const root = "../.."
	list := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard",
		"buf.yaml", "proto", "examples/invoices", "examples/"+e.name)
	tree := t.TempDir()
	for file := range strings.Lines(string(must.Get(list.Output()))) {
		file = strings.TrimSpace(file)
		must.Succeed(t, os.MkdirAll(filepath.Dir(filepath.Join(tree, file)), 0o700))
		must.Succeed(t, os.WriteFile(filepath.Join(tree, file), must.Get(os.ReadFile(filepath.Join(root, file))), 0o600))
	}
	return filepath.Join(tree, "examples", e.name)
}

// Which of the indented blocks of a README without prompts.
const (
	first = iota
	last
)

// commands returns the first or the last block of commands of the README in dir.
func commands(t *testing.T, dir string, which int) string {
	t.Helper()
	var blocks []string
	for block := range strings.SplitSeq(string(must.Get(os.ReadFile(filepath.Join(dir, "README.md")))), "\n\n") {
		if strings.HasPrefix(block, "    ") && !strings.HasPrefix(block, "    $ ") {
			blocks = append(blocks, block)
		}
	}
	if len(blocks) < 2 {
		t.Fatalf("got %d blocks of commands in the README, want at least 2", len(blocks))
	}
	if which == first {
		return blocks[0]
	}
	return blocks[len(blocks)-1]
}

// shell runs commands in dir. Those of a virtual environment of Python are on the PATH.
func shell(t *testing.T, dir, commands string) {
	t.Helper()
	run(t, dir, []string{"PATH=" + filepath.Join(dir, ".venv", "bin") + ":" + os.Getenv("PATH")}, "bash", "-euc", commands)
}

// startExample starts a server or a client in dir, and returns what it writes and a function that ends it by SIGTERM. It is ended
// with the test, too. stop returns how it ended.
func startExample(t *testing.T, dir, command string, environment ...string) (log *must.Buffer, stop func() *os.ProcessState) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	process := exec.CommandContext(ctx, "bash", "-euc", "exec "+command)
	log = new(must.Buffer)
	process.Dir, process.Env, process.Stdout, process.Stderr = dir, append(os.Environ(), environment...), log, log
	process.Cancel = func() error { return process.Process.Signal(syscall.SIGTERM) }
	process.WaitDelay = 20 * time.Second
	must.Succeed(t, process.Start())
	stop = func() *os.ProcessState {
		if ctx.Err() == nil {
			cancel()
			_ = process.Wait() // the error is that of the context, or in the state
		}
		return process.ProcessState
	}
	t.Cleanup(func() { stop() })
	return log, stop
}

// invoicesAPI has the addresses of a server of the examples.
type invoicesAPI struct{ http, grpc string }

// startServer starts the server of the example, for tokens of the issuer.
func (e example) startServer(t *testing.T, dir, issuer string) invoicesAPI {
	t.Helper()
	api := invoicesAPI{freeport.Address(t), freeport.Address(t)}
	log, _ := startExample(t, dir, e.server, "ISSUER="+issuer, "HTTP_LISTEN="+api.http, "GRPC_LISTEN="+api.grpc)
	deadline := time.Now().Add(time.Minute)
	for api.list(t) == 0 {
		if time.Now().After(deadline) {
			t.Fatalf("the server does not start:\n%s", log)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return api
}

// newInvoicesIssuer starts an issuer whose client background-service may list invoices and not create any.
func newInvoicesIssuer(t *testing.T) *tokentest.Issuer {
	t.Helper()
	issuer := tokentest.New(t)
	short := client("short-lived", tokentest.Secret, "api1")
	short.AccessTokenLifetime = 10 * time.Second
	issuer.Apply(t, registry.Manifest{
		Resources: []registry.Resource{
			{ID: must.Get(oauth.ParseResource(orders)), Scopes: must.Get(oauth.ParseScopes("api1 invoices.write"))},
		},
		Clients: []registry.ClientSpec{client("background-service", tokentest.Secret, "api1"), short},
	})
	return issuer
}

// goAPI is the API of the examples in Go, guarded by interceptors/verify.
type goAPI struct {
	invoicesv1.UnimplementedInvoiceServiceServer
}

func newGoAPI(t *testing.T, issuer string) invoicesAPI {
	t.Helper()
	verifier := must.Get(verify.New(t.Context(), issuer, verify.Audience(orders)))
	t.Cleanup(verifier.Close)
	server := verify.NewServer(verifier, nil) // the rules are in the proto
	invoicesv1.RegisterInvoiceServiceServer(server, goAPI{})
	return serveGo(t, server, verify.HTTP(verifier, verify.Scopes("api1"))(http.HandlerFunc(serveInvoices)))
}

// grpcServer is a server of grpc-go or of interceptors/verify.
type grpcServer interface {
	Serve(listener net.Listener) error
	Stop()
}

// serveGo serves both halves of an API until the test ends.
func serveGo(t *testing.T, server grpcServer, handler http.Handler) invoicesAPI {
	t.Helper()
	listener := must.Get(new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	web := httptest.NewServer(handler)
	t.Cleanup(web.Close)
	return invoicesAPI{web.Listener.Addr().String(), listener.Addr().String()}
}

func serveInvoices(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprint(w, `{"invoices":[{"id":"2026-001","cents":12000}]}`)
}

func (goAPI) ListInvoices(context.Context, *invoicesv1.ListInvoicesRequest) (*invoicesv1.ListInvoicesResponse, error) {
	return &invoicesv1.ListInvoicesResponse{Invoices: []*invoicesv1.Invoice{{Id: "2026-001", Cents: 12_000}}}, nil
}

// newStage starts an issuer and the API in Go, and returns the environment of the scripts that call both.
func newStage(t *testing.T) []string {
	t.Helper()
	const id, secret = "odd+%:", "a-secret+with%odd:marks" // both need escapes
	issuer := newInvoicesIssuer(t)
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{client(id, secret, "api1")}})
	api := newGoAPI(t, issuer.URL)
	root := must.Get(filepath.Abs("../.."))
	return []string{
		"ISSUER=" + issuer.URL, "ISSUER_GRPC=" + issuer.GRPCTarget, "API=http://" + api.http + "/api/invoices", "API_GRPC=" + api.grpc,
		"CLIENT_ID=" + id, "CLIENT_SECRET=" + secret, "PLAIN_ID=background-service", "PLAIN_SECRET=" + tokentest.Secret,
		"RESOURCE=" + orders, "SCOPE=api1", "OTHER_SCOPE=invoices.write", "FORGED=" + issuer.Forge(t, map[string]any{"aud": orders}),
		"PROTOS=" + filepath.Join(root, "proto") + ":" + filepath.Join(root, "examples"),
	}
}
