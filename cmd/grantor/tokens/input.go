package tokens

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/token"
)

// readToken returns the token that a command is about. No error quotes it.
func readToken(cmd *cobra.Command, args []string) (string, error) {
	var raw string
	if len(args) > 0 && args[0] != "-" {
		raw = args[0]
	} else if terminal := cli.Terminal(cmd.InOrStdin()); terminal != nil {
		typed, err := cli.AskSecret(cmd.Context(), terminal, cmd.ErrOrStderr(), "Token: ")
		if err != nil {
			return "", err
		}
		raw = typed
	} else {
		// A line break may follow the token. Longer input is too long anyway.
		content, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), token.MaxSize+3))
		if err != nil {
			return "", fmt.Errorf("reading standard input: %w", err)
		}
		raw = string(content)
	}
	raw = strings.TrimSpace(raw)
	switch {
	case raw == "":
		return "", cli.UsageError(errors.New("no token: give it on standard input"))
	case len(raw) > token.MaxSize:
		return "", cli.WithExit(cli.ExitInvalid, fmt.Errorf("the token has more than %d bytes", token.MaxSize))
	}
	return raw, nil
}
