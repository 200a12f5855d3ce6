package verify_test

import (
	"net/http"
	"testing"
	"time"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// The feed of a real issuer, found by its metadata or on the connection over which keys are fetched.
func TestRevokedByTheIssuer(t *testing.T) {
	for _, c := range []struct{ over, path string }{{"HTTP", ""}, {"gRPC", ""}, {"HTTP", "/tenant1"}, {"gRPC", "/tenant1"}} {
		t.Run(c.over+c.path, func(t *testing.T) {
			issuer := tokentest.New(t, tokentest.Path(c.path))
			issuer.AddClient(t, "billing", orders, "orders.read")
			conn := issuer.Conn(t)
			service := grantorv1.NewTokenServiceClient(conn)
			issue := func(client string) string {
				answer, err := service.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
					GrantType: "client_credentials", ClientId: client, ClientSecret: tokentest.Secret, Resource: []string{orders},
				})
				if err != nil {
					t.Fatal(err)
				}
				return answer.GetAccessToken()
			}
			revoke := func(client, raw string) {
				t.Helper()
				_, err := service.RevokeToken(t.Context(), &grantorv1.RevokeTokenRequest{
					ClientId: client, ClientSecret: tokentest.Secret, Token: raw,
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			before, first, second := issue("billing"), issue("billing"), issue("billing")
			revoke("billing", before)
			issuer.AddClient(t, "stock", orders, "stock.read") // returns after the feed has delivered all earlier revocations
			others := issue("stock")
			options := []verify.Option{verify.Now(issuer.Now)}
			if c.over == "gRPC" {
				options = append(options, verify.OverGRPC(conn))
			}
			verifier := startVerifier(t.Context(), t, issuer.URL, options...)
			want := func(when, raw string, want int) {
				t.Helper()
				if got := statusFor(verifier, raw); got != want {
					t.Errorf("%s: got %d, want %d", when, got, want)
				}
			}
			want("revoked before New", before, http.StatusUnauthorized)
			for _, raw := range []string{first, second, others} {
				want("valid", raw, http.StatusOK)
			}
			live := verifier.Feed().Live
			revoke("billing", first)
			must.Eventually(t, "the revocation arrives", func() bool { return verifier.Feed().Live == live+1 })
			want("revoked", first, http.StatusUnauthorized)
			want("another one of the client", second, http.StatusOK)
			_, err := service.RevokeClientTokens(t.Context(), &grantorv1.RevokeClientTokensRequest{
				ClientId: "billing", ClientSecret: tokentest.Secret,
			})
			if err != nil {
				t.Fatal(err)
			}
			must.Eventually(t, "the revocation arrives", func() bool { return verifier.Feed().Live == live+2 })
			want("with the client's others", second, http.StatusUnauthorized)
			want("another client's", others, http.StatusOK)
			want("issued after", issue("billing"), http.StatusOK)
			if got := verifier.Feed(); !got.Followed || !got.Complete || got.Age > 5*time.Second || got.StaleCalls != 0 {
				t.Errorf("got %+v, want a fresh feed", got)
			}
		})
	}
}
