package connectrpc_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestMethods calls every method on every wire, at an issuer without a path and at one with a path.
func TestMethods(t *testing.T) {
	for _, path := range []string{"", "/tenant1"} {
		issuer := newIssuer(t, tokentest.Path(path))
		for _, w := range wires(nil) {
			t.Run(w.name+path, func(t *testing.T) {
				callMethods(t, w, issuer)
				w.client.CloseIdleConnections()
			})
		}
	}
}

func callMethods(t *testing.T, w wire, issuer *tokentest.Issuer) {
	t.Helper()
	wantToken := func(how string, got answer[grantorv1.IssueTokenResponse]) string {
		t.Helper()
		if got.err != nil || got.message.GetTokenType() != "Bearer" || got.message.GetExpiresIn() != 3600 || got.message.GetScope() != "api1" {
			t.Fatalf("%s: got %v, %v, want a token", how, got.message, got.err)
		}
		if got.meta.Get("Cache-Control") != "no-store" || got.meta.Get("X-Content-Type-Options") != "nosniff" || got.meta.Get("Content-Encoding") != "" {
			t.Errorf("%s: got the headers %v", how, got.meta)
		}
		return got.message.GetAccessToken()
	}
	token := wantToken("secret", issue(t, w, issuer.URL, withSecret()))
	wantToken("Basic", issue(t, w, issuer.URL, &grantorv1.IssueTokenRequest{GrantType: "client_credentials"}, "Authorization", basic("svc", secret)))
	now := issuer.Now()
	wantToken("assertion", issue(t, w, issuer.URL, &grantorv1.IssueTokenRequest{
		GrantType: "client_credentials", ClientAssertionType: clientauth.AssertionType,
		ClientAssertion: signer.Sign(jwstest.Object{"alg": "ES256", "kid": signer.Key().ID(), "typ": clientauth.AssertionMediaType}, jwstest.Object{
			"iss": "keyed", "sub": "keyed", "aud": issuer.URL, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "jti": rand.Text(),
		}),
	}))
	active := func() bool {
		t.Helper()
		got := call[grantorv1.IntrospectTokenResponse](t, w, issuer.URL+grantorv1.TokenService_IntrospectToken_FullMethodName,
			&grantorv1.IntrospectTokenRequest{ClientId: "res1", ClientSecret: secret, Token: token})
		must.Succeed(t, got.err)
		return got.message.GetActive()
	}
	if !active() {
		t.Error("the token is not active")
	}
	batch := call[grantorv1.IntrospectTokensResponse](t, w, issuer.URL+grantorv1.TokenService_IntrospectTokens_FullMethodName,
		&grantorv1.IntrospectTokensRequest{ClientId: "res1", ClientSecret: secret, Tokens: slices.Repeat([]string{strings.Repeat("x", 9000), token}, 50)})
	must.Succeed(t, batch.err)
	if got := batch.message.GetTokens(); len(got) != 100 || got[0].GetActive() || !got[99].GetActive() || got[99].GetClientId() != "svc" {
		t.Errorf("got a batch of %d tokens", len(got))
	}
	revoked := call[grantorv1.RevokeTokenResponse](t, w, issuer.URL+grantorv1.TokenService_RevokeToken_FullMethodName,
		&grantorv1.RevokeTokenRequest{ClientId: "svc", ClientSecret: secret, Token: token})
	must.Succeed(t, revoked.err)
	must.Eventually(t, "the token is revoked", func() bool { return !active() })
	all := call[grantorv1.RevokeClientTokensResponse](t, w, issuer.URL+grantorv1.TokenService_RevokeClientTokens_FullMethodName,
		&grantorv1.RevokeClientTokensRequest{ClientId: "keyed"}, "Authorization", basic("svc", secret))
	wantRefusal(t, all.err, connect.CodeInvalidArgument, "invalid_request") // two clients
	metadata := call[grantorv1.GetServerMetadataResponse](t, w, issuer.URL+grantorv1.TokenService_GetServerMetadata_FullMethodName, &grantorv1.GetServerMetadataRequest{})
	must.Succeed(t, metadata.err)
	if got := metadata.message.GetIssuer(); got != issuer.URL {
		t.Errorf("got the issuer %s, want %s", got, issuer.URL)
	}
	keys := call[grantorv1.GetKeySetResponse](t, w, issuer.URL+grantorv1.TokenService_GetKeySet_FullMethodName, &grantorv1.GetKeySetRequest{})
	must.Succeed(t, keys.err)
	if len(keys.message.GetKeys()) == 0 || keys.message.GetMaxAge() == 0 {
		t.Errorf("got the key set %v", keys.message)
	}
}

// TestRefusals expects each refusal with its code, reason, text and headers on every wire.
func TestRefusals(t *testing.T) {
	issuer := newIssuer(t)
	request := func(change func(*grantorv1.IssueTokenRequest)) *grantorv1.IssueTokenRequest {
		m := withSecret()
		change(m)
		return m
	}
	for _, w := range wires(nil) {
		t.Run(w.name, func(t *testing.T) {
			defer w.client.CloseIdleConnections()
			for name, c := range map[string]struct {
				request *grantorv1.IssueTokenRequest
				headers []string
				code    connect.Code
				reason  string
			}{
				"no grant type":       {request(func(m *grantorv1.IssueTokenRequest) { m.GrantType = "" }), nil, connect.CodeInvalidArgument, "invalid_request"},
				"another grant type":  {request(func(m *grantorv1.IssueTokenRequest) { m.GrantType = "password" }), nil, connect.CodeInvalidArgument, "unsupported_grant_type"},
				"wrong secret":        {request(func(m *grantorv1.IssueTokenRequest) { m.ClientSecret = clientsecret.New() }), nil, connect.CodeUnauthenticated, "invalid_client"},
				"unknown client":      {request(func(m *grantorv1.IssueTokenRequest) { m.ClientId = "nobody" }), nil, connect.CodeUnauthenticated, "invalid_client"},
				"disabled":            {request(func(m *grantorv1.IssueTokenRequest) { m.ClientId = "disabled" }), nil, connect.CodeUnauthenticated, "invalid_client"},
				"no credentials":      {&grantorv1.IssueTokenRequest{GrantType: "client_credentials"}, nil, connect.CodeUnauthenticated, "invalid_client"},
				"an empty message":    {&grantorv1.IssueTokenRequest{}, nil, connect.CodeInvalidArgument, "invalid_request"},
				"no such grant":       {request(func(m *grantorv1.IssueTokenRequest) { m.ClientId = "nogrant" }), nil, connect.CodePermissionDenied, "unauthorized_client"},
				"no such scope":       {request(func(m *grantorv1.IssueTokenRequest) { m.Scope = "other" }), nil, connect.CodeInvalidArgument, "invalid_scope"},
				"no such resource":    {request(func(m *grantorv1.IssueTokenRequest) { m.Resource = []string{"https://other.internal"} }), nil, connect.CodeInvalidArgument, "invalid_target"},
				"NUL":                 {request(func(m *grantorv1.IssueTokenRequest) { m.Scope = "api1\x00" }), nil, connect.CodeInvalidArgument, "invalid_request"},
				"two credentials":     {withSecret(), []string{"Authorization", basic("svc", secret)}, connect.CodeInvalidArgument, "invalid_request"},
				"Authorization twice": {&grantorv1.IssueTokenRequest{GrantType: "client_credentials"}, []string{"Authorization", basic("svc", secret), "Authorization", basic("svc", secret)}, connect.CodeInvalidArgument, "invalid_request"},
				"a bad proof":         {withSecret(), []string{"DPoP", "x.y.z"}, connect.CodeInvalidArgument, "invalid_dpop_proof"},
				"without a proof":     {request(func(m *grantorv1.IssueTokenRequest) { m.ClientId = "bound" }), nil, connect.CodeInvalidArgument, "invalid_request"},
			} {
				got := issue(t, w, issuer.URL, c.request, c.headers...)
				if got.err == nil {
					t.Errorf("%s: got a token", name)
					continue
				}
				wantRefusal(t, got.err, c.code, c.reason)
				challenge := ""
				if c.reason == "invalid_client" && !strings.HasPrefix(w.name, "gRPC ") { // no trailer can be a challenge
					challenge = `Basic realm="` + issuer.URL + `"`
				}
				if sent := got.meta.Get("WWW-Authenticate"); sent != challenge {
					t.Errorf("%s: got the challenge %q, want %q", name, sent, challenge)
				}
				if got.meta.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: got the headers %v", name, got.meta)
				}
			}
		})
	}
}

// TestProofs requests tokens with DPoP proofs. A proof is for the URL of the method below the issuer's, or for the one to which the
// request is sent.
func TestProofs(t *testing.T) {
	for _, path := range []string{"", "/tenant1"} {
		issuer := newIssuer(t, tokentest.DPoPNonces(), tokentest.Path(path))
		key := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
		for _, w := range wires(nil) {
			t.Run(w.name+path, func(t *testing.T) {
				defer w.client.CloseIdleConnections()
				prove := func(url, nonce string) answer[grantorv1.IssueTokenResponse] {
					proof := must.Get(key.Sign(dpop.Claims{Method: "POST", URL: url, Time: issuer.Now(), Nonce: nonce}))
					return issue(t, w, issuer.URL, withSecret(), "DPoP", proof)
				}
				target := issuer.URL + grantorv1.TokenService_IssueToken_FullMethodName
				first := prove(target, "")
				nonce := first.meta.Get("DPoP-Nonce")
				if metadata := wantRefusal(t, first.err, connect.CodeInvalidArgument, "use_dpop_nonce"); nonce == "" || metadata["dpop_nonce"] != nonce {
					t.Fatalf("got the nonces %q and %q", nonce, metadata["dpop_nonce"])
				}
				got := prove(target, nonce)
				if got.err != nil || got.message.GetTokenType() != "DPoP" || confirmation(t, got.message.GetAccessToken())["jkt"] != key.Thumbprint() {
					t.Fatalf("got %v, %v, want a token for the key", got.message, got.err)
				}
				for _, other := range []string{issuer.URL + "/connect/token", issuer.URL, strings.Replace(target, "IssueToken", "RevokeToken", 1)} {
					wantRefusal(t, prove(other, nonce).err, connect.CodeInvalidArgument, "invalid_dpop_proof")
				}
			})
		}
	}
}

// TestNextNonce expects the nonce for the next proof with a token if the one that was sent is about to change.
func TestNextNonce(t *testing.T) {
	issuer := newIssuer(t, tokentest.DPoPNonces())
	key := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	for _, w := range wires(nil) {
		prove := func(nonce string) answer[grantorv1.IssueTokenResponse] {
			proof := must.Get(key.Sign(dpop.Claims{
				Method: "POST", URL: issuer.URL + grantorv1.TokenService_IssueToken_FullMethodName, Time: issuer.Now(), Nonce: nonce,
			}))
			return issue(t, w, issuer.URL, withSecret(), "DPoP", proof)
		}
		nonce := prove("").meta.Get("DPoP-Nonce")
		next := ""
		for range 20 {
			got := prove(nonce)
			must.Succeed(t, got.err)
			if next = got.meta.Get("DPoP-Nonce"); next != "" {
				break
			}
			issuer.Advance(15 * time.Second)
		}
		if next == "" || next == nonce {
			t.Errorf("%s: got the nonce %q after %q", w.name, next, nonce)
		}
		w.client.CloseIdleConnections()
	}
}

// TestCertificates authenticates a client by its certificate, and binds its tokens to it.
func TestCertificates(t *testing.T) {
	server, own := certtest.SelfSigned(), certtest.SelfSigned()
	issuer := newIssuer(t, tokentest.TLS(server))
	scopes := must.Get(oauth.ParseScopes("api1"))
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{
		ID: must.Get(oauth.ParseClientID("certified")), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes,
		AuthMethods: []string{oauth.SelfSignedTLSClientAuth}, CertificateBoundTokens: true,
		Keys: must.Get(jwks.NewDocument(must.Get(jwks.NewKey(jwks.ES256, own.Leaf.PublicKey)))),
	}}}})
	roots := x509.NewCertPool()
	roots.AddCert(server.Leaf)
	with := func(certificates ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS12}
	}
	request := &grantorv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: "certified"}
	other, none := wires(with(certtest.SelfSigned())), wires(with())
	for i, w := range wires(with(own)) {
		t.Run(w.name, func(t *testing.T) {
			got := issue(t, w, issuer.URL, request)
			must.Succeed(t, got.err)
			if bound := confirmation(t, got.message.GetAccessToken())["x5t#S256"]; bound != certificate.Thumbprint(own.Leaf) {
				t.Errorf("got a token bound to %q, want that of the certificate", bound)
			}
			wantRefusal(t, issue(t, other[i], issuer.URL, request).err, connect.CodeUnauthenticated, "invalid_client")
			wantRefusal(t, issue(t, none[i], issuer.URL, request).err, connect.CodeUnauthenticated, "invalid_client")
			for _, used := range []wire{w, other[i], none[i]} {
				used.client.CloseIdleConnections()
			}
		})
	}
}

// confirmation returns the claim "cnf" of a token.
func confirmation(t *testing.T, token string) map[string]string {
	t.Helper()
	var claims struct {
		Confirmation map[string]string `json:"cnf"`
	}
	must.Succeed(t, json.Unmarshal(must.Get(base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])), &claims))
	return claims.Confirmation
}
