package service

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/grant"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/telemetry"
)

// tokenServer is grantor.v1.TokenService.
type tokenServer struct {
	grantorv1.UnimplementedTokenServiceServer
	issuer *issuer
	events *telemetry.Recorder
	// grpcEndpoint is where callers reach the gRPC port; empty where that is not known.
	grpcEndpoint string
}

// IssueToken gives an authenticated client a token.
func (s *tokenServer) IssueToken(ctx context.Context, m *grantorv1.IssueTokenRequest) (*grantorv1.IssueTokenResponse, error) {
	about := telemetry.Token{ClientID: printable(m.GetClientId()), Peer: peerOf(ctx)}
	issued, err := s.issue(ctx, m, &about)
	if err != nil {
		refused := refusal(err)
		s.events.TokenRefused(ctx, about, refused)
		return nil, toStatus(refused)
	}
	about.Algorithm = issued.algorithm
	s.events.TokenIssued(ctx, about, slog.String("jti", issued.claims.ID), slog.String("scope", issued.claims.Scope.String()),
		slog.Any("aud", issued.claims.Audience), slog.Int64("lifetime", int64(issued.lifetime.Seconds())))
	return &grantorv1.IssueTokenResponse{
		AccessToken: issued.token,
		TokenType:   "Bearer",
		ExpiresIn:   int32(issued.lifetime.Seconds()),
		Scope:       issued.claims.Scope.String(),
	}, nil
}

func (s *tokenServer) issue(ctx context.Context, m *grantorv1.IssueTokenRequest, about *telemetry.Token) (*issued, error) {
	resources := m.GetResource()
	if m.GetAudience() != "" {
		resources = append(slices.Clip(resources), m.GetAudience())
	}
	if err := plainText(append(resources, m.GetGrantType(), m.GetClientId(), m.GetClientSecret(), m.GetScope())); err != nil {
		return nil, err
	}
	client, err := s.prove(ctx, checkGrant(m.GetGrantType()), clientauth.Evidence{
		ClientID: m.GetClientId(), ClientSecret: m.GetClientSecret(),
		Assertion: m.GetClientAssertion(), AssertionType: m.GetClientAssertionType(),
	}, about)
	if err != nil {
		return nil, err
	}
	return s.issuer.issue(ctx, client, grant.Request{Scope: m.GetScope(), Resources: resources})
}

// prove gives the client that the evidence of a message proves, with what the call itself adds to it, and notes in about
// who it is. wrong is what is wrong with the request; nil where nothing is.
func (s *tokenServer) prove(ctx context.Context, wrong *oauth.Error, e clientauth.Evidence, about *telemetry.Token) (*registry.Client, error) {
	var err error
	if e.Authorization, err = authorizationOf(ctx); err != nil {
		return nil, err
	}
	e.Source = sourceOf(ctx)
	client, method, err := s.issuer.authenticate(ctx, wrong, e)
	about.Method = method
	if err != nil {
		about.ClientID = printable(e.ClaimedID())
		return nil, err
	}
	about.ClientID = client.ID.String()
	return client, nil
}

// GetServerMetadata describes the issuer.
func (s *tokenServer) GetServerMetadata(ctx context.Context, _ *grantorv1.GetServerMetadataRequest) (*grantorv1.GetServerMetadataResponse, error) {
	scopes, err := s.issuer.scopes(ctx)
	if err != nil {
		return nil, toStatus(refusal(err))
	}
	base := s.issuer.name.String()
	methods := []string{oauth.ClientSecretBasic, oauth.ClientSecretPost}
	return &grantorv1.GetServerMetadataResponse{
		Issuer:                            base,
		TokenEndpoint:                     base + "/connect/token",
		JwksUri:                           base + "/.well-known/jwks.json",
		ScopesSupported:                   scopes,
		GrantTypesSupported:               []string{oauth.GrantClientCredentials},
		TokenEndpointAuthMethodsSupported: methods,
		IntrospectionEndpoint:             base + "/connect/introspect",
		RevocationEndpoint:                base + "/connect/revoke",
		GrantorGrpcEndpoint:               s.grpcEndpoint,

		IntrospectionEndpointAuthMethodsSupported: methods,
		RevocationEndpointAuthMethodsSupported:    methods,
	}, nil
}

// GetKeySet gives the public keys.
func (s *tokenServer) GetKeySet(context.Context, *grantorv1.GetKeySetRequest) (*grantorv1.GetKeySetResponse, error) {
	answer := &grantorv1.GetKeySetResponse{MaxAge: int32(s.issuer.ring.MaxAge().Seconds())}
	for _, key := range s.issuer.ring.Published() {
		k, err := key.JWK()
		if err != nil {
			return nil, toStatus(refusal(err))
		}
		answer.Keys = append(answer.Keys, &grantorv1.JsonWebKey{
			Kty: k.KeyType, Use: k.Use, Alg: k.Algorithm, Kid: k.ID, Crv: k.Curve, X: k.X, Y: k.Y, N: k.N, E: k.E,
		})
	}
	return answer, nil
}

// authorizationOf gives the one authorization value of a call. Of two, which one counts would depend on who reads them.
func authorizationOf(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", oauth.Refuse(oauth.InvalidRequest, "Authorization was sent twice.")
}

// plainText refuses the byte that ends a string in other languages.
func plainText(values []string) error {
	for _, v := range values {
		if strings.Contains(v, "\x00") {
			return oauth.Refuse(oauth.InvalidRequest, "A parameter has a NUL.")
		}
	}
	return nil
}

// printable keeps what is no client id out of the log.
func printable(id string) string {
	if _, err := oauth.ParseClientID(id); err != nil {
		return ""
	}
	return id
}

func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}
