package main

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
)

// tokenTimeout bounds one command's talk with the issuer.
const tokenTimeout = 20 * time.Second

// tokenSettings are what the token commands have in common. They come from flags, environment and file as those of serve
// do; what one call is about comes from its arguments alone, so that no variable left behind widens a call.
type tokenSettings struct {
	connection

	flags  *pflag.FlagSet
	config string
	output string
}

func newTokenSettings() *tokenSettings {
	s := &tokenSettings{flags: pflag.NewFlagSet("token", pflag.ContinueOnError)}
	s.flags.StringVar(&s.config, "config", "", "`file` with these settings in YAML: each flag's name with _ for -, and its value")
	s.declare(s.flags, localIssuer)
	s.flags.StringVarP(&s.output, "output", "o", "text", "`form` of the output: text for people, json for scripts")
	return s
}

// prepare reads the settings from where they are.
func (s *tokenSettings) prepare(*cobra.Command, []string) error {
	if err := resolve(s.flags); err != nil {
		return err
	}
	if err := s.fill(s.flags); err != nil {
		return err
	}
	if s.output != "text" && s.output != "json" {
		return settingError("output", fmt.Errorf("%.20q is neither text nor json", s.output))
	}
	return nil
}

// talk reaches the issuer as the client and hands it on. The time that typing a secret takes does not count.
func (s *tokenSettings) talk(cmd *cobra.Command, do func(context.Context, *tokenClient) error) error {
	secret, err := s.credentials(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), tokenTimeout)
	defer cancel()
	client, err := newTokenClient(ctx, s.issuer, s.clientID, secret)
	if err != nil {
		return err
	}
	defer client.close()
	return do(ctx, client)
}

// talkAbout is talk for a command that is about a token.
func (s *tokenSettings) talkAbout(cmd *cobra.Command, args []string, do func(context.Context, *tokenClient, string) error) error {
	raw, err := readToken(cmd, args)
	if err != nil {
		return err
	}
	return s.talk(cmd, func(ctx context.Context, client *tokenClient) error { return do(ctx, client, raw) })
}

func newTokenCommand() *cobra.Command {
	return newGroup("token", "Get, inspect and take back tokens of a running issuer", "",
		newIssueCommand(), newIntrospectCommand(), newRevokeCommand(), newDecodeCommand())
}

func newIssueCommand() *cobra.Command {
	s := newTokenSettings()
	var scopes, resources []string
	cmd := &cobra.Command{
		Use:   "issue",
		Short: "Get an access token",
		Long: `Get an access token as a client. The token alone goes to standard output, its scope and lifetime to standard error:

  curl -H "Authorization: Bearer $(grantor token issue --client-id background-service --scope api1)" https://orders.internal`,
		Args:    cobra.ExactArgs(0),
		PreRunE: s.prepare,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.talk(cmd, func(ctx context.Context, client *tokenClient) error {
				body, issued, err := client.issue(ctx, strings.Fields(strings.Join(scopes, " ")), resources)
				switch {
				case err != nil:
					return err
				case s.output == "json":
					return printJSON(cmd.OutOrStdout(), body)
				}
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), issued.summary())
				_, err = fmt.Fprintln(cmd.OutOrStdout(), issued.Token)
				return err
			})
		},
	}
	cmd.Flags().AddFlagSet(s.flags)
	cmd.Flags().StringArrayVar(&scopes, "scope", nil, "`scope` of the token, or several with spaces between; can be repeated. Default: the client's default scopes")
	cmd.Flags().StringArrayVar(&resources, "resource", nil, "`URI` of a resource that the token is for; can be repeated. Default: those that own the scopes")
	return cmd
}

func newIntrospectCommand() *cobra.Command {
	s := newTokenSettings()
	cmd := &cobra.Command{
		Use:   "introspect [- | TOKEN]",
		Short: "Ask the issuer what a token is worth now",
		Long: `Ask the issuer whether a token holds now, and print what it says. The token is read from standard input; it can also be
the argument, where the shell's history and other users may see it.

About a token that is neither the client's own nor for a resource that it serves the issuer says that it is not active.
A token that is not active is an answer, not a failure: the command prints it and succeeds.`,
		Args:    cobra.MaximumNArgs(1),
		PreRunE: s.prepare,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.talkAbout(cmd, args, func(ctx context.Context, client *tokenClient, raw string) error {
				body, err := client.introspect(ctx, raw)
				switch {
				case err != nil:
					return err
				case s.output == "json":
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
	cmd.Flags().AddFlagSet(s.flags)
	return cmd
}

func newRevokeCommand() *cobra.Command {
	s := newTokenSettings()
	var all bool
	cmd := &cobra.Command{
		Use:   "revoke [- | TOKEN | --all]",
		Short: "Take back a token, or all tokens of the client",
		Long: `Take back a token of the client, which is read from standard input; it can also be the argument, where the shell's history
and other users may see it. With --all, take back every token that the client was issued until now, over gRPC.

The issuer does not tell whether there was anything to take back (RFC 7009): a token that has expired, is revoked already
or is somebody else's is left as it is, and the command succeeds.`,
		Args:    cobra.MaximumNArgs(1),
		PreRunE: s.prepare,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return errors.New("revoke: give a token or --all, not both")
			case all:
				return s.talk(cmd, func(ctx context.Context, client *tokenClient) error {
					if err := client.revokeAll(ctx); err != nil {
						return err
					}
					return s.done(cmd.OutOrStdout(), "All tokens that "+client.id+" was issued until now are revoked.")
				})
			}
			return s.talkAbout(cmd, args, func(ctx context.Context, client *tokenClient, raw string) error {
				if err := client.revoke(ctx, raw); err != nil {
					return err
				}
				return s.done(cmd.OutOrStdout(), "If it was a live token of "+client.id+", it is revoked.")
			})
		},
	}
	cmd.Flags().AddFlagSet(s.flags)
	cmd.Flags().BoolVar(&all, "all", false, "take back every token that the client was issued until now")
	return cmd
}

// done tells of success. The answer to a revocation says nothing, so for scripts it is an empty object.
func (s *tokenSettings) done(out io.Writer, text string) error {
	if s.output == "json" {
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

// issuedToken is an answer of RFC 6749 §5.1.
type issuedToken struct {
	Token string `json:"access_token"`
	Type  string `json:"token_type"`
	// Lifetime is in seconds. Some issuers put it in quotes, which json.Number accepts too.
	Lifetime json.Number `json:"expires_in"`
	Scope    string      `json:"scope"`
}

func (t *issuedToken) summary() string {
	text := "no scope told"
	if t.Scope != "" {
		text = "scope " + visible(t.Scope)
	}
	seconds, err := t.Lifetime.Int64()
	if err != nil || seconds <= 0 || seconds > maxSeconds {
		return text + "; no lifetime told"
	}
	return text + "; expires in " + (time.Duration(seconds) * time.Second).String()
}
