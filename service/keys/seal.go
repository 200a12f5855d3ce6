package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// KEKSize is the size of a key-encryption key, in bytes.
const KEKSize = 32

// ErrSealed means that no key-encryption key opens the stored ring: another key sealed it, it was sealed for another
// store, or it was altered.
var ErrSealed = errors.New("the key-encryption key does not open the key ring: it is not the key that sealed it, or the ring was altered")

// Sealer encrypts the ring under a key-encryption key that the store never sees, with AES-256-GCM (NIST SP 800-38D). It
// is safe for concurrent use by multiple goroutines.
type Sealer struct {
	// aeads holds one AEAD for each key. The first one seals; each of them opens.
	aeads []cipher.AEAD
}

// NewSealer returns a sealer that seals with kek and opens with kek and the previous keys, which are those that were in
// use before or will be used next. Each key has [KEKSize] bytes.
func NewSealer(kek []byte, previous ...[]byte) (*Sealer, error) {
	s := &Sealer{}
	for _, key := range append([][]byte{kek}, previous...) {
		if len(key) != KEKSize {
			return nil, fmt.Errorf("a key-encryption key has %d bytes, not %d", KEKSize, len(key))
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		s.aeads = append(s.aeads, aead)
	}
	return s, nil
}

// ParseKEK parses a key-encryption key in base64, as `openssl rand -base64 32` prints it.
func ParseKEK(text string) ([]byte, error) {
	kek, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(kek) != KEKSize {
		// The cause is left out because it would quote the key.
		return nil, errors.New("a key-encryption key is 32 random bytes in base64, as printed by: openssl rand -base64 32")
	}
	return kek, nil
}

// NewKEK returns a random key-encryption key.
func NewKEK() []byte {
	kek := make([]byte, KEKSize)
	_, _ = rand.Read(kek) // it never fails (crypto/rand)
	return kek
}

// envelope is the stored form of the ring.
type envelope struct {
	// Format is the version of the format, by which a later release reads the rest.
	Format int `json:"format"`
	// Sealed is the encrypted document.
	Sealed []byte `json:"sealed"`
}

// Format is the current format of the sealed ring. A new field of the ring needs a new format, because a release that
// does not know the field would drop it with the next rotation.
const Format = 1

// ErrNewer means that a newer release wrote the stored ring, in a format that this release does not know. It is not
// overwritten.
var ErrNewer = errors.New("written by a newer release of Grantor")

// label returns the additional data that binds a sealed ring to its format and store, so that it opens in no other.
func label(store string) []byte { return fmt.Appendf(nil, "grantor ring %d %q", Format, store) }

// sealRing returns the stored form of the ring. All of it is sealed, also what is public, so that no part can be
// altered or removed and no ring be combined from parts of two.
func (s *Sealer) sealRing(store string, d *document) ([]byte, error) {
	plain, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	sealed := s.aeads[0].Seal(nil, nil, plain, label(store)) //nolint:gosec // the AEAD itself draws a random nonce for each call
	return json.Marshal(envelope{Format, sealed})
}

// openRing opens the result of sealRing, or returns [ErrSealed]. previous reports whether a previous key-encryption key
// sealed it, rather than the one that seals now.
func (s *Sealer) openRing(store string, data []byte) (d *document, previous bool, err error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, false, fmt.Errorf("the stored key ring: %w", err)
	}
	switch {
	case e.Format > Format:
		return nil, false, fmt.Errorf("the stored key ring: %w: its format is %d, and this release reads up to %d", ErrNewer, e.Format, Format)
	case e.Format < 1:
		return nil, false, errors.New("the stored key ring has no format")
	}
	for i, aead := range s.aeads {
		plain, err := aead.Open(nil, nil, e.Sealed, label(store))
		if err != nil {
			continue
		}
		d = &document{}
		decoder := json.NewDecoder(bytes.NewReader(plain))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(d); err != nil {
			return nil, false, errors.New("the sealed key ring is not JSON, or has fields that this release does not know") // the cause could quote the content
		}
		return d, i > 0, nil
	}
	return nil, false, ErrSealed
}
