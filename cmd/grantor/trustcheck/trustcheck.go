// Package trustcheck implements grantor trust check, which says which client a token or certificate from elsewhere is, and why
// it is no other. The rules are those of package trust; what it reads it reads from a file or from a running issuer.
package trustcheck

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/service/jwks"
)

// options are the settings and flags of the command.
type options struct {
	remote.Connection

	flags              *pflag.FlagSet
	file, keys, output string
}

// NewCommand returns grantor trust check.
func NewCommand() *cobra.Command {
	s := &options{flags: pflag.NewFlagSet("check", pflag.ContinueOnError)}
	s.Declare(s.flags, "")
	cmd := &cobra.Command{
		Use:   "check [- | @FILE | TOKEN]",
		Short: "Tell which client a token or certificate from elsewhere is, and why it is no other",
		Long: `Tell which client a token of a trusted issuer, or a certificate of a trust domain, is: which rule selects its identity, and
for each other rule of the issuer why it does not. The token (a JWT), or the certificate with its chain in PEM, is read from
standard input or from the file after @. A token can also be the argument, which other users and the shell's history can
reveal. Neither the token nor its signature is printed; its issuer, its subject and the text of the rules are.

The rules are those of --file, without its secrets, or those of the running issuer; the latter needs the scopes
grantor:trust.read and grantor:clients.read. Signature, times and audience are checked as the issuer does, as far as the keys
can be had from here: those of the table, those that the trusted issuer publishes, or those of --keys. The audience is
checked against --issuer.

The exit code is 0 if a client matches and nothing that was checked is wrong, 4 if no client matches, and 7 if something is
wrong.`,
		Example: `  grantor trust check --file clients.yaml --issuer https://auth.example.com @/var/run/secrets/grantor/token
  grantor trust check --profile prod @svid.pem`,
		Args:    cobra.MaximumNArgs(1),
		PreRunE: s.prepare,
		RunE:    s.run,
	}
	s.flags.StringVarP(&s.file, "file", "f", "", "`file` with trusted issuers, workloads and clients, in YAML; default: those of the running issuer")
	s.flags.StringVar(&s.keys, "keys", "", "`file` with the JWK Set of the trusted issuer, or the bundle of the trust domain")
	s.flags.StringVarP(&s.output, "output", "o", "text", "`form` of the output: text for people, json for scripts")
	cmd.Flags().AddFlagSet(s.flags)
	cli.CompleteFlag(cmd, "output", "text", "json")
	return cmd
}

// prepare resolves and validates the settings.
func (s *options) prepare(*cobra.Command, []string) error {
	if err := settings.Resolve(s.flags, nil); err != nil {
		return err
	}
	if err := cli.CheckOutput(s.output); err != nil {
		return err
	}
	if err := s.Fill(s.flags); err != nil {
		return err
	}
	if s.Issuer == "" && s.file == "" {
		s.Issuer = remote.LocalIssuer
	}
	return nil
}

func (s *options) run(cmd *cobra.Command, args []string) error {
	sent, err := readEvidence(cmd, args)
	if err != nil {
		return err
	}
	rules, err := s.rules(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), remote.Timeout)
	defer cancel()
	c := &checker{rules: rules, audience: s.Issuer, keysFile: s.keys, now: time.Now()}
	if s.keys != "" {
		if c.keys, err = cli.ReadFile(s.keys, jwks.MaxDocument); err != nil {
			return cli.SettingError("keys", err)
		}
	}
	result, err := c.check(ctx, sent)
	if err != nil {
		return err
	}
	if err := result.print(cmd.OutOrStdout(), s.output); err != nil {
		return err
	}
	switch {
	case len(result.Clients) == 0:
		return cli.WithExit(cli.ExitNotFound, errors.New("no client matches"))
	case result.failures() > 0:
		return cli.WithExit(cli.ExitInvalid, fmt.Errorf("a client matches, but the %s is refused", result.Kind))
	}
	return nil
}
