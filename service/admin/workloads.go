package admin

import (
	"context"
	"slices"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/registrypb"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/trust"
)

// GetWorkload returns a workload.
func (s *trustServer) GetWorkload(ctx context.Context, m *grantorv1.GetWorkloadRequest) (*grantorv1.GetWorkloadResponse, error) {
	table, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	all := table.Workloads()
	i := slices.IndexFunc(all, func(w trust.Workload) bool { return w.ClientID.String() == m.GetClientId() })
	if i < 0 {
		return nil, registry.ErrNotFound
	}
	return &grantorv1.GetWorkloadResponse{Workload: registrypb.FromWorkload(&all[i])}, nil
}

// ListWorkloads returns a page of workloads.
func (s *trustServer) ListWorkloads(ctx context.Context, m *grantorv1.ListWorkloadsRequest) (*grantorv1.ListWorkloadsResponse, error) {
	table, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(&s.config, "workloads", m, table.Workloads(), func(w *trust.Workload) string { return w.ClientID.String() })
	if err != nil {
		return nil, err
	}
	answer := &grantorv1.ListWorkloadsResponse{NextPageToken: next}
	for i := range page {
		answer.Workloads = append(answer.Workloads, registrypb.FromWorkload(&page[i]))
	}
	return answer, nil
}

// CreateWorkload adds a workload.
func (s *trustServer) CreateWorkload(ctx context.Context, m *grantorv1.CreateWorkloadRequest) (*grantorv1.CreateWorkloadResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := registrypb.ToWorkload(m.GetWorkload())
	if err != nil {
		return nil, err
	}
	if err := a.editor.CreateWorkload(ctx, *wanted); err != nil {
		return nil, err
	}
	s.changed(ctx, a, telemetry.EventWorkloadCreated, wanted.ClientID.String())
	return &grantorv1.CreateWorkloadResponse{Workload: registrypb.FromWorkload(wanted)}, nil
}

// UpdateWorkload changes a workload.
func (s *trustServer) UpdateWorkload(ctx context.Context, m *grantorv1.UpdateWorkloadRequest) (*grantorv1.UpdateWorkloadResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	sent := m.GetWorkload()
	fields, err := masked(sent, m.GetUpdateMask(), fieldNames(registry.WorkloadFields()))
	if err != nil {
		return nil, err
	}
	wanted, err := registrypb.ToWorkload(sent)
	if err != nil {
		return nil, err
	}
	changed, err := a.editor.UpdateWorkload(ctx, sent.GetClientId(), sent.GetEtag(), func(w *trust.Workload) error {
		registry.CopyWorkload(w, wanted, fields)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(a.changes) > 0 {
		s.changed(ctx, a, telemetry.EventWorkloadChanged, changed.ClientID.String())
	}
	shown := registrypb.FromWorkload(changed)
	if !a.may(registry.ScopeTrustRead) {
		shown = &grantorv1.Workload{ClientId: shown.GetClientId(), Etag: shown.GetEtag()}
	}
	return &grantorv1.UpdateWorkloadResponse{Workload: shown}, nil
}

// DeleteWorkload removes a workload.
func (s *trustServer) DeleteWorkload(ctx context.Context, m *grantorv1.DeleteWorkloadRequest) (*grantorv1.DeleteWorkloadResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.editor.DeleteWorkload(ctx, m.GetClientId(), m.GetEtag()); err != nil {
		return nil, err
	}
	s.changed(ctx, a, telemetry.EventWorkloadDeleted, m.GetClientId())
	return &grantorv1.DeleteWorkloadResponse{}, nil
}
