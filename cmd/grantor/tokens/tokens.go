// Package tokens implements grantor token, which issues, inspects and revokes tokens as a client of a running issuer.
package tokens

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
)

// Settings are what the token commands have in common. They come from flags, environment and file as those of serve
// do; what one call is about comes from its arguments alone, so that no variable left behind widens a call.
type Settings struct {
	remote.Connection

	Flags  *pflag.FlagSet
	shared settings.Names
	config string
	Output string
}

func NewSettings(shared settings.Names) *Settings {
	s := &Settings{shared: shared, Flags: pflag.NewFlagSet("token", pflag.ContinueOnError)}
	s.Flags.StringVar(&s.config, "config", "", "`file` with these settings in YAML: each flag's name with _ for -, and its value")
	s.Declare(s.Flags, remote.LocalIssuer)
	s.Flags.StringVarP(&s.Output, "output", "o", "text", "`form` of the output: text for people, json for scripts")
	return s
}

// Prepare reads the settings from where they are.
func (s *Settings) Prepare(*cobra.Command, []string) error {
	if err := settings.Resolve(s.Flags, s.shared); err != nil {
		return err
	}
	if err := s.Fill(s.Flags); err != nil {
		return err
	}
	if s.Output != "text" && s.Output != "json" {
		return cli.SettingError("output", fmt.Errorf("%.20q is neither text nor json", s.Output))
	}
	return nil
}

// talk reaches the issuer as the client and hands it on. The time that typing a secret takes does not count.
func (s *Settings) talk(cmd *cobra.Command, do func(context.Context, *remote.Client) error) error {
	secret, err := s.Credentials(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), remote.Timeout)
	defer cancel()
	client, err := remote.Dial(ctx, s.Issuer, s.ClientID, secret)
	if err != nil {
		return err
	}
	defer client.Close()
	return do(ctx, client)
}

// talkAbout is talk for a command that is about a token.
func (s *Settings) talkAbout(cmd *cobra.Command, args []string, do func(context.Context, *remote.Client, string) error) error {
	raw, err := readToken(cmd, args)
	if err != nil {
		return err
	}
	return s.talk(cmd, func(ctx context.Context, client *remote.Client) error { return do(ctx, client, raw) })
}

func NewCommand(shared settings.Names) *cobra.Command {
	return cli.NewGroup("token", "Get, inspect and take back tokens of a running issuer", "",
		newIssueCommand(shared), newIntrospectCommand(shared), newRevokeCommand(shared), newDecodeCommand(shared))
}

func newIssueCommand(shared settings.Names) *cobra.Command {
	s := NewSettings(shared)
	var scopes, resources []string
	cmd := &cobra.Command{
		Use:   "issue",
		Short: "Get an access token",
		Long: `Get an access token as a client. The token alone goes to standard output, its scope and lifetime to standard error:

  curl -H "Authorization: Bearer $(grantor token issue --client-id background-service --scope api1)" https://orders.internal`,
		Args:    cobra.ExactArgs(0),
		PreRunE: s.Prepare,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.talk(cmd, func(ctx context.Context, client *remote.Client) error {
				body, issued, err := client.Issue(ctx, strings.Fields(strings.Join(scopes, " ")), resources)
				switch {
				case err != nil:
					return err
				case s.Output == "json":
					return printJSON(cmd.OutOrStdout(), body)
				}
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), summary(issued))
				_, err = fmt.Fprintln(cmd.OutOrStdout(), issued.Token)
				return err
			})
		},
	}
	cmd.Flags().AddFlagSet(s.Flags)
	cmd.Flags().StringArrayVar(&scopes, "scope", nil, "`scope` of the token, or several with spaces between; can be repeated. Default: the client's default scopes")
	cmd.Flags().StringArrayVar(&resources, "resource", nil, "`URI` of a resource that the token is for; can be repeated. Default: those that own the scopes")
	return cmd
}

func newIntrospectCommand(shared settings.Names) *cobra.Command {
	s := NewSettings(shared)
	cmd := &cobra.Command{
		Use:   "introspect [- | TOKEN]",
		Short: "Ask the issuer what a token is worth now",
		Long: `Ask the issuer whether a token holds now, and print what it says. The token is read from standard input; it can also be
the argument, where the shell's history and other users may see it.

About a token that is neither the client's own nor for a resource that it serves the issuer says that it is not active.
A token that is not active is an answer, not a failure: the command prints it and succeeds.`,
		Args:    cobra.MaximumNArgs(1),
		PreRunE: s.Prepare,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.talkAbout(cmd, args, func(ctx context.Context, client *remote.Client, raw string) error {
				body, err := client.Introspect(ctx, raw)
				switch {
				case err != nil:
					return err
				case s.Output == "json":
					return printJSON(cmd.OutOrStdout(), body)
				}
				fields, err := members(body)
				if err != nil {
					return fmt.Errorf("the issuer's answer: %w", err)
				}
				return printMembers(cmd.OutOrStdout(), fields, time.Now())
			})
		},
	}
	cmd.Flags().AddFlagSet(s.Flags)
	return cmd
}

func newRevokeCommand(shared settings.Names) *cobra.Command {
	s := NewSettings(shared)
	var all bool
	cmd := &cobra.Command{
		Use:   "revoke [- | TOKEN | --all]",
		Short: "Take back a token, or all tokens of the client",
		Long: `Take back a token of the client, which is read from standard input; it can also be the argument, where the shell's history
and other users may see it. With --all, take back every token that the client was issued until now, over gRPC.

The issuer does not tell whether there was anything to take back (RFC 7009): a token that has expired, is revoked already
or is somebody else's is left as it is, and the command succeeds.`,
		Args:    cobra.MaximumNArgs(1),
		PreRunE: s.Prepare,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return errors.New("revoke: give a token or --all, not both")
			case all:
				return s.talk(cmd, func(ctx context.Context, client *remote.Client) error {
					if err := client.RevokeAll(ctx); err != nil {
						return err
					}
					return s.done(cmd.OutOrStdout(), "All tokens that "+client.ID+" was issued until now are revoked.")
				})
			}
			return s.talkAbout(cmd, args, func(ctx context.Context, client *remote.Client, raw string) error {
				if err := client.Revoke(ctx, raw); err != nil {
					return err
				}
				return s.done(cmd.OutOrStdout(), "If it was a live token of "+client.ID+", it is revoked.")
			})
		},
	}
	cmd.Flags().AddFlagSet(s.Flags)
	cmd.Flags().BoolVar(&all, "all", false, "take back every token that the client was issued until now")
	return cmd
}

// done tells of success. The answer to a revocation says nothing, so for scripts it is an empty object.
func (s *Settings) done(out io.Writer, text string) error {
	if s.Output == "json" {
		text = "{}"
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

// printJSON prints a document for scripts.
func printJSON(out io.Writer, document []byte) error {
	var indented bytes.Buffer
	if err := json.Indent(&indented, document, "", "  "); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, indented.String())
	return err
}

// summary words what an issued token is good for.
func summary(t *remote.IssuedToken) string {
	text := "no scope told"
	if t.Scope != "" {
		text = "scope " + cli.Printable(t.Scope)
	}
	seconds, err := t.Lifetime.Int64()
	if err != nil || seconds <= 0 || seconds > maxSeconds {
		return text + "; no lifetime told"
	}
	return text + "; expires in " + (time.Duration(seconds) * time.Second).String()
}
