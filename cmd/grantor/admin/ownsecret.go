package admin

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/service/oauth"
)

// ownSecret is a secret that the administrator chose.
type ownSecret struct {
	file  string
	value string
}

func (s *ownSecret) declare(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.file, "secret-file", "", "`file` with a secret of your own choice, or - for standard input; default: the issuer generates one, which is better")
}

// read reads the secret. No error quotes it.
func (s *ownSecret) read(cmd *cobra.Command) (err error) {
	switch s.file {
	case "":
		return nil
	case "-":
		var content []byte
		content, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), oauth.MaxSecret+3)) // longer input is too long anyway
		s.value = strings.TrimRight(string(content), "\r\n")
	default:
		s.value, err = remote.ReadSecret(s.file)
	}
	switch {
	case err != nil:
		return cli.SettingError("secret-file", err)
	case s.value == "":
		return cli.SettingError("secret-file", errors.New("is empty"))
	case len(s.value) > oauth.MaxSecret:
		return cli.SettingError("secret-file", fmt.Errorf("has more than %d bytes", oauth.MaxSecret))
	}
	return nil
}
