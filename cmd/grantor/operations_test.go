package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
)

// TestOperations runs the commands of docs/operations.md as printed and in their order, with bash, a real Redis and a real
// Prometheus. Only the ports differ, and the working directory, which has a link to deploy/.
func TestOperations(t *testing.T) {
	t.Parallel()
	root := must.Get(filepath.Abs("../.."))
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(root, "deploy"), filepath.Join(dir, "deploy")); err != nil {
		t.Fatal(err)
	}
	linkGrantor(t, dir)
	printed := []string{"8080", "8081", "8082", "9080", "9081", "9082", "9090", "6379"}
	var pairs []string
	for _, port := range printed {
		pairs = append(pairs, port, strconv.Itoa(freeport.New(t)))
	}
	// The first replica listens on the default ports, which have to be named to be replaced.
	started := strings.Replace(indented(t, "docs/operations.md"), "serve --config trial/grantor.yaml 2>>",
		"serve --config trial/grantor.yaml --http-listen :8080 --grpc-listen :8081 --ops-listen :8082 2>>", 1)
	commands := strings.NewReplacer("make build\n", "", "deploy/secrets.sh trial\n", "deploy/secrets.sh trial localhost:6379\n").Replace(started)
	commands = strings.NewReplacer(pairs...).Replace(commands)
	// The transcript is a file: processes that the script starts can outlive it, and reading a pipe would wait for all of them.
	transcript := must.Get(os.Create(filepath.Join(dir, "transcript")))
	defer func() { _ = transcript.Close() }()
	const timeout = 6 * time.Minute // several times what an idle machine takes
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-e", "-u", "-x", "-o", "pipefail", "-c", "trap 'kill $(jobs -p) $(cat trial/redis.pid) 2>/dev/null || true' EXIT\n"+commands)
	shell.Dir, shell.Env = dir, append(os.Environ(), "XDG_CONFIG_HOME="+dir)
	shell.Stdout, shell.Stderr = transcript, transcript
	shell.Cancel = func() error { return shell.Process.Signal(syscall.SIGTERM) }
	err := shell.Run()
	out := must.Get(os.ReadFile(transcript.Name()))
	if err != nil {
		for _, name := range []string{"one.log", "two.log", "prometheus.log", "redis.log"} {
			text, _ := os.ReadFile(filepath.Join(dir, "trial", name))
			t.Logf("%s:\n%s", name, text)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"created   client shop", `"access_token"`, "redis.alone", "token.issued", "client.created", `"name":"GrantorGone"`,
		"GrantorNotReady",
		`"changed":"log-level"`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the transcript has no %q:\n%s", want, out)
		}
	}
	t.Logf("%s", out)
}
