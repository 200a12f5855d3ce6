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

// options are what the commands that administer an issuer have in common. They come from flags and environment, and
// from a profile; what one call is about comes from its arguments alone.
type options struct {
	remote.Connection

	flags  *pflag.FlagSet
	output string
}

// newCommand makes a command with these settings. do is called with what it takes to carry it out.
func newCommand(cmd *cobra.Command, scopes string, do func(context.Context, *administrator, []string) error) *cobra.Command {
	s := &options{flags: pflag.NewFlagSet("admin", pflag.ContinueOnError)}
	s.Declare(s.flags, remote.LocalIssuer)
	s.flags.StringVarP(&s.output, "output", "o", "text", "`form` of the output: text for people, json or yaml for scripts")
	cmd.PreRunE = s.prepare
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return s.talk(cmd, scopes, func(ctx context.Context, a *administrator) error { return do(ctx, a, args) })
	}
	cmd.Flags().AddFlagSet(s.flags)
	cli.CompleteFlag(cmd, "output", "text", "json", "yaml")
	return cmd
}

// prepare reads the settings from where they are.
func (s *options) prepare(*cobra.Command, []string) error {
	if err := settings.Resolve(s.flags, nil); err != nil {
		return err
	}
	if s.output != "text" && s.output != "json" && s.output != "yaml" {
		return cli.SettingError("output", fmt.Errorf("%.20q is none of text, json and yaml", s.output))
	}
	return s.Fill(s.flags)
}

// administrator is what a command has to carry itself out with.
type administrator struct {
	*remote.Admin
	cli.Printer

	cmd *cobra.Command
}

// talk reaches the issuer's administration and hands it on.
func (s *options) talk(cmd *cobra.Command, scopes string, do func(context.Context, *administrator) error) error {
	return s.Administer(cmd, remote.Timeout, scopes, func(ctx context.Context, c *remote.Admin) error {
		return do(ctx, &administrator{c, cli.Printer{Out: cmd.OutOrStdout(), Form: s.output}, cmd})
	})
}
