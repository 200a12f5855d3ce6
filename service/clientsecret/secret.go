// Package clientsecret generates, hashes and compares client secrets (RFC 6749 §2.3.1), and reads the hashes that other
// authorization servers store. It never keeps a secret, only its [Hash].
package clientsecret

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"time"
)

// Secret is one secret of a client as it is stored: its hash, never its value.
type Secret struct {
	// ID identifies the secret to an operator. It is unique among the secrets of one client.
	ID        string
	Hash      Hash
	CreatedAt time.Time
	// ExpiresAt is when the secret expires; zero means never.
	ExpiresAt time.Time
	// FromFile reports whether a manifest supplied the secret, so that another secret in a manifest replaces it.
	FromFile bool
}

// Expired reports whether the secret has expired at now.
func (s *Secret) Expired(now time.Time) bool {
	return !s.ExpiresAt.IsZero() && !now.Before(s.ExpiresAt)
}

// clockSkew is the maximum difference between the clocks of two replicas.
const clockSkew = time.Minute

// LastUse returns when the secret last authenticated its client, given the last uses of the client's secrets by ID; zero
// means never. A use from before the secret was created belongs to an earlier secret with the same ID.
func (s *Secret) LastUse(uses map[string]time.Time) time.Time {
	if at := uses[s.ID]; at.After(s.CreatedAt.Add(-clockSkew)) {
		return at
	}
	return time.Time{}
}

// Prefix starts every secret that [New] returns, so that people and secret scanners recognize one.
const Prefix = "grantor_cs_"

// encoding encodes the random part and the checksum of a secret: lower-case letters and digits, which are safe in URLs,
// forms, shells and YAML.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Lengths of a generated secret without its prefix, in characters.
const (
	randomLength = 52
	secretLength = 59 // the random part and its checksum
)

// New returns a secret of 256 random bits: [Prefix], 52 characters of randomness and 7 of checksum.
func New() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // it never fails (crypto/rand)
	return Prefix + string(appendEncoded(nil, random))
}

// appendEncoded appends the text of the random part, followed by its checksum.
func appendEncoded(text, random []byte) []byte {
	return encoding.AppendEncode(encoding.AppendEncode(text, random), checksum(random))
}

func checksum(random []byte) []byte {
	return binary.BigEndian.AppendUint32(make([]byte, 0, crc32.Size), crc32.ChecksumIEEE(random))
}

// Generated reports whether secret has the form of those that [New] returns. It depends on the secret alone, so the time
// that checking a secret takes reveals nothing about the client.
func Generated(secret string) bool {
	rest, ok := strings.CutPrefix(secret, Prefix)
	if !ok || len(rest) != secretLength {
		return false
	}
	random, err := encoding.DecodeString(rest[:randomLength])
	// Decoding ignores line ends and spare bits. Only what New would return is valid.
	return err == nil && string(appendEncoded(make([]byte, 0, secretLength), random)) == rest
}

// idSize is the size of an ID before encoding, in bytes.
const idSize = 5

// NewID returns a random ID for a secret, so that what is known about an earlier secret of the client is not attributed to
// this one.
func NewID() string {
	var random [idSize]byte
	_, _ = rand.Read(random[:]) // it never fails (crypto/rand)
	return encoding.EncodeToString(random[:])
}

// ImportID returns the ID of a secret that is imported with the hash. The ID stays when the first use replaces the hash by
// one of ours, so that importing the secret again recognizes it.
func ImportID(hash Hash) string {
	sum := sha256.Sum256([]byte(hash))
	return encoding.EncodeToString(sum[:idSize])
}
