package admin

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
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
				return []string{r.GetResource(), r.GetName(), cli.JoinOr(r.GetScopes(), "")}
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
	alg := r.GetSigningAlg()
	if alg == "" {
		alg = "the issuer's"
	}
	return cli.WriteTable(out,
		[]string{"resource", r.GetResource()},
		[]string{"name", r.GetName()},
		[]string{"scopes", cli.JoinOr(r.GetScopes(), "none")},
		[]string{"access_token_lifetime", formatLifetime(r.GetAccessTokenLifetime())},
		[]string{"signing_alg", alg},
		[]string{"etag", r.GetEtag()},
	)
}

// resourceChange is a change of a resource's fields by flags.
type resourceChange struct {
	flags                  *pflag.FlagSet
	name                   string
	scopes, added, removed []string
	lifetime               time.Duration
	alg                    string
}

// resourceFields maps a flag to its field of the message.
var resourceFields = map[string]string{
	"name": "name", "scope": "scopes", "add-scope": "scopes", "remove-scope": "scopes",
	"access-token-lifetime": "access_token_lifetime", "signing-alg": "signing_alg",
}

// signingAlgorithmNames are the algorithms that an issuer can have.
var signingAlgorithmNames = []string{"ES256", "RS256", "PS256", "EdDSA"}

// declare adds the flags. The flags that add to a list or remove from it are for an existing resource.
func (c *resourceChange) declare(cmd *cobra.Command, update bool) {
	c.flags = cmd.Flags()
	c.flags.StringVar(&c.name, "name", "", "`name` for people")
	c.flags.StringArrayVar(&c.scopes, "scope", nil, "`scope` that belongs to it, or several with spaces between; can be repeated")
	c.flags.DurationVar(&c.lifetime, "access-token-lifetime", 0, "maximum `lifetime` of its tokens; 0 for the default")
	c.flags.StringVar(&c.alg, "signing-alg", "", "`algorithm` that signs its tokens; default: the issuer's")
	cli.CompleteFlag(cmd, "signing-alg", signingAlgorithmNames...)
	if update {
		declareScopeEdits(cmd, &c.added, &c.removed)
	}
}

// apply makes the change and returns the changed fields.
func (c *resourceChange) apply(r *grantorv1.Resource) []string {
	fields := changedFields(c.flags, resourceFields)
	for _, field := range fields {
		switch field {
		case "name":
			r.Name = c.name
		case "scopes":
			r.Scopes = editList(r.GetScopes(), c.flags.Changed("scope"), c.scopes, c.added, c.removed)
		case "access_token_lifetime":
			r.AccessTokenLifetime = remote.Lifetime(c.lifetime)
		case "signing_alg":
			r.SigningAlg = c.alg
		}
	}
	return fields
}

func newResourceCreateCommand() *cobra.Command {
	var change resourceChange
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
	change.declare(cmd, false)
	return cmd
}

func newResourceUpdateCommand() *cobra.Command {
	var change resourceChange
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
	change.declare(cmd, true)
	cmd.Flags().StringVar(&etag, "etag", "", "the `state` that is meant, as grantor resource get shows it")
	return cli.WithPreRun(cmd, func(cmd *cobra.Command, _ []string) error { return checkUpdate(cmd.Flags(), resourceFields) })
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
