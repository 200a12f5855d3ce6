//go:build conformance

package conformance_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/must"
)

// TestConformanceProxyExamples runs the transcripts of the examples with a proxy as their pages have them: in a network of its
// own, because their ports are fixed.
func TestConformanceProxyExamples(t *testing.T) {
	for _, name := range []string{"envoy", "nginx"} {
		t.Run(name, func(t *testing.T) { runTranscript(t, filepath.Join("examples", name)) })
	}
}

// command is a line of a transcript that begins with "$ ", and the lines of output below it.
type command struct {
	line   string
	output []string
}

// transcript returns the commands of a page.
func transcript(page string) []command {
	var commands []command
	for line := range strings.Lines(page) {
		text, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		if !ok {
			continue
		}
		if entered, ok := strings.CutPrefix(text, "$ "); ok {
			commands = append(commands, command{line: entered})
		} else if n := len(commands) - 1; n >= 0 {
			commands[n].output = append(commands[n].output, text)
		}
	}
	return commands
}

// runTranscript runs the first command of a page until it prints its last line, and then the others, in one shell.
func runTranscript(t *testing.T, dir string) {
	t.Helper()
	commands := transcript(string(must.Get(os.ReadFile(filepath.Join("../..", dir, "README.md")))))
	first, rest := commands[0], commands[1:]
	log := filepath.Join(t.TempDir(), "log")
	var script strings.Builder
	fmt.Fprintf(&script, "ip link set lo up\n%s >%s 2>&1 & started=$!\n", first.line, log)
	fmt.Fprintf(&script, "for _ in $(seq 600); do grep -qF '%s' %s && break; sleep 0.2; done\n", first.output[len(first.output)-1], log)
	// On a terminal, curl shows no progress.
	script.WriteString("curl() { command curl --no-progress-meter \"$@\"; }\n")
	for i, c := range rest {
		fmt.Fprintf(&script, "echo '@@%d'\n{ %s\n} 2>&1\n", i, c.line)
	}
	script.WriteString("kill $started; wait\n")
	args := []string{"--net"}
	if os.Getuid() != 0 {
		args = append(args, "--map-current-user", "--keep-caps")
	}
	shell := exec.CommandContext(t.Context(), "unshare", append(args, "bash", "-c", script.String())...)
	shell.Dir, shell.Env = "../..", append(os.Environ(), "GOWORK=") // not off, as this module needs it
	output, err := shell.Output()
	must.Succeed(t, err)
	parts := regexp.MustCompile(`(?m)^@@\d+\n`).Split(string(output), -1)
	if len(parts) != len(rest)+1 {
		t.Fatalf("got the output of %d commands, want that of %d: %s", len(parts)-1, len(rest), output)
	}
	for i, c := range rest {
		if want := strings.Join(c.output, "\n"); strings.TrimSpace(parts[i+1]) != want {
			t.Errorf("$ %s\n%s\nwant: %s", c.line, parts[i+1], want)
		}
	}
	if t.Failed() {
		t.Logf("%s", must.Get(os.ReadFile(log)))
	}
}
