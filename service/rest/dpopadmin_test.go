package rest_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// adminWire lists the clients with an Authorization value and DPoP proofs, and knows what the proofs must be for.
type adminWire struct {
	method, url string
	// call returns the error code of the answer; "" if the call succeeded.
	call func(t *testing.T, authorization string, proofs ...string) string
}

// adminWires returns both wires of an issuer.
func adminWires(t *testing.T, issuer *tokentest.Issuer) map[string]adminWire {
	t.Helper()
	clients := grantorv1.NewClientServiceClient(issuer.Conn(t))
	return map[string]adminWire{
		"REST": {http.MethodGet, issuer.URL + "/v1/clients", func(t *testing.T, authorization string, proofs ...string) string {
			t.Helper()
			request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, issuer.URL+"/v1/clients?page_size=10", http.NoBody))
			request.Header = http.Header{"Authorization": {authorization}, "Dpop": proofs}
			answer := must.Get(http.DefaultClient.Do(request))
			defer func() { _ = answer.Body.Close() }()
			var body struct {
				Error string `json:"error"`
			}
			must.Succeed(t, json.NewDecoder(answer.Body).Decode(&body))
			if want := map[bool]int{true: http.StatusOK, false: http.StatusUnauthorized}[body.Error == ""]; answer.StatusCode != want {
				t.Errorf("got %s with %q", answer.Status, body.Error)
			}
			return body.Error
		}},
		"gRPC": {http.MethodPost, "https://" + issuer.GRPCTarget + grantorv1.ClientService_ListClients_FullMethodName, func(t *testing.T, authorization string, proofs ...string) string {
			t.Helper()
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": {authorization}, "dpop": proofs})
			_, err := clients.ListClients(ctx, &grantorv1.ListClientsRequest{})
			if err == nil {
				return ""
			}
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("got %v", err)
			}
			for _, detail := range status.Convert(err).Details() {
				if info, ok := detail.(*errdetails.ErrorInfo); ok {
					return info.GetReason()
				}
			}
			return "no reason"
		}},
	}
}

// TestAdministrationWithProofs calls an administrative method with a token that is bound to a key, with proofs of that
// key and of others, on both wires.
func TestAdministrationWithProofs(t *testing.T) {
	issuer := tokentest.New(t)
	key, stolen := jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.ES256)
	boss := client(t, "boss", registry.Client{Scopes: scopes(t, registry.ScopeClientsRead)})
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{boss}})
	raw := issuer.Sign(t, map[string]any{
		"sub": "boss", "client_id": "boss", "aud": registry.AdminResource, "scope": registry.ScopeClientsRead, "cnf": map[string]string{"jkt": key.Key().Thumbprint()},
	})
	for name, wire := range adminWires(t, issuer) {
		prove := func(key jwstest.Signer, header, payload jwstest.Object) string {
			public := jwstest.Object{"kty": key.JWK().KeyType, "crv": key.JWK().Curve, "x": key.JWK().X, "y": key.JWK().Y}
			return key.Sign(jwstest.Object{"typ": "dpop+jwt", "alg": "ES256", "jwk": public}.With(header), jwstest.Object{
				"jti": rand.Text(), "htm": wire.method, "htu": wire.url, "iat": issuer.Now().Unix(), "ath": hashOf(raw),
			}.With(payload))
		}
		place := must.Get(url.Parse(wire.url))
		other := func(change func(*url.URL)) jwstest.Object {
			changed := *place
			change(&changed)
			return jwstest.Object{"htu": changed.String()}
		}
		used := prove(key, nil, nil)
		for _, test := range []struct {
			name, authorization string
			proofs              []string
			want                string
		}{
			{"a proof", "DPoP " + raw, []string{used}, ""},
			{"htu with a query", "DPoP " + raw, []string{prove(key, nil, jwstest.Object{"htu": wire.url + "?page_size=10"})}, ""},
			{"replayed", "DPoP " + raw, []string{used}, "invalid_dpop_proof"},
			{"no proof", "DPoP " + raw, nil, "invalid_token"},
			{"as a bearer token", "Bearer " + raw, nil, "invalid_token"},
			{"as a bearer token with a proof", "Bearer " + raw, []string{prove(key, nil, nil)}, "invalid_token"},
			{"by another key", "DPoP " + raw, []string{prove(stolen, nil, nil)}, "invalid_token"},
			{"two proofs", "DPoP " + raw, []string{prove(key, nil, nil), prove(key, nil, nil)}, "invalid_dpop_proof"},
			{"symmetric jwk", "DPoP " + raw, []string{prove(key, jwstest.Object{"alg": "HS256", "jwk": jwstest.Object{"kty": "oct", "k": "c2VjcmV0"}}, nil)}, "invalid_dpop_proof"},
			{"private jwk", "DPoP " + raw, []string{prove(key, jwstest.Object{"jwk": jwstest.Object{"kty": "EC", "crv": "P-256", "x": key.JWK().X, "y": key.JWK().Y, "d": key.JWK().X}}, nil)}, "invalid_dpop_proof"},
			{"htu, path in other letter case", "DPoP " + raw, []string{prove(key, nil, other(func(u *url.URL) { u.Path = strings.ToUpper(u.Path) }))}, "invalid_dpop_proof"},
			{"htu, another path", "DPoP " + raw, []string{prove(key, nil, other(func(u *url.URL) { u.Path += "x" }))}, "invalid_dpop_proof"},
			{"htu, another port", "DPoP " + raw, []string{prove(key, nil, other(func(u *url.URL) { u.Host = u.Hostname() + ":1" }))}, "invalid_dpop_proof"},
			{"5 minutes old", "DPoP " + raw, []string{prove(key, nil, jwstest.Object{"iat": issuer.Now().Add(-5 * time.Minute).Unix()})}, "invalid_dpop_proof"},
			{"for another method", "DPoP " + raw, []string{prove(key, nil, jwstest.Object{"htm": "DELETE"})}, "invalid_dpop_proof"},
			{"for another token", "DPoP " + raw, []string{prove(key, nil, jwstest.Object{"ath": hashOf("x")})}, "invalid_dpop_proof"},
		} {
			if got := wire.call(t, test.authorization, test.proofs...); got != test.want {
				t.Errorf("%s, %s: got %q, want %q", name, test.name, got, test.want)
			}
		}
	}
}

// hashOf returns the "ath" of a token (RFC 9449 §4.2).
func hashOf(raw string) string {
	sum := sha256.Sum256([]byte(raw))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
