package token

import (
	"crypto/rand"
	"encoding/base64"
)

// ID identifies a token: 128 random bits. Its text form, the "jti", is their base64url encoding without padding, 22
// characters.
type ID [16]byte

// NewID returns a random ID.
func NewID() (id ID) {
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

// ParseID parses the text form of an ID; ok is false if s is anything else, such as the "jti" of another issuer.
func ParseID(s string) (id ID, ok bool) {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(id)) {
		return ID{}, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(s))
	return id, err == nil && n == len(id)
}

// String returns the text form of id.
func (id ID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }
