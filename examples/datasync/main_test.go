package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/tokentest"
)

// The log records of each part, by transport, on success and on failure.
var (
	synced = []record{
		{"msg": "synced", "over": "http"}, {"msg": "synced", "over": "grpc"}, {"msg": "synced", "over": "stream"},
	}
	failed = []record{
		{"msg": "sync failed", "over": "http"}, {"msg": "sync failed", "over": "grpc"},
		{"msg": "sync failed", "over": "stream"},
	}
	anyPorts = []string{"-grpc-api", "127.0.0.1:0", "-http-api", "127.0.0.1:0", "-every", "100ms"}
)

func TestBothParts(t *testing.T) {
	program := start(t, slices.Concat(anyPorts, []string{"-issuer", newIssuer(t).URL})...)
	program.log.await(t, synced...)
	listed := program.log.await(t, record{"msg": "listed", "over": "grpc"})
	if listed["client"] != "background-service" || listed["token"] == "" {
		t.Errorf("the API saw %v, want the client background-service and a token", listed)
	}
	program.stop(t)
}

func TestStreamEndsWithItsToken(t *testing.T) {
	issuer := newIssuer(t)
	api := startAPI(t, issuer.URL)
	// The API has the real clock: a token that was issued an hour ago and is about to expire.
	issuer.Advance(-time.Hour + 3*time.Second)
	service := startSync(t, issuer.URL, api)
	service.log.await(t, synced[2])
	first := api.log.await(t, record{"msg": "listed", "over": "stream"})
	issuer.Advance(time.Hour)
	second := api.log.await(t, record{"msg": "listed", "over": "stream"})
	if first["token"] == second["token"] {
		t.Errorf("the stream opened again with the token %v that had ended", first["token"])
	}
	service.stop(t)
}

func TestAPIComesAndGoes(t *testing.T) {
	issuer := newIssuer(t)
	api := startAPI(t, issuer.URL)
	service := startSync(t, issuer.URL, api)
	service.log.await(t, synced...)

	api.stop(t)
	service.log.await(t, failed...)
	api.start(t)
	service.log.await(t, synced...)
	service.stop(t)
}

func TestIssuerComesAndGoes(t *testing.T) {
	t.Setenv("DATASYNC_SECRET", "service-secret-here")
	issuer := &process{path: build(t)}
	issuer.start(t) // chooses a free port
	issuer.stop(t)

	// The issuer is down at first.
	api := startAPI(t, issuer.url)
	service := startSync(t, issuer.url, api)
	service.log.await(t, failed...)
	issuer.start(t)
	service.log.await(t, synced...)

	// Once keys and a token are fetched, an outage of the issuer has no effect.
	issuer.stop(t)
	api.log.skip()
	before := api.log.await(t, record{"msg": "listed", "over": "http"})
	service.log.skip()
	service.log.await(t, synced[0], synced[1])

	// An API that has only the issuer's new keys refuses the old token, and the same call succeeds with a new one.
	issuer.start(t)
	api.stop(t)
	service.log.await(t, failed...)
	api.start(t)
	refused := api.log.await(t, record{"msg": "refused"})
	if reason := fmt.Sprint(refused["reason"]); !strings.Contains(reason, "signed by no key of the issuer") {
		t.Errorf("the API refused because of %q, want a key that is not the issuer's", reason)
	}
	after := api.log.await(t, record{"msg": "listed", "over": "http"})
	if before["token"] == after["token"] {
		t.Errorf("the token %v of the issuer's old keys is still in use", after["token"])
	}
	service.log.await(t, synced...)

	// An API that has only the old keys accepts the token of a new client once it has fetched the new keys.
	issuer.stop(t)
	issuer.start(t)
	other := startSync(t, issuer.url, api)
	other.log.await(t, synced...)
	other.stop(t)
	service.stop(t)
	api.stop(t)
}

func TestParse(t *testing.T) {
	for _, args := range []string{"-part all", "-every 0s", "sync"} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("parse(%q) returned no error", args)
		}
	}
}

func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	args := slices.Concat(anyPorts, []string{"-http-api", taken.Addr().String(), "-issuer", "http://localhost:1"})
	if err := run(t.Context(), args, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("run returned no error for a port in use")
	}
}

func newIssuer(t *testing.T) *tokentest.Issuer {
	t.Helper()
	issuer := tokentest.New(t)
	issuer.AddClient(t, "background-service", resource, "api1")
	t.Setenv("DATASYNC_SECRET", tokentest.Secret)
	return issuer
}

// program is a run of the example inside the test.
type program struct {
	args   []string
	log    journal
	cancel context.CancelFunc
	ended  chan error
}

func start(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{args: args}
	p.start(t)
	return p
}

// startAPI starts the API on free ports, which it keeps over restarts.
func startAPI(t *testing.T, issuer string) *program {
	t.Helper()
	api := start(t, slices.Concat(anyPorts, []string{"-part", "api", "-issuer", issuer})...)
	serving := api.log.await(t, record{"msg": "serving"})
	api.args = append(api.args, "-grpc-api", serving["grpc"].(string), "-http-api", serving["http"].(string))
	return api
}

// startSync starts the background service, which calls api.
func startSync(t *testing.T, issuer string, api *program) *program {
	t.Helper()
	return start(t, slices.Concat(api.args, []string{"-part", "sync", "-issuer", issuer})...)
}

func (p *program) start(t *testing.T) {
	t.Helper()
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	p.log, p.ended = make(journal, 100_000), make(chan error, 1)
	args, log, ended := p.args, slog.New(slog.NewJSONHandler(p.log, nil)), p.ended
	var running sync.WaitGroup
	running.Go(func() { ended <- run(ctx, args, log) })
	cancel := p.cancel
	t.Cleanup(func() { cancel(); running.Wait() })
}

// stop stops the program as a signal would.
func (p *program) stop(t *testing.T) {
	t.Helper()
	p.cancel()
	if err := <-p.ended; err != nil {
		t.Fatalf("the program ended with %v", err)
	}
}

// process is a Grantor process in development mode.
type process struct {
	path, url string
	ports     []string
	cmd       *exec.Cmd
	log       journal
}

// build builds the grantor binary.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "grantor")
	out, err := exec.Command("go", "build", "-o", path, "github.com/grantorhq/grantor/cmd/grantor").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// start starts the process. A restart uses the same ports.
func (p *process) start(t *testing.T) {
	t.Helper()
	if p.ports == nil {
		p.ports = []string{"--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}
	}
	p.log = make(journal, 10_000)
	cmd := exec.Command(p.path, append([]string{"serve", "--dev"}, p.ports...)...)
	output, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.cmd = cmd
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	go func(log journal) {
		for lines := bufio.NewScanner(output); lines.Scan(); {
			_, _ = log.Write(lines.Bytes())
		}
		close(log)
	}(p.log)
	serving := p.log.await(t, record{"msg": "serving"})
	p.ports = nil
	for flag, port := range map[string]string{"--http-listen": "http", "--grpc-listen": "grpc", "--ops-listen": "ops"} {
		p.ports = append(p.ports, flag, serving[port].(string))
	}
	_, port, err := net.SplitHostPort(serving["http"].(string))
	if err != nil {
		t.Fatal(err)
	}
	p.url = "http://localhost:" + port
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for range p.log { // until the end of the output
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("the issuer ended with %v", err)
	}
}

// record is a log record, keyed by attribute name.
type record map[string]any

// has reports whether the record has all attributes of other.
func (r record) has(other record) bool {
	for name, value := range other {
		if r[name] != value {
			return false
		}
	}
	return true
}

// journal is a log in JSON, record by record.
type journal chan record

func (j journal) Write(line []byte) (int, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return 0, err
	}
	j <- r
	return len(line), nil
}

// await waits until the log contains each of the records from now on, and returns the last one.
func (j journal) await(t *testing.T, wanted ...record) record {
	t.Helper()
	limit := time.After(time.Minute)
	missing := append([]record(nil), wanted...)
	var got record
	for len(missing) > 0 {
		select {
		case r, open := <-j:
			if !open {
				t.Fatalf("the log ended without %v", missing)
			}
			for i := range missing {
				if r.has(missing[i]) {
					missing, got = append(missing[:i], missing[i+1:]...), r
					break
				}
			}
		case <-limit:
			t.Fatalf("no %v within a minute", missing)
		}
	}
	return got
}

// skip discards what has been written so far.
func (j journal) skip() {
	for range len(j) {
		<-j
	}
}
