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
	"hash"
	"hash/crc32"
	"runtime"
	"strings"
	"sync"
	"time"
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
	return SecretPrefix + string(written(random))
}

// written is how the random part stands in a secret: itself and its checksum.
func written(random []byte) []byte {
	return secretText.AppendEncode(secretText.AppendEncode(make([]byte, 0, secretLength), random), checksum(random))
}

func checksum(random []byte) []byte {
	return binary.BigEndian.AppendUint32(make([]byte, 0, crc32.Size), crc32.ChecksumIEEE(random))
}

// secretLength is that of a secret without its prefix, randomLength that of the random part in it.
const secretLength, randomLength = 59, 52

// Generated reports whether secret has the form that [NewSecret] gives. It looks at the secret alone, so the time that
// checking a secret takes says nothing about the client.
func Generated(secret string) bool {
	rest, ok := strings.CutPrefix(secret, SecretPrefix)
	if !ok || len(rest) != secretLength {
		return false
	}
	random, err := secretText.DecodeString(rest[:randomLength])
	// Decoding passes over line ends and spare bits; only what NewSecret would write counts.
	return err == nil && string(written(random)) == rest
}

// Hasher turns secrets into hashes and compares them. A slow hash protects what can be guessed; 256 random bits cannot
// be, so a generated secret gets a fast one, keyed so that a copy of the store alone confirms nothing. It may be used by
// several goroutines.
//
// All chosen secrets of one client are hashed with one salt, so that one slow computation compares a presented secret
// with all of them, and its time does not tell how many there are. A salt keeps one computation from serving against the
// hashes of many clients, and hides which of them have the same secret; it does so still, since no two clients share one.
// What is given up is small: of n secrets of the same client, a guess at all costs what a guess at one does, and equal
// ones show. Any of them proves the client, so the weakest bounds its strength either way.
type Hasher struct {
	// mac hashes a generated secret. It holds the key in a closure, where printing a Hasher does not show it.
	mac func(secret string) Hash
	// decoy is the salt of the computation for a client that has none.
	decoy string
	// derive computes the sum of a chosen secret, matches compares with a hash from elsewhere: the slow work, which the
	// tests count.
	derive  func(salt, secret string) []byte
	matches func(hash slowHash, secret string) bool
	// making has a place for each slow hash that is made at once; each takes 19 MiB. Checking has a bound of its own.
	making chan struct{}
}

// NewHasher makes a hasher with the key for generated secrets, of at least 32 bytes.
func NewHasher(pepper []byte) (*Hasher, error) {
	if len(pepper) < sha256.Size {
		return nil, errors.New("the key for secrets is too short")
	}
	pepper = bytes.Clone(pepper)
	// An HMAC that is used again has its key prepared already, which is two thirds of the work.
	macs := sync.Pool{New: func() any { return hmac.New(sha256.New, pepper) }}
	mac := func(secret string) Hash {
		mac, _ := macs.Get().(hash.Hash)
		defer macs.Put(mac)
		mac.Reset()
		mac.Write([]byte(secret))
		return Hash(base64.RawStdEncoding.AppendEncode([]byte(macPrefix), mac.Sum(make([]byte, 0, sha256.Size))))
	}
	return &Hasher{
		mac: mac, decoy: newSalt(), derive: deriveChosen, matches: slowHash.matches,
		making: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}, nil
}

func newSalt() string {
	salt := make([]byte, chosenSalt)
	_, _ = rand.Read(salt) // it never fails (crypto/rand)
	return string(salt)
}

// Hash gives what to store of secret, beside the other secrets of its client.
func (h *Hasher) Hash(secret string, beside ...Secret) Hash {
	if Generated(secret) {
		return h.mac(secret)
	}
	salt, ok := sharedSalt(beside)
	if !ok {
		salt = newSalt()
	}
	h.making <- struct{}{}
	defer func() { <-h.making }()
	return argonHash{cost: chosenCost, salt: salt, sum: string(h.derive(salt, secret))}.hash()
}

// Matches reports, in constant time, whether hash is that of secret. A hash of the other kind, or one that cannot be
// read, does not match.
func (h *Hasher) Matches(hash Hash, secret string) bool {
	if Generated(secret) {
		return subtle.ConstantTimeCompare([]byte(hash), []byte(h.mac(secret))) == 1
	}
	parsed, err := parseSlow(hash)
	return err == nil && h.matches(parsed, secret)
}

// mostForeign bounds how many hashes from elsewhere one presented secret is compared with; further ones do not count.
const mostForeign = 4

// Match gives the index of the secret that the presented one is, among those that count at now; -1 where it is none. At
// the zero time all count.
//
// The work is one HMAC for a secret of the generated form, else one computation of Argon2id, whatever the secrets are,
// and none at all. A hash from elsewhere has a work of its own, which comes on top: so a client with one takes longer
// than one that does not exist, never less, until the first use has replaced it (see [Outdated]). That is at most
// mostForeign hashes of bounded cost: 2 ms for what OpenIddict writes, 5 or 60 for Hydra, about half a second for the very worst.
func (h *Hasher) Match(secrets []Secret, secret string, now time.Time) int {
	equal := h.comparison(secrets, secret)
	matched := -1
	for i := range secrets {
		// It does not stop at the first, so that time says nothing about which.
		if !secrets[i].Expired(now) && equal(secrets[i].Hash) && matched < 0 {
			matched = i
		}
	}
	return matched
}

// comparison does the work that no secret is spared, and gives what compares the presented secret with one hash.
func (h *Hasher) comparison(secrets []Secret, secret string) func(Hash) bool {
	if Generated(secret) {
		mac := []byte(h.mac(secret))
		return func(hash Hash) bool { return subtle.ConstantTimeCompare([]byte(hash), mac) == 1 }
	}
	salt, ok := sharedSalt(secrets)
	if !ok {
		salt = h.decoy
	}
	sum := h.derive(salt, secret)
	foreign := 0
	return func(hash Hash) bool {
		parsed, err := parseSlow(hash)
		if err != nil {
			return false
		}
		if chosen, ok := parsed.(argonHash); ok && chosen.chosen() && chosen.salt == salt {
			return subtle.ConstantTimeCompare(sum, []byte(chosen.sum)) == 1
		}
		foreign++
		return foreign <= mostForeign && h.matches(parsed, secret)
	}
}

// Outdated reports whether the i-th of a client's secrets has a slow hash that costs a computation of its own: one from
// elsewhere, or one that does not have the client's salt. Who knows the secret can replace it by what [Hasher.Hash] gives
// beside the others.
func Outdated(secrets []Secret, i int) bool {
	parsed, err := parseSlow(secrets[i].Hash)
	if err != nil {
		return false
	}
	salt, _ := sharedSalt(secrets)
	chosen, ok := parsed.(argonHash)
	return !ok || !chosen.chosen() || chosen.salt != salt
}

// sharedSalt gives the salt of a client's chosen secrets: that of the first.
func sharedSalt(secrets []Secret) (string, bool) {
	for i := range secrets {
		if parsed, err := parseSlow(secrets[i].Hash); err == nil {
			if chosen, ok := parsed.(argonHash); ok && chosen.chosen() {
				return chosen.salt, true
			}
		}
	}
	return "", false
}
