// Package clientassertion makes the assertions by which clients with a private key authenticate (private_key_jwt of RFC 7523
// §2.2 and RFC 10070), and makes and reads their private keys. Package clientauth checks the assertions.
package clientassertion

import (
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
)

const (
	// Type is the client_assertion_type of a JWT (RFC 7523 §2.2).
	Type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// TypeSPIFFE is that of a JWT-SVID (draft-ietf-oauth-spiffe-client-auth).
	TypeSPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
	// MediaType is the "typ" of a client assertion (RFC 10070).
	MediaType = "client-authentication+jwt"
	// Lifetime is the lifetime of an assertion: enough for one request between clocks that differ by some seconds.
	Lifetime = time.Minute
)

// Maker makes the assertions of one client for one issuer.
type Maker struct {
	// Issuer is the audience of the assertions, Client their "iss" and "sub".
	Issuer, Client string
	// KeyID is the "kid" of the assertions. The default is the RFC 7638 thumbprint of the public key.
	KeyID string
}

// Make returns the compact serialization of a new assertion, which the issuer accepts once. The key is an
// *ecdsa.PrivateKey, *rsa.PrivateKey or ed25519.PrivateKey, or another [crypto.Signer] with a public key of such a type.
func (m Maker) Make(private crypto.Signer, now time.Time) (string, error) {
	key, err := Key(private.Public())
	if err != nil {
		return "", err
	}
	sign, err := jws.Signing(key.Algorithm(), private)
	if err != nil {
		return "", err
	}
	header := map[string]string{"alg": string(key.Algorithm()), "typ": MediaType, "kid": key.ID()}
	if m.KeyID != "" {
		header["kid"] = m.KeyID
	}
	text, err := encode(nil, header)
	if err != nil {
		return "", err
	}
	text, err = encode(append(text, '.'), map[string]any{
		"iss": m.Client, "sub": m.Client, "aud": m.Issuer, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(Lifetime).Unix(),
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

// Key returns the key that a client registers to sign its assertions, with the algorithm of [Maker.Make]: the one of its
// curve, or RS256 for an RSA key. Its id is its RFC 7638 thumbprint.
func Key(public crypto.PublicKey) (jwks.Key, error) {
	algorithm, err := jwks.DefaultAlgorithm(public)
	if err != nil {
		return jwks.Key{}, fmt.Errorf("the key signs no assertion: %w", err)
	}
	return jwks.NewKey(algorithm, public)
}
