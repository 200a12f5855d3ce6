package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks gives the README's blocks of a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	var found []string
	for _, match := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(readme(t), -1) {
		found = append(found, match[1])
	}
	if len(found) == 0 {
		t.Fatalf("the README has no %s", language)
	}
	return found
}

// TestREADMEGo compiles the README's Go, each block as the body of a function with what it may take for granted.
func TestREADMEGo(t *testing.T) {
	var code strings.Builder
	code.WriteString(`package readme

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"os"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
)

var _, _, _ = http.MethodGet, os.Args, oauth2.NoContext
var _, _, _ = grpc.NewClient, credentials.NewTLS, slog.Info

var config *tls.Config
var _ = attach.Scopes
`)
	for i, block := range blocks(t, "go") {
		code.WriteString("func _(ctx context.Context) error {\n" + block)
		for _, name := range []string{"conn", "err", "client", "tokens", "server"} {
			if regexp.MustCompile(`\b` + name + `\b[^=\n]* :?= `).MatchString(block) {
				code.WriteString("\t_ = " + name + "\n")
			}
		}
		code.WriteString("\treturn nil\n}\n")
		t.Logf("block %d:\n%s", i, block)
	}
	dir := t.TempDir()
	source, overlay := filepath.Join(dir, "readme.go"), filepath.Join(dir, "overlay.json")
	place, err := filepath.Abs("../../readme/readme.go")
	if err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {place: source}})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{source: code.String(), overlay: string(replace)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "./readme")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("the README's Go does not compile: %v\n%s\n%s", err, out, code.String())
	}
}

// TestREADMEManifest reads the README's file of clients.
func TestREADMEManifest(t *testing.T) {
	for _, block := range blocks(t, "yaml") {
		m, err := manifest.Parse("README.md", []byte(block))
		if err != nil {
			t.Fatal(err)
		}
		err = m.Check()
		if err != nil || len(m.Clients) != 2 || len(m.Resources) != 1 {
			t.Errorf("got %v, want a manifest of two clients and a resource", err)
		}
	}
}

// TestREADMETranscript holds the first screen to what dev mode says.
func TestREADMETranscript(t *testing.T) {
	r := servetest.Dev(t)
	first, _, _ := strings.Cut(r.Out.String(), "\n")
	if !strings.Contains(readme(t), "    "+first+"\n") {
		t.Errorf("the README's transcript lacks the line %q", first)
	}
	curl := regexp.MustCompile(`curl -d '[^']*' `).FindString(r.Out.String())
	if curl == "" || !strings.Contains(readme(t), curl+"http://localhost:8080/connect/token") {
		t.Errorf("the README's transcript lacks the line %q", curl)
	}
}

// TestREADMEImport runs the README's commands for moving from other servers, and holds the lines of a report that it shows
// to what is reported.
func TestREADMEImport(t *testing.T) {
	_, section, found := strings.Cut(readme(t), "## Moving from OpenIddict and Ory Hydra\n")
	if !found {
		t.Fatal("the README has no section on moving")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	exports := map[string]string{"openiddict.json": string(must.Get(os.ReadFile(openIddictFile))), "hydra.json": string(must.Get(os.ReadFile(hydraFile)))}
	var reports string
	commands := regexp.MustCompile(`(?m)^    bin/grantor import ((?:.*\\\n)*.*)$`).FindAllStringSubmatch(section, -1)
	if len(commands) != 2 {
		t.Fatalf("the README has %d commands that import, want 2", len(commands))
	}
	for _, command := range commands {
		t.Chdir(t.TempDir())
		for name, export := range exports {
			if err := os.WriteFile(name, []byte(export), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, report, err := importFrom(t, strings.Fields(strings.ReplaceAll(command[1], "\\\n", ""))...)
		if err != nil {
			t.Fatalf("%s: %v", command[1], err)
		}
		if m, err := manifest.Read("imported.yaml"); err != nil || len(m.Clients) == 0 || m.Check() != nil {
			t.Errorf("%s: got %v, want a file of clients", command[1], err)
		}
		reports += report
	}
	for _, line := range regexp.MustCompile(`(?m)^    (client .*\n)`).FindAllStringSubmatch(section, -1) {
		if !strings.Contains(reports, line[1]) {
			t.Errorf("no report has the README's line %q", line[1])
		}
	}
}
