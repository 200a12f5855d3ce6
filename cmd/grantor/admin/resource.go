package admin

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registry"
)

// NewResourceCommand returns grantor resource.
func NewResourceCommand() *cobra.Command {
	return cli.NewGroup("resource", "Administer the resources of a running issuer",
		`Administer the resources of a running issuer: what tokens are for, and the scopes of each. The calling client needs the
scopes grantor:resources.read and grantor:resources.write. See also: grantor help profiles, grantor help exit-codes.`,
		newResourceListCommand(), newResourceGetCommand(), newResourceCreateCommand(), newResourceUpdateCommand(), newResourceDeleteCommand())
}

func newResourceListCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the resources",
		Example: `  grantor resource list`,
		Args:    cobra.ExactArgs(0),
	}, registry.ScopeResourcesRead, func(ctx context.Context, a *administrator, _ []string) error {
		list := cli.List[*grantorv1.Resource]{
			Printer: a.Printer, Name: "resources",
			Header: []string{"RESOURCE", "NAME", "SCOPES"},
			Row: func(r *grantorv1.Resource) []string {
				return []string{r.GetResource(), r.GetName(), strings.Join(r.GetScopes(), " ")}
			},
		}
		return list.Pages(a.cmd, func(token string) ([]*grantorv1.Resource, string, error) {
			page, err := a.Resources.ListResources(ctx, &grantorv1.ListResourcesRequest{PageSize: cli.PageSize, PageToken: token})
			return page.GetResources(), page.GetNextPageToken(), err
		})
	})
}

func newResourceGetCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "get URI",
		Short:   "Show a resource",
		Example: `  grantor resource get https://orders.internal`,
		Args:    cobra.ExactArgs(1),
	}, registry.ScopeResourcesRead, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Resources.GetResource(ctx, &grantorv1.GetResourceRequest{Resource: args[0]})
		if err != nil {
			return cli.About("resource", args[0], err)
		}
		return a.Print(answer.GetResource(), func(out io.Writer) error { return describeResource(out, answer.GetResource()) })
	})
}

// describeResource prints a resource for people, with the field names of the manifest.
func describeResource(out io.Writer, r *grantorv1.Resource) error {
	lines := append([][]string{{"resource", r.GetResource()}}, fieldLines(r, registry.ResourceFields())...)
	return cli.WriteTable(out, append(lines, []string{"etag", r.GetEtag()})...)
}

func newResourceCreateCommand() *cobra.Command {
	var change *fieldChange
	cmd := newCommand(&cobra.Command{
		Use:     "create URI",
		Short:   "Register a resource",
		Example: `  grantor resource create https://orders.internal --name "Orders API" --scope "api1 orders.read"`,
		Args:    cobra.ExactArgs(1),
	}, registry.ScopeResourcesWrite, func(ctx context.Context, a *administrator, args []string) error {
		wanted := &grantorv1.Resource{Resource: args[0]}
		change.apply(wanted)
		answer, err := a.Resources.CreateResource(ctx, &grantorv1.CreateResourceRequest{Resource: wanted})
		if err != nil {
			return cli.About("resource", args[0], err)
		}
		return a.Printf(answer.GetResource(), "Resource %s is registered.", cli.Printable(args[0]))
	})
	change = newFieldChange(cmd, registry.ResourceFields(), resourceFlags)
	return cmd
}

func newResourceUpdateCommand() *cobra.Command {
	var change *fieldChange
	var etag string
	cmd := newCommand(&cobra.Command{
		Use:   "update URI",
		Short: "Change a resource",
		Long: `Change the fields of a resource for which a flag is given, and leave the others as they are. An empty value clears a field.
A scope that the resource loses is no longer granted, not even to clients that are registered with it.

If the resource is changed concurrently, the command fails with exit code 5 and changes nothing; with --etag it also does so
if the resource was changed since it was read.`,
		Example: `  grantor resource update https://orders.internal --add-scope orders.write
  grantor resource update https://orders.internal --signing-alg RS256`,
		Args: cobra.ExactArgs(1),
	}, registry.ScopeResourcesRead+" "+registry.ScopeResourcesWrite, func(ctx context.Context, a *administrator, args []string) error {
		read, err := a.Resources.GetResource(ctx, &grantorv1.GetResourceRequest{Resource: args[0]})
		if err != nil {
			return cli.About("resource", args[0], err)
		}
		resource := read.GetResource()
		fields := change.apply(resource)
		if etag != "" {
			resource.Etag = etag
		}
		answer, err := a.Resources.UpdateResource(ctx, &grantorv1.UpdateResourceRequest{
			Resource: resource, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields},
		})
		if err != nil {
			return cli.About("resource", args[0], err)
		}
		return a.Printf(answer.GetResource(), "Resource %s is changed.", cli.Printable(args[0]))
	})
	change = newFieldChange(cmd, registry.ResourceFields(), resourceFlags)
	change.declareScopeEdits()
	cmd.Flags().StringVar(&etag, "etag", "", "the `state` that is meant, as grantor resource get shows it")
	return cli.WithPreRun(cmd, change.check)
}

func newResourceDeleteCommand() *cobra.Command {
	var etag string
	cmd := newCommand(&cobra.Command{
		Use:   "delete URI",
		Short: "Delete a resource with its scopes",
		Long: `Delete a resource with its scopes. The scopes are no longer granted, not even to clients that are registered with them.
Tokens that were issued for the resource stay valid until they expire.`,
		Example: `  grantor resource delete https://orders.internal --yes`,
		Args:    cobra.ExactArgs(1),
	}, registry.ScopeResourcesWrite, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Resources.DeleteResource(ctx, &grantorv1.DeleteResourceRequest{Resource: args[0], Etag: etag})
		if err != nil {
			return cli.About("resource", args[0], err)
		}
		return a.Printf(answer, "Resource %s is deleted.", cli.Printable(args[0]))
	})
	cmd.Flags().StringVar(&etag, "etag", "", "the `state` that is meant, as grantor resource get shows it")
	return cli.WithConfirmation(cmd, "This deletes the resource with its scopes.")
}
