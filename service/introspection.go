package service

import (
	"context"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/token"
)

// maxBatch bounds the tokens of one batch.
const maxBatch = 100

// identified is what every request has in which a client asks for something.
type identified interface {
	GetClientId() string
	GetClientSecret() string
}

// authenticate gives the client that asks with a request about the tokens.
func (s *tokenServer) authenticate(ctx context.Context, m identified, about *telemetry.Token, tokens ...string) (*registry.Client, error) {
	if err := plainText(append([]string{m.GetClientId(), m.GetClientSecret()}, tokens...)); err != nil {
		return nil, err
	}
	return s.prove(ctx, checkTokens(tokens), clientauth.Evidence{ClientID: m.GetClientId(), ClientSecret: m.GetClientSecret()}, about)
}

// checkTokens reports what is wrong with the token parameter of a request.
func checkTokens(tokens []string) *oauth.Error {
	for _, raw := range tokens {
		switch {
		case raw == "":
			return oauth.Refuse(oauth.InvalidRequest, "token is missing.")
		case len(raw) > token.MaxSize:
			return oauth.Refuse(oauth.InvalidRequest, "token has more than 8192 characters.")
		}
	}
	return nil
}

// IntrospectToken tells a client about a token.
func (s *tokenServer) IntrospectToken(ctx context.Context, m *grantorv1.IntrospectTokenRequest) (*grantorv1.IntrospectTokenResponse, error) {
	answers, err := s.introspect(ctx, m, m.GetToken())
	if err != nil {
		return nil, err
	}
	return answers[0], nil
}

// IntrospectTokens tells a client about several tokens.
func (s *tokenServer) IntrospectTokens(ctx context.Context, m *grantorv1.IntrospectTokensRequest) (*grantorv1.IntrospectTokensResponse, error) {
	about := telemetry.Token{ClientID: printable(m.GetClientId()), Peer: peerOf(ctx)}
	switch n := len(m.GetTokens()); {
	case n == 0:
		return nil, s.refuse(ctx, telemetry.EventIntrospectRefused, about, oauth.Refuse(oauth.InvalidRequest, "tokens is missing."))
	case n > maxBatch:
		return nil, s.refuse(ctx, telemetry.EventIntrospectRefused, about, oauth.Refuse(oauth.InvalidRequest, "tokens has more than 100 tokens."))
	}
	answers, err := s.introspect(ctx, m, m.GetTokens()...)
	return &grantorv1.IntrospectTokensResponse{Tokens: answers}, err
}

func (s *tokenServer) introspect(ctx context.Context, m identified, tokens ...string) ([]*grantorv1.IntrospectTokenResponse, error) {
	about := telemetry.Token{ClientID: printable(m.GetClientId()), Peer: peerOf(ctx)}
	client, err := s.authenticate(ctx, m, &about, tokens...)
	var answers []*grantorv1.IntrospectTokenResponse
	for _, raw := range tokens {
		if err != nil {
			break
		}
		var claims *token.Claims
		claims, err = s.issuer.introspect(ctx, client, raw)
		answers = append(answers, introspected(claims))
	}
	if err != nil {
		return nil, s.refuse(ctx, telemetry.EventIntrospectRefused, about, err)
	}
	active := 0
	for _, answer := range answers {
		if answer.GetActive() {
			active++
		}
	}
	s.events.Introspected(ctx, about, len(answers), active)
	return answers, nil
}

// introspected writes the answer of RFC 7662 §2.2; nil claims are a token that is not active.
func introspected(claims *token.Claims) *grantorv1.IntrospectTokenResponse {
	if claims == nil {
		return &grantorv1.IntrospectTokenResponse{Active: new(false)}
	}
	return &grantorv1.IntrospectTokenResponse{
		Active: new(true), Iss: claims.Issuer, Sub: claims.Subject, ClientId: claims.ClientID, Aud: claims.Audience,
		Scope: claims.Scope.String(), Exp: uint32(claims.ExpiresAt.Unix()), Iat: uint32(claims.IssuedAt.Unix()), //nolint:gosec // of this century: our own
		Jti: claims.ID, TokenType: "Bearer",
	}
}

// RevokeToken takes back a token of the client's.
func (s *tokenServer) RevokeToken(ctx context.Context, m *grantorv1.RevokeTokenRequest) (*grantorv1.RevokeTokenResponse, error) {
	about := telemetry.Token{ClientID: printable(m.GetClientId()), Peer: peerOf(ctx)}
	client, err := s.authenticate(ctx, m, &about, m.GetToken())
	var revoked *token.Claims
	if err == nil {
		revoked, err = s.issuer.revoke(ctx, client, m.GetToken())
	}
	if err != nil {
		return nil, s.refuse(ctx, telemetry.EventRevokeRefused, about, err)
	}
	if revoked == nil {
		s.events.Revoked(ctx, about, "", false)
		return &grantorv1.RevokeTokenResponse{}, nil
	}
	s.events.Revoked(ctx, about, revoked.ID, false)
	return &grantorv1.RevokeTokenResponse{}, nil
}

// RevokeClientTokens takes back all tokens of the client's.
func (s *tokenServer) RevokeClientTokens(ctx context.Context, m *grantorv1.RevokeClientTokensRequest) (*grantorv1.RevokeClientTokensResponse, error) {
	about := telemetry.Token{ClientID: printable(m.GetClientId()), Peer: peerOf(ctx)}
	client, err := s.authenticate(ctx, m, &about)
	if err == nil {
		err = s.issuer.revokeAll(ctx, client, revocation.MaxAhead)
	}
	if err != nil {
		return nil, s.refuse(ctx, telemetry.EventRevokeRefused, about, err)
	}
	s.events.Revoked(ctx, about, "", true)
	return &grantorv1.RevokeClientTokensResponse{}, nil
}

// refuse records a refusal and gives what the caller gets of it.
func (s *tokenServer) refuse(ctx context.Context, event string, about telemetry.Token, err error) error {
	refused := refusal(err)
	s.events.Refused(ctx, event, about, refused)
	return toStatus(refused)
}
