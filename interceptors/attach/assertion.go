package attach

import (
	"context"
	"crypto"
	"errors"
	"time"

	"github.com/grantorhq/grantor/service/clientassertion"
)

// PrivateKey authenticates the client with a key of its own instead of a secret: each token request has an assertion that
// the key signed (private_key_jwt of RFC 7523 §2.2 and RFC 10070). The key is an *ecdsa.PrivateKey, *rsa.PrivateKey or
// ed25519.PrivateKey, or another [crypto.Signer] with a public key of such a type, such as one of a TPM or a KMS. An RSA key
// signs with RS256.
//
// The audience of the assertions is the issuer that [ClientCredentials] is called with, so it is required also with
// [TokenURL] and [OverGRPC]. Their "kid" is the RFC 7638 thumbprint of the public key, unless [KeyID] sets another one.
//
// The signer is called for each token request and shares its 10 s. A signer that takes longer does not prolong any caller's
// wait. A Source never calls it concurrently.
func PrivateKey(key crypto.Signer) Option {
	return privateKey(func() (crypto.Signer, error) {
		if key == nil {
			return nil, errors.New("the private key is nil")
		}
		return key, nil
	})
}

// PrivateKeyFile is [PrivateKey] with a key in a PEM file: PKCS #8, or the older forms for RSA and EC keys, without a
// password. The file is read for each token request, so that a key that is replaced there is used from the next request on.
func PrivateKeyFile(path string) Option {
	return privateKey(func() (crypto.Signer, error) { return clientassertion.ReadKey(path) })
}

// KeyID sets the "kid" by which the issuer knows the client's private key.
func KeyID(id string) Option {
	return func(c *config) { c.keyID = id }
}

func privateKey(key func() (crypto.Signer, error)) Option {
	return withProof(proof{kind: "a private key", needsID: true, assertion: func(c *config, issuer string) secret {
		if issuer == "" {
			c.failf("PrivateKey: the issuer is empty; it is the audience of the client's assertions")
		}
		maker := clientassertion.Maker{Issuer: issuer, Client: c.id, KeyID: c.keyID}
		return interruptible("the client assertion", func(context.Context) (string, error) {
			private, err := key()
			if err != nil {
				return "", err
			}
			return maker.Make(private, time.Now())
		})
	}})
}
