package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"testing"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// saltedPSS are the options of PS256 (RFC 7518 §3.5).
var saltedPSS = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}

// stdlibSign signs with the standard library alone.
func stdlibSign(algorithm jwks.Algorithm, signed []byte) ([]byte, error) {
	switch private := privateKeys()[algorithm].(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(private, signed), nil
	case *ecdsa.PrivateKey:
		hash := sha256.Sum256(signed)
		return ecdsa.SignASN1(rand.Reader, private, hash[:])
	case *rsa.PrivateKey:
		hash := sha256.Sum256(signed)
		if algorithm == jwks.PS256 {
			return rsa.SignPSS(rand.Reader, private, crypto.SHA256, hash[:], saltedPSS)
		}
		return rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, hash[:])
	}
	panic(algorithm)
}

// stdlibVerify verifies a signature of stdlibSign.
func stdlibVerify(algorithm jwks.Algorithm, signed, signature []byte) bool {
	switch public := privateKeys()[algorithm].Public().(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(public, signed, signature)
	case *ecdsa.PublicKey:
		hash := sha256.Sum256(signed)
		return ecdsa.VerifyASN1(public, hash[:], signature)
	case *rsa.PublicKey:
		hash := sha256.Sum256(signed)
		if algorithm == jwks.PS256 {
			return rsa.VerifyPSS(public, crypto.SHA256, hash[:], signature, saltedPSS) == nil
		}
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, hash[:], signature) == nil
	}
	panic(algorithm)
}

// algorithms are in the order in which their figures are published.
var algorithms = []jwks.Algorithm{jwks.ES256, jwks.EdDSA, jwks.RS256, jwks.PS256}

// signedPart returns the bytes of a token that its signature covers.
func signedPart(raw string) []byte {
	header, payload, _ := parts(raw)
	return []byte(header + "." + payload)
}

// BenchmarkSign signs tokens. The floor is the signature alone, over the same number of bytes.
func BenchmarkSign(b *testing.B) {
	for _, algorithm := range algorithms {
		signer, claims := signerFor(algorithm), claims()
		b.Run(string(algorithm)+"/grantor", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := signer.Sign(claims); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(string(algorithm)+"/floor", func(b *testing.B) {
			signed := signedPart(must.Get(signer.Sign(claims)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := stdlibSign(algorithm, signed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVerify verifies a token without a cache. The floor is the check of the signature alone.
func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range algorithms {
		signer := signerFor(algorithm)
		raw := must.Get(signer.Sign(claims()))
		b.Run(string(algorithm)+"/grantor", func(b *testing.B) {
			verifier := newVerifier(signer.Public())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := verifier.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(string(algorithm)+"/floor", func(b *testing.B) {
			signed := signedPart(raw)
			signature := must.Get(stdlibSign(algorithm, signed))
			b.ReportAllocs()
			for b.Loop() {
				if !stdlibVerify(algorithm, signed, signature) {
					b.Fatal("wrong")
				}
			}
		})
	}
}

// BenchmarkVerifySeen verifies a cached token. The floor is the hash that is its key in the cache.
func BenchmarkVerifySeen(b *testing.B) {
	signer := signerFor(jwks.ES256)
	raw := must.Get(signer.Sign(claims()))
	b.Run("grantor", func(b *testing.B) {
		cache := must.Get(token.NewCache(newVerifier(signer.Public()), 100))
		must.Get(cache.Verify(b.Context(), raw))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := cache.Verify(b.Context(), raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor", func(b *testing.B) {
		data := []byte(raw)
		b.ReportAllocs()
		for b.Loop() {
			sha256.Sum256(data)
		}
	})
}
