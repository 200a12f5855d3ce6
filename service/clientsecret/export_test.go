package clientsecret

import "encoding/base64"

// ParseArgon parses a stored Argon2id hash and returns its costs and the sizes of its salt and sum.
func ParseArgon(hash Hash) (memory, time uint32, threads uint8, sizes [2]int, err error) {
	a, err := parseArgon(hash)
	return a.cost.memory, a.cost.time, a.cost.threads, [2]int{len(a.salt), len(a.sum)}, err
}

// PBKDF2Cost returns the cost of comparing a secret with a PBKDF2 hash, in iterations; 0 for any other hash.
func PBKDF2Cost(hash Hash) int {
	parsed, _ := parseSlow(hash)
	p, ok := parsed.(pbkdf2Hash)
	if !ok {
		return 0
	}
	return int(p.iterations) * ((len(p.sum) + p.prf.size - 1) / p.prf.size)
}

// Work counts the computations of a hasher.
type Work struct{ Fast, Slow, Foreign int }

// Count counts the computations of the hasher from now on. The hasher is then no longer safe for concurrent use.
func (h *Hasher) Count() *Work {
	work := &Work{}
	mac, derive, matches := h.mac, h.derive, h.matches
	h.mac = func(secret string) Hash { work.Fast++; return mac(secret) }
	h.derive = func(salt, secret string) []byte { work.Slow++; return derive(salt, secret) }
	h.matches = func(hash slowHash, secret string) bool { work.Foreign++; return matches(hash, secret) }
	return work
}

// MaxForeign is the maximum number of imported hashes that one secret is compared with.
const MaxForeign = maxForeign

// CraftSecret returns a secret with the text as its random part and the checksum of random.
func CraftSecret(random []byte, text string) string {
	return Prefix + text + encoding.EncodeToString(checksum(random))
}

// Encode returns the text of the random part of a secret.
func Encode(random []byte) string { return encoding.EncodeToString(random) }

// ArgonWith returns a well-formed hash with the costs as text.
func ArgonWith(costs string, salt, sum int) Hash {
	return Hash("$argon2id$v=19$" + costs + "$" + base64.RawStdEncoding.EncodeToString(make([]byte, salt)) + "$" + base64.RawStdEncoding.EncodeToString(make([]byte, sum)))
}
