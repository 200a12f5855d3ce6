package token

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/grantorhq/grantor/service/jwks"
)

// Signer signs access tokens with one key. It may be used by several goroutines.
type Signer struct {
	// header is the encoded JOSE header and the dot that follows it: the same for every token of the key.
	header []byte
	// sign makes a signature. It holds the private key in a closure, where printing a Signer does not show it: some
	// private keys are bytes that print as they are.
	sign   func(payload []byte) ([]byte, error)
	public jwks.Key
}

// NewSigner makes a signer for the algorithm with an *ecdsa.PrivateKey, *rsa.PrivateKey or ed25519.PrivateKey.
func NewSigner(algorithm jwks.Algorithm, private crypto.Signer) (*Signer, error) {
	public, err := jwks.NewKey(algorithm, private.Public())
	if err != nil {
		return nil, err
	}
	// jwx's signature alone. The whole jws.Sign encodes and merges the header anew for each token, and would race if
	// goroutines shared its prepared form.
	signature, err := jws.NewSigner(jwa.SignatureAlgorithm(algorithm))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", algorithm, err)
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
	return &Signer{encoded, func(payload []byte) ([]byte, error) { return signature.Sign(payload, private) }, public}, nil
}

// Public gives the key that verifies what the signer signs.
func (s *Signer) Public() jwks.Key { return s.public }

// Sign makes the token (RFC 7515 §7.1) that says claims.
func (s *Signer) Sign(claims *Claims) (string, error) {
	payload, err := claims.marshal()
	if err != nil {
		return "", err
	}
	return s.SignPayload(payload)
}

// SignPayload makes the token whose payload is the JSON given, whatever it says: for tests of those who read tokens.
func (s *Signer) SignPayload(payload []byte) (string, error) {
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
