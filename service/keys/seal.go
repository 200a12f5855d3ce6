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

// ErrSealed says that the stored ring does not open: another key-encryption key sealed it, for this store or for another
// one, or somebody altered it.
var ErrSealed = errors.New("the key-encryption key does not open the key ring: it is not the key that sealed it, or the ring was altered")

// Sealer encrypts the ring under a key-encryption key that the store never sees, with AES-256-GCM (NIST SP 800-38D). It
// may be used by several goroutines.
type Sealer struct {
	// aeads has one for each key. The first seals; any opens.
	aeads []cipher.AEAD
}

// NewSealer makes a sealer with key-encryption keys of [KEKSize] bytes: the one that seals, and those that were in use
// before, or are to be used next, and open as well.
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

// ParseKEK reads a key-encryption key as `openssl rand -base64 32` writes it.
func ParseKEK(text string) ([]byte, error) {
	kek, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(kek) != KEKSize {
		// The cause is left out: it would quote the key.
		return nil, errors.New("a key-encryption key is 32 random bytes in base64, as of: openssl rand -base64 32")
	}
	return kek, nil
}

// NewKEK makes a random key-encryption key.
func NewKEK() []byte {
	kek := make([]byte, KEKSize)
	_, _ = rand.Read(kek) // it never fails (crypto/rand)
	return kek
}

// envelope is the ring as it is stored.
type envelope struct {
	// Format tells a later release how to read the rest.
	Format int `json:"format"`
	// Sealed is the encrypted document.
	Sealed []byte `json:"sealed"`
}

// Format is that of the sealed ring. A new field of the ring is a new format: a release that does not know it would drop
// it with the next rotation.
const Format = 1

// ErrNewer says that a newer release wrote the stored ring, in a form that this one does not know. It is not written over.
var ErrNewer = errors.New("written by a newer release of Grantor")

// label binds a sealed ring to its format and its store, so that it opens in no other place.
func label(store string) []byte { return fmt.Appendf(nil, "grantor ring %d %q", Format, store) }

// sealRing gives what to store of the ring. All of it is sealed, what is public too: so nothing of it can be altered,
// taken out or put together from parts of two.
func (s *Sealer) sealRing(store string, d *document) ([]byte, error) {
	plain, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	sealed := s.aeads[0].Seal(nil, nil, plain, label(store)) //nolint:gosec // the AEAD itself draws a random nonce for each call
	return json.Marshal(envelope{Format, sealed})
}

// openRing reads what sealRing wrote, or gives [ErrSealed]. previous reports that the key which seals now did not seal it.
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
			return nil, false, errors.New("the sealed key ring is not JSON, or has fields that this release does not know") // the cause could quote it
		}
		return d, i > 0, nil
	}
	return nil, false, ErrSealed
}
