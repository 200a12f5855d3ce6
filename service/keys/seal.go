package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// KEKSize is the size of a key-encryption key, in bytes.
const KEKSize = 32

// ErrSealed says that sealed bytes do not open: another key-encryption key sealed them, or somebody altered them.
var ErrSealed = errors.New("the key-encryption key does not open the key ring: it is not the key that sealed it, or the ring was altered")

// Sealer encrypts what is stored under a key-encryption key that the store never sees, with AES-256-GCM (NIST SP
// 800-38D). It may be used by several goroutines.
type Sealer struct {
	aead cipher.AEAD
}

// NewSealer makes a sealer with a key-encryption key of [KEKSize] bytes.
func NewSealer(kek []byte) (*Sealer, error) {
	if len(kek) != KEKSize {
		return nil, fmt.Errorf("a key-encryption key has %d bytes, not %d", KEKSize, len(kek))
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &Sealer{aead}, err
}

// ParseKEK reads a key-encryption key as `openssl rand -base64 32` writes it.
func ParseKEK(text string) ([]byte, error) {
	kek, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(kek) != KEKSize {
		// The cause is left out: it would quote the key.
		return nil, errors.New("a key-encryption key is 32 random bytes in base64, as of: openssl rand -base64 32")
	}
	return kek, nil
}

// NewKEK makes a random key-encryption key.
func NewKEK() []byte {
	kek := make([]byte, KEKSize)
	_, _ = rand.Read(kek) // it never fails (crypto/rand)
	return kek
}

// seal encrypts secret and binds it to label, so that it opens in no other place.
func (s *Sealer) seal(label string, secret []byte) []byte {
	return s.aead.Seal(nil, nil, secret, []byte(label)) //nolint:gosec // the AEAD itself draws a random nonce for each call
}

// open gives what seal encrypted, or [ErrSealed].
func (s *Sealer) open(label string, sealed []byte) ([]byte, error) {
	secret, err := s.aead.Open(nil, nil, sealed, []byte(label))
	if err != nil {
		return nil, ErrSealed
	}
	return secret, nil
}
