package dpop

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"
)

// nonceSlot is how long a nonce is the current one. It is accepted for one slot before, for servers whose clocks differ, and
// for one after: altogether for at least two minutes after it was provided.
const nonceSlot = 2 * time.Minute

// Nonces provides the nonces that proofs must contain (RFC 9449 §8, §9), so that a client cannot make proofs in advance for a
// time when it no longer has its key. A nonce is a MAC of the time: nothing is stored, and all servers with the same key accept
// each other's. It is safe for concurrent use by multiple goroutines.
type Nonces struct {
	key  []byte
	last atomic.Pointer[slot]
}

// slot is a period of nonceSlot with the nonces that are accepted in it: its own, the one before and the one after.
type slot struct {
	number   int64
	accepted [3]string
}

// NewNonces returns the nonces of a secret key, of which 32 random bytes are enough.
func NewNonces(key []byte) *Nonces { return &Nonces{key: slices.Clone(key)} }

// Current returns the nonce to provide at a time.
func (n *Nonces) Current(now time.Time) string { return n.at(now).accepted[0] }

func (n *Nonces) accepts(nonce string, now time.Time) bool {
	return slices.Contains(n.at(now).accepted[:], nonce) // not a secret: every caller gets it
}

// at returns the slot of a time.
func (n *Nonces) at(now time.Time) *slot {
	number := now.Unix() / int64(nonceSlot/time.Second)
	if last := n.last.Load(); last != nil && last.number == number {
		return last
	}
	s := &slot{number, [3]string{n.nonce(number), n.nonce(number - 1), n.nonce(number + 1)}}
	n.last.Store(s)
	return s
}

func (n *Nonces) nonce(slot int64) string {
	mac := hmac.New(sha256.New, n.key)
	_, _ = mac.Write(binary.BigEndian.AppendUint64([]byte("dpop nonce "), uint64(slot))) //nolint:gosec // any mapping will do
	const size = 16
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:size])
}
