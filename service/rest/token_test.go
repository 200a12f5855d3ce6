package rest_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// claims are the claims of RFC 9068 §2.2.
type claims struct {
	Issuer, Subject, ClientID, Scope, ID string
	Audience                             []string
	IssuedAt, ExpiresAt                  int64
}

// decode decodes the claims of a token without verifying its signature, and checks that there are no others.
func decode(t *testing.T, token string) claims {
	t.Helper()
	message, err := jws.Parse([]byte(token))
	must.Succeed(t, err)
	var raw struct {
		Issuer   string          `json:"iss"`
		Subject  string          `json:"sub"`
		ClientID string          `json:"client_id"`
		Scope    string          `json:"scope"`
		ID       string          `json:"jti"`
		Audience json.RawMessage `json:"aud"`
		IssuedAt int64           `json:"iat"`
		Expires  int64           `json:"exp"`
	}
	must.Succeed(t, json.Unmarshal(message.Payload(), &raw))
	var names map[string]json.RawMessage
	must.Succeed(t, json.Unmarshal(message.Payload(), &names))
	if got, want := slices.Sorted(maps.Keys(names)), []string{"aud", "client_id", "exp", "iat", "iss", "jti", "scope", "sub"}; !slices.Equal(got, want) {
		t.Errorf("got the claims %q, want %q", got, want)
	}
	c := claims{
		Issuer: raw.Issuer, Subject: raw.Subject, ClientID: raw.ClientID, Scope: raw.Scope, ID: raw.ID,
		IssuedAt: raw.IssuedAt, ExpiresAt: raw.Expires,
	}
	var one string
	if json.Unmarshal(raw.Audience, &one) == nil {
		c.Audience = []string{one}
		return c
	}
	must.Succeed(t, json.Unmarshal(raw.Audience, &c.Audience))
	if len(c.Audience) < 2 {
		t.Errorf("got aud %s, want a string for one audience", raw.Audience)
	}
	return c
}

// TestAccessToken checks tokens against RFC 9068, and their signatures with the key published under their kid.
func TestAccessToken(t *testing.T) {
	issuer := newIssuer(t)
	algorithms := []jwks.Algorithm{jwks.ES256, jwks.RS256, jwks.EdDSA, jwks.PS256}
	var manifest registry.Manifest
	for _, algorithm := range algorithms {
		name := strings.ToLower(string(algorithm))
		manifest.Resources = append(manifest.Resources, registry.Resource{
			ID: resource(t, "https://"+name+".internal"), Scopes: scopes(t, name), SigningAlg: algorithm,
		})
		manifest.Clients = append(manifest.Clients, client(t, name, registry.Client{Scopes: scopes(t, name)}))
	}
	issuer.Apply(t, manifest)
	published := keySet(t, issuer)
	for _, c := range []struct {
		client    string
		algorithm jwks.Algorithm
	}{{"svc", jwks.ES256}, {"es256", jwks.ES256}, {"rs256", jwks.RS256}, {"eddsa", jwks.EdDSA}, {"ps256", jwks.PS256}} {
		t.Run(c.client, func(t *testing.T) {
			before := issuer.Now().Unix()
			body := wantToken(t, post(t, issuer, ask(c.client, secret)))
			got := decode(t, body.AccessToken)
			wantHeader(t, body.AccessToken, string(c.algorithm), published)
			if got.Issuer != issuer.URL || got.Subject != c.client || got.ClientID != c.client || got.ID == "" {
				t.Errorf("got %+v, want iss %s, sub and client_id %s, and a jti", got, issuer.URL, c.client)
			}
			if got.IssuedAt < before || got.IssuedAt > issuer.Now().Unix() || got.ExpiresAt-got.IssuedAt != 3600 || body.ExpiresIn != 3600 {
				t.Errorf("got iat %d, exp %d, expires_in %v; want an hour from now", got.IssuedAt, got.ExpiresAt, body.ExpiresIn)
			}
			if c.client == "svc" && len(body.AccessToken) >= 1024 {
				t.Errorf("got %d bytes, want fewer than 1024", len(body.AccessToken))
			}
		})
	}
}

// wantHeader checks the header of a token (RFC 9068 §2.1) and its signature.
func wantHeader(t *testing.T, token, algorithm string, published jwk.Set) {
	t.Helper()
	message, err := jws.Parse([]byte(token))
	must.Succeed(t, err)
	header := message.Signatures()[0].ProtectedHeaders()
	names, err := header.AsMap(t.Context())
	must.Succeed(t, err)
	if got, want := slices.Sorted(maps.Keys(names)), []string{"alg", "kid", "typ"}; !slices.Equal(got, want) {
		t.Errorf("got the header parameters %q, want %q", got, want)
	}
	if header.Type() != "at+jwt" || string(header.Algorithm()) != algorithm {
		t.Errorf("got typ %q, alg %q, want at+jwt, %s", header.Type(), header.Algorithm(), algorithm)
	}
	key, ok := published.LookupKeyID(header.KeyID())
	if !ok {
		t.Fatalf("the kid %q is not published", header.KeyID())
	}
	if _, err := jws.Verify([]byte(token), jws.WithKey(jwa.SignatureAlgorithm(algorithm), key)); err != nil {
		t.Errorf("the published key does not verify the token: %v", err)
	}
}

func keySet(t *testing.T, issuer *tokentest.Issuer) jwk.Set {
	t.Helper()
	set, err := jwk.ParseString(send(t, issuer, request{method: http.MethodGet, target: "/.well-known/jwks.json"}).body)
	must.Succeed(t, err)
	return set
}

// TestLifetimes checks which of the configured lifetimes applies to a token.
func TestLifetimes(t *testing.T) {
	issuer := newIssuer(t)
	for _, c := range []struct {
		name, client, scope string
		want                time.Duration
	}{
		{"the default", "svc", "api1", time.Hour},
		{"the client's", "brief", "api1", 5 * time.Minute},
		{"the resource's", "multi", "other.read", 10 * time.Minute},
		{"the shorter of two resources'", "multi", "api1 other.read", 10 * time.Minute},
		{"a resource without one", "multi", "api1", time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := wantToken(t, post(t, issuer, ask(c.client, secret, "scope", c.scope)))
			got := decode(t, body.AccessToken)
			if life := time.Duration(got.ExpiresAt-got.IssuedAt) * time.Second; life != c.want || body.ExpiresIn != c.want.Seconds() {
				t.Errorf("got %s and expires_in %v, want %s", life, body.ExpiresIn, c.want)
			}
		})
	}
}

// TestTokensDiffer requests three tokens, at least two of them within one second.
func TestTokensDiffer(t *testing.T) {
	issuer := newIssuer(t)
	seen := make(map[string]bool)
	for range 3 {
		id := decode(t, wantToken(t, post(t, issuer, good())).AccessToken).ID
		if seen[id] {
			t.Errorf("got the jti %q twice", id)
		}
		seen[id] = true
	}
}
