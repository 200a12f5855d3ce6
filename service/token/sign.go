package token

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

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
	sign, err := signature(algorithm, private)
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

// signature gives what makes the signatures of a key (RFC 7518 §3.3 to §3.5, RFC 8037 §3.1). It is the standard library
// alone: jwx copies the key for each signature, so that much of what was prepared for it is prepared anew, which is a tenth
// of an ES256 token.
func signature(algorithm jwks.Algorithm, private crypto.Signer) (func(payload []byte) ([]byte, error), error) {
	switch algorithm {
	case jwks.ES256:
		return func(payload []byte) ([]byte, error) { return signES256(private, payload) }, nil
	case jwks.RS256:
		return func(payload []byte) ([]byte, error) { return signDigest(private, payload, crypto.SHA256) }, nil
	case jwks.PS256:
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		return func(payload []byte) ([]byte, error) { return signDigest(private, payload, options) }, nil
	case jwks.EdDSA:
		return func(payload []byte) ([]byte, error) { return private.Sign(rand.Reader, payload, crypto.Hash(0)) }, nil
	}
	return nil, fmt.Errorf("tokens are not signed with %s", algorithm)
}

func signDigest(private crypto.Signer, payload []byte, options crypto.SignerOpts) ([]byte, error) {
	digest := sha256.Sum256(payload)
	return private.Sign(rand.Reader, digest[:], options)
}

// signES256 gives R and S, each of 32 bytes, where the key gives them in DER.
func signES256(private crypto.Signer, payload []byte) ([]byte, error) {
	const size = 32
	der, err := signDigest(private, payload, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var numbers cryptobyte.String
	var r, s []byte
	if whole := cryptobyte.String(der); !whole.ReadASN1(&numbers, asn1.SEQUENCE) ||
		!numbers.ReadASN1Integer(&r) || !numbers.ReadASN1Integer(&s) || len(r) > size || len(s) > size {
		return nil, errors.New("the signature is not one of P-256")
	}
	signature := make([]byte, 2*size)
	copy(signature[size-len(r):], r)
	copy(signature[2*size-len(s):], s)
	return signature, nil
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
