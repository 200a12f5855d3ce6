package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/grantorhq/grantor/cmd/grantor/clitest"
)

// pseudoTerminal returns a terminal, and the end at which a person would type.
func pseudoTerminal(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("no pseudo-terminal: %v", err)
	}
	person = os.NewFile(uintptr(master), "ptmx")
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return person, terminal
}

// echoes reports whether the terminal echoes what is typed.
func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// TestTokenPrompt types a token and a secret at a terminal, which echoes neither.
func TestTokenPrompt(t *testing.T) {
	r := asDevClient(t)
	t.Setenv("GRANTOR_CLIENT_SECRET", "")
	person, terminal := pseudoTerminal(t)
	raw := r.Token(t)
	if _, err := fmt.Fprintf(person, "%s\n%s\n", raw, clitest.DevSecret); err != nil {
		t.Fatal(err)
	}
	got := runTokenOn(t, terminal, "introspect")
	if !strings.Contains(got.Works(t), "true") {
		t.Errorf("got %q, want an active token", got.Out)
	}
	if want := "Token: \nSecret of background-service: \n"; got.ErrOut != want {
		t.Errorf("standard error: got %q, want %q", got.ErrOut, want)
	}
	if !echoes(t, terminal) {
		t.Error("the terminal no longer shows what is typed")
	}
}

// TestTokenPromptEnds expects a signal to end the wait for input.
func TestTokenPromptEnds(t *testing.T) {
	t.Setenv("GRANTOR_CLIENT_SECRET", "")
	expectPromptEnds(t, "Secret", "token", "issue", "--client-id=background-service")
}

// expectPromptEnds runs a command on a terminal until it has written the prompt, and expects a signal to end it.
func expectPromptEnds(t *testing.T, prompt string, args ...string) {
	t.Helper()
	person, terminal := pseudoTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetIn(terminal)
	cmd.SetOut(io.Discard)
	prompted := &notices{seen: make(chan struct{}), want: prompt}
	cmd.SetErr(prompted)
	ended := make(chan error)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	<-prompted.seen
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("got %v, want the context's end", err)
	}
	_, _ = io.WriteString(person, "\n") // ends the pending read
}

// notices closes seen once it is written the text that it wants.
type notices struct {
	buf  bytes.Buffer
	want string
	seen chan struct{}
}

func (n *notices) Write(p []byte) (int, error) {
	had := strings.Contains(n.buf.String(), n.want)
	n.buf.Write(p)
	if !had && strings.Contains(n.buf.String(), n.want) {
		close(n.seen)
	}
	return len(p), nil
}
