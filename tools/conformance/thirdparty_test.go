package conformance_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestOAuth2Client requests tokens with golang.org/x/oauth2, in each of its auth styles, and verifies them with the key
// set of coreos/go-oidc. The names and secrets of the clients need every kind of escape.
func TestOAuth2Client(t *testing.T) {
	issuer := newIssuer(t)
	secrets := map[string]string{
		"plain": "a b", "a+b": "c+d", "a%2Bb": "c%2Bd", "a:b": "c:d", "100%": "ü%", `"\`: `"\`, "a&b=c": "&d=e;", "/?#[]@!$'()*,~": "p:w+d%20&=/?#<>`{}^|",
	}
	var manifest registry.Manifest
	for id, secret := range secrets {
		manifest.Clients = append(manifest.Clients, client(id, secret, "api1"))
	}
	issuer.Apply(t, manifest)
	keys := oidc.NewRemoteKeySet(t.Context(), issuer.URL+"/.well-known/jwks.json")
	for name, style := range map[string]oauth2.AuthStyle{"header": oauth2.AuthStyleInHeader, "params": oauth2.AuthStyleInParams, "detect": oauth2.AuthStyleAutoDetect} {
		for id, secret := range secrets {
			t.Run(name+" "+id, func(t *testing.T) {
				c := config(issuer, id, secret, "api1", style)
				c.EndpointParams = url.Values{"resource": {res1}}
				token, err := c.Token(t.Context())
				must.Succeed(t, err)
				if token.Type() != "Bearer" || !token.Valid() || token.Extra("scope") != "api1" {
					t.Errorf("got %v of type %s, want a valid Bearer token for api1", token, token.Type())
				}
				payload, err := keys.VerifySignature(t.Context(), token.AccessToken)
				must.Succeed(t, err)
				var claims struct {
					ClientID string `json:"client_id"`
				}
				must.Succeed(t, json.Unmarshal(payload, &claims))
				if claims.ClientID != id {
					t.Errorf("got the client_id %q, want %q", claims.ClientID, id)
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
		{"wrong secret", "not the secret", "api1", "invalid_client", http.StatusUnauthorized},
		{"scope not granted", tokentest.Secret, "api2", "invalid_scope", http.StatusBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config(issuer, "svc", c.secret, c.scope, oauth2.AuthStyleInHeader).Token(t.Context())
			refused, ok := errors.AsType[*oauth2.RetrieveError](err)
			if !ok || refused.ErrorCode != c.code || refused.Response.StatusCode != c.status || refused.ErrorDescription == "" {
				t.Errorf("got %v, want %s with a description", err, c.code)
			}
		})
	}
}

// TestOIDCProvider reads each document with coreos/go-oidc, which knows the place of one of them, and verifies a token by
// it, with the algorithms that the document names.
func TestOIDCProvider(t *testing.T) {
	for _, path := range issuerPaths {
		issuer := newIssuer(t, tokentest.Path(path))
		for _, document := range documents {
			t.Run(document+path, func(t *testing.T) {
				provider, err := oidc.NewProvider(t.Context(), issuer.URL)
				must.Succeed(t, err)
				if document == authorizationServer {
					provider = readConfig(t, issuer).NewProvider(t.Context())
				}
				if got, want := provider.Endpoint().TokenURL, issuer.URL+"/connect/token"; got != want {
					t.Errorf("got the token endpoint %s, want %s", got, want)
				}
				token, err := config(issuer, "svc", tokentest.Secret, "api1", oauth2.AuthStyleInHeader).Token(t.Context())
				must.Succeed(t, err)
				verifier := provider.VerifierContext(t.Context(), &oidc.Config{ClientID: res1, Now: issuer.Now})
				verified, err := verifier.Verify(t.Context(), token.AccessToken)
				must.Succeed(t, err)
				if verified.Subject != "svc" || verified.Issuer != issuer.URL {
					t.Errorf("got sub %q of %q, want svc of %q", verified.Subject, verified.Issuer, issuer.URL)
				}
				if _, err := verifier.Verify(t.Context(), issuer.Forge(t, map[string]any{"aud": res1})); err == nil {
					t.Error("got a forged token accepted, want an error")
				}
				wantDocumented(t, document, outcome{"go-oidc", "yes", "yes"})
			})
		}
	}
}

// readConfig reads the document of RFC 8414, as a program does that hands it to go-oidc.
func readConfig(t *testing.T, issuer *tokentest.Issuer) *oidc.ProviderConfig {
	t.Helper()
	places, err := oauth.MetadataURLs(issuer.URL)
	must.Succeed(t, err)
	body, _, err := oauth.Get(t.Context(), http.DefaultClient, places[0], 1<<20)
	must.Succeed(t, err)
	read := &oidc.ProviderConfig{}
	must.Succeed(t, json.Unmarshal(body, read))
	return read
}
