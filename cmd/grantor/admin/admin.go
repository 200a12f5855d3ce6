// Package admin implements the commands that administer a running issuer: grantor client, grantor resource and grantor key.
// Each command is a call to the administrative services; none opens a store.
package admin

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
)

// options are the settings and flags that the administrative commands share. They come from flags, the environment and
// a profile; what one call is about comes from its arguments alone.
type options struct {
	remote.Connection

	flags  *pflag.FlagSet
	output string
}

// newCommand completes cmd to a command that calls do with a connection to the issuer's administration. The calls carry
// a token with the scopes.
func newCommand(cmd *cobra.Command, scopes string, do func(context.Context, *administrator, []string) error) *cobra.Command {
	s := &options{flags: pflag.NewFlagSet("admin", pflag.ContinueOnError)}
	s.Declare(s.flags, remote.LocalIssuer)
	s.flags.StringVarP(&s.output, "output", "o", "text", "`form` of the output: text for people, json or yaml for scripts")
	cmd.PreRunE = s.prepare
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return s.call(cmd, scopes, func(ctx context.Context, a *administrator) error { return do(ctx, a, args) })
	}
	cmd.Flags().AddFlagSet(s.flags)
	cli.CompleteFlag(cmd, "output", "text", "json", "yaml")
	return cmd
}

// prepare resolves and validates the settings.
func (s *options) prepare(*cobra.Command, []string) error {
	if err := settings.Resolve(s.flags, nil); err != nil {
		return err
	}
	if s.output != "text" && s.output != "json" && s.output != "yaml" {
		return cli.SettingError("output", fmt.Errorf("%.20q is none of text, json and yaml", s.output))
	}
	return s.Fill(s.flags)
}

// administrator makes the calls of a command and prints their results.
type administrator struct {
	*remote.Admin
	cli.Printer

	cmd *cobra.Command
}

// call calls do with a connection to the issuer's administration.
func (s *options) call(cmd *cobra.Command, scopes string, do func(context.Context, *administrator) error) error {
	return s.Administer(cmd, remote.Timeout, scopes, func(ctx context.Context, c *remote.Admin) error {
		return do(ctx, &administrator{c, cli.Printer{Out: cmd.OutOrStdout(), Form: s.output}, cmd})
	})
}
