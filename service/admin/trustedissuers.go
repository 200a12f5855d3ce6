package admin

import (
	"context"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/registrypb"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/trust"
)

// GetTrustedIssuer returns a trusted issuer.
func (s *trustServer) GetTrustedIssuer(ctx context.Context, m *grantorv1.GetTrustedIssuerRequest) (*grantorv1.GetTrustedIssuerResponse, error) {
	table, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	issuer, ok := table.Issuer(m.GetId())
	if !ok {
		return nil, registry.ErrNotFound
	}
	return &grantorv1.GetTrustedIssuerResponse{TrustedIssuer: registrypb.FromIssuer(issuer)}, nil
}

// ListTrustedIssuers returns a page of trusted issuers.
func (s *trustServer) ListTrustedIssuers(ctx context.Context, m *grantorv1.ListTrustedIssuersRequest) (*grantorv1.ListTrustedIssuersResponse, error) {
	table, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(&s.config, "trusted_issuers", m, table.Issuers(), (*trust.Issuer).ID)
	if err != nil {
		return nil, err
	}
	answer := &grantorv1.ListTrustedIssuersResponse{NextPageToken: next}
	for i := range page {
		answer.TrustedIssuers = append(answer.TrustedIssuers, registrypb.FromIssuer(&page[i]))
	}
	return answer, nil
}

// CreateTrustedIssuer adds a trusted issuer.
func (s *trustServer) CreateTrustedIssuer(ctx context.Context, m *grantorv1.CreateTrustedIssuerRequest) (*grantorv1.CreateTrustedIssuerResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := registrypb.ToIssuer(m.GetTrustedIssuer())
	if err != nil {
		return nil, err
	}
	if err := a.editor.CreateIssuer(ctx, *wanted); err != nil {
		return nil, err
	}
	s.changed(ctx, a, telemetry.EventIssuerCreated, wanted.ID())
	return &grantorv1.CreateTrustedIssuerResponse{TrustedIssuer: registrypb.FromIssuer(wanted)}, nil
}

// UpdateTrustedIssuer changes a trusted issuer.
func (s *trustServer) UpdateTrustedIssuer(ctx context.Context, m *grantorv1.UpdateTrustedIssuerRequest) (*grantorv1.UpdateTrustedIssuerResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	sent := m.GetTrustedIssuer()
	fields, err := masked(sent, m.GetUpdateMask(), fieldNames(registry.IssuerFields()))
	if err != nil {
		return nil, err
	}
	wanted, err := registrypb.ToIssuer(sent)
	if err != nil {
		return nil, err
	}
	issuer, err := a.editor.UpdateIssuer(ctx, sent.GetId(), sent.GetEtag(), func(i *trust.Issuer) error {
		registry.CopyIssuer(i, wanted, fields)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(a.changes) > 0 {
		s.changed(ctx, a, telemetry.EventIssuerChanged, issuer.ID())
	}
	return &grantorv1.UpdateTrustedIssuerResponse{TrustedIssuer: registrypb.FromIssuer(issuer)}, nil
}

// DeleteTrustedIssuer removes a trusted issuer.
func (s *trustServer) DeleteTrustedIssuer(ctx context.Context, m *grantorv1.DeleteTrustedIssuerRequest) (*grantorv1.DeleteTrustedIssuerResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.editor.DeleteIssuer(ctx, m.GetId(), m.GetEtag()); err != nil {
		return nil, err
	}
	s.changed(ctx, a, telemetry.EventIssuerDeleted, m.GetId())
	return &grantorv1.DeleteTrustedIssuerResponse{}, nil
}
