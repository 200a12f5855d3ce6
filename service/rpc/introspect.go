package rpc

import (
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/structpb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/token"
)

// maxBatch is the maximum number of tokens in one batch.
const maxBatch = 100

// authenticateFor returns the caller of a request about the tokens.
func (s *TokenServer) authenticateFor(ctx context.Context, m credentials, tokens ...string) (caller, error) {
	return s.authenticate(ctx, m, tokens, func() error { return checkTokens(tokens) })
}

// checkTokens returns an error if a token is missing. The content of a token is never an error of the request, its size
// included: a token that cannot be one of this issuer's is inactive (RFC 7662 §2.2), and revoked already (RFC 7009 §2.2).
func checkTokens(tokens []string) error {
	if slices.Contains(tokens, "") {
		return oauth.Refuse(oauth.InvalidRequest, "token is missing.")
	}
	return nil
}

// IntrospectToken describes a token to a client (RFC 7662 §2).
func (s *TokenServer) IntrospectToken(ctx context.Context, m *grantorv1.IntrospectTokenRequest) (*grantorv1.IntrospectTokenResponse, error) {
	answers, err := s.introspect(ctx, m, m.GetToken())
	if err != nil {
		return nil, err
	}
	return answers[0], nil
}

// IntrospectTokens describes several tokens to a client.
func (s *TokenServer) IntrospectTokens(ctx context.Context, m *grantorv1.IntrospectTokensRequest) (*grantorv1.IntrospectTokensResponse, error) {
	if err := checkBatch(m.GetTokens()); err != nil {
		return nil, s.refuse(ctx, telemetry.EventIntrospectRefused, unauthenticated(ctx, m.GetClientId()), err)
	}
	answers, err := s.introspect(ctx, m, m.GetTokens()...)
	return &grantorv1.IntrospectTokensResponse{Tokens: answers}, err
}

// checkBatch returns what is wrong with the number of tokens, or nil.
func checkBatch(tokens []string) error {
	switch n := len(tokens); {
	case n == 0:
		return oauth.Refuse(oauth.InvalidRequest, "tokens is missing.")
	case n > maxBatch:
		return oauth.Refuse(oauth.InvalidRequest, "tokens has more than 100 tokens.")
	}
	return nil
}

func (s *TokenServer) introspect(ctx context.Context, m credentials, tokens ...string) ([]*grantorv1.IntrospectTokenResponse, error) {
	caller, err := s.authenticateFor(ctx, m, tokens...)
	if err != nil {
		return nil, s.refuse(ctx, telemetry.EventIntrospectRefused, caller, err)
	}
	answers, active := make([]*grantorv1.IntrospectTokenResponse, len(tokens)), 0
	for i, raw := range tokens {
		claims, err := s.Issuer.Introspect(ctx, caller.client, raw)
		if err != nil {
			return nil, s.refuse(ctx, telemetry.EventIntrospectRefused, caller, err)
		}
		if claims != nil {
			active++
		}
		answers[i] = introspection(claims)
	}
	s.Events.Introspected(ctx, caller.event, len(answers), active)
	return answers, nil
}

// introspection returns the answer of RFC 7662 §2.2. Nil claims are those of a token that is not active.
func introspection(claims *token.Claims) *grantorv1.IntrospectTokenResponse {
	if claims == nil {
		return &grantorv1.IntrospectTokenResponse{Active: new(false)}
	}
	return &grantorv1.IntrospectTokenResponse{
		Active: new(true), Iss: claims.Issuer, Sub: claims.Subject, ClientId: claims.ClientID, Aud: claims.Audience,
		Scope: claims.Scope.String(), Exp: uint32(claims.ExpiresAt.Unix()), Iat: uint32(claims.IssuedAt.Unix()), //nolint:gosec // of this century: our own
		Jti: claims.ID, TokenType: tokenType(claims), Cnf: confirmation(&claims.Confirmation),
	}
}

// confirmation returns the key that a token is bound to, in the form of RFC 7800; nil for a bearer token.
func confirmation(bound *token.Confirmation) *structpb.Struct {
	if !bound.Bound() {
		return nil
	}
	fields := make(map[string]*structpb.Value)
	for name, value := range map[string]string{"x5t#S256": bound.CertificateThumbprint, "jkt": bound.KeyThumbprint} {
		if value != "" {
			fields[name] = structpb.NewStringValue(value)
		}
	}
	return &structpb.Struct{Fields: fields}
}

// RevokeToken revokes a token of the client (RFC 7009 §2).
func (s *TokenServer) RevokeToken(ctx context.Context, m *grantorv1.RevokeTokenRequest) (*grantorv1.RevokeTokenResponse, error) {
	caller, err := s.authenticateFor(ctx, m, m.GetToken())
	if err != nil {
		return nil, s.refuse(ctx, telemetry.EventRevokeRefused, caller, err)
	}
	revoked, err := s.Issuer.Revoke(ctx, caller.client, m.GetToken())
	if err != nil {
		return nil, s.refuse(ctx, telemetry.EventRevokeRefused, caller, err)
	}
	id := "" // of a token that was not valid, or not the client's: RFC 7009 §2.2 makes no error of it
	if revoked != nil {
		id = revoked.ID
	}
	s.Events.Revoked(ctx, caller.event, id, false)
	return &grantorv1.RevokeTokenResponse{}, nil
}

// RevokeClientTokens revokes all tokens of the client.
func (s *TokenServer) RevokeClientTokens(ctx context.Context, m *grantorv1.RevokeClientTokensRequest) (*grantorv1.RevokeClientTokensResponse, error) {
	caller, err := s.authenticateFor(ctx, m)
	if err == nil {
		err = s.Issuer.RevokeAll(ctx, caller.client, revocation.MaxAhead)
	}
	if err != nil {
		return nil, s.refuse(ctx, telemetry.EventRevokeRefused, caller, err)
	}
	s.Events.Revoked(ctx, caller.event, "", true)
	return &grantorv1.RevokeClientTokensResponse{}, nil
}
