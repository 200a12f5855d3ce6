package rest_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

const dpopResource = "https://orders.internal"

// dpopAnswer is the answer to a token request on either wire.
type dpopAnswer struct {
	// code is the OAuth error code; empty for a token.
	code             string
	token, tokenType string
	// nonce is the nonce for the next proof, or empty.
	nonce string
}

// dpopWire makes a token request with proofs, and knows what its URL is.
type dpopWire struct {
	url     string
	request func(t *testing.T, secret string, proofs ...string) dpopAnswer
}

// dpopWires returns both wires of an issuer with the client orders.
func dpopWires(t *testing.T, issuer *tokentest.Issuer) map[string]dpopWire {
	t.Helper()
	client := grantorv1.NewTokenServiceClient(issuer.Conn(t))
	return map[string]dpopWire{
		"REST": {issuer.URL + "/connect/token", func(t *testing.T, secret string, proofs ...string) dpopAnswer {
			t.Helper()
			form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"orders"}, "client_secret": {secret}}
			request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodPost, issuer.URL+"/connect/token", strings.NewReader(form.Encode())))
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			request.Header["Dpop"] = proofs
			answer := must.Get(http.DefaultClient.Do(request))
			defer func() { _ = answer.Body.Close() }()
			var body struct {
				Error string `json:"error"`
				Token string `json:"access_token"`
				Type  string `json:"token_type"`
			}
			must.Succeed(t, json.NewDecoder(answer.Body).Decode(&body))
			if strings.HasSuffix(body.Error, "_proof") || body.Error == "use_dpop_nonce" {
				if answer.StatusCode != http.StatusBadRequest || answer.Header.Get("WWW-Authenticate") != "" || answer.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: got %s with %v", body.Error, answer.Status, answer.Header)
				}
			}
			return dpopAnswer{body.Error, body.Token, body.Type, answer.Header.Get("DPoP-Nonce")}
		}},
		"gRPC": {"https://" + issuer.GRPCTarget + grantorv1.TokenService_IssueToken_FullMethodName, func(t *testing.T, secret string, proofs ...string) dpopAnswer {
			t.Helper()
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"dpop": proofs})
			var header, trailer metadata.MD
			got, err := client.IssueToken(ctx, &grantorv1.IssueTokenRequest{
				GrantType: "client_credentials", ClientId: "orders", ClientSecret: secret,
			}, grpc.Header(&header), grpc.Trailer(&trailer))
			answer := dpopAnswer{token: got.GetAccessToken(), tokenType: got.GetTokenType()}
			for _, value := range append(header.Get("dpop-nonce"), trailer.Get("dpop-nonce")...) {
				answer.nonce += value
			}
			for _, detail := range status.Convert(err).Details() {
				if info, ok := detail.(*errdetails.ErrorInfo); ok {
					answer.code = info.GetReason()
					if info.GetMetadata()["dpop_nonce"] != answer.nonce {
						t.Errorf("%s: got the nonce %q in the metadata of ErrorInfo, %q in that of the call", answer.code, info.GetMetadata()["dpop_nonce"], answer.nonce)
					}
				}
			}
			if strings.Contains(answer.code, "dpop") && status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s: got %s", answer.code, status.Code(err))
			}
			return answer
		}},
	}
}

// addBoundClient registers the client orders.
func addBoundClient(t *testing.T, issuer *tokentest.Issuer, change func(*registry.Client, *registry.Resource)) {
	t.Helper()
	scopes := must.Get(oauth.ParseScopes("orders.read"))
	r := registry.Resource{ID: must.Get(oauth.ParseResource(dpopResource)), Scopes: scopes}
	c := registry.Client{ID: must.Get(oauth.ParseClientID("orders")), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes}
	change(&c, &r)
	issuer.Apply(t, registry.Manifest{
		Resources: []registry.Resource{r}, Clients: []registry.ClientSpec{{Client: c, Secret: tokentest.Secret}},
	})
}

// boundTo returns the thumbprint of the key that a token is bound to, or "".
func boundTo(t *testing.T, raw string) string {
	t.Helper()
	var claims struct {
		Confirmation struct {
			KeyThumbprint string `json:"jkt"`
		} `json:"cnf"`
	}
	_, payload, _ := strings.Cut(raw, ".")
	payload, _, _ = strings.Cut(payload, ".")
	must.Succeed(t, json.Unmarshal(must.Get(base64.RawURLEncoding.DecodeString(payload)), &claims))
	return claims.Confirmation.KeyThumbprint
}

func TestTokensAreBoundToTheKeyOfAProof(t *testing.T) {
	issuer := tokentest.New(t)
	addBoundClient(t, issuer, func(*registry.Client, *registry.Resource) {})
	for name, wire := range dpopWires(t, issuer) {
		t.Run(name, func(t *testing.T) {
			for _, algorithm := range []jwks.Algorithm{jwks.ES256, jwks.EdDSA, jwks.RS256} {
				signer := must.Get(dpop.NewSigner(jwstest.NewSigner(algorithm).Private))
				proof := must.Get(signer.Sign(dpop.Claims{Method: "POST", URL: wire.url, Time: issuer.Now()}))
				got := wire.request(t, tokentest.Secret, proof)
				if got.code != "" || got.tokenType != "DPoP" || got.nonce != "" {
					t.Fatalf("%s: got %+v", algorithm, got)
				}
				if bound := boundTo(t, got.token); bound != signer.Thumbprint() {
					t.Errorf("%s: got a token bound to %q, want %q", algorithm, bound, signer.Thumbprint())
				}
				if got := wire.request(t, tokentest.Secret, proof); got.code != "invalid_dpop_proof" {
					t.Errorf("%s: the same proof again: got %+v", algorithm, got)
				}
			}
			if got := wire.request(t, tokentest.Secret); got.code != "" || got.tokenType != "Bearer" || boundTo(t, got.token) != "" {
				t.Errorf("without a proof: got %+v", got)
			}
		})
	}
}

// TestWrongProofsAreRefused tests each kind of wrong proof on both wires.
func TestWrongProofsAreRefused(t *testing.T) {
	issuer := tokentest.New(t)
	addBoundClient(t, issuer, func(*registry.Client, *registry.Resource) {})
	key := jwstest.NewSigner(jwks.ES256)
	public := jwstest.Object{"kty": key.JWK().KeyType, "crv": key.JWK().Curve, "x": key.JWK().X, "y": key.JWK().Y}
	for name, wire := range dpopWires(t, issuer) {
		sign := func(header, payload jwstest.Object) string {
			return key.Sign(jwstest.Object{"typ": "dpop+jwt", "alg": "ES256", "jwk": public}.With(header),
				jwstest.Object{"jti": rand.Text(), "htm": "POST", "htu": wire.url, "iat": issuer.Now().Unix()}.With(payload))
		}
		scheme, rest, _ := strings.Cut(wire.url, "://")
		host, path, _ := strings.Cut(rest, "/")
		bare, port, _ := strings.Cut(host, ":")
		good := sign(nil, nil)
		for problem, proofs := range map[string][]string{
			"two proofs":                     {sign(nil, nil), sign(nil, nil)},
			"empty":                          {""},
			"garbage":                        {"x.y.z"},
			"two in one header":              {sign(nil, nil) + "," + sign(nil, nil)},
			"too large":                      {sign(nil, jwstest.Object{"x": strings.Repeat("x", 5000)})},
			"symmetric jwk":                  {sign(jwstest.Object{"alg": "HS256", "jwk": jwstest.Object{"kty": "oct", "k": "c2VjcmV0"}}, nil)},
			"private jwk":                    {sign(jwstest.Object{"jwk": public.With(jwstest.Object{"d": public["x"]})}, nil)},
			"alg none":                       {sign(jwstest.Object{"alg": "none"}, nil)},
			"typ of an assertion":            {sign(jwstest.Object{"typ": "JWT"}, nil)},
			"altered":                        {good[:len(good)-4] + "AAAA"},
			"htm GET":                        {sign(nil, jwstest.Object{"htm": "GET"})},
			"htu, another path":              {sign(nil, jwstest.Object{"htu": wire.url + "s"})},
			"htu, path in other letter case": {sign(nil, jwstest.Object{"htu": scheme + "://" + host + "/" + strings.ToUpper(path)})},
			"htu, another port":              {sign(nil, jwstest.Object{"htu": scheme + "://" + bare + ":1" + port + "/" + path})},
			"htu, no port":                   {sign(nil, jwstest.Object{"htu": scheme + "://" + bare + "/" + path})},
			"htu, another host":              {sign(nil, jwstest.Object{"htu": scheme + "://example.com:" + port + "/" + path})},
			"htu, query as path":             {sign(nil, jwstest.Object{"htu": wire.url + "%3Fa=b"})},
			"5 minutes old":                  {sign(nil, jwstest.Object{"iat": issuer.Now().Add(-5 * time.Minute).Unix()})},
			"from the future":                {sign(nil, jwstest.Object{"iat": issuer.Now().Add(5 * time.Minute).Unix()})},
			"no iat":                         {sign(nil, jwstest.Object{"iat": nil})},
			"no jti":                         {sign(nil, jwstest.Object{"jti": nil})},
			"no htu":                         {sign(nil, jwstest.Object{"htu": nil})},
		} {
			if got := wire.request(t, tokentest.Secret, proofs...); got.code != "invalid_dpop_proof" || got.token != "" {
				t.Errorf("%s: %s: got %+v, want invalid_dpop_proof", name, problem, got)
			}
		}
		if got := wire.request(t, "wrong", "x.y.z"); got.code != "invalid_client" {
			t.Errorf("%s: a wrong secret and a wrong proof: got %+v, want invalid_client", name, got)
		}
		for problem, proof := range map[string]string{
			"htu with a query":                 sign(nil, jwstest.Object{"htu": wire.url + "?a=b#c"}),
			"htu, scheme in other letter case": sign(nil, jwstest.Object{"htu": strings.ToUpper(scheme) + "://" + rest}),
		} {
			if got := wire.request(t, tokentest.Secret, proof); got.tokenType != "DPoP" {
				t.Errorf("%s: %s: got %+v, want a token", name, problem, got)
			}
		}
		if got := wire.request(t, tokentest.Secret, good); got.tokenType != "DPoP" {
			t.Errorf("%s: the proof that the others are made of: got %+v", name, got)
		}
	}
}

func TestNoncesOfProofs(t *testing.T) {
	issuer := tokentest.New(t, tokentest.DPoPNonces())
	addBoundClient(t, issuer, func(*registry.Client, *registry.Resource) {})
	signer := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	for name, wire := range dpopWires(t, issuer) {
		sign := func(nonce string) string {
			return must.Get(signer.Sign(dpop.Claims{Method: "POST", URL: wire.url, Nonce: nonce, Time: issuer.Now()}))
		}
		refused := wire.request(t, tokentest.Secret, sign(""))
		if refused.code != "use_dpop_nonce" || refused.nonce == "" {
			t.Fatalf("%s: got %+v, want use_dpop_nonce with a nonce", name, refused)
		}
		if got := wire.request(t, tokentest.Secret, sign("x"+refused.nonce)); got.code != "use_dpop_nonce" || got.nonce != refused.nonce {
			t.Errorf("%s: another nonce: got %+v", name, got)
		}
		if got := wire.request(t, tokentest.Secret, sign(refused.nonce)); got.tokenType != "DPoP" || got.nonce != "" {
			t.Errorf("%s: the nonce: got %+v", name, got)
		}
		issuer.Advance(2 * time.Minute)
		next := wire.request(t, tokentest.Secret, sign(refused.nonce))
		if next.tokenType != "DPoP" || next.nonce == "" || next.nonce == refused.nonce {
			t.Errorf("%s: the nonce two minutes later: got %+v, want a token and the next nonce", name, next)
		}
		issuer.Advance(2 * time.Minute)
		if got := wire.request(t, tokentest.Secret, sign(refused.nonce)); got.code != "use_dpop_nonce" {
			t.Errorf("%s: the nonce four minutes later: got %+v", name, got)
		}
		if got := wire.request(t, tokentest.Secret); got.tokenType != "Bearer" {
			t.Errorf("%s: without a proof: got %+v, want a bearer token", name, got)
		}
	}
}

func TestProofsAreRequired(t *testing.T) {
	for name, change := range map[string]func(*registry.Client, *registry.Resource){
		"by the client":                func(c *registry.Client, _ *registry.Resource) { c.DPoPBoundTokens = true },
		"by the resource":              func(_ *registry.Client, r *registry.Resource) { r.RequireBoundTokens = registry.BindDPoP },
		"by the resource, of any kind": func(_ *registry.Client, r *registry.Resource) { r.RequireBoundTokens = registry.BindAny },
	} {
		issuer := tokentest.New(t)
		addBoundClient(t, issuer, change)
		signer := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
		for wireName, wire := range dpopWires(t, issuer) {
			if got := wire.request(t, tokentest.Secret); got.code != "invalid_request" {
				t.Errorf("%s: %s: without a proof: got %+v, want invalid_request", name, wireName, got)
			}
			proof := must.Get(signer.Sign(dpop.Claims{Method: "POST", URL: wire.url, Time: issuer.Now()}))
			if got := wire.request(t, tokentest.Secret, proof); got.tokenType != "DPoP" {
				t.Errorf("%s: %s: with a proof: got %+v", name, wireName, got)
			}
		}
	}
}

// TestIntrospectionOfBoundTokens checks that the type of a bound token is told (RFC 9449 §6.2).
func TestIntrospectionOfBoundTokens(t *testing.T) {
	issuer := tokentest.New(t)
	addBoundClient(t, issuer, func(*registry.Client, *registry.Resource) {})
	signer := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	wire := dpopWires(t, issuer)["REST"]
	got := wire.request(t, tokentest.Secret, must.Get(signer.Sign(dpop.Claims{Method: "POST", URL: wire.url, Time: issuer.Now()})))
	answer, err := grantorv1.NewTokenServiceClient(issuer.Conn(t)).IntrospectToken(t.Context(), &grantorv1.IntrospectTokenRequest{
		ClientId: "orders", ClientSecret: tokentest.Secret, Token: got.token,
	})
	if err != nil || !answer.GetActive() || answer.GetTokenType() != "DPoP" {
		t.Errorf("got %v, %v, want an active token of the type DPoP", answer, err)
	}
}
