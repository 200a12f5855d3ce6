package rest_test

import (
	"crypto/rand"
	"net/url"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// assertionHeader and assertionClaims return those of a good assertion of the client jwk.
func assertionHeader() jwstest.Object {
	return jwstest.Object{"alg": "ES256", "kid": signer.Key().ID(), "typ": clientauth.AssertionMediaType}
}

func assertionClaims(issuer *tokentest.Issuer) jwstest.Object {
	now := issuer.Now()
	return jwstest.Object{
		"iss": "jwk", "sub": "jwk", "aud": issuer.URL, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		"jti": rand.Text(),
	}
}

// TestAssertionsOverWires checks client assertions over both wires.
func TestAssertionsOverWires(t *testing.T) {
	issuer := newIssuer(t)
	conn := must.Get(grpc.NewClient(issuer.GRPCTarget, grpc.WithTransportCredentials(insecure.NewCredentials())))
	t.Cleanup(func() { _ = conn.Close() })
	header, foreign := assertionHeader(), jwstest.NewSigner(jwks.ES256)
	claims := func() jwstest.Object { return assertionClaims(issuer) }
	now := issuer.Now()
	with := func(assertion string, changes ...string) url.Values {
		values := onlyGrant("client_assertion", assertion, "client_assertion_type", clientauth.AssertionType)
		for i := 0; i < len(changes); i += 2 {
			values.Set(changes[i], changes[i+1])
		}
		return values
	}
	changed := func(name string, value any) func() string {
		return func() string { return signer.Sign(header, claims().With(jwstest.Object{name: value})) }
	}
	fixed := func(text string) func() string { return func() string { return text } }
	// Each wire gets an assertion of its own, since one is accepted once.
	for _, test := range []struct {
		name      string
		assertion func() string
		changes   []string
		want      string
	}{
		{"good", func() string { return signer.Sign(header, claims()) }, nil, ""},
		{"good, with client_id", func() string { return signer.Sign(header, claims()) }, []string{"client_id", "jwk"}, ""},
		{"another client_id", func() string { return signer.Sign(header, claims()) }, []string{"client_id", "svc"}, "invalid_client"},
		{"without its type", func() string { return signer.Sign(header, claims()) }, []string{"client_assertion_type", ""}, "invalid_request"},
		{"the type without it", fixed(""), nil, "invalid_request"},
		{"unknown type", func() string { return signer.Sign(header, claims()) }, []string{"client_assertion_type", "urn:x"}, "invalid_client"},
		{"with a secret", func() string { return signer.Sign(header, claims()) }, []string{"client_id", "jwk", "client_secret", secret}, "invalid_request"},
		{"not a JWT", fixed("x"), nil, "invalid_client"},
		{"alg none", func() string { return signer.Sign(header.With(jwstest.Object{"alg": "none"}), claims()) }, nil, "invalid_client"},
		{"HMAC", func() string { return signer.Sign(header.With(jwstest.Object{"alg": "HS256"}), claims()) }, nil, "invalid_client"},
		{"foreign key", func() string { return foreign.Sign(header, claims()) }, nil, "invalid_client"},
		{"unknown issuer", func() string {
			return signer.Sign(header, claims().With(jwstest.Object{"iss": "https://other.example.com", "sub": "https://other.example.com"}))
		}, nil, "invalid_client"},
		{"iss differs from sub", changed("iss", "svc"), nil, "invalid_client"},
		{"expired", changed("exp", now.Add(-time.Second).Unix()), nil, "invalid_client"},
		{"exp too far ahead", changed("exp", now.Add(time.Hour).Unix()), nil, "invalid_client"},
		{"nbf ahead", changed("nbf", now.Add(time.Hour).Unix()), nil, "invalid_client"},
		{"no jti", changed("jti", nil), nil, "invalid_client"},
		{"no aud", changed("aud", nil), nil, "invalid_client"},
		{"aud the endpoint", changed("aud", issuer.URL+"/connect/token"), nil, "invalid_client"},
		{"aud a list", changed("aud", []string{issuer.URL}), nil, "invalid_client"},
		{"aud another path", changed("aud", issuer.URL+"/x"), nil, "invalid_client"},
		{"a scope that is not the client's", func() string { return signer.Sign(header, claims()) }, []string{"scope", "api2"}, "invalid_scope"},
	} {
		t.Run(test.name, func(t *testing.T) {
			overREST(t, issuer, tokenCase{params: with(test.assertion(), test.changes...), want: test.want})
			overGRPC(t, conn, tokenCase{params: with(test.assertion(), test.changes...), want: test.want})
		})
	}
	t.Run("twice", func(t *testing.T) {
		sent := with(signer.Sign(header, claims()))
		overREST(t, issuer, tokenCase{params: sent})
		overREST(t, issuer, tokenCase{params: sent, want: "invalid_client"})
		overGRPC(t, conn, tokenCase{params: sent, want: "invalid_client"})
	})
	t.Run("secret of a client with keys", func(t *testing.T) {
		overREST(t, issuer, tokenCase{params: ask("jwk", secret), want: "invalid_client"})
		overGRPC(t, conn, tokenCase{params: ask("jwk", secret), want: "invalid_client"})
	})
}
