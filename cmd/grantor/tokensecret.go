package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/grantorhq/grantor/service/token"
)

// readToken gives the token that a command is about. No error quotes it.
func readToken(cmd *cobra.Command, args []string) (string, error) {
	var raw string
	if len(args) > 0 && args[0] != "-" {
		raw = args[0]
	} else if terminal := terminalOf(cmd.InOrStdin()); terminal != nil {
		typed, err := ask(cmd.Context(), terminal, cmd.ErrOrStderr(), "Token: ")
		if err != nil {
			return "", err
		}
		raw = typed
	} else {
		// Room for the line's end; what is longer still is too long.
		content, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), token.MaxSize+3))
		if err != nil {
			return "", fmt.Errorf("reading standard input: %w", err)
		}
		raw = string(content)
	}
	raw = strings.TrimSpace(raw)
	switch {
	case raw == "":
		return "", errors.New("there is no token: give it on standard input")
	case len(raw) > token.MaxSize:
		return "", fmt.Errorf("the token has more than %d bytes", token.MaxSize)
	}
	return raw, nil
}

// terminalOf gives the terminal that in is, or nil.
func terminalOf(in io.Reader) *os.File {
	if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return file
	}
	return nil
}

// ask reads a line from a terminal that does not show it. A signal ends the wait, and then the terminal must show again
// what is typed.
func ask(ctx context.Context, terminal *os.File, out io.Writer, prompt string) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	_, _ = fmt.Fprint(out, prompt)
	defer func() { _, _ = fmt.Fprintln(out) }() // the reader's own line end was not shown
	type answer struct {
		text []byte
		err  error
	}
	typed := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		typed <- answer{text, err}
	}()
	select {
	case a := <-typed:
		if a.err != nil {
			return "", fmt.Errorf("reading from the terminal: %w", a.err)
		}
		return string(a.text), nil
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}
