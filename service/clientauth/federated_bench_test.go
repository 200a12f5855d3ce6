package clientauth_test

import (
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

// BenchmarkFederated authenticates a service account by a token of the size of those of Kubernetes: by one that was seen before,
// and by one that was not, which costs a verification by RSA.
func BenchmarkFederated(b *testing.B) {
	signer := jwstest.NewSigner(jwks.RS256)
	trusting := &trusted{}
	trusting.set([]trust.Issuer{{Issuer: "https://cluster.example", Keys: set(signer)}}, kubernetes("https://cluster.example"))
	newAuthenticator := func() *clientauth.Authenticator {
		return clientauth.New(clientauth.Config{
			Issuer: must.Get(oauth.ParseIssuer(issuer)), Clients: registry.NewDirectory(stored{clients: registered{}}, nil, nil, 100),
			Hasher: hasher, Uses: registry.NewUsage(nil), Failures: limiter(100, 100), Replays: &replays{}, Now: time.Now,
			Federation: clientauth.Federation{Trust: trusting},
		})
	}
	evidence := assertion(signer.Sign(jwstest.Object{"alg": "RS256", "kid": signer.Key().ID()}, jwstest.Object{
		"iss": "https://cluster.example", "sub": "system:serviceaccount:shop:orders", "aud": []string{issuer}, "jti": "6f0b",
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "nbf": time.Now().Unix(),
		"kubernetes.io": jwstest.Object{"namespace": "shop", "pod": jwstest.Object{"name": "orders-6d8f", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"}},
	}))
	a := newAuthenticator()
	b.Run("seen", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := a.Authenticate(b.Context(), evidence); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			a := newAuthenticator()
			b.StartTimer()
			if _, err := a.Authenticate(b.Context(), evidence); err != nil {
				b.Fatal(err)
			}
		}
	})
}
