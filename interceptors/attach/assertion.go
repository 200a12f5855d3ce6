package attach

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
)

const (
	// assertionMediaType is the "typ" of an assertion (RFC 10070).
	assertionMediaType = "client-authentication+jwt"
	// assertionLife is the lifetime of an assertion: enough for one request between clocks that differ by some seconds.
	assertionLife = time.Minute
	// maxKeyFile is the maximum size of a file with a private key, in bytes.
	maxKeyFile = 64 << 10
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
	return privateKey(func() (crypto.Signer, error) { return readKey(path) })
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
		a := assertion{issuer: issuer, client: c.id, keyID: c.keyID}
		return interruptible("the client assertion", func(context.Context) (string, error) {
			private, err := key()
			if err != nil {
				return "", err
			}
			return a.sign(private, time.Now())
		})
	}})
}

// assertion is what the assertions of a client have in common.
type assertion struct{ issuer, client, keyID string }

// sign returns the compact serialization of an assertion.
func (a assertion) sign(private crypto.Signer, now time.Time) (string, error) {
	algorithm, err := signingAlgorithm(private.Public())
	if err != nil {
		return "", err
	}
	public, err := jwks.NewKey(algorithm, private.Public())
	if err != nil {
		return "", err
	}
	sign, err := jws.Signing(algorithm, private)
	if err != nil {
		return "", err
	}
	header := map[string]string{"alg": string(algorithm), "typ": assertionMediaType, "kid": public.ID()}
	if a.keyID != "" {
		header["kid"] = a.keyID
	}
	text, err := encode(nil, header)
	if err != nil {
		return "", err
	}
	text, err = encode(append(text, '.'), map[string]any{
		"iss": a.client, "sub": a.client, "aud": a.issuer, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", err
	}
	signature, err := sign(text)
	if err != nil {
		return "", fmt.Errorf("signing with the private key: %w", err)
	}
	return string(base64.RawURLEncoding.AppendEncode(append(text, '.'), signature)), nil
}

// encode appends the base64url encoding of the JSON of v.
func encode(to []byte, v any) ([]byte, error) {
	data, err := json.Marshal(v)
	return base64.RawURLEncoding.AppendEncode(to, data), err
}

// signingAlgorithm returns the algorithm with which a key signs assertions.
func signingAlgorithm(public crypto.PublicKey) (jwks.Algorithm, error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		switch key.Params().BitSize {
		case 256:
			return jwks.ES256, nil
		case 384:
			return "ES384", nil
		case 521:
			return "ES512", nil
		}
	case *rsa.PublicKey:
		return jwks.RS256, nil
	case ed25519.PublicKey:
		return jwks.EdDSA, nil
	}
	return "", fmt.Errorf("a key of type %T signs no assertion", public)
}

// readKey reads a private key from a PEM file. An error never contains a part of the file.
func readKey(path string) (crypto.Signer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxKeyFile:
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxKeyFile)
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if private := parseKey(block); private != nil {
			return private, nil
		}
	}
	return nil, fmt.Errorf("%s has no private key in PEM (PKCS #8, PKCS #1 or SEC 1) without a password", path)
}

// parseKey returns the private key of a PEM block, or nil if it has none.
func parseKey(block *pem.Block) crypto.Signer {
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		private, _ := key.(crypto.Signer)
		return private
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key
	}
	return nil
}
