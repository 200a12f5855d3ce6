package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/redistest"
)

// TestWalkthrough runs the commands of docs/administration.md, as printed and in their order, against an issuer that has the
// flags of the page. Only the addresses differ.
func TestWalkthrough(t *testing.T) {
	t.Parallel()
	redis := redistest.New(t)
	dir := t.TempDir()
	kek := filepath.Join(dir, "kek")
	content, err := os.ReadFile(servetest.KEKFile(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kek, content, 0o600); err != nil {
		t.Fatal(err)
	}
	linkGrantor(t, dir)
	_, flags, _ := strings.Cut(strings.ReplaceAll(fenced(t, "docs/administration.md", "sh")[0], "\\\n", ""), "bin/grantor serve ")
	issuer := serveAt(t, strings.Fields(strings.NewReplacer("redis://localhost:6379", redis.URL(), "-file kek", "-file "+kek,
		"localhost:8080", "localhost:0", "localhost:8081", "localhost:0", "localhost:8082", "localhost:0").Replace(flags))...)
	script := strings.NewReplacer("http://localhost:8080", issuer, "redis://localhost:6379", redis.URL()).Replace(
		indented(t, "docs/administration.md"))
	// With pipefail, a command that fails in front of awk fails the script.
	shell := exec.CommandContext(t.Context(), "bash", "-e", "-u", "-x", "-o", "pipefail", "-c", script)
	shell.Dir, shell.Env = dir, append(os.Environ(), "XDG_CONFIG_HOME="+dir)
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"created   client administrator", "invoice-worker", "billing", "LAST USED", "upcoming", "is removed, and every token that it signed is refused"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the transcript has no %q:\n%s", want, out)
		}
	}
	if !strings.Contains(script, "bin/grantor key compromise") || !strings.Contains(script, "secrets:rotate") {
		t.Error("the page lacks the commands that this test is for")
	}
}

// serveAt starts a server whose issuer is the URL of its REST port, and returns that URL.
func serveAt(t *testing.T, args ...string) string {
	t.Helper()
	address := freeport.Address(t)
	servetest.Start(t, append(args, "--issuer=http://"+address, "--http-listen="+address)...)
	return "http://" + address
}
