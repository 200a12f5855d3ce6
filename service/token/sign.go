package token

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
)

// Signer signs access tokens with one private key. It is safe for concurrent use by multiple goroutines.
type Signer struct {
	// header is the encoded JOSE header with the following dot: the same for every token of the key.
	header []byte
	sign   func(payload []byte) ([]byte, error)
	public jwks.Key
}

// NewSigner returns a signer for the algorithm. The private key is an *ecdsa.PrivateKey, *rsa.PrivateKey or
// ed25519.PrivateKey, or another [crypto.Signer] with a public key of such a type. NewSigner returns an error if the
// key does not fit the algorithm.
func NewSigner(algorithm jwks.Algorithm, private crypto.Signer) (*Signer, error) {
	public, err := jwks.NewKey(algorithm, private.Public())
	if err != nil {
		return nil, err
	}
	sign, err := jws.Signing(algorithm, private)
	if err != nil {
		return nil, err
	}
	header, err := encodeHeader(algorithm, public.ID())
	if err != nil {
		return nil, err
	}
	return &Signer{header, sign, public}, nil
}

// encodeHeader returns the encoded JOSE header with the following dot.
func encodeHeader(algorithm jwks.Algorithm, keyID string) ([]byte, error) {
	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}{string(algorithm), keyID, MediaType})
	if err != nil {
		return nil, err
	}
	return append(base64.RawURLEncoding.AppendEncode(nil, header), '.'), nil
}

// Size returns the size in bytes of a token with the claims as [Signer.Sign] returns it, signed by a key of this issuer:
// RSA keys have 2048 bits.
func Size(claims *Claims, algorithm jwks.Algorithm) (int, error) {
	const keyIDSize = 43 // a thumbprint by SHA-256 (RFC 7638)
	signature := 64
	if algorithm == jwks.RS256 || algorithm == jwks.PS256 {
		signature = 256
	}
	header, err := encodeHeader(algorithm, strings.Repeat("k", keyIDSize))
	if err != nil {
		return 0, err
	}
	payload, err := claims.marshal()
	return len(header) + base64.RawURLEncoding.EncodedLen(len(payload)) + len(".") + base64.RawURLEncoding.EncodedLen(signature), err
}

// Public returns the public key, with which the signer's tokens are verified.
func (s *Signer) Public() jwks.Key { return s.public }

// Sign returns the compact serialization (RFC 7515 §7.1) of a token with the claims.
func (s *Signer) Sign(claims *Claims) (string, error) {
	payload, err := claims.marshal()
	if err != nil {
		return "", err
	}
	return s.SignUnchecked(payload)
}

// SignUnchecked returns the compact serialization of a token whose payload is the given JSON, unchecked. It is for
// tests of programs that verify tokens.
func (s *Signer) SignUnchecked(payload []byte) (string, error) {
	const signatureSpace = 1 + 86
	buf := make([]byte, 0, len(s.header)+base64.RawURLEncoding.EncodedLen(len(payload))+signatureSpace)
	buf = append(buf, s.header...)
	buf = base64.RawURLEncoding.AppendEncode(buf, payload)
	signature, err := s.sign(buf)
	if err != nil {
		return "", fmt.Errorf("signing with %s: %w", s.public.ID(), err)
	}
	buf = append(buf, '.')
	return string(base64.RawURLEncoding.AppendEncode(buf, signature)), nil
}
