package rest_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
)

// TestOAuth2Client requests tokens with golang.org/x/oauth2, in each of its auth styles, and verifies them with the key
// set of coreos/go-oidc.
func TestOAuth2Client(t *testing.T) {
	issuer := newIssuer(t)
	var manifest registry.Manifest
	for id, clientSecret := range map[string]string{
		"plain": "a b", "a+b": "c+d", "a%2Bb": "c%2Bd", "a:b": "c:d", "100%": "ü%", `"\`: `"\`, "a&b=c": "&d=e;", "/?#[]@!$'()*,~": "p:w+d%20&=/?#<>`{}^|",
	} {
		manifest.Clients = append(manifest.Clients, withSecret(client(t, id, registry.Client{Scopes: scopes(t, "api1")}), clientSecret))
	}
	issuer.Apply(t, manifest)
	keys := oidc.NewRemoteKeySet(t.Context(), issuer.URL+"/.well-known/jwks.json")
	for name, style := range map[string]oauth2.AuthStyle{"header": oauth2.AuthStyleInHeader, "params": oauth2.AuthStyleInParams, "detect": oauth2.AuthStyleAutoDetect} {
		for i := range manifest.Clients {
			id, clientSecret := manifest.Clients[i].ID.String(), manifest.Clients[i].Secret
			t.Run(name+" "+id, func(t *testing.T) {
				config := clientcredentials.Config{
					ClientID: id, ClientSecret: clientSecret, TokenURL: issuer.URL + "/connect/token", Scopes: []string{"api1"},
					AuthStyle: style, EndpointParams: map[string][]string{"resource": {res1}},
				}
				token, err := config.Token(t.Context())
				must.Succeed(t, err)
				if token.Type() != "Bearer" || !token.Valid() || token.Extra("scope") != "api1" {
					t.Errorf("got %v of type %s, want a valid Bearer token for api1", token, token.Type())
				}
				payload, err := keys.VerifySignature(t.Context(), token.AccessToken)
				must.Succeed(t, err)
				if got := decode(t, token.AccessToken); len(payload) == 0 || got.ClientID != id {
					t.Errorf("got the client_id %q, want %q", got.ClientID, id)
				}
			})
		}
	}
}

// TestOAuth2ClientRefused checks that golang.org/x/oauth2 understands refusals.
func TestOAuth2ClientRefused(t *testing.T) {
	issuer := newIssuer(t)
	for _, c := range []struct {
		name, secret, scope, code string
		status                    int
	}{
		{"wrong secret", wrong, "api1", "invalid_client", http.StatusUnauthorized},
		{"scope not granted", secret, "api2", "invalid_scope", http.StatusBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := clientcredentials.Config{
				ClientID: "svc", ClientSecret: c.secret, TokenURL: issuer.URL + "/connect/token", Scopes: []string{c.scope},
				AuthStyle: oauth2.AuthStyleInHeader,
			}
			_, err := config.Token(t.Context())
			refused, ok := errors.AsType[*oauth2.RetrieveError](err)
			if !ok || refused.ErrorCode != c.code || refused.Response.StatusCode != c.status || refused.ErrorDescription == "" {
				t.Errorf("got %v, want %s with a description", err, c.code)
			}
		})
	}
}

// TestOIDCProvider discovers the issuer with coreos/go-oidc and verifies a token by its metadata.
func TestOIDCProvider(t *testing.T) {
	issuer := newIssuer(t)
	provider, err := oidc.NewProvider(t.Context(), issuer.URL)
	must.Succeed(t, err)
	if got, want := provider.Endpoint().TokenURL, issuer.URL+"/connect/token"; got != want {
		t.Errorf("got the token endpoint %s, want %s", got, want)
	}
	token := wantToken(t, post(t, issuer, good())).AccessToken
	verifier := provider.VerifierContext(t.Context(), &oidc.Config{ClientID: res1, SupportedSigningAlgs: []string{oidc.ES256}, Now: issuer.Now})
	verified, err := verifier.Verify(t.Context(), token)
	must.Succeed(t, err)
	if verified.Subject != "svc" || verified.Issuer != issuer.URL {
		t.Errorf("got sub %q of %q, want svc of %q", verified.Subject, verified.Issuer, issuer.URL)
	}
	if _, err := verifier.Verify(t.Context(), issuer.Forge(t, map[string]any{"aud": res1})); err == nil {
		t.Error("got a forged token accepted, want an error")
	}
}
