package token

import (
	"crypto/rand"
	"encoding/base64"
)

// ID is what makes a token of ours unique: 128 random bits. Its text, the "jti", is their base64url.
type ID [16]byte

// NewID makes an ID.
func NewID() (id ID) {
	_, _ = rand.Read(id[:]) // it never fails (crypto/rand)
	return id
}

// ParseID reads a "jti" of ours; ok is false for any other.
func ParseID(s string) (id ID, ok bool) {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(id)) {
		return ID{}, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(s))
	return id, err == nil && n == len(id)
}

// String gives the "jti".
func (id ID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }
