package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
)

// page returns a document of the repository, such as README.md or docs/settings.md.
func page(t *testing.T, name string) string {
	t.Helper()
	return string(must.Get(os.ReadFile(filepath.Join("../..", filepath.FromSlash(name)))))
}

// fenced returns the fenced code blocks of a language in a document.
func fenced(t *testing.T, name, language string) []string {
	t.Helper()
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(page(t, name), -1) {
		blocks = append(blocks, match[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no code in %s", name, language)
	}
	return blocks
}

// indented returns the lines of the indented code blocks of a document, which are its commands.
func indented(t *testing.T, name string) string {
	t.Helper()
	var code strings.Builder
	for line := range strings.Lines(page(t, name)) {
		if line, ok := strings.CutPrefix(line, "    "); ok {
			code.WriteString(line)
		}
	}
	return code.String()
}

// TestDocsGo compiles the Go code of the README and of the pages for callers and called services. Each block is the body of
// a function, with the imports and variables that the text leaves out.
func TestDocsGo(t *testing.T) {
	var code strings.Builder
	code.WriteString(`package docscode

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"os"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/attach/spiffe"
	"github.com/grantorhq/grantor/interceptors/secretvar"
	"github.com/grantorhq/grantor/interceptors/verify"
)

var _ = secretvar.Open
var _, _, _ = http.MethodGet, os.Args, oauth2.NoContext
var _, _, _ = grpc.NewClient, credentials.NewTLS, slog.Info
var _, _, _ = json.NewDecoder, url.QueryEscape, spiffe.JWT

var config *tls.Config
var handler http.Handler
var _ = attach.Scopes
`)
	blocks := fenced(t, "README.md", "go")
	for _, name := range []string{"docs/calling.md", "docs/verifying.md", "docs/identity.md"} {
		blocks = append(blocks, fenced(t, name, "go")...)
	}
	for i, block := range blocks {
		code.WriteString("func _(ctx context.Context) error {\n" + block)
		for _, name := range []string{"conn", "err", "client", "source", "tokens", "server", "verifier"} {
			// A variable of an inner block is one of its lines, which are indented.
			if regexp.MustCompile(`(?m)^(?:\S[^=\n]*)?\b` + name + `\b[^=\n]* :?= `).MatchString(block) {
				code.WriteString("\t_ = " + name + "\n")
			}
		}
		code.WriteString("\treturn nil\n}\n")
		t.Logf("block %d:\n%s", i, block)
	}
	dir := t.TempDir()
	source, overlay := filepath.Join(dir, "docscode.go"), filepath.Join(dir, "overlay.json")
	place := must.Get(filepath.Abs("../../docscode/docscode.go"))
	replace := must.Get(json.Marshal(map[string]map[string]string{"Replace": {place: source}}))
	for path, content := range map[string]string{source: code.String(), overlay: string(replace)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "./docscode")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("the Go code of the documentation does not compile: %v\n%s\n%s", err, out, code.String())
	}
}

// TestDocsManifest parses the files of clients and resources that the documentation shows.
func TestDocsManifest(t *testing.T) {
	const name = "docs/clients-and-resources.md"
	for _, block := range fenced(t, name, "yaml") {
		m, err := manifest.Parse(name, []byte(block))
		if err != nil {
			t.Fatal(err)
		}
		err = m.Check()
		if err != nil || len(m.Clients) == 0 || len(m.Resources) != 1 {
			t.Errorf("got %v, want a manifest with clients and one resource", err)
		}
	}
}

// TestREADMETranscript compares the transcript on the first screen with the output of development mode.
func TestREADMETranscript(t *testing.T) {
	readme, out := page(t, "README.md"), servetest.Dev(t).Out.String()
	first, _, _ := strings.Cut(out, "\n")
	if !strings.Contains(readme, "    "+first+"\n") {
		t.Errorf("the README's transcript lacks the line %q", first)
	}
	curl := regexp.MustCompile(`curl -d '[^']*' `).FindString(out)
	if curl == "" || !strings.Contains(readme, curl+"http://localhost:8080/connect/token") {
		t.Errorf("the README's transcript lacks the line %q", curl)
	}
	for _, label := range []string{"REST", "gRPC", "health"} {
		line := regexp.MustCompile(`(?m)^  ` + label + ` .*$`).FindString(out)
		name, _, _ := strings.Cut(line, "localhost:")
		if line == "" || !strings.Contains(readme, "    "+name+"localhost:") {
			t.Errorf("the README's transcript lacks the line %q", line)
		}
	}
}

// TestDocsCalls runs the commands of docs/calling.md that call by Connect, and compares their output with the page's.
func TestDocsCalls(t *testing.T) {
	_, section, _ := strings.Cut(page(t, "docs/calling.md"), "\n## Connect and gRPC-Web\n")
	section, _, _ = strings.Cut(section, "\n## ")
	r := servetest.Dev(t)
	transcripts := regexp.MustCompile(`(?m)^    \$ (curl .*)\n    (.*)$`).FindAllStringSubmatch(section, -1)
	if len(transcripts) != 2 {
		t.Fatalf("got %d commands, want 2", len(transcripts))
	}
	for _, transcript := range transcripts {
		command := strings.ReplaceAll(transcript[1], "http://localhost:8080", r.URL(""))
		out, err := exec.CommandContext(t.Context(), "sh", "-c", command+" --silent").Output()
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		begin, end, _ := strings.Cut(transcript[2], "...")
		if got := string(out); !strings.HasPrefix(got, begin[:strings.LastIndex(begin, `"`)]) || !strings.HasSuffix(got, end) {
			t.Errorf("%s: got %s, want %s", command, got, transcript[2])
		}
	}
}

// TestDocsImport runs the commands of docs/migrating.md that import from other servers, and compares the lines of the report
// that the page shows with the reports.
func TestDocsImport(t *testing.T) {
	section := page(t, "docs/migrating.md")
	exports := make(map[string]string)
	for name, file := range map[string]string{"openiddict.json": openIddictFile, "hydra.json": hydraFile, "services.json": keycloakFile} {
		exports[name] = string(must.Get(os.ReadFile(file)))
	}
	var reports string
	commands := regexp.MustCompile(`(?m)^    bin/grantor import ((?:.*\\\n)*.*)$`).FindAllStringSubmatch(section, -1)
	if len(commands) != 3 {
		t.Fatalf("got %d commands that import, want 3", len(commands))
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
		if m, err := manifest.Read(t.Context(), "imported.yaml", nil); err != nil || len(m.Clients) == 0 || m.Check() != nil {
			t.Errorf("%s: got %v, want a file of clients", command[1], err)
		}
		reports += report
	}
	for _, line := range regexp.MustCompile(`(?m)^    (client .*\n)`).FindAllStringSubmatch(section, -1) {
		if !strings.Contains(reports, line[1]) {
			t.Errorf("no report has the line %q of the page", line[1])
		}
	}
}

// TestDocsLinks checks the relative links of the README and the pages: each target exists, and so does the heading that a
// fragment names.
func TestDocsLinks(t *testing.T) {
	names := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "BENCHMARKS.md"}
	for _, path := range must.Get(filepath.Glob("../../docs/*.md")) {
		names = append(names, "docs/"+filepath.Base(path))
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, name := range names {
		for _, match := range link.FindAllStringSubmatch(page(t, name), -1) {
			target, fragment, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			target = path.Join(path.Dir(name), target)
			if strings.HasPrefix(match[1], "#") {
				target = name
			}
			if _, err := os.Stat(filepath.Join("../..", target)); err != nil {
				t.Errorf("%s links to %s, which does not exist", name, match[1])
			} else if fragment != "" && !slices.Contains(anchors(page(t, target)), fragment) {
				t.Errorf("%s links to %s, which has no such heading", name, match[1])
			}
		}
	}
}

// anchors returns the fragments of the headings of a document, as GitHub derives them.
func anchors(document string) []string {
	var fragments []string
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(document, -1) {
		text := strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")
		fragments = append(fragments, regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(text, ""))
	}
	return fragments
}
