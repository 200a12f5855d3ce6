//go:build conformance

package conformance_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/oauth2"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestConformanceKubernetes authenticates a client at a kube-apiserver, by the authenticator of its JWT settings. It reads
// the document of OpenID Connect alone.
func TestConformanceKubernetes(t *testing.T) {
	tlsServer := httptest.NewTLSServer(http.NotFoundHandler()) // has a certificate for 127.0.0.1, and a client that trusts it
	t.Cleanup(tlsServer.Close)
	for _, path := range issuerPaths {
		t.Run("issuer"+path, func(t *testing.T) {
			issuer := newIssuer(t, tokentest.Path(path), tokentest.TLS(tlsServer.TLS.Certificates[0]))
			prefix := "grantor:"
			authenticator, err := oidc.New(t.Context(), oidc.Options{
				JWTAuthenticator: apiserver.JWTAuthenticator{
					Issuer:        apiserver.Issuer{URL: issuer.URL, Audiences: []string{res1}},
					ClaimMappings: apiserver.ClaimMappings{Username: apiserver.PrefixedClaimOrExpression{Claim: "sub", Prefix: &prefix}},
				},
				Client:               tlsServer.Client(),
				SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(), // as an AuthenticationConfiguration has it
			})
			must.Succeed(t, err)
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, tlsServer.Client())
			token, err := config(issuer, "svc", tokentest.Secret, "api1", oauth2.AuthStyleInHeader).Token(ctx)
			must.Succeed(t, err)
			must.Eventually(t, "the authenticator has read the metadata", func() bool { return authenticator.HealthCheck() == nil })
			answer, ok, err := authenticator.AuthenticateToken(ctx, token.AccessToken)
			must.Succeed(t, err)
			if !ok || answer.User.GetName() != "grantor:svc" {
				t.Errorf("got %v and %v, want grantor:svc", ok, answer)
			}
			if _, ok, err := authenticator.AuthenticateToken(ctx, issuer.Forge(t, map[string]any{"aud": res1})); ok || err == nil {
				t.Errorf("got a forged token accepted: %v, %v", ok, err)
			}
			wantDocumented(t, openIDConfiguration, outcome{"kube-apiserver", "yes", "yes"})
		})
	}
}
