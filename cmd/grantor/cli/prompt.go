package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Terminal returns in as a terminal, or nil if it is none.
func Terminal(in io.Reader) *os.File {
	if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return file
	}
	return nil
}

// AskSecret prints prompt to out and reads a line from a terminal without echoing it. If ctx ends while it waits, it
// restores the terminal, which would not echo input otherwise.
func AskSecret(ctx context.Context, terminal *os.File, out io.Writer, prompt string) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	_, _ = fmt.Fprint(out, prompt)
	defer func() { _, _ = fmt.Fprintln(out) }() // the newline that the user typed was not echoed
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

// WithConfirmation makes cmd ask before it does what cannot be undone, unless --yes is given. The user confirms by typing
// the last argument of the command, which is an ID. It returns cmd.
func WithConfirmation(cmd *cobra.Command, warning string) *cobra.Command {
	var yes bool
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	return WithPreRun(cmd, func(cmd *cobra.Command, args []string) error {
		if yes {
			return nil
		}
		return confirm(cmd, warning, args[len(args)-1])
	})
}

// confirm has the user type id at the terminal.
func confirm(cmd *cobra.Command, warning, id string) error {
	terminal := Terminal(cmd.InOrStdin())
	if terminal == nil {
		return UsageError(errors.New("this cannot be undone: give --yes, or run the command on a terminal to confirm it"))
	}
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s\nType %s to continue: ", warning, Printable(id))
	typed, err := readLine(cmd.Context(), terminal)
	if err != nil {
		_, _ = fmt.Fprintln(cmd.ErrOrStderr())
		return err
	}
	if strings.TrimSpace(typed) != id {
		return errors.New("that is not the id; nothing was done")
	}
	return nil
}

// readLine reads a line from a terminal, whose Read returns one line at a time. It returns early if ctx ends.
func readLine(ctx context.Context, terminal *os.File) (string, error) {
	const maxLine = 4 << 10 // the line length limit of a terminal
	type answer struct {
		text string
		err  error
	}
	typed := make(chan answer, 1)
	go func() {
		line := make([]byte, maxLine)
		n, err := terminal.Read(line)
		typed <- answer{string(line[:n]), err}
	}()
	select {
	case a := <-typed:
		if errors.Is(a.err, io.EOF) {
			return "", nil // the end of input counts as no
		}
		return a.text, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
