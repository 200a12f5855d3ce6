// Package rpc has the servers of grantor.v1.TokenService and grantor.v1.RevocationService. Each method translates its
// message for the domain, calls it, and translates the result back. Methods return errors of the domain; the middleware
// converts them to gRPC statuses.
package rpc

import (
	"context"
	"log/slog"
	"slices"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/grant"
	"github.com/grantorhq/grantor/service/issuer"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/peercert"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/token"
)

// TokenServer implements grantor.v1.TokenService.
type TokenServer struct {
	grantorv1.UnimplementedTokenServiceServer

	Issuer *issuer.Issuer
	Events *telemetry.Recorder
	// GRPCEndpoint is where callers reach the gRPC port, as host:port; empty if that is not known.
	GRPCEndpoint string
	// Proofs verifies the DPoP proofs of token requests.
	Proofs *dpop.Verifier
	// CertificateMethods are the methods by which clients authenticate with certificates; empty if no client can show one.
	CertificateMethods []string
	// TrustsDomain reports whether a SPIFFE trust domain is trusted. If it is nil, none is.
	TrustsDomain func(context.Context) (bool, error)
}

// IssueToken issues a token to an authenticated client.
func (s *TokenServer) IssueToken(ctx context.Context, m *grantorv1.IssueTokenRequest) (*grantorv1.IssueTokenResponse, error) {
	resources := m.GetResource()
	if m.GetAudience() != "" {
		resources = append(slices.Clip(resources), m.GetAudience())
	}
	caller, err := s.authenticate(ctx, m, append(resources, m.GetGrantType(), m.GetScope()), func() error { return checkGrantType(m.GetGrantType()) })
	if err != nil {
		return nil, s.refuse(ctx, telemetry.EventTokenRefused, caller, err)
	}
	request := grant.Request{Scope: m.GetScope(), Resources: resources, Proven: proven(ctx)}
	if request.Proven.KeyThumbprint, err = s.proveKey(ctx, grantorv1.TokenService_IssueToken_FullMethodName); err != nil {
		return nil, s.refuse(ctx, telemetry.EventTokenRefused, caller, err)
	}
	issued, err := s.Issuer.Issue(ctx, caller.client, request)
	if err != nil {
		return nil, s.refuse(ctx, telemetry.EventTokenRefused, caller, err)
	}
	caller.event.Algorithm = issued.Algorithm
	s.Events.TokenIssued(ctx, caller.event, slog.String("jti", issued.Claims.ID), slog.String("scope", issued.Claims.Scope.String()),
		slog.Any("aud", issued.Claims.Audience), slog.Int64("lifetime", int64(issued.Lifetime.Seconds())),
		slog.String("cnf", issued.Claims.Confirmation.Methods()))
	return &grantorv1.IssueTokenResponse{
		AccessToken: issued.Token,
		TokenType:   tokenType(issued.Claims),
		ExpiresIn:   int32(issued.Lifetime.Seconds()),
		Scope:       issued.Claims.Scope.String(),
	}, nil
}

// proven returns the keys that the sender of a request has proven to have by its connection.
func proven(ctx context.Context) (keys token.Confirmation) {
	if chain := peercert.FromContext(ctx); len(chain) > 0 {
		keys.CertificateThumbprint = certificate.Thumbprint(chain[0])
	}
	return keys
}

// tokenType returns how the token with the claims is sent (RFC 6749 §7.1).
func tokenType(claims *token.Claims) string {
	if claims.Confirmation.KeyThumbprint != "" {
		return dpop.Scheme
	}
	return "Bearer"
}

// checkGrantType returns what is wrong with a grant type, or nil.
func checkGrantType(grantType string) error {
	switch grantType {
	case oauth.GrantClientCredentials:
		return nil
	case "":
		return oauth.Refuse(oauth.InvalidRequest, "grant_type is missing.")
	}
	return oauth.Refuse(oauth.UnsupportedGrantType, "grant_type must be client_credentials.")
}

// methods returns the methods by which clients can authenticate.
func (s *TokenServer) methods(ctx context.Context) ([]string, error) {
	methods := append([]string{oauth.ClientSecretBasic, oauth.ClientSecretPost, oauth.PrivateKeyJWT}, s.CertificateMethods...)
	if s.TrustsDomain == nil {
		return methods, nil
	}
	switch trusts, err := s.TrustsDomain(ctx); {
	case err != nil:
		return nil, err
	case trusts:
		methods = append(methods, oauth.SPIFFEJWT)
	default:
		return methods, nil
	}
	// No authority of the port has signed an X509-SVID, so it arrives only at a port that accepts any certificate.
	if slices.Contains(s.CertificateMethods, oauth.SelfSignedTLSClientAuth) {
		methods = append(methods, oauth.SPIFFEX509)
	}
	return methods, nil
}

// GetServerMetadata describes the issuer (RFC 8414 §2).
func (s *TokenServer) GetServerMetadata(ctx context.Context, _ *grantorv1.GetServerMetadataRequest) (*grantorv1.GetServerMetadataResponse, error) {
	scopes, err := s.Issuer.Scopes(ctx)
	if err != nil {
		return nil, err
	}
	base := s.Issuer.Name().String()
	methods, err := s.methods(ctx)
	if err != nil {
		return nil, err
	}
	assertionAlgorithms := names(jwks.Algorithms())
	published, _ := s.Issuer.Keys()
	return &grantorv1.GetServerMetadataResponse{
		Issuer:                            base,
		TokenEndpoint:                     base + "/connect/token",
		JwksUri:                           base + "/.well-known/jwks.json",
		ScopesSupported:                   scopes,
		GrantTypesSupported:               []string{oauth.GrantClientCredentials},
		TokenEndpointAuthMethodsSupported: methods,
		IntrospectionEndpoint:             base + "/connect/introspect",
		RevocationEndpoint:                base + "/connect/revoke",
		GrantorGrpcEndpoint:               s.GRPCEndpoint,

		IntrospectionEndpointAuthMethodsSupported: methods,
		RevocationEndpointAuthMethodsSupported:    methods,

		TokenEndpointAuthSigningAlgValuesSupported:         assertionAlgorithms,
		IntrospectionEndpointAuthSigningAlgValuesSupported: assertionAlgorithms,
		RevocationEndpointAuthSigningAlgValuesSupported:    assertionAlgorithms,

		DpopSigningAlgValuesSupported:         dpop.Algorithms(),
		TlsClientCertificateBoundAccessTokens: len(s.CertificateMethods) > 0,

		// Some readers of either document refuse it without these, although no client has a use for them.
		AuthorizationEndpoint:            base + "/connect/authorize",
		ResponseTypesSupported:           []string{"none"},
		SubjectTypesSupported:            []string{"public"},
		IdTokenSigningAlgValuesSupported: algorithms(published),
		CodeChallengeMethodsSupported:    []string{"S256"},
	}, nil
}

// algorithms returns the algorithms of the keys, each once and sorted.
func algorithms(published []jwks.Key) []string {
	all := make([]jwks.Algorithm, len(published))
	for i, key := range published {
		all[i] = key.Algorithm()
	}
	slices.Sort(all)
	return names(slices.Compact(all))
}

func names(algorithms []jwks.Algorithm) []string {
	all := make([]string, len(algorithms))
	for i, algorithm := range algorithms {
		all[i] = string(algorithm)
	}
	return all
}

// GetKeySet returns the issuer's public keys (RFC 7517 §5).
func (s *TokenServer) GetKeySet(context.Context, *grantorv1.GetKeySetRequest) (*grantorv1.GetKeySetResponse, error) {
	published, maxAge := s.Issuer.Keys()
	answer := &grantorv1.GetKeySetResponse{MaxAge: int32(maxAge.Seconds())}
	for _, key := range published {
		k, err := key.JWK()
		if err != nil {
			return nil, err
		}
		answer.Keys = append(answer.Keys, &grantorv1.JsonWebKey{
			Kty: k.KeyType, Use: k.Use, Alg: k.Algorithm, Kid: k.ID, Crv: k.Curve, X: k.X, Y: k.Y, N: k.N, E: k.E,
		})
	}
	return answer, nil
}
