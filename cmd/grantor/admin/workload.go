package admin

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registry"
)

var workloads = entryKind[*grantorv1.Workload]{
	path: "trust workload", arg: "PATTERN", noun: "workload", example: `"k8s:{namespace}:{name}"`, scopes: remote.AllScopes, hasScopes: true,
	createExample: `  grantor trust workload create "k8s:{namespace}:{name}" --trusted-issuer https://kubernetes.default.svc.cluster.local \
    --subject "system:serviceaccount:{namespace}:{name}" --where namespace=shop --scope invoices.read`,
	updateExample: `  grantor trust workload update "k8s:{namespace}:{name}" --where namespace=billing --add-scope invoices.write`,
	removed: `Remove a workload. Its clients can no longer request tokens; tokens that were issued to them stay valid until they
expire.`,
	question: "This removes the workload, whose clients can then request no tokens.",

	declare: func(cmd *cobra.Command) *fieldChange {
		return newFieldChange(cmd, registry.WorkloadFields(), workloadFlags)
	},
	lines: func(w *grantorv1.Workload) [][]string {
		lines := append([][]string{{"client_id", w.GetClientId()}}, fieldLines(w, registry.WorkloadFields())...)
		return append(lines, []string{"etag", w.GetEtag()})
	},
	new:  func(name string) *grantorv1.Workload { return &grantorv1.Workload{ClientId: name} },
	list: "workloads", header: []string{"CLIENTS", "IDENTITY", "SCOPES"},
	row: func(w *grantorv1.Workload) []string {
		return []string{w.GetClientId(), identityOf(w), strings.Join(w.GetScopes(), " ")}
	},
	page: func(ctx context.Context, a *administrator, token string) ([]*grantorv1.Workload, string, error) {
		page, err := a.Trust.ListWorkloads(ctx, &grantorv1.ListWorkloadsRequest{PageSize: cli.PageSize, PageToken: token})
		return page.GetWorkloads(), page.GetNextPageToken(), err
	},
	get: func(ctx context.Context, a *administrator, id string) (*grantorv1.Workload, error) {
		answer, err := a.Trust.GetWorkload(ctx, &grantorv1.GetWorkloadRequest{ClientId: id})
		return answer.GetWorkload(), err
	},
	create: func(ctx context.Context, a *administrator, w *grantorv1.Workload) (*grantorv1.Workload, error) {
		answer, err := a.Trust.CreateWorkload(ctx, &grantorv1.CreateWorkloadRequest{Workload: w})
		return answer.GetWorkload(), err
	},
	update: func(ctx context.Context, a *administrator, w *grantorv1.Workload, mask *fieldmaskpb.FieldMask) (*grantorv1.Workload, error) {
		answer, err := a.Trust.UpdateWorkload(ctx, &grantorv1.UpdateWorkloadRequest{Workload: w, UpdateMask: mask})
		return answer.GetWorkload(), err
	},
	remove: func(ctx context.Context, a *administrator, id, etag string) (proto.Message, error) {
		return a.Trust.DeleteWorkload(ctx, &grantorv1.DeleteWorkloadRequest{ClientId: id, Etag: etag})
	},
}

// identityOf returns what a workload selects, in one line.
func identityOf(w *grantorv1.Workload) string {
	parts := []string{w.GetSpiffeId(), w.GetIssuer(), w.GetSubject(), pairsFlag(w.GetClaims()).String()}
	if where := w.GetWhere(); len(where) > 0 {
		parts = append(parts, "where", pairsFlag(where).String())
	}
	return strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
}
