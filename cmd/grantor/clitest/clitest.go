// Package clitest runs commands of grantor in tests. It is for tests alone.
package clitest

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// Secret is the client secret that the tests pass to commands. No error may quote it.
const Secret = "a secret: of + the % client"

// Isolate hides the profiles of the machine from the test.
func Isolate(t *testing.T) { t.Helper(); t.Setenv("XDG_CONFIG_HOME", t.TempDir()) }

// Run runs a command with the arguments and standard input.
func Run(t *testing.T, cmd *cobra.Command, stdin io.Reader, args ...string) Result {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	err := cmd.ExecuteContext(t.Context())
	return Result{out.String(), errOut.String(), err}
}

// Exits checks that the command failed with an exit code and a text, and does not quote hidden.
func (c Result) Exits(t *testing.T, code int, want string, hidden ...string) {
	t.Helper()
	c.Fails(t, want, append(hidden, Secret)...)
	if got := cli.ExitCode(c.Err); got != code {
		t.Errorf("%v: got exit code %d, want %d", c.Err, got, code)
	}
}

// DevSecret is the secret of the client of development mode.
const DevSecret = "service-secret-here"

// Result is the outcome of a command.
type Result struct {
	Out, ErrOut string
	Err         error
}

// Works returns the output of a command that must have succeeded.
func (c Result) Works(t *testing.T) string {
	t.Helper()
	if c.Err != nil {
		t.Fatalf("got %v", c.Err)
	}
	return c.Out
}

// Fails checks that the command failed with one line that contains want, and printed nothing to standard output.
func (c Result) Fails(t *testing.T, want string, hidden ...string) {
	t.Helper()
	if c.Err == nil || !strings.Contains(c.Err.Error(), want) || strings.Contains(c.Err.Error(), "\n") {
		t.Fatalf("got %v, want one line with %q", c.Err, want)
	}
	if c.Out != "" {
		t.Errorf("a command that failed printed %q", c.Out)
	}
	for _, secret := range append(hidden, DevSecret) {
		if strings.Contains(c.Err.Error()+c.ErrOut, secret) {
			t.Errorf("the error has the secret or the token: %v %s", c.Err, c.ErrOut)
		}
	}
}
