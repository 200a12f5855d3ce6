package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/manifest"
)

const identityPage = "docs/identity.md"

// section returns the part of a document from a heading of the second level to the next one.
func section(t *testing.T, name, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page(t, name), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", name, heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// walk is the walk of a section: what its block of code in sh does before it serves, the flags with which it serves, and the
// indented commands.
func walk(t *testing.T, name, heading string) (setUp string, flags []string, commands string) {
	t.Helper()
	text := section(t, name, heading)
	block := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(text)
	if block == nil {
		t.Fatalf("the section %q has no code in sh", heading)
	}
	setUp, serve, ok := strings.Cut(strings.ReplaceAll(block[1], "\\\n", ""), "bin/grantor serve ")
	if !ok {
		t.Fatalf("the section %q does not serve", heading)
	}
	var code strings.Builder
	for line := range strings.Lines(regexp.MustCompile("(?s)```.*?```").ReplaceAllString(text, "")) {
		if line, ok := strings.CutPrefix(line, "    "); ok {
			code.WriteString(line)
		}
	}
	return setUp, strings.Fields(serve), code.String()
}

// shell runs a script, which must succeed, and returns its output. With pipefail, a command that fails in front of another one
// fails the script.
func shell(t *testing.T, dir, script string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "bash", "-e", "-u", "-x", "-o", "pipefail", "-c", script)
	command.Dir, command.Env = dir, append(os.Environ(), "XDG_CONFIG_HOME="+dir)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestIdentityKeys runs the walk about keys.
func TestIdentityKeys(t *testing.T) {
	w := newWalk(t, "A key of its own")
	issuer := w.serve()
	out := w.run()
	for _, want := range []string{"Its private key is in worker.pem.", "Verified: signed by " + issuer, "Client report-worker is registered.", "invalid_client: "} {
		if !strings.Contains(out, want) {
			t.Errorf("the transcript has no %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "PRIVATE KEY") {
		t.Error("the transcript has a private key")
	}
}

// TestIdentityManifests parses the files of clients that the page shows beside its walks. Other files in YAML are for Kubernetes
// and GitHub Actions.
func TestIdentityManifests(t *testing.T) {
	found := 0
	for _, block := range fenced(t, identityPage, "yaml") {
		if !strings.HasPrefix(block, "clients:") && !strings.HasPrefix(block, "workloads:") {
			continue
		}
		found++
		if m, err := manifest.Parse(identityPage, []byte(block)); err != nil || len(m.Clients)+len(m.Workloads) == 0 {
			t.Errorf("got %v for\n%s", err, block)
		}
	}
	if found != 3 {
		t.Errorf("got %d files, want 3", found)
	}
}

// TestIdentityRules parses the rules in the table of other issuers.
func TestIdentityRules(t *testing.T) {
	_, table, _ := strings.Cut(section(t, identityPage, "Any OIDC issuer"), "\n### Other issuers\n")
	rules := regexp.MustCompile("`((?:subject: \"|claims: \\{)[^`]+)`").FindAllStringSubmatch(table, -1)
	if len(rules) != 4 {
		t.Errorf("got %d rules, want 4", len(rules))
	}
	for _, rule := range rules {
		file := "clients:\n  - client_id: orders\n    scopes: [a]\n    federation:\n      - issuer: https://issuer.example.com\n        " + rule[1] + "\n"
		if _, err := manifest.Parse(identityPage, []byte(file)); err != nil {
			t.Errorf("%s: %v", rule[1], err)
		}
	}
}
