// Package tokens implements grantor token, which issues, inspects and revokes tokens as a client of a running issuer.
package tokens

import (
	"bytes"
	"cmp"
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

// Settings are the settings that the token commands share. They come from flags, the environment and a file, as those
// of grantor serve do. What one call is about comes from its arguments alone, so that a forgotten variable cannot widen
// a call.
type Settings struct {
	remote.Connection

	Flags  *pflag.FlagSet
	shared settings.Names
	config string
	Output string
}

// NewSettings declares the settings. The file of settings may also have the settings in shared.
func NewSettings(shared settings.Names) *Settings {
	s := &Settings{shared: shared, Flags: pflag.NewFlagSet("token", pflag.ContinueOnError)}
	s.Flags.StringVar(&s.config, "config", "", "`file` with these settings in YAML: each flag's name with _ for -, and its value")
	s.Declare(s.Flags, remote.LocalIssuer)
	s.Flags.StringVarP(&s.Output, "output", "o", "text", "`form` of the output: text for people, json for scripts")
	return s
}

// Prepare resolves and validates the settings.
func (s *Settings) Prepare(*cobra.Command, []string) error {
	if err := settings.Resolve(s.Flags, s.shared); err != nil {
		return err
	}
	if err := s.Fill(s.Flags); err != nil {
		return err
	}
	return cli.CheckOutput(s.Output)
}

// call calls do with a client of the issuer. The time in which a secret is typed does not count towards the timeout.
func (s *Settings) call(cmd *cobra.Command, do func(context.Context, *remote.Client) error) error {
	credentials, err := s.Credentials(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), remote.Timeout)
	defer cancel()
	client, err := remote.Dial(ctx, s.Issuer, credentials)
	if err != nil {
		return err
	}
	defer client.Close()
	return do(ctx, client)
}

// callWithToken is call for a command that takes a token.
func (s *Settings) callWithToken(cmd *cobra.Command, args []string, do func(context.Context, *remote.Client, string) error) error {
	raw, err := readToken(cmd, args)
	if err != nil {
		return err
	}
	return s.call(cmd, func(ctx context.Context, client *remote.Client) error { return do(ctx, client, raw) })
}

// NewCommand returns grantor token. Its file of settings may also have the settings in shared.
func NewCommand(shared settings.Names) *cobra.Command {
	return cli.NewGroup("token", "Get, inspect and revoke tokens of a running issuer", "",
		newIssueCommand(shared), newIntrospectCommand(shared), newRevokeCommand(shared), newDecodeCommand(shared))
}

func newIssueCommand(shared settings.Names) *cobra.Command {
	s := NewSettings(shared)
	var scopes, resources []string
	cmd := &cobra.Command{
		Use:   "issue",
		Short: "Get an access token",
		Long: `Get an access token as a client. Standard output has only the token, standard error its scope and lifetime:

  curl -H "Authorization: Bearer $(grantor token issue --client-id background-service --scope api1)" https://orders.internal

With --dpop-key-file the token is bound to a key (RFC 9449): it is sent as "Authorization: DPoP" with a proof that the key has
signed for the one request, and is of no use without the key.`,
		Args:    cobra.ExactArgs(0),
		PreRunE: s.Prepare,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.call(cmd, func(ctx context.Context, client *remote.Client) error {
				body, issued, err := client.Issue(ctx, strings.Fields(strings.Join(scopes, " ")), resources)
				switch {
				case err != nil:
					return err
				case s.Output == "json":
					return printJSON(cmd.OutOrStdout(), body)
				}
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), summary(issued)+binding(client))
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
		Short: "Ask the issuer whether a token is active",
		Long: `Ask the issuer whether a token is active, and print the response. The token is read from standard input; it can also be
the argument, which other users and the shell's history can reveal.

The issuer reports a token as not active if it is neither the client's own nor for a resource that the client serves. That
a token is not active is a result, not a failure: the command prints it and succeeds.`,
		Args:    cobra.MaximumNArgs(1),
		PreRunE: s.Prepare,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.callWithToken(cmd, args, func(ctx context.Context, client *remote.Client, raw string) error {
				body, err := client.Introspect(ctx, raw)
				switch {
				case err != nil:
					return err
				case s.Output == "json":
					return printJSON(cmd.OutOrStdout(), body)
				}
				fields, err := members(body)
				if err != nil {
					return fmt.Errorf("the issuer's response: %w", err)
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
		Short: "Revoke a token, or all tokens of the client",
		Long: `Revoke a token of the client, which is read from standard input; it can also be the argument, which other users and the
shell's history can reveal. With --all, revoke every token that was issued to the client until now, over gRPC.

The issuer does not report whether it revoked anything (RFC 7009): a token that has expired, is already revoked or belongs
to another client is left as it is, and the command succeeds.`,
		Args:    cobra.MaximumNArgs(1),
		PreRunE: s.Prepare,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return cli.UsageError(errors.New("revoke: give a token or --all, not both"))
			case all:
				return s.call(cmd, func(ctx context.Context, client *remote.Client) error {
					if err := client.RevokeAll(ctx); err != nil {
						return err
					}
					return s.done(cmd.OutOrStdout(), "All tokens that were issued to "+clientName(client)+" until now are revoked.")
				})
			}
			return s.callWithToken(cmd, args, func(ctx context.Context, client *remote.Client, raw string) error {
				if err := client.Revoke(ctx, raw); err != nil {
					return err
				}
				return s.done(cmd.OutOrStdout(), "If it was an active token of "+clientName(client)+", it is revoked.")
			})
		},
	}
	cmd.Flags().AddFlagSet(s.Flags)
	cmd.Flags().BoolVar(&all, "all", false, "revoke every token that was issued to the client until now")
	return cmd
}

// done reports success. The response to a revocation is empty, so scripts get an empty object.
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

// summary returns the scope and the lifetime of a token as one line.
func summary(t *remote.IssuedToken) string {
	text := "no scope in the response"
	if t.Scope != "" {
		text = "scope " + cli.Printable(t.Scope)
	}
	seconds, err := t.Lifetime.Int64()
	if err != nil || seconds <= 0 || seconds > maxSeconds {
		return text + "; no lifetime in the response"
	}
	return text + "; expires in " + (time.Duration(seconds) * time.Second).String()
}

// binding says which DPoP key the client's tokens are bound to; it is empty for bearer tokens.
func binding(client *remote.Client) string {
	if client.DPoP == nil {
		return ""
	}
	return "; bound to the DPoP key " + client.DPoP.Thumbprint()
}

// clientName returns the client's id or, where its identity alone names it, a phrase in its place.
func clientName(client *remote.Client) string {
	return cmp.Or(client.ID, "this client")
}
