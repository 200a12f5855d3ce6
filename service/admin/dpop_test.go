package admin_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

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

// boundChief registers an administrator and returns a token of it that is bound to the key of a signer.
func boundChief(t *testing.T, f *fixture, signer *dpop.Signer) string {
	t.Helper()
	chief := registry.Client{
		ID: parsed(t, oauth.ParseClientID, "chief"), GrantTypes: []string{oauth.GrantClientCredentials},
		Scopes: parsed(t, oauth.ParseScopes, registry.ScopeResourcesRead),
	}
	f.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{{Client: chief, Secret: tokentest.Secret}}})
	proof := must.Get(signer.Sign(dpop.Claims{
		Method: http.MethodPost, URL: "https://" + f.GRPCTarget + grantorv1.TokenService_IssueToken_FullMethodName, Time: f.Now(),
	}))
	issued, err := grantorv1.NewTokenServiceClient(f.conn).IssueToken(metadata.AppendToOutgoingContext(t.Context(), "dpop", proof), &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: "chief", ClientSecret: tokentest.Secret, Resource: []string{registry.AdminResource},
	})
	if err != nil || issued.GetTokenType() != dpop.Scheme {
		t.Fatalf("got %v, %v, want a token of the type DPoP", issued, err)
	}
	return issued.GetAccessToken()
}

// boundWire makes an administrative call with an Authorization header and proofs. It returns the reason of its refusal, or "" for an
// answer, and the challenges.
type boundWire struct {
	url, method string
	call        func(t *testing.T, authorization string, proofs []string) (reason string, challenges []string)
}

// boundWires returns both wires of the issuer.
func boundWires(f *fixture) map[string]boundWire {
	return map[string]boundWire{
		"REST": {f.URL + "/v1/resources", http.MethodGet, func(t *testing.T, authorization string, proofs []string) (string, []string) {
			t.Helper()
			request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL+"/v1/resources?page_size=10", nil))
			request.Header.Set("Authorization", authorization)
			request.Header["Dpop"] = proofs
			answer := must.Get(http.DefaultClient.Do(request))
			defer func() { _ = answer.Body.Close() }()
			var body struct {
				Error string `json:"error"`
			}
			must.Succeed(t, json.Unmarshal(must.Get(io.ReadAll(answer.Body)), &body))
			if want := map[bool]int{true: http.StatusOK, false: http.StatusUnauthorized}[body.Error == ""]; answer.StatusCode != want {
				t.Errorf("got %s with the error %q", answer.Status, body.Error)
			}
			return body.Error, answer.Header.Values("WWW-Authenticate")
		}},
		"gRPC": {"https://" + f.GRPCTarget + grantorv1.ResourceService_ListResources_FullMethodName, http.MethodPost, func(t *testing.T, authorization string, proofs []string) (string, []string) {
			t.Helper()
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": {authorization}, "dpop": proofs})
			var trailer metadata.MD
			_, err := f.resources.ListResources(ctx, &grantorv1.ListResourcesRequest{}, grpc.Trailer(&trailer))
			if code := status.Code(err); code != codes.OK && code != codes.Unauthenticated {
				t.Errorf("got %v", err)
			}
			return reasonOf(err), trailer.Get("www-authenticate")
		}},
	}
}

// TestBoundAdministrators calls with a token that is bound to a key of DPoP proofs.
func TestBoundAdministrators(t *testing.T) {
	f := newFixture(t)
	signer, other := newProofSigner(), newProofSigner()
	token := boundChief(t, f, signer)
	unbound := f.Token(t, "boss", registry.AdminResource, all...)
	for name, wire := range boundWires(f) {
		sign := func(by *dpop.Signer, change func(*dpop.Claims)) string {
			claims := dpop.Claims{Method: wire.method, URL: wire.url, Token: token, Time: f.Now()}
			if change != nil {
				change(&claims)
			}
			return must.Get(by.Sign(claims))
		}
		used := sign(signer, nil)
		for _, c := range []struct {
			name, authorization string
			proofs              []string
			want                string
		}{
			{"a proof", "DPoP " + token, []string{used}, ""},
			{"the same proof again", "DPoP " + token, []string{used}, "invalid_dpop_proof"},
			{"a new proof", "DPoP " + token, []string{sign(signer, nil)}, ""},
			{"no proof", "DPoP " + token, nil, "invalid_token"},
			{"as a bearer token", "Bearer " + token, nil, "invalid_token"},
			{"as a bearer token with a proof", "Bearer " + token, []string{sign(signer, nil)}, "invalid_token"},
			{"a proof of another key", "DPoP " + token, []string{sign(other, nil)}, "invalid_token"},
			{"two proofs", "DPoP " + token, []string{sign(signer, nil), sign(signer, nil)}, "invalid_dpop_proof"},
			{"a proof for another call", "DPoP " + token, []string{sign(signer, func(c *dpop.Claims) { c.URL += "x" })}, "invalid_dpop_proof"},
			{"a proof with another method", "DPoP " + token, []string{sign(signer, func(c *dpop.Claims) { c.Method = http.MethodPut })}, "invalid_dpop_proof"},
			{"a proof for another token", "DPoP " + token, []string{sign(signer, func(c *dpop.Claims) { c.Token = unbound })}, "invalid_dpop_proof"},
			{"an old proof", "DPoP " + token, []string{sign(signer, func(c *dpop.Claims) { c.Time = c.Time.Add(-5 * time.Minute) })}, "invalid_dpop_proof"},
			{"a bearer token under the scheme DPoP", "DPoP " + unbound, []string{sign(signer, func(c *dpop.Claims) { c.Token = unbound })}, "invalid_token"},
			{"a bearer token and a proof", "Bearer " + unbound, []string{sign(signer, nil)}, ""},
		} {
			reason, challenges := wire.call(t, c.authorization, c.proofs)
			if reason != c.want {
				t.Errorf("%s: %s: got %q, want %q", name, c.name, reason, c.want)
			}
			if text := strings.Join(challenges, "; "); c.want != "" && (!strings.Contains(text, "DPoP ") || !strings.Contains(text, `error="`+c.want+`"`)) {
				t.Errorf("%s: %s: got the challenges %q, want one of DPoP and the error %s", name, c.name, text, c.want)
			}
		}
	}
}

func newProofSigner() *dpop.Signer {
	return must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
}
