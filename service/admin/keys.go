package admin

import (
	"context"
	"log/slog"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/registrypb"
	"github.com/grantorhq/grantor/service/telemetry"
)

// keyServer implements grantor.v1.KeyService.
type keyServer struct {
	grantorv1.UnimplementedKeyServiceServer

	config Config
}

// ListKeys returns the keys.
func (s *keyServer) ListKeys(ctx context.Context, _ *grantorv1.ListKeysRequest) (*grantorv1.ListKeysResponse, error) {
	if _, err := s.config.admit(ctx); err != nil {
		return nil, err
	}
	list, err := s.list()
	return &grantorv1.ListKeysResponse{Keys: list}, err
}

// RotateKeys creates successors of keys.
func (s *keyServer) RotateKeys(ctx context.Context, m *grantorv1.RotateKeysRequest) (*grantorv1.RotateKeysResponse, error) {
	// The ring reports the keys that it created, possibly none, to a callback that audits them.
	list, err := s.change(ctx, func() error { return s.config.Ring.Rotate(ctx, jwks.Algorithm(m.GetAlg())) }, func(*administrator) {})
	return &grantorv1.RotateKeysResponse{Keys: list}, err
}

// RetireKey retires a key.
func (s *keyServer) RetireKey(ctx context.Context, m *grantorv1.RetireKeyRequest) (*grantorv1.RetireKeyResponse, error) {
	list, err := s.change(ctx, func() error { return s.config.Ring.Retire(ctx, m.GetKid()) }, func(a *administrator) {
		s.config.Events.Changed(ctx, telemetry.EventKeyRetired, a.Administrator, slog.String("kid", m.GetKid()))
	})
	return &grantorv1.RetireKeyResponse{Keys: list}, err
}

// CompromiseKey removes a key and revokes its tokens.
func (s *keyServer) CompromiseKey(ctx context.Context, m *grantorv1.CompromiseKeyRequest) (*grantorv1.CompromiseKeyResponse, error) {
	list, err := s.change(ctx, func() error { return s.config.Ring.Compromise(ctx, m.GetKid()) }, func(a *administrator) {
		s.config.Events.Changed(ctx, telemetry.EventKeyCompromised, a.Administrator, slog.String("kid", m.GetKid()))
	})
	return &grantorv1.CompromiseKeyResponse{Keys: list}, err
}

// change calls do, which changes the ring, calls record if the change was made, and returns the keys after it.
func (s *keyServer) change(ctx context.Context, do func() error, record func(*administrator)) ([]*grantorv1.SigningKey, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	err = do()
	if made(err) {
		record(a)
		s.config.awaitApplied(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s.list()
}

// list returns all keys.
func (s *keyServer) list() ([]*grantorv1.SigningKey, error) {
	var list []*grantorv1.SigningKey
	for _, info := range s.config.Ring.List() {
		k, err := info.Public.JWK()
		if err != nil {
			return nil, err
		}
		list = append(list, &grantorv1.SigningKey{
			Kid: info.Public.ID(), Alg: string(info.Public.Algorithm()), State: states[info.State],
			CreateTime: registrypb.FromTime(info.Created), ActivateTime: registrypb.FromTime(info.Activates),
			RetireTime: registrypb.FromTime(info.Retires), RemoveTime: registrypb.FromTime(info.Removed),
			PublicKey: &grantorv1.JsonWebKey{
				Kty: k.KeyType, Use: k.Use, Alg: k.Algorithm, Kid: k.ID, Crv: k.Curve, X: k.X, Y: k.Y, N: k.N, E: k.E,
			},
		})
	}
	return list, nil
}

// states maps the states of the domain to those of the wire.
var states = map[keys.State]grantorv1.SigningKey_State{
	keys.Upcoming: grantorv1.SigningKey_STATE_UPCOMING,
	keys.Active:   grantorv1.SigningKey_STATE_ACTIVE,
	keys.Retiring: grantorv1.SigningKey_STATE_RETIRING,
}
