package token_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// The issuer signs a token with its private key, and a resource server verifies it with the public one.
func Example() {
	private := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	signer, err := token.NewSigner(jwks.ES256, private)
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Now()
	raw, err := signer.Sign(&token.Claims{
		Issuer: "https://auth.example.com", Subject: "background-service", ClientID: "background-service",
		Audience: []string{"https://orders.internal"}, Scope: must.Get(oauth.ParseScopes("orders.read")),
		IssuedAt: now, ExpiresAt: now.Add(time.Hour), ID: token.NewID().String(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	verifier := &token.Verifier{
		Issuer: "https://auth.example.com", Audience: []string{"https://orders.internal"},
		Keys: jwks.NewSet(signer.Public()), Leeway: 30 * time.Second,
	}
	claims, err := verifier.Verify(context.Background(), raw)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(claims.ClientID, claims.Scope)
	// Output: background-service orders.read
}

// The errors of a verification say why a token is refused.
func ExampleVerifier_Verify() {
	signer := signerFor(jwks.ES256)
	raw := must.Get(signer.Sign(claims()))
	verifier := newVerifier(signer.Public())
	verifier.Now = func() time.Time { return issued.Add(time.Hour) }

	_, err := verifier.Verify(context.Background(), raw)
	fmt.Println(errors.Is(err, token.ErrExpired))
	fmt.Println(err)
	// Output:
	// true
	// token has expired: at 2027-01-15T09:00:00Z
}

// A claim that another issuer adds is decoded by name.
func ExampleClaims_Decode() {
	verifier := newVerifier(signerFor(jwks.ES256).Public())
	raw := es256(goodHeader().String(), goodPayload().with(object{"tier": "gold"}).String())
	claims, err := verifier.Verify(context.Background(), raw)
	if err != nil {
		fmt.Println(err)
		return
	}
	var tier string
	fmt.Println(claims.Decode("tier", &tier), tier)
	fmt.Println(claims.Decode("level", &tier))
	// Output:
	// <nil> gold
	// the token has no such claim
}

// A cache checks the signature of a token once.
func ExampleCache() {
	signer := signerFor(jwks.ES256)
	cache, err := token.NewCache(newVerifier(signer.Public()), 10_000)
	if err != nil {
		fmt.Println(err)
		return
	}
	raw := must.Get(signer.Sign(claims()))
	for range 3 {
		if _, err := cache.Verify(context.Background(), raw); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(cache.Lookups())
	// Output: 2 1
}
