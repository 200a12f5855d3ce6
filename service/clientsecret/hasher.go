package clientsecret

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"hash"
	"runtime"
	"sync"
	"time"
)

// Hasher hashes secrets and compares them with hashes. A slow hash protects what can be guessed; 256 random bits cannot be,
// so a generated secret gets a fast one, keyed so that a copy of the store alone confirms no guess. A Hasher is safe for
// concurrent use by multiple goroutines.
//
// All chosen secrets of one client are hashed with one salt, so that one slow computation compares a presented secret with
// all of them, and its time does not reveal how many there are. A salt keeps one computation from serving against the
// hashes of many clients, and hides which of them have the same secret. It still does, since no two clients share a salt.
// The loss is small: of n secrets of the same client, a guess at all costs what a guess at one does, and equal ones show.
// Any of them authenticates the client, so the weakest bounds its strength either way.
type Hasher struct {
	// mac hashes a generated secret. It holds the key in a closure, where printing a Hasher does not show it.
	mac func(secret string) Hash
	// decoy is the salt of the computation for a client that has no chosen secret.
	decoy string
	// derive computes the sum of a chosen secret, and matches compares a secret with an imported hash. Tests count these
	// slow computations.
	derive  func(salt, secret string) []byte
	matches func(hash slowHash, secret string) bool
	// hashing bounds the slow hashes that Hash computes at once, because each takes 19 MiB. Comparing is bounded by the
	// caller.
	hashing chan struct{}
}

// NewHasher returns a Hasher with the key for generated secrets, of at least 32 bytes.
func NewHasher(pepper []byte) (*Hasher, error) {
	if len(pepper) < sha256.Size {
		return nil, errors.New("the key for secrets is too short")
	}
	pepper = bytes.Clone(pepper)
	// A reused HMAC has its key scheduled already, which is two thirds of the work.
	macs := sync.Pool{New: func() any { return &reusableMAC{Hash: hmac.New(sha256.New, pepper)} }}
	mac := func(secret string) Hash {
		m, _ := macs.Get().(*reusableMAC)
		defer macs.Put(m)
		return m.hash(secret)
	}
	return &Hasher{
		mac: mac, decoy: newSalt(), derive: deriveChosen, matches: slowHash.matches,
		hashing: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}, nil
}

// reusableMAC is an HMAC and the memory of its last input and output, both of which are reused. Between two uses it holds no
// part of a secret.
type reusableMAC struct {
	hash.Hash

	input, sum, text []byte
}

func (m *reusableMAC) hash(secret string) Hash {
	m.input = append(m.input[:0], secret...)
	_, _ = m.Write(m.input) // it never fails (hash.Hash)
	clear(m.input)
	m.sum = m.Sum(m.sum[:0])
	m.Reset() // here rather than before the next use: until then the hash buffers the end of the secret
	m.text = base64.RawStdEncoding.AppendEncode(append(m.text[:0], macPrefix...), m.sum)
	return Hash(m.text)
}

func newSalt() string {
	salt := make([]byte, chosenSalt)
	_, _ = rand.Read(salt) // it never fails (crypto/rand)
	return string(salt)
}

// Hash returns the hash to store for secret, given the other secrets of its client.
func (h *Hasher) Hash(secret string, others ...Secret) Hash {
	if Generated(secret) {
		return h.mac(secret)
	}
	salt, ok := sharedSalt(others)
	if !ok {
		salt = newSalt()
	}
	h.hashing <- struct{}{}
	defer func() { <-h.hashing }()
	return argonHash{cost: chosenCost, salt: salt, sum: string(h.derive(salt, secret))}.hash()
}

// Matches reports, in constant time, whether hash is that of secret. A hash of the other kind, or a malformed one, does not
// match.
func (h *Hasher) Matches(hash Hash, secret string) bool {
	if Generated(secret) {
		return subtle.ConstantTimeCompare([]byte(hash), []byte(h.mac(secret))) == 1
	}
	parsed, err := parseSlow(hash)
	return err == nil && h.matches(parsed, secret)
}

// maxForeign bounds how many imported hashes Match compares one presented secret with. It ignores further ones.
const maxForeign = 4

// Match returns the index of the one of secrets that the presented secret is, among those that have not expired at now; -1
// if it is none of them. If now is the zero time, none has expired.
//
// The work is one HMAC for a secret of the generated form, otherwise one computation of Argon2id, whatever the secrets are
// and even if there are none. An imported hash adds its own work: so a client with one takes longer than one that does not
// exist, never less, until the first use has replaced it (see [Outdated]). That is at most maxForeign hashes of bounded
// cost: 2 ms for those of OpenIddict, 5 or 60 ms for Hydra's, about half a second for the worst.
func (h *Hasher) Match(secrets []Secret, presented string, now time.Time) int {
	equal := h.comparison(secrets, presented)
	matched := -1
	for i := range secrets {
		// The loop does not stop at the first match, so that its time does not reveal which secret matched.
		if !secrets[i].Expired(now) && equal(secrets[i].Hash) && matched < 0 {
			matched = i
		}
	}
	return matched
}

// comparison does the work that every presented secret costs, and returns a function that compares it with one hash.
func (h *Hasher) comparison(secrets []Secret, presented string) func(Hash) bool {
	if Generated(presented) {
		mac := h.mac(presented)
		return func(hash Hash) bool { return subtle.ConstantTimeCompare([]byte(hash), []byte(mac)) == 1 }
	}
	salt, ok := sharedSalt(secrets)
	if !ok {
		salt = h.decoy
	}
	sum := h.derive(salt, presented)
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
		return foreign <= maxForeign && h.matches(parsed, presented)
	}
}

// Outdated reports whether the i-th of a client's secrets has a slow hash that costs its own computation: an imported one,
// or one that does not have the client's salt. Once its secret is known, [Hasher.Hash] returns a replacement that shares
// the salt of the others.
func Outdated(secrets []Secret, i int) bool {
	parsed, err := parseSlow(secrets[i].Hash)
	if err != nil {
		return false
	}
	salt, _ := sharedSalt(secrets)
	chosen, ok := parsed.(argonHash)
	return !ok || !chosen.chosen() || chosen.salt != salt
}

// sharedSalt returns the salt of a client's chosen secrets: that of the first.
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
