package service

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/admin"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/telemetry"
)

// policy completes the rules in the protos: reflection is registered in development mode alone.
var policy = verify.Policy{
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      verify.Public(),
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": verify.Public(),
}

// protect makes what stands before the services, and the administrative ones.
func (s *Service) protect(ctx context.Context) error {
	guard, err := s.guard(ctx)
	if err != nil {
		return err
	}
	s.unaryGuard, s.streamGuard = verify.UnaryServerInterceptor(guard, policy), verify.StreamServerInterceptor(guard, policy)
	s.admin, err = s.administration()
	return err
}

// guard makes the verifier of this issuer's own methods. It has the keys and the revocations at first hand, so nothing is
// fetched and nothing followed.
func (s *Service) guard(ctx context.Context) (*verify.Verifier, error) {
	return verify.New(ctx, s.config.Issuer.String(), verify.Audience(registry.AdminResource),
		verify.Keys(s.issuer.ring), verify.Denied(s.issuer.ledger.List), verify.Now(s.config.Now), verify.CacheSize(1000),
		verify.OnRefusal(func(ctx context.Context, method string, err error) {
			s.events.AdminRefused(ctx, strings.TrimPrefix(method, "/"), telemetry.Administrator{Peer: hostOf(peerOf(ctx))}, err)
		}))
}

// answered turns the errors of the administrative handlers into what their callers get; the other handlers have done so
// already.
func (s *Service) answered(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	reply, err := handler(ctx, request)
	if err == nil {
		return reply, nil
	}
	if _, done := status.FromError(err); done {
		return nil, err
	}
	caller, _ := verify.CallerFrom(ctx)
	by := telemetry.Administrator{ClientID: caller.ClientID, Peer: hostOf(peerOf(ctx))}
	s.events.AdminRefused(ctx, strings.TrimPrefix(info.FullMethod, "/"), by, err)
	told := administrative(err)
	if code := status.Code(told); code == codes.Unavailable || code == codes.Internal {
		s.config.Log.ErrorContext(ctx, "an administrative call failed", "method", info.FullMethod, "error", err)
	}
	return nil, told
}

// administration is what the administrative servers work on.
func (s *Service) administration() (admin.Config, error) {
	pageKey, err := hkdf.Key(sha256.New, s.issuer.ring.Pepper(), nil, "grantor page tokens", sha256.Size)
	if err != nil {
		return admin.Config{}, fmt.Errorf("deriving the key for page tokens: %w", err)
	}
	return admin.Config{
		Registrar: registry.Registrar{
			Clients: s.config.Store, Resources: s.config.Store, Hasher: s.hasher, Algorithms: s.config.Algorithms, Now: s.config.Now,
		},
		Applier: *s.Applier(), Usage: s.config.Store, Directory: s.issuer.directory, Ring: s.issuer.ring, RevokeTokens: s.revokeTokens,
		Fresh: s.issuer.fresh, CatchUp: s.CatchUp, Events: s.events, PageKey: pageKey,
	}, nil
}

// revokeTokens revokes the tokens of a client for an administrator, who is not bound as closely as the client itself: the
// client may just have been disabled and enabled again.
func (s *Service) revokeTokens(ctx context.Context, client *registry.Client) error {
	return s.issuer.revokeAll(ctx, client, leeway-5*time.Second)
}
