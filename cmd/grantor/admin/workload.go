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

func newWorkloadListCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the workloads",
		Example: `  grantor trust workload list`,
		Args:    cobra.ExactArgs(0),
	}, registry.ScopeTrustRead, func(ctx context.Context, a *administrator, _ []string) error {
		list := cli.List[*grantorv1.Workload]{
			Printer: a.Printer, Name: "workloads",
			Header: []string{"CLIENTS", "IDENTITY", "SCOPES"},
			Row: func(w *grantorv1.Workload) []string {
				return []string{w.GetClientId(), identityOf(w), strings.Join(w.GetScopes(), " ")}
			},
		}
		return list.Pages(a.cmd, func(token string) ([]*grantorv1.Workload, string, error) {
			page, err := a.Trust.ListWorkloads(ctx, &grantorv1.ListWorkloadsRequest{PageSize: cli.PageSize, PageToken: token})
			return page.GetWorkloads(), page.GetNextPageToken(), err
		})
	})
}

func newWorkloadGetCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "get PATTERN",
		Short:   "Show a workload",
		Example: `  grantor trust workload get "k8s:{namespace}:{name}"`,
		Args:    cobra.ExactArgs(1),
	}, registry.ScopeTrustRead, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Trust.GetWorkload(ctx, &grantorv1.GetWorkloadRequest{ClientId: args[0]})
		if err != nil {
			return cli.About("workload", args[0], err)
		}
		return a.Print(answer.GetWorkload(), func(out io.Writer) error { return describeWorkload(out, answer.GetWorkload()) })
	})
}

// describeWorkload prints a workload for people, with the field names of the manifest.
func describeWorkload(out io.Writer, w *grantorv1.Workload) error {
	lines := append([][]string{{"client_id", w.GetClientId()}}, fieldLines(w, registry.WorkloadFields())...)
	return cli.WriteTable(out, append(lines, []string{"etag", w.GetEtag()})...)
}

func newWorkloadCreateCommand() *cobra.Command {
	var change *fieldChange
	cmd := newCommand(&cobra.Command{
		Use:   "create PATTERN",
		Short: "Add a workload",
		Example: `  grantor trust workload create "k8s:{namespace}:{name}" --trusted-issuer https://kubernetes.default.svc.cluster.local \
    --subject "system:serviceaccount:{namespace}:{name}" --where namespace=shop --scope invoices.read`,
		Args: cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		wanted := &grantorv1.Workload{ClientId: args[0]}
		change.apply(wanted)
		answer, err := a.Trust.CreateWorkload(ctx, &grantorv1.CreateWorkloadRequest{Workload: wanted})
		if err != nil {
			return cli.About("workload", args[0], err)
		}
		return a.Printf(answer.GetWorkload(), "Workload %s is added.", cli.Printable(args[0]))
	})
	change = newFieldChange(cmd, registry.WorkloadFields(), workloadFlags)
	return cmd
}

func newWorkloadUpdateCommand() *cobra.Command {
	var change *fieldChange
	var etag string
	cmd := newCommand(&cobra.Command{
		Use:   "update PATTERN",
		Short: "Change a workload",
		Long: `Change the fields of a workload for which a flag is given, and leave the others as they are. An empty value clears a
field.

If the workload is changed concurrently, the command fails with exit code 5 and changes nothing; with --etag it also
does so if the workload was changed since it was read.`,
		Example: `  grantor trust workload update "k8s:{namespace}:{name}" --where namespace=billing --add-scope invoices.write`,
		Args:    cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		read, err := a.Trust.GetWorkload(ctx, &grantorv1.GetWorkloadRequest{ClientId: args[0]})
		if err != nil {
			return cli.About("workload", args[0], err)
		}
		w := read.GetWorkload()
		fields := change.apply(w)
		if etag != "" {
			w.Etag = etag
		}
		answer, err := a.Trust.UpdateWorkload(ctx, &grantorv1.UpdateWorkloadRequest{
			Workload: w, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields},
		})
		if err != nil {
			return cli.About("workload", args[0], err)
		}
		return a.Printf(answer.GetWorkload(), "Workload %s is changed.", cli.Printable(args[0]))
	})
	change = newFieldChange(cmd, registry.WorkloadFields(), workloadFlags)
	change.declareScopeEdits()
	cmd.Flags().StringVar(&etag, "etag", "", "the `state` that is meant, as grantor trust workload get shows it")
	return cli.WithPreRun(cmd, change.check)
}

func newWorkloadDeleteCommand() *cobra.Command {
	var etag string
	cmd := newCommand(&cobra.Command{
		Use:     "delete PATTERN",
		Short:   "Remove a workload",
		Long:    `Remove a workload. Its clients can no longer request tokens; tokens that were issued to them stay valid until they expire.`,
		Example: `  grantor trust workload delete "k8s:{namespace}:{name}" --yes`,
		Args:    cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Trust.DeleteWorkload(ctx, &grantorv1.DeleteWorkloadRequest{ClientId: args[0], Etag: etag})
		if err != nil {
			return cli.About("workload", args[0], err)
		}
		return a.Printf(answer, "Workload %s is removed.", cli.Printable(args[0]))
	})
	cmd.Flags().StringVar(&etag, "etag", "", "the `state` that is meant, as grantor trust workload get shows it")
	return cli.WithConfirmation(cmd, "This removes the workload, whose clients can then request no tokens.")
}
