package clientauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"sync"

	"github.com/grantorhq/grantor/service/jwks"
)

// decoys maps an algorithm to a function that returns a key for it whose private half is forgotten. The keys are made when
// they are first needed.
var decoys = map[jwks.Algorithm]func() jwks.Key{
	jwks.ES256: newDecoy(jwks.ES256, func() crypto.PublicKey { return ecKey(elliptic.P256()) }),
	"ES384":    newDecoy("ES384", func() crypto.PublicKey { return ecKey(elliptic.P384()) }),
	"ES512":    newDecoy("ES512", func() crypto.PublicKey { return ecKey(elliptic.P521()) }),
	jwks.EdDSA: newDecoy(jwks.EdDSA, func() crypto.PublicKey {
		public, _, _ := ed25519.GenerateKey(rand.Reader) // it never fails (crypto/rand)
		return public
	}),
	jwks.RS256: newDecoy(jwks.RS256, func() crypto.PublicKey {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil
		}
		return private.Public()
	}),
}

// decoy returns a key for the algorithm, or one for ES256 if the algorithm has no decoy of its own.
func decoy(algorithm jwks.Algorithm) jwks.Key {
	for _, named := range [...]jwks.Algorithm{algorithm, rsaFamily(algorithm), jwks.ES256} {
		if newKey, ok := decoys[named]; ok {
			return newKey()
		}
	}
	return jwks.Key{}
}

// orDecoy returns the key that was looked up, given the error of that, for the algorithm of an assertion. If there is none for it,
// it returns one that signed nothing, so that the answer takes as long as to a wrong signature.
func orDecoy(found jwks.Key, err error, algorithm string) (jwks.Key, error) {
	if err == nil {
		if fitting, ok := found.For(jwks.Algorithm(algorithm)); ok {
			return fitting, nil
		}
	}
	if err == nil || errors.Is(err, jwks.ErrUnknownKey) {
		return decoy(jwks.Algorithm(algorithm)), nil
	}
	return jwks.Key{}, err
}

// rsaFamily returns RS256 for the algorithms whose signatures cost as much as those of RS256.
func rsaFamily(algorithm jwks.Algorithm) jwks.Algorithm {
	if len(algorithm) == 5 && (algorithm[:2] == "RS" || algorithm[:2] == "PS") {
		return jwks.RS256
	}
	return algorithm
}

func newDecoy(algorithm jwks.Algorithm, public func() crypto.PublicKey) func() jwks.Key {
	return sync.OnceValue(func() jwks.Key {
		key, _ := jwks.NewKey(algorithm, public()) // the zero key verifies nothing
		return key
	})
}

func ecKey(curve elliptic.Curve) crypto.PublicKey {
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil
	}
	return private.Public()
}
