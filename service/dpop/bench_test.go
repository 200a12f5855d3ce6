package dpop_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
)

// BenchmarkVerify compares a verified proof with the bare check of its signature. Goal: at most 1.15 times as long.
func BenchmarkVerify(b *testing.B) {
	key := jwstest.NewSigner(jwks.ES256)
	signer := must.Get(dpop.NewSigner(key.Private))
	b.Run("bare", func(b *testing.B) {
		public := key.Private.Public().(*ecdsa.PublicKey)
		digest := sha256.Sum256([]byte("text"))
		signature := must.Get(key.Private.Sign(rand.Reader, digest[:], crypto.SHA256))
		for b.Loop() {
			if !ecdsa.VerifyASN1(public, digest[:], signature) {
				b.Fatal("wrong signature")
			}
		}
	})
	b.Run("proof", func(b *testing.B) {
		verifier := &dpop.Verifier{Replays: dpop.NewReplays(dpop.DefaultReplays)}
		b.ReportAllocs()
		const batch = 5000
		proofs := make([]string, 0, batch)
		for b.Loop() {
			if len(proofs) == 0 {
				b.StopTimer()
				for range batch {
					proofs = append(proofs, must.Get(signer.Sign(dpop.Claims{Method: "GET", URL: target, Token: accessToken, Time: time.Now()})))
				}
				b.StartTimer()
			}
			if _, err := verifier.Verify(proofs[len(proofs)-1], request()); err != nil {
				b.Fatal(err)
			}
			proofs = proofs[:len(proofs)-1]
		}
	})
}

func BenchmarkSign(b *testing.B) {
	signer := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	for b.Loop() {
		must.Get(signer.Sign(dpop.Claims{Method: "GET", URL: target, Token: accessToken, Time: time.Now()}))
	}
}
