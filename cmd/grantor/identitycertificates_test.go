package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
)

// TestIdentityCertificates runs the walk about certificates, against an issuer with the flags of the page. Only the addresses
// differ.
func TestIdentityCertificates(t *testing.T) {
	const name = "docs/identity-certificates.part.md"
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "bin", "grantor"), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(script string) string {
		command := exec.CommandContext(t.Context(), "bash", "-e", "-u", "-x", "-o", "pipefail", "-c", script)
		command.Dir, command.Env = dir, append(os.Environ(), "XDG_CONFIG_HOME="+dir)
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	setUp, flags, _ := strings.Cut(fenced(t, name, "sh")[0], "bin/grantor serve ")
	commands := indentedOf(t, name)
	run(setUp)
	t.Chdir(dir) // the flags have relative paths
	r := servetest.Start(t, strings.Fields(strings.ReplaceAll(flags, "\\\n", ""))...)
	port := r.HTTPAddr()[strings.LastIndexByte(r.HTTPAddr(), ':')+1:]
	out := run(strings.ReplaceAll(commands, "localhost:8080", "localhost:"+port))
	if !strings.Contains(out, `"error":"invalid_client"`) {
		t.Errorf("the other certificate is not refused:\n%s", out)
	}
	// The thumbprint that openssl computes is the one in the token, as the CLI shows it.
	thumbprint := regexp.MustCompile(`(?m)^[A-Za-z0-9_-]{43}$`).FindString(out)
	if thumbprint == "" || strings.Count(out, thumbprint) < 2 {
		t.Errorf("the token is not bound to the certificate:\n%s", out)
	}
	var answer map[string]any
	must.Succeed(t, json.Unmarshal(must.Get(os.ReadFile(filepath.Join(dir, "answer.json"))), &answer))
}

// indentedOf is indented without the fenced blocks, which may have indented lines.
func indentedOf(t *testing.T, name string) string {
	t.Helper()
	var code strings.Builder
	for line := range strings.Lines(regexp.MustCompile("(?s)```.*?```").ReplaceAllString(page(t, name), "")) {
		if line, ok := strings.CutPrefix(line, "    "); ok {
			code.WriteString(line)
		}
	}
	return code.String()
}
