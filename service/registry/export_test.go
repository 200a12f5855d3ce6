package registry

import "encoding/base64"

// ParseArgon reads a stored Argon2id hash: its costs and the sizes of salt and sum.
func ParseArgon(hash Hash) (memory, time uint32, threads uint8, sizes [2]int, err error) {
	a, err := parseArgon(hash)
	return a.memory, a.time, a.threads, [2]int{len(a.salt), len(a.sum)}, err
}

// CraftSecret makes a secret with the text as its random part and the checksum of random.
func CraftSecret(random []byte, text string) string { return SecretPrefix + text + checksum(random) }

// SecretText writes the random part of a secret.
func SecretText(random []byte) string { return secretText.EncodeToString(random) }

// ArgonWith gives a well-formed hash with the costs as text.
func ArgonWith(costs string, salt, sum int) Hash {
	return Hash("$argon2id$v=19$" + costs + "$" + base64.RawStdEncoding.EncodeToString(make([]byte, salt)) + "$" + base64.RawStdEncoding.EncodeToString(make([]byte, sum)))
}
