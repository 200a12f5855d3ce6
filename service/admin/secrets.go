package admin

import (
	"context"
	"log/slog"
	"time"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registrypb"
	"github.com/grantorhq/grantor/service/telemetry"
)

// defaultGrace is the time for which a rotated secret stays valid if the request names none.
const defaultGrace = 24 * time.Hour

// CreateClientSecret adds a secret to a client.
func (s *clientServer) CreateClientSecret(ctx context.Context, m *grantorv1.CreateClientSecretRequest) (*grantorv1.CreateClientSecretResponse, error) {
	a, target, err := s.target(ctx, m)
	if err != nil {
		return nil, err
	}
	expires, err := toTime("expire_time", m.GetExpireTime())
	if err != nil {
		return nil, err
	}
	issued, err := a.editor.AddSecret(ctx, target, m.GetClientSecret(), expires)
	if err != nil {
		return nil, err
	}
	s.changed(ctx, a, telemetry.EventSecretCreated, target.ID, slog.String("secret_id", issued.SecretID))
	return &grantorv1.CreateClientSecretResponse{Client: s.after(ctx, a, issued.Client), SecretId: issued.SecretID, ClientSecret: issued.Secret}, nil
}

// RotateClientSecret adds a secret to a client and makes the others expire.
func (s *clientServer) RotateClientSecret(ctx context.Context, m *grantorv1.RotateClientSecretRequest) (*grantorv1.RotateClientSecretResponse, error) {
	a, target, err := s.target(ctx, m)
	if err != nil {
		return nil, err
	}
	expires, err := toTime("expire_time", m.GetExpireTime())
	if err != nil {
		return nil, err
	}
	grace := defaultGrace
	if m.GetGracePeriod() != nil {
		if grace, err = registrypb.ToDuration("grace_period", m.GetGracePeriod()); err != nil {
			return nil, err
		}
	}
	issued, err := a.editor.RotateSecret(ctx, target, grace, expires)
	if err != nil {
		return nil, err
	}
	s.changed(ctx, a, telemetry.EventSecretRotated, target.ID, slog.String("secret_id", issued.SecretID), slog.Int64("grace_period", int64(grace.Seconds())))
	return &grantorv1.RotateClientSecretResponse{Client: s.after(ctx, a, issued.Client), SecretId: issued.SecretID, ClientSecret: issued.Secret}, nil
}

// UpdateClientSecret changes the expiry of a secret.
func (s *clientServer) UpdateClientSecret(ctx context.Context, m *grantorv1.UpdateClientSecretRequest) (*grantorv1.UpdateClientSecretResponse, error) {
	a, target, err := s.target(ctx, m)
	if err != nil {
		return nil, err
	}
	fields, err := masked(m.GetSecret(), m.GetUpdateMask(), []string{"expire_time"})
	if err != nil {
		return nil, err
	}
	if len(fields) == 0 {
		return nil, invalid("update_mask", "names nothing that can be changed: expire_time can")
	}
	expires, err := toTime("expire_time", m.GetSecret().GetExpireTime())
	if err != nil {
		return nil, err
	}
	secret := m.GetSecret().GetSecretId()
	client, err := a.editor.ExpireSecret(ctx, target, secret, expires)
	if err != nil {
		return nil, err
	}
	if len(a.changes) > 0 {
		s.changed(ctx, a, telemetry.EventSecretChanged, target.ID, slog.String("secret_id", secret))
	}
	return &grantorv1.UpdateClientSecretResponse{Client: s.after(ctx, a, client)}, nil
}

// DeleteClientSecret deletes a secret.
func (s *clientServer) DeleteClientSecret(ctx context.Context, m *grantorv1.DeleteClientSecretRequest) (*grantorv1.DeleteClientSecretResponse, error) {
	a, target, err := s.target(ctx, m)
	if err != nil {
		return nil, err
	}
	client, err := a.editor.RemoveSecret(ctx, target, m.GetSecretId())
	if err != nil {
		return nil, err
	}
	s.changed(ctx, a, telemetry.EventSecretDeleted, target.ID, slog.String("secret_id", m.GetSecretId()))
	return &grantorv1.DeleteClientSecretResponse{Client: s.after(ctx, a, client)}, nil
}
