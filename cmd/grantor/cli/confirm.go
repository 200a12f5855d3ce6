package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// WithConfirmation makes a command ask before it does what cannot be undone. Its last argument is the id that is to be typed.
func WithConfirmation(cmd *cobra.Command, warning string) *cobra.Command {
	var yes bool
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask whether it is meant")
	return WithPreRun(cmd, func(cmd *cobra.Command, args []string) error {
		if yes {
			return nil
		}
		return confirm(cmd, warning, args[len(args)-1])
	})
}

// confirm has the id typed by whoever sits at the terminal.
func confirm(cmd *cobra.Command, warning, id string) error {
	terminal := Terminal(cmd.InOrStdin())
	if terminal == nil {
		return UsageError(errors.New("this cannot be undone: give --yes, or run the command on a terminal, which is asked"))
	}
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s\nType %s to go on: ", warning, Printable(id))
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

// readLine reads a line from a terminal, which gives one line at a time. A signal ends the wait.
func readLine(ctx context.Context, terminal *os.File) (string, error) {
	const most = 4 << 10 // of a terminal's line
	type answer struct {
		text string
		err  error
	}
	typed := make(chan answer, 1)
	go func() {
		line := make([]byte, most)
		n, err := terminal.Read(line)
		typed <- answer{string(line[:n]), err}
	}()
	select {
	case a := <-typed:
		if errors.Is(a.err, io.EOF) {
			return "", nil // the end of input says no
		}
		return a.text, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
