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

var trustedIssuers = entryKind[*grantorv1.TrustedIssuer]{
	path: "trust issuer", arg: "URI", noun: "trusted issuer", example: "https://token.actions.githubusercontent.com", scopes: remote.AllScopes,
	createExample: `  grantor trust issuer create https://token.actions.githubusercontent.com
  grantor trust issuer create spiffe://prod.example.com --bundle-endpoint https://spire.example.com/bundle`,
	updateExample: `  grantor trust issuer update https://token.actions.githubusercontent.com --single-use
  grantor trust issuer update https://gitlab.example.com --audience https://auth.example.com`,
	removed: `Remove a trusted issuer or a trust domain. Its identities are no longer accepted; tokens that were issued for them stay
valid until they expire. It cannot be removed while there is a workload of it.`,
	question: "This removes the trusted issuer, whose identities are then no longer accepted.",

	declare: func(cmd *cobra.Command) *fieldChange {
		return newFieldChange(cmd, registry.IssuerFields(), issuerFlags)
	},
	lines: func(i *grantorv1.TrustedIssuer) [][]string {
		lines := append([][]string{{"issuer", i.GetIssuer()}, {"trust_domain", i.GetTrustDomain()}}, fieldLines(i, registry.IssuerFields())...)
		for _, line := range lines {
			if line[0] == "jwks_uri" && i.GetJwksUri() == "" && (i.GetJwks() != nil || i.GetTrustDomain() != "") {
				line[1] = "none" // its keys are not found by discovery
			}
		}
		return append(lines, []string{"etag", i.GetEtag()})
	},
	new: func(name string) *grantorv1.TrustedIssuer {
		if domain, ok := strings.CutPrefix(name, "spiffe://"); ok {
			return &grantorv1.TrustedIssuer{TrustDomain: domain}
		}
		return &grantorv1.TrustedIssuer{Issuer: name}
	},
	list: "trusted_issuers", header: []string{"ISSUER", "KEYS", "AUDIENCE"},
	row: func(i *grantorv1.TrustedIssuer) []string {
		return []string{i.GetId(), keysOf(i), strings.Join(i.GetAudience(), " ")}
	},
	page: func(ctx context.Context, a *administrator, token string) ([]*grantorv1.TrustedIssuer, string, error) {
		page, err := a.Trust.ListTrustedIssuers(ctx, &grantorv1.ListTrustedIssuersRequest{PageSize: cli.PageSize, PageToken: token})
		return page.GetTrustedIssuers(), page.GetNextPageToken(), err
	},
	get: func(ctx context.Context, a *administrator, id string) (*grantorv1.TrustedIssuer, error) {
		answer, err := a.Trust.GetTrustedIssuer(ctx, &grantorv1.GetTrustedIssuerRequest{Id: id})
		return answer.GetTrustedIssuer(), err
	},
	create: func(ctx context.Context, a *administrator, i *grantorv1.TrustedIssuer) (*grantorv1.TrustedIssuer, error) {
		answer, err := a.Trust.CreateTrustedIssuer(ctx, &grantorv1.CreateTrustedIssuerRequest{TrustedIssuer: i})
		return answer.GetTrustedIssuer(), err
	},
	update: func(ctx context.Context, a *administrator, i *grantorv1.TrustedIssuer, mask *fieldmaskpb.FieldMask) (*grantorv1.TrustedIssuer, error) {
		answer, err := a.Trust.UpdateTrustedIssuer(ctx, &grantorv1.UpdateTrustedIssuerRequest{TrustedIssuer: i, UpdateMask: mask})
		return answer.GetTrustedIssuer(), err
	},
	remove: func(ctx context.Context, a *administrator, id, etag string) (proto.Message, error) {
		return a.Trust.DeleteTrustedIssuer(ctx, &grantorv1.DeleteTrustedIssuerRequest{Id: id, Etag: etag})
	},
}

// keysOf returns the place of a trusted issuer's keys for a column of a table.
func keysOf(i *grantorv1.TrustedIssuer) string {
	for _, place := range []string{i.GetJwksUri(), i.GetBundleEndpoint(), i.GetBundleFile(), i.GetWorkloadApi()} {
		if place != "" {
			return place
		}
	}
	if i.GetJwks() != nil {
		return "stored"
	}
	return "by discovery"
}
