package registry

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"golang.org/x/crypto/argon2"
)

// SecretPrefix starts every secret that [NewSecret] makes, so that people and scanners know one when they see it.
const SecretPrefix = "grantor_cs_"

// secretText is how the random part and the checksum are written: lower-case letters and digits, safe in URLs, forms,
// shells and YAML.
var secretText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewSecret makes a secret of 256 random bits: the prefix, 52 characters of randomness, 7 of checksum.
func NewSecret() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // it never fails (crypto/rand)
	return SecretPrefix + secretText.EncodeToString(random) + checksum(random)
}

// Generated reports whether secret has the form that [NewSecret] gives. It looks at the secret alone, so the time that
// checking a secret takes says nothing about the client.
func Generated(secret string) bool {
	rest, ok := strings.CutPrefix(secret, SecretPrefix)
	if !ok || len(rest) != 59 {
		return false
	}
	random, err := secretText.DecodeString(rest[:52])
	// Decoding passes over line ends and spare bits; only what NewSecret would write counts.
	return err == nil && secretText.EncodeToString(random)+checksum(random) == rest
}

func checksum(random []byte) string {
	return secretText.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(random)))
}

// Hash is a secret as it is stored: "$hmac-sha256$MAC" for a generated one, the usual "$argon2id$…" for a chosen one.
type Hash string

// Slow reports whether comparing with the hash is slow by intention.
func (h Hash) Slow() bool { return strings.HasPrefix(string(h), argonPrefix) }

const (
	macPrefix   = "$hmac-sha256$"
	argonPrefix = "$argon2id$"
)

// The cost of Argon2id: the first choice of OWASP's password storage guidance, about 20 ms.
const (
	argonTime    = 2
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
)

// Hasher turns secrets into hashes and compares them. A slow hash protects what can be guessed; 256 random bits cannot
// be, so a generated secret gets a fast one, keyed so that a copy of the store alone confirms nothing. It may be used by
// several goroutines.
type Hasher struct {
	// mac hashes a generated secret. It holds the key in a closure, where printing a Hasher does not show it.
	mac func(secret string) Hash
}

// NewHasher makes a hasher with the key for generated secrets, of at least 32 bytes.
func NewHasher(pepper []byte) (*Hasher, error) {
	if len(pepper) < sha256.Size {
		return nil, errors.New("the key for secrets is too short")
	}
	pepper = bytes.Clone(pepper)
	return &Hasher{func(secret string) Hash {
		mac := hmac.New(sha256.New, pepper)
		mac.Write([]byte(secret))
		return Hash(macPrefix + base64.RawStdEncoding.EncodeToString(mac.Sum(nil)))
	}}, nil
}

// Hash gives what to store of secret.
func (h *Hasher) Hash(secret string) Hash {
	if Generated(secret) {
		return h.mac(secret)
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // it never fails (crypto/rand)
	sum := argon2.IDKey([]byte(secret), salt, argonTime, argonMemory, argonThreads, 32)
	return Hash(fmt.Sprintf("%sv=%d$m=%d,t=%d,p=%d$%s$%s", argonPrefix, argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(sum)))
}

// Matches reports, in constant time, whether hash is that of secret. A hash of the other kind, or one that cannot be
// read, does not match.
func (h *Hasher) Matches(hash Hash, secret string) bool {
	if Generated(secret) {
		return subtle.ConstantTimeCompare([]byte(hash), []byte(h.mac(secret))) == 1
	}
	parsed, err := parseArgon(hash)
	if err != nil {
		return false
	}
	sum := argon2.IDKey([]byte(secret), parsed.salt, parsed.time, parsed.memory, parsed.threads, uint32(len(parsed.sum))) //nolint:gosec // at most 64
	return subtle.ConstantTimeCompare(sum, parsed.sum) == 1
}

type argonHash struct {
	memory, time uint32
	threads      uint8
	salt, sum    []byte
}

// parseArgon reads a hash in the form of the Argon2 reference implementation. Its costs are bounded: whoever can write a
// record must not be able to make a replica run out of memory by it.
func parseArgon(hash Hash) (argonHash, error) {
	var a argonHash
	var version int
	parts := strings.Split(string(hash), "$")
	if len(parts) != 6 || !hash.Slow() {
		return a, errors.New("not an Argon2id hash")
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return a, errors.New("an Argon2id hash of another version")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &a.memory, &a.time, &a.threads); err != nil {
		return a, fmt.Errorf("the costs of an Argon2id hash: %w", err)
	}
	if a.memory > 256<<10 || a.time == 0 || a.time > 10 || a.threads == 0 || a.threads > 16 {
		return a, errors.New("an Argon2id hash with costs out of bounds")
	}
	var err error
	if a.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil || len(a.salt) < 8 || len(a.salt) > 64 {
		return a, errors.New("an Argon2id hash with a malformed salt")
	}
	if a.sum, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(a.sum) < 16 || len(a.sum) > 64 {
		return a, errors.New("an Argon2id hash with a malformed sum")
	}
	return a, nil
}
