package clientauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"sync"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
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

// choice is the key by which a signature is verified.
type choice struct {
	key jwks.Key
	// missing is why the key is a decoy, which signed nothing: there is none that the header of the message selects. It is
	// nil for a key that was found. The signature is verified anyway, so that the answer takes as long as to a wrong one.
	missing error
}

// choose returns the key for the algorithm of a header among those that have its kid. found is the first of them; if there
// is none, err wraps [jwks.ErrUnknownKey].
func choose(header jws.Header, found jwks.Key, err error) choice {
	algorithm := jwks.Algorithm(header.Algorithm)
	if err != nil {
		return choice{decoy(algorithm), fmt.Errorf("kid %.100q: %w", header.KeyID, err)}
	}
	if fitting, ok := found.For(algorithm); ok {
		return choice{key: fitting}
	}
	return choice{decoy(algorithm), fmt.Errorf("the key with the kid %.100q is not for the alg %.20q", header.KeyID, header.Algorithm)}
}

// verify returns why a message is not signed with the key that its header selects; nil if it is.
func (c *choice) verify(message *jws.Message) error {
	err := message.Verify(c.key)
	if c.missing != nil {
		return c.missing
	}
	return err
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
