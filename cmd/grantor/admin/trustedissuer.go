package admin

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registry"
)

func newIssuerListCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the trusted issuers",
		Example: `  grantor trust issuer list`,
		Args:    cobra.ExactArgs(0),
	}, registry.ScopeTrustRead, func(ctx context.Context, a *administrator, _ []string) error {
		list := cli.List[*grantorv1.TrustedIssuer]{
			Printer: a.Printer, Name: "trusted_issuers",
			Header: []string{"ISSUER", "KEYS", "AUDIENCE"},
			Row: func(i *grantorv1.TrustedIssuer) []string {
				return []string{i.GetId(), keysOf(i), strings.Join(i.GetAudience(), " ")}
			},
		}
		return list.Pages(a.cmd, func(token string) ([]*grantorv1.TrustedIssuer, string, error) {
			page, err := a.Trust.ListTrustedIssuers(ctx, &grantorv1.ListTrustedIssuersRequest{PageSize: cli.PageSize, PageToken: token})
			return page.GetTrustedIssuers(), page.GetNextPageToken(), err
		})
	})
}

func newIssuerGetCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "get URI",
		Short:   "Show a trusted issuer",
		Example: `  grantor trust issuer get https://token.actions.githubusercontent.com`,
		Args:    cobra.ExactArgs(1),
	}, registry.ScopeTrustRead, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Trust.GetTrustedIssuer(ctx, &grantorv1.GetTrustedIssuerRequest{Id: args[0]})
		if err != nil {
			return cli.About("trusted issuer", args[0], err)
		}
		return a.Print(answer.GetTrustedIssuer(), func(out io.Writer) error { return describeIssuer(out, answer.GetTrustedIssuer()) })
	})
}

// describeIssuer prints a trusted issuer for people, with the field names of the manifest.
func describeIssuer(out io.Writer, i *grantorv1.TrustedIssuer) error {
	lines := append([][]string{{"issuer", i.GetIssuer()}, {"trust_domain", i.GetTrustDomain()}}, fieldLines(i, registry.IssuerFields())...)
	return cli.WriteTable(out, append(lines, []string{"etag", i.GetEtag()})...)
}

func newIssuerCreateCommand() *cobra.Command {
	var change *fieldChange
	cmd := newCommand(&cobra.Command{
		Use:   "create URI",
		Short: "Add a trusted issuer",
		Example: `  grantor trust issuer create https://token.actions.githubusercontent.com
  grantor trust issuer create spiffe://prod.example.com --bundle-endpoint https://spire.example.com/bundle`,
		Args: cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		wanted := &grantorv1.TrustedIssuer{Issuer: args[0]}
		if domain, ok := strings.CutPrefix(args[0], "spiffe://"); ok {
			wanted = &grantorv1.TrustedIssuer{TrustDomain: domain}
		}
		change.apply(wanted)
		answer, err := a.Trust.CreateTrustedIssuer(ctx, &grantorv1.CreateTrustedIssuerRequest{TrustedIssuer: wanted})
		if err != nil {
			return cli.About("trusted issuer", args[0], err)
		}
		return a.Printf(answer.GetTrustedIssuer(), "Trusted issuer %s is added.", cli.Printable(args[0]))
	})
	change = newFieldChange(cmd, registry.IssuerFields(), issuerFlags)
	return cmd
}

func newIssuerUpdateCommand() *cobra.Command {
	var change *fieldChange
	var etag string
	cmd := newCommand(&cobra.Command{
		Use:   "update URI",
		Short: "Change a trusted issuer",
		Long: `Change the fields of a trusted issuer for which a flag is given, and leave the others as they are. An empty value clears a
field.

If the trusted issuer is changed concurrently, the command fails with exit code 5 and changes nothing; with --etag it also
does so if the trusted issuer was changed since it was read.`,
		Example: `  grantor trust issuer update https://token.actions.githubusercontent.com --single-use
  grantor trust issuer update https://gitlab.example.com --audience https://auth.example.com`,
		Args: cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		read, err := a.Trust.GetTrustedIssuer(ctx, &grantorv1.GetTrustedIssuerRequest{Id: args[0]})
		if err != nil {
			return cli.About("trusted issuer", args[0], err)
		}
		i := read.GetTrustedIssuer()
		fields := change.apply(i)
		if etag != "" {
			i.Etag = etag
		}
		answer, err := a.Trust.UpdateTrustedIssuer(ctx, &grantorv1.UpdateTrustedIssuerRequest{
			TrustedIssuer: i, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields},
		})
		if err != nil {
			return cli.About("trusted issuer", args[0], err)
		}
		return a.Printf(answer.GetTrustedIssuer(), "Trusted issuer %s is changed.", cli.Printable(args[0]))
	})
	change = newFieldChange(cmd, registry.IssuerFields(), issuerFlags)
	cmd.Flags().StringVar(&etag, "etag", "", "the `state` that is meant, as grantor trust issuer get shows it")
	return cli.WithPreRun(cmd, change.check)
}

func newIssuerDeleteCommand() *cobra.Command {
	var etag string
	cmd := newCommand(&cobra.Command{
		Use:   "delete URI",
		Short: "Remove a trusted issuer",
		Long: `Remove a trusted issuer or a trust domain. Its identities are no longer accepted; tokens that were issued for them stay
valid until they expire. It cannot be removed while there is a workload of it.`,
		Example: `  grantor trust issuer delete https://token.actions.githubusercontent.com --yes`,
		Args:    cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Trust.DeleteTrustedIssuer(ctx, &grantorv1.DeleteTrustedIssuerRequest{Id: args[0], Etag: etag})
		if err != nil {
			return cli.About("trusted issuer", args[0], err)
		}
		return a.Printf(answer, "Trusted issuer %s is removed.", cli.Printable(args[0]))
	})
	cmd.Flags().StringVar(&etag, "etag", "", "the `state` that is meant, as grantor trust issuer get shows it")
	return cli.WithConfirmation(cmd, "This removes the trusted issuer, whose identities are then no longer accepted.")
}
