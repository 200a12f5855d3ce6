package token

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/grantorhq/grantor/service/jwks"
)

// Signer signs access tokens with one key. It may be used by several goroutines.
type Signer struct {
	// header is the encoded JOSE header and the dot that follows it: the same for every token of the key.
	header []byte
	sign   func(payload []byte) ([]byte, error)
	public jwks.Key
}

// NewSigner makes a signer for the algorithm with an *ecdsa.PrivateKey, *rsa.PrivateKey or ed25519.PrivateKey.
func NewSigner(algorithm jwks.Algorithm, private crypto.Signer) (*Signer, error) {
	public, err := jwks.NewKey(algorithm, private.Public())
	if err != nil {
		return nil, err
	}
	sign, err := signWith(algorithm, private)
	if err != nil {
		return nil, err
	}
	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}{string(algorithm), public.ID(), MediaType})
	if err != nil {
		return nil, err
	}
	encoded := append(base64.RawURLEncoding.AppendEncode(nil, header), '.')
	return &Signer{encoded, sign, public}, nil
}

// Public gives the key that verifies what the signer signs.
func (s *Signer) Public() jwks.Key { return s.public }

// Sign makes the token (RFC 7515 §7.1) that says claims.
func (s *Signer) Sign(claims *Claims) (string, error) {
	payload, err := claims.marshal()
	if err != nil {
		return "", err
	}
	return s.SignUnchecked(payload)
}

// SignUnchecked makes the token whose payload is the JSON given, whatever it says: for tests of those who read tokens.
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
