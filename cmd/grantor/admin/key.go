package admin

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registry"
)

// NewKeyCommand returns grantor key, with subs as further subcommands.
func NewKeyCommand(subs ...*cobra.Command) *cobra.Command {
	return cli.NewGroup("key", "Administer the signing keys of a running issuer",
		`Administer the signing keys of a running issuer. The issuer rotates them by itself; these commands are for when that is
not soon enough. The calling client needs the scopes grantor:keys.read and grantor:keys.write; grantor key export needs
no client. See also: grantor help profiles, grantor help exit-codes.

The id of a key may begin with a hyphen. It then follows two hyphens, at the end: grantor key retire -- -Nzb…

grantor key wrap calls no issuer: it makes the key that seals the signing keys.`,
		append([]*cobra.Command{newKeyListCommand(), newKeyRotateCommand(), newKeyRetireCommand(), newKeyCompromiseCommand(), newKeyExportCommand()}, subs...)...)
}

func newKeyListCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the signing keys, in the order in which they sign",
		Example: `  grantor key list`,
		Args:    cobra.ExactArgs(0),
	}, registry.ScopeKeysRead, func(ctx context.Context, a *administrator, _ []string) error {
		answer, err := a.Keys.ListKeys(ctx, &grantorv1.ListKeysRequest{})
		if err != nil {
			return err
		}
		return a.Print(answer, func(out io.Writer) error { return printKeys(out, answer) })
	})
}

// keySet is a response with the current keys.
type keySet interface {
	proto.Message
	GetKeys() []*grantorv1.SigningKey
}

func printKeys(out io.Writer, answer keySet) error {
	lines := [][]string{{"KEY", "ALG", "STATE", "SIGNS FROM", "SIGNS UNTIL", "PUBLISHED UNTIL"}}
	for _, k := range answer.GetKeys() {
		lines = append(lines, []string{
			k.GetKid(), k.GetAlg(), strings.ToLower(strings.TrimPrefix(k.GetState().String(), "STATE_")),
			cli.FormatTime(k.GetActivateTime(), ""), cli.FormatTime(k.GetRetireTime(), "no successor"), cli.FormatTime(k.GetRemoveTime(), "no successor"),
		})
	}
	return cli.WriteTable(out, lines...)
}

// printChange prints the keys after a change; for people, the message goes to standard error.
func (a *administrator) printChange(answer keySet, message string) error {
	return a.Print(answer, func(out io.Writer) error {
		a.cmd.PrintErrln(message)
		return printKeys(out, answer)
	})
}

func newKeyRotateCommand() *cobra.Command {
	var alg string
	cmd := newCommand(&cobra.Command{
		Use:   "rotate",
		Short: "Create a successor of each active key",
		Long: `Create a successor of each active key, or with --alg of the key of one algorithm. It is published at once, and signs once
every verifier can know it. A key that has a successor gets no other.`,
		Example: `  grantor key rotate
  grantor key rotate --alg ES256`,
		Args: cobra.ExactArgs(0),
	}, registry.ScopeKeysWrite, func(ctx context.Context, a *administrator, _ []string) error {
		answer, err := a.Keys.RotateKeys(ctx, &grantorv1.RotateKeysRequest{Alg: alg})
		if err != nil {
			return err
		}
		return a.printChange(answer, "Every selected key has a successor.")
	})
	cmd.Flags().StringVar(&alg, "alg", "", "`algorithm` whose key is rotated; default: all")
	cli.CompleteFlag(cmd, "alg", signingAlgorithmNames...)
	return cmd
}

func newKeyRetireCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:   "retire KEY",
		Short: "Retire a key",
		Long: `Retire a key. An active key gets a successor, and stays published as long as a token that it signed can live; a key that
has not signed yet is removed. Tokens stay valid: use grantor key compromise for a key that others may know.`,
		Example: `  grantor key retire NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs`,
		Args:    cobra.ExactArgs(1),
	}, registry.ScopeKeysWrite, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Keys.RetireKey(ctx, &grantorv1.RetireKeyRequest{Kid: args[0]})
		if err != nil {
			return cli.About("key", args[0], err)
		}
		return a.printChange(answer, "Key "+cli.Printable(args[0])+" is retired.")
	})
}

func newKeyCompromiseCommand() *cobra.Command {
	return cli.WithConfirmation(newCommand(&cobra.Command{
		Use:   "compromise KEY",
		Short: "Remove a key that others may know, and refuse every token that it signed",
		Long: `Remove at once a key that others may know, and have every token that it signed refused everywhere. If it was active, its
successor signs at once, although a verifier that cannot reach the issuer may not know the successor yet.`,
		Example: `  grantor key compromise NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs --yes`,
		Args:    cobra.ExactArgs(1),
	}, registry.ScopeKeysWrite, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Keys.CompromiseKey(ctx, &grantorv1.CompromiseKeyRequest{Kid: args[0]})
		if err != nil {
			return cli.About("key", args[0], err)
		}
		return a.printChange(answer, "Key "+cli.Printable(args[0])+" is removed, and every token that it signed is refused.")
	}), "This removes the key, and every token that it signed is refused from now on.")
}
