package registry

import (
	"context"
	"encoding/base64"
)

// ParseArgon reads a stored Argon2id hash: its costs and the sizes of salt and sum.
func ParseArgon(hash Hash) (memory, time uint32, threads uint8, sizes [2]int, err error) {
	a, err := parseArgon(hash)
	return a.cost.memory, a.cost.time, a.cost.threads, [2]int{len(a.salt), len(a.sum)}, err
}

// PBKDF2Cost gives what comparing with a hash by PBKDF2 costs, in iterations; 0 for any other hash.
func PBKDF2Cost(hash Hash) int {
	parsed, _ := parseSlow(hash)
	p, ok := parsed.(pbkdf2Hash)
	if !ok {
		return 0
	}
	return int(p.iterations) * ((len(p.sum) + p.prf.size - 1) / p.prf.size)
}

// Work counts what a hasher computes.
type Work struct{ Fast, Slow, Foreign int }

// Count has what the hasher computes counted from now on. It is then for one goroutine at a time.
func (h *Hasher) Count() *Work {
	work := &Work{}
	mac, derive, matches := h.mac, h.derive, h.matches
	h.mac = func(secret string) Hash { work.Fast++; return mac(secret) }
	h.derive = func(salt, secret string) []byte { work.Slow++; return derive(salt, secret) }
	h.matches = func(hash slowHash, secret string) bool { work.Foreign++; return matches(hash, secret) }
	return work
}

// WriteUses writes what is noted.
func (u *Usage) WriteUses(ctx context.Context) error { return u.write(ctx) }

// MostUses is how many uses wait at the most.
const MostUses = mostUses

// MostForeign is how many hashes from elsewhere one secret is compared with.
const MostForeign = mostForeign

// CraftSecret makes a secret with the text as its random part and the checksum of random.
func CraftSecret(random []byte, text string) string {
	return SecretPrefix + text + secretText.EncodeToString(checksum(random))
}

// SecretText writes the random part of a secret.
func SecretText(random []byte) string { return secretText.EncodeToString(random) }

// ArgonWith gives a well-formed hash with the costs as text.
func ArgonWith(costs string, salt, sum int) Hash {
	return Hash("$argon2id$v=19$" + costs + "$" + base64.RawStdEncoding.EncodeToString(make([]byte, salt)) + "$" + base64.RawStdEncoding.EncodeToString(make([]byte, sum)))
}
