package clientsecret

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// argonCost is the cost of one Argon2id computation (RFC 9106 §3.1).
type argonCost struct {
	memory, time uint32 // KiB and passes
	threads      uint8
}

// chosenCost is the cost for a chosen secret: the first choice of OWASP's password storage guidance, about 20 ms.
var chosenCost = argonCost{memory: 19 << 10, time: 2, threads: 1}

// Sizes for a chosen secret, in bytes.
const (
	chosenSalt = 16
	chosenSum  = 32
)

// deriveChosen computes the sum of a chosen secret.
func deriveChosen(salt, secret string) []byte {
	return argon2.IDKey([]byte(secret), []byte(salt), chosenCost.time, chosenCost.memory, chosenCost.threads, chosenSum)
}

// Bounds on the cost of an imported Argon2id hash: the second choice of RFC 9106 §4, in KiB and in KiB times passes.
const (
	maxMemory = 64 << 10
	maxWork   = 3 * maxMemory
)

// argonHash is an Argon2id hash.
type argonHash struct {
	cost      argonCost
	salt, sum string
}

// hash formats a as the Argon2 reference implementation does.
func (a argonHash) hash() Hash {
	return Hash(fmt.Sprintf("%sv=%d$m=%d,t=%d,p=%d$%s$%s", argonPrefix, argon2.Version, a.cost.memory, a.cost.time, a.cost.threads,
		base64.RawStdEncoding.EncodeToString([]byte(a.salt)), base64.RawStdEncoding.EncodeToString([]byte(a.sum))))
}

// chosen reports whether the hash has the cost and sizes of those that [Hasher.Hash] makes.
func (a argonHash) chosen() bool {
	return a.cost == chosenCost && len(a.salt) == chosenSalt && len(a.sum) == chosenSum
}

func (a argonHash) matches(secret string) bool {
	sum := argon2.IDKey([]byte(secret), []byte(a.salt), a.cost.time, a.cost.memory, a.cost.threads, uint32(len(a.sum))) //nolint:gosec // at most 64
	return subtle.ConstantTimeCompare(sum, []byte(a.sum)) == 1
}

// parseArgon parses a hash as the Argon2 reference implementation formats it.
func parseArgon(h Hash) (argonHash, error) {
	var a argonHash
	var version int
	parts := strings.Split(string(h), "$")
	if len(parts) != 6 {
		return a, errors.New("not an Argon2id hash")
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return a, errors.New("an Argon2id hash of another version")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &a.cost.memory, &a.cost.time, &a.cost.threads); err != nil {
		return a, fmt.Errorf("the costs of an Argon2id hash: %w", err)
	}
	if c := a.cost; c.memory > maxMemory || c.time == 0 || c.time > 10 || c.memory*c.time > maxWork || c.threads == 0 || c.threads > 16 {
		return a, errors.New("an Argon2id hash with costs out of bounds")
	}
	salt, sum, err := parseSaltAndSum(parts[4], parts[5])
	if err != nil {
		return a, fmt.Errorf("an Argon2id hash with %w", err)
	}
	a.salt, a.sum = string(salt), string(sum)
	if a.hash() != h {
		return a, errors.New("an Argon2id hash in an unusual form")
	}
	return a, nil
}
