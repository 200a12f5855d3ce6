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

// TestConformanceProxyExamples runs the transcripts of the examples with a proxy as their pages have them. The first command of a
// page runs in the background once it has printed its last line.
func TestConformanceProxyExamples(t *testing.T) {
	for _, name := range []string{"envoy", "nginx"} {
		t.Run(name, func(t *testing.T) {
			commands := transcript(string(must.Get(os.ReadFile(filepath.Join("../../examples", name, "README.md")))))
			first, rest := commands[0], commands[1:]
			runTranscript(t, func(log string) string {
				return fmt.Sprintf("%s >%s 2>&1 &\nfor _ in $(seq 600); do grep -qF '%s' %[2]s && break; sleep 0.2; done\n",
					first.line, log, first.output[len(first.output)-1])
			}, rest)
		})
	}
}

// TestConformanceGuardWalk runs the walk of docs/guard.md as the page has it.
func TestConformanceGuardWalk(t *testing.T) {
	_, page, _ := strings.Cut(string(must.Get(os.ReadFile("../../docs/guard.md"))), "\n## A walk\n")
	page, _, _ = strings.Cut(page, "\n## ")
	runTranscript(t, func(log string) string {
		return fmt.Sprintf(`make build >%s 2>&1
until_ready() { for url; do for _ in $(seq 300); do command curl -sf -o /dev/null $url && break; sleep 0.2; done; done; }
`, log)
	}, transcript(page))
}

// command is a line of a transcript that begins with "$ ", with those that continue it, and the lines of output below it.
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
		} else if n := len(commands) - 1; n >= 0 && strings.HasSuffix(commands[n].line, `\`) {
			commands[n].line += "\n" + text
		} else if n >= 0 {
			commands[n].output = append(commands[n].output, text)
		}
	}
	return commands
}

// runTranscript runs commands in one shell, after those that prepare returns for a log, and compares their output. It does so in
// a network of its own, because the ports are fixed.
func runTranscript(t *testing.T, prepare func(log string) string, commands []command) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	var script strings.Builder
	// On a terminal, curl shows no progress.
	script.WriteString("ip link set lo up\n" + prepare(log) + "curl() { command curl --no-progress-meter \"$@\"; }\n")
	for i, c := range commands {
		line, background := strings.CutSuffix(c.line, "&")
		if background {
			line += ">>" + log + " 2>&1 &"
		}
		fmt.Fprintf(&script, "echo '@@%d'\n{ %s\n} 2>&1\n", i, line)
		if background && (i+1 == len(commands) || !strings.HasSuffix(commands[i+1].line, "&")) {
			script.WriteString("until_ready localhost:9192/readyz localhost:8000/health\n")
		}
	}
	script.WriteString("kill $(jobs -p); wait\n")
	args := []string{"--net"}
	if os.Getuid() != 0 {
		args = append(args, "--map-current-user", "--keep-caps")
	}
	shell := exec.CommandContext(t.Context(), "unshare", append(args, "bash", "-c", script.String())...)
	shell.Dir, shell.Env = "../..", append(os.Environ(), "GOWORK=") // not off, as this module needs it
	output, err := shell.Output()
	must.Succeed(t, err)
	parts := regexp.MustCompile(`@@\d+\n`).Split(string(output), -1)
	if len(parts) != len(commands)+1 {
		t.Fatalf("got the output of %d commands, want that of %d: %s", len(parts)-1, len(commands), output)
	}
	for i, c := range commands {
		got := strings.TrimSpace(strings.ReplaceAll(parts[i+1], "\r", ""))
		want := regexp.QuoteMeta(strings.Join(c.output, "\n"))
		// A line of three dots stands for lines that the page leaves out.
		if !regexp.MustCompile(`(?s)^` + strings.ReplaceAll(want, "\n\\.\\.\\.\n", "\n.*\n") + `$`).MatchString(got) {
			t.Errorf("$ %s\n%s\nwant: %s", c.line, got, strings.Join(c.output, "\n"))
		}
	}
	if t.Failed() {
		t.Logf("%s", must.Get(os.ReadFile(log)))
	}
}
