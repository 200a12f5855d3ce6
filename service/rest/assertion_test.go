package rest_test

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
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
		{"an issuer that is trusted nowhere, with the kid of a client", func() string {
			return foreign.Sign(header, claims().With(jwstest.Object{"iss": "https://accounts.example.com"}))
		}, nil, "invalid_client"},
		{"iss differs from sub", changed("iss", "svc"), nil, "invalid_client"},
		{"no iss", changed("iss", nil), nil, "invalid_client"},
		{"no sub", changed("sub", nil), nil, "invalid_client"},
		{"no exp", changed("exp", nil), nil, "invalid_client"},
		{"sub a number", changed("sub", 1), nil, "invalid_client"},
		{"exp a text", changed("exp", "soon"), nil, "invalid_client"},
		{"payload a list", func() string { return signer.Sign(header, nil) }, nil, "invalid_client"},
		{"typ of an access token", func() string { return signer.Sign(header.With(jwstest.Object{"typ": "at+jwt"}), claims()) }, nil, "invalid_client"},
		{"typ JWT", func() string { return signer.Sign(header.With(jwstest.Object{"typ": "JWT"}), claims()) }, nil, "invalid_client"},
		{"jku", func() string { return signer.Sign(header.With(jwstest.Object{"jku": issuer.URL}), claims()) }, nil, "invalid_client"},
		{"x5u", func() string { return signer.Sign(header.With(jwstest.Object{"x5u": issuer.URL}), claims()) }, nil, "invalid_client"},
		{"jwk", func() string { return signer.Sign(header.With(jwstest.Object{"jwk": signer.JWK()}), claims()) }, nil, "invalid_client"},
		{"too large", changed("note", strings.Repeat("x", 9000)), nil, "invalid_request"},
		{"expired", changed("exp", now.Add(-time.Second).Unix()), nil, "invalid_client"},
		{"exp too far ahead", changed("exp", now.Add(time.Hour).Unix()), nil, "invalid_client"},
		{"nbf ahead", changed("nbf", now.Add(time.Hour).Unix()), nil, "invalid_client"},
		{"from the future", changed("iat", now.Add(time.Hour).Unix()), nil, "invalid_client"},
		{"no jti", changed("jti", nil), nil, "invalid_client"},
		{"no aud", changed("aud", nil), nil, "invalid_client"},
		{"aud the endpoint", changed("aud", issuer.URL+"/connect/token"), nil, "invalid_client"},
		{"aud a list", changed("aud", []string{issuer.URL}), nil, "invalid_client"},
		{"aud another path", changed("aud", issuer.URL+"/x"), nil, "invalid_client"},
		{"aud another host", changed("aud", "https://auth.example.com"), nil, "invalid_client"},
		{"a scope that is not the client's", func() string { return signer.Sign(header, claims()) }, []string{"scope", "api2"}, "invalid_scope"},
	} {
		t.Run(test.name, func(t *testing.T) {
			overREST(t, issuer, tokenCase{params: with(test.assertion(), test.changes...), want: test.want})
			overGRPC(t, conn, tokenCase{params: with(test.assertion(), test.changes...), want: test.want})
		})
	}
	t.Run("Basic too", func(t *testing.T) {
		sent := with(signer.Sign(header, claims()))
		overREST(t, issuer, tokenCase{params: sent, authorization: basic("svc", secret), want: "invalid_request"})
		overGRPC(t, conn, tokenCase{params: sent, authorization: basic("svc", secret), want: "invalid_request"})
		overREST(t, issuer, tokenCase{params: sent}) // a request that is refused uses up no assertion
	})
	t.Run("of two clients", func(t *testing.T) { // each is told the same, at the same place
		unknown := signer.Sign(header, claims().With(jwstest.Object{"iss": "nobody", "sub": "nobody"}))
		wrong := foreign.Sign(header, claims())
		wantSame(t, post(t, issuer, with(unknown)), post(t, issuer, with(wrong)))
	})
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

// TestAssertionsElsewhere introspects and revokes with an assertion, over both wires.
func TestAssertionsElsewhere(t *testing.T) {
	issuer := newIssuer(t)
	conn := must.Get(grpc.NewClient(issuer.GRPCTarget, grpc.WithTransportCredentials(insecure.NewCredentials())))
	t.Cleanup(func() { _ = conn.Close() })
	tokens, foreign := grantorv1.NewTokenServiceClient(conn), jwstest.NewSigner(jwks.ES256)
	sign := func(s jwstest.Signer) string { return s.Sign(assertionHeader(), assertionClaims(issuer)) }
	form := func(raw string, s jwstest.Signer) string {
		return url.Values{"token": {raw}, "client_assertion": {sign(s)}, "client_assertion_type": {clientauth.AssertionType}}.Encode()
	}
	raw := wantToken(t, post(t, issuer, onlyGrant("client_assertion", sign(signer), "client_assertion_type", clientauth.AssertionType))).AccessToken
	isActive := func() (rest, grpc bool) {
		answer := send(t, issuer, request{target: "/connect/introspect", body: form(raw, signer)})
		got, err := tokens.IntrospectToken(t.Context(), &grantorv1.IntrospectTokenRequest{Token: raw, ClientAssertion: sign(signer), ClientAssertionType: clientauth.AssertionType})
		must.Succeed(t, err)
		all, err := tokens.IntrospectTokens(t.Context(), &grantorv1.IntrospectTokensRequest{Tokens: []string{raw}, ClientAssertion: sign(signer), ClientAssertionType: clientauth.AssertionType})
		must.Succeed(t, err)
		if all.GetTokens()[0].GetActive() != got.GetActive() {
			t.Errorf("got %v alone and %v among others", got, all)
		}
		return strings.Contains(answer.body, `"active":true`), got.GetActive()
	}
	if rest, grpc := isActive(); !rest || !grpc {
		t.Errorf("active: got %t over REST and %t over gRPC, want true", rest, grpc)
	}
	for _, path := range []string{"/connect/introspect", "/connect/revoke"} {
		wantRefusal(t, send(t, issuer, request{target: path, body: form(raw, foreign)}), http.StatusUnauthorized, "invalid_client")
	}
	_, err := tokens.IntrospectToken(t.Context(), &grantorv1.IntrospectTokenRequest{Token: raw, ClientAssertion: sign(foreign), ClientAssertionType: clientauth.AssertionType})
	wantStatus(t, err, codes.Unauthenticated, "invalid_client")
	_, err = tokens.RevokeToken(t.Context(), &grantorv1.RevokeTokenRequest{Token: raw, ClientAssertion: sign(foreign), ClientAssertionType: clientauth.AssertionType})
	wantStatus(t, err, codes.Unauthenticated, "invalid_client")
	_, err = tokens.RevokeClientTokens(t.Context(), &grantorv1.RevokeClientTokensRequest{ClientAssertion: sign(foreign), ClientAssertionType: clientauth.AssertionType})
	wantStatus(t, err, codes.Unauthenticated, "invalid_client")
	if rest, grpc := isActive(); !rest || !grpc {
		t.Errorf("active after refused revocations: got %t over REST and %t over gRPC, want true", rest, grpc)
	}
	revoked := send(t, issuer, request{target: "/connect/revoke", body: form(raw, signer)})
	if rest, grpc := isActive(); rest || grpc || revoked.status != http.StatusOK {
		t.Errorf("active after the revocation: got %t over REST and %t over gRPC after %d, want false", rest, grpc, revoked.status)
	}
	_, err = tokens.RevokeToken(t.Context(), &grantorv1.RevokeTokenRequest{Token: raw, ClientAssertion: sign(signer), ClientAssertionType: clientauth.AssertionType})
	must.Succeed(t, err)
	_, err = tokens.RevokeClientTokens(t.Context(), &grantorv1.RevokeClientTokensRequest{ClientAssertion: sign(signer), ClientAssertionType: clientauth.AssertionType})
	must.Succeed(t, err)
}
