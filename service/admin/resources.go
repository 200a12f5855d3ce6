package admin

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/registrypb"
	"github.com/grantorhq/grantor/service/telemetry"
)

// resourceServer implements grantor.v1.ResourceService.
type resourceServer struct {
	grantorv1.UnimplementedResourceServiceServer

	config Config
}

// GetResource returns a resource.
func (s *resourceServer) GetResource(ctx context.Context, m *grantorv1.GetResourceRequest) (*grantorv1.GetResourceResponse, error) {
	a, id, err := s.target(ctx, m)
	if err != nil {
		return nil, err
	}
	all, err := a.editor.Resources(ctx)
	if err != nil {
		return nil, err
	}
	resource, ok := all.Get(id)
	if !ok {
		return nil, registry.ErrNotFound
	}
	return &grantorv1.GetResourceResponse{Resource: registrypb.FromResource(resource)}, nil
}

// ListResources returns a page of resources.
func (s *resourceServer) ListResources(ctx context.Context, m *grantorv1.ListResourcesRequest) (*grantorv1.ListResourcesResponse, error) {
	const name = "resources"
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	after, size, err := s.config.start(name, m)
	if err != nil {
		return nil, err
	}
	all, err := a.editor.Resources(ctx)
	if err != nil {
		return nil, err
	}
	list := slices.Clone(all.List())
	slices.SortFunc(list, func(x, y registry.Resource) int { return strings.Compare(x.ID.String(), y.ID.String()) })
	list = slices.DeleteFunc(list, func(r registry.Resource) bool { return r.ID.String() <= after })
	answer := &grantorv1.ListResourcesResponse{}
	if len(list) > size {
		list = list[:size]
		answer.NextPageToken = s.config.pageToken(name, list[size-1].ID.String())
	}
	for i := range list {
		answer.Resources = append(answer.Resources, registrypb.FromResource(&list[i]))
	}
	return answer, nil
}

// CreateResource registers a resource.
func (s *resourceServer) CreateResource(ctx context.Context, m *grantorv1.CreateResourceRequest) (*grantorv1.CreateResourceResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := registrypb.ToResource(m.GetResource())
	if err != nil {
		return nil, err
	}
	if err := a.editor.CreateResource(ctx, *wanted); err != nil {
		return nil, err
	}
	s.changed(ctx, a, telemetry.EventResourceCreated, wanted.ID)
	return &grantorv1.CreateResourceResponse{Resource: registrypb.FromResource(wanted)}, nil
}

// UpdateResource changes a resource.
func (s *resourceServer) UpdateResource(ctx context.Context, m *grantorv1.UpdateResourceRequest) (*grantorv1.UpdateResourceResponse, error) {
	a, id, err := s.target(ctx, m.GetResource())
	if err != nil {
		return nil, err
	}
	fields, err := masked(m.GetResource(), m.GetUpdateMask(), fieldNames(registry.ResourceFields()))
	if err != nil {
		return nil, err
	}
	wanted, err := registrypb.ToResource(m.GetResource())
	if err != nil {
		return nil, err
	}
	resource, err := a.editor.UpdateResource(ctx, id, m.GetResource().GetEtag(), func(r *registry.Resource) error {
		r.CopyFields(wanted, fields)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(a.changes) > 0 {
		s.changed(ctx, a, telemetry.EventResourceChanged, id)
	}
	shown := registrypb.FromResource(resource)
	if !a.may(registry.ScopeResourcesRead) {
		shown = &grantorv1.Resource{Resource: shown.GetResource(), Etag: shown.GetEtag()}
	}
	return &grantorv1.UpdateResourceResponse{Resource: shown}, nil
}

// DeleteResource removes a resource.
func (s *resourceServer) DeleteResource(ctx context.Context, m *grantorv1.DeleteResourceRequest) (*grantorv1.DeleteResourceResponse, error) {
	a, id, err := s.target(ctx, m)
	if err != nil {
		return nil, err
	}
	if err := a.editor.DeleteResource(ctx, id, m.GetEtag()); err != nil {
		return nil, err
	}
	s.changed(ctx, a, telemetry.EventResourceDeleted, id)
	return &grantorv1.DeleteResourceResponse{}, nil
}

// maxWanted is the maximum number of clients in one ApplyManifest call. Each chosen secret costs a slow hash, and the
// call must finish in time.
const maxWanted = 500

// ApplyManifest makes the registry equal to a manifest.
func (s *resourceServer) ApplyManifest(ctx context.Context, m *grantorv1.ApplyManifestRequest) (*grantorv1.ApplyManifestResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	if len(m.GetClients()) > maxWanted {
		return nil, invalid("clients", "has more than 500 clients")
	}
	if err := admitTrust(ctx, a, m); err != nil {
		return nil, err
	}
	manifest, err := toManifest(m)
	if err != nil {
		return nil, err
	}
	account, err := a.editor.Apply(ctx, *manifest, registry.ApplyOptions{
		DryRun: m.GetValidateOnly(), PruneResources: m.GetPruneResources(), PruneTrust: m.GetPruneTrust(),
	})
	answer := &grantorv1.ApplyManifestResponse{}
	for _, c := range account {
		answer.Changes = append(answer.Changes, &grantorv1.AppliedChange{Action: string(c.Action), Kind: c.Kind, Id: c.ID, Fields: c.Fields()})
		if !m.GetValidateOnly() {
			Applied(ctx, s.config.Events, a.Administrator, c)
		}
	}
	if err != nil {
		return nil, err
	}
	s.config.awaitApplied(ctx)
	return answer, nil
}

// errTrustScope refuses a manifest with trusted issuers or workloads. The rule of the method does not require the scope,
// because most manifests have none.
var errTrustScope = oauth.Refuse(oauth.InsufficientScope, "The manifest needs the scope "+registry.ScopeTrustWrite+".")

// admitTrust returns errTrustScope if the caller lacks the scope for what a request does to trusted issuers and workloads.
func admitTrust(ctx context.Context, a *administrator, m *grantorv1.ApplyManifestRequest) error {
	listed := len(m.GetTrustedIssuers())+len(m.GetWorkloads()) > 0
	if a.may(registry.ScopeTrustWrite) || !listed && !m.GetPruneTrust() {
		return nil
	}
	table, err := a.editor.Trust(ctx)
	if err == nil && (listed || len(table.Issuers()) > 0) {
		err = errTrustScope
	}
	return err
}

// target authorizes the caller, and returns it with the resource that m names.
func (s *resourceServer) target(ctx context.Context, m interface{ GetResource() string }) (*administrator, oauth.Resource, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, oauth.Resource{}, err
	}
	id, err := oauth.ParseResource(m.GetResource())
	return a, id, err
}

// changed audits a change of a resource and waits for it to reach this replica.
func (s *resourceServer) changed(ctx context.Context, a *administrator, event string, id oauth.Resource) {
	s.config.Events.Changed(ctx, event, a.Administrator, slog.String("id", id.String()), changesOf(a.changes))
	s.config.awaitApplied(ctx)
}
