package service

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/admin"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/token"
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
			s.events.AdminRefused(ctx, strings.TrimPrefix(method, "/"), telemetry.Administrator{Peer: peerOf(ctx)}, reasonOf(err), err)
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
	told, method := administrative(err), strings.TrimPrefix(info.FullMethod, "/")
	s.events.AdminRefused(ctx, method, administrator(ctx), toldReason(told), err)
	if code := status.Code(told); code == codes.Unavailable || code == codes.Internal {
		s.events.Fault(ctx, "an administrative call failed", method, slog.Any("error", err))
	}
	return nil, told
}

// administrator says who makes an administrative call; nobody where ctx is not of one.
func administrator(ctx context.Context) telemetry.Administrator {
	caller, _ := verify.CallerFrom(ctx)
	return telemetry.Administrator{ClientID: caller.ClientID, Peer: peerOf(ctx)}
}

// reasons has what the verifier finds → the word for it in the audit.
var reasons = []struct {
	err  error
	word string
}{
	{verify.ErrNoToken, "no_token"},
	{verify.ErrScope, "insufficient_scope"},
	{verify.ErrNoRule, "no_rule"},
	{token.ErrExpired, "token_expired"},
	{token.ErrRevoked, "token_revoked"},
	{token.ErrNotYet, "token_not_yet_valid"},
	{token.ErrAudience, "token_for_another_audience"},
	{token.ErrIssuer, "token_of_another_issuer"},
	{token.ErrKey, "token_of_unknown_key"},
	{token.ErrSignature, "wrong_signature"},
}

// reasonOf gives the word for why a call was not let through.
func reasonOf(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.word
		}
	}
	return "malformed_token"
}

// toldReason gives the word that the caller of an administrative method was told.
func toldReason(told error) string {
	for _, detail := range status.Convert(told).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return string(oauth.ServerError)
}

// recordKeys has the audit tell of the keys that the ring makes and removes.
func recordKeys(events *telemetry.Recorder) func(context.Context, []keys.KeyAdded, []keys.KeyRemoved) {
	return func(ctx context.Context, made []keys.KeyAdded, gone []keys.KeyRemoved) {
		by := administrator(ctx)
		for _, k := range made {
			events.Changed(ctx, telemetry.EventKeysRotated, by, slog.String("alg", string(k.Algorithm)), slog.String("kid", k.ID),
				slog.String("replaces", k.Replaces), slog.Time("activate_time", k.Activates.UTC()))
		}
		for _, k := range gone {
			events.Changed(ctx, telemetry.EventKeyGone, by, slog.String("alg", string(k.Algorithm)), slog.String("kid", k.ID))
		}
	}
}

// administration is what the administrative servers work on.
func (s *Service) administration() (admin.Config, error) {
	pageKey, err := hkdf.Key(sha256.New, s.issuer.ring.Pepper(), nil, "grantor page tokens", sha256.Size)
	if err != nil {
		return admin.Config{}, fmt.Errorf("deriving the key for page tokens: %w", err)
	}
	return admin.Config{
		Editor: s.Editor(), Usage: s.config.Store, Directory: s.issuer.directory, Ring: s.issuer.ring, RevokeTokens: s.revokeTokens,
		Fresh: s.issuer.fresh, CatchUp: s.CatchUp, Events: s.events, Log: s.config.Log, PageKey: pageKey,
	}, nil
}

// revokeTokens revokes the tokens of a client for an administrator, who is not bound as closely as the client itself: the
// client may just have been disabled and enabled again.
func (s *Service) revokeTokens(ctx context.Context, client *registry.Client) error {
	return s.issuer.revokeAll(ctx, client, leeway-5*time.Second)
}
