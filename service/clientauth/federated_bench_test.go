package clientauth_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

// BenchmarkFederated authenticates a service account by a token of the size of those of Kubernetes: by one that was seen before,
// whose floor is a hash of it, and by one that was not, whose floor is a verification by RSA.
func BenchmarkFederated(b *testing.B) {
	const cluster = "https://cluster.example"
	signer := jwstest.NewSigner(jwks.RS256)
	trusting := &trusted{}
	trusting.set([]trust.Issuer{{Issuer: cluster, Keys: set(signer)}}, kubernetes(cluster))
	newAuthenticator := func() *clientauth.Authenticator {
		return clientauth.New(clientauth.Config{
			Issuer: must.Get(oauth.ParseIssuer(issuer)), Clients: registry.NewDirectory(stored{clients: registered{}}, nil, nil, 100),
			Hasher: hasher, Uses: registry.NewUsage(nil), Failures: limiter(100, 100), Replays: &replays{}, Now: time.Now,
			Federation: clientauth.Federation{Trust: trusting},
		})
	}
	text := signer.Sign(jwstest.Object{"alg": "RS256", "kid": signer.Key().ID()}, jwstest.Object{
		"iss": cluster, "sub": "system:serviceaccount:shop:orders", "aud": []string{issuer}, "jti": "6f0b",
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "nbf": time.Now().Unix(),
		"kubernetes.io": jwstest.Object{"namespace": "shop", "pod": jwstest.Object{"name": "orders-6d8f", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"}},
	})
	authenticate := func(b *testing.B, a *clientauth.Authenticator) {
		b.Helper()
		if _, err := a.Authenticate(b.Context(), assertion(text)); err != nil {
			b.Fatal(err)
		}
	}
	a := newAuthenticator()
	b.Run("seen/grantor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			authenticate(b, a)
		}
	})
	b.Run("seen/floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sha256.Sum256([]byte(text))
		}
	})
	b.Run("new/grantor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			a := newAuthenticator()
			b.StartTimer()
			authenticate(b, a)
		}
	})
	message, key := must.Get(jws.Parse(text)), signer.Key()
	b.Run("new/floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			must.Succeed(b, message.Verify(key))
		}
	})
}
