package keys

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/token"
)

// document is the content of the ring in plaintext. The store receives it sealed as a whole, by [Sealer.sealRing].
type document struct {
	// MadeAt is when the pepper was created, in milliseconds since 1970. Of two peppers the older one is kept.
	MadeAt int64 `json:"made_at"`
	// Pepper is the key under which generated client secrets are hashed. It is part of the ring so that it is created once
	// for all replicas and survives a change of the key-encryption key.
	Pepper []byte `json:"pepper"`
	// Keys are sorted by the time at which they become active.
	Keys []record `json:"keys"`
	// Removed holds the IDs of keys that were removed before they were gone. No replica may restore them.
	Removed []string `json:"removed,omitempty"`

	// reseal requests that the ring be sealed with the current key-encryption key if a previous one sealed it.
	reseal bool
}

// record is one signing key.
type record struct {
	Algorithm jwks.Algorithm `json:"alg"`
	ID        string         `json:"kid"`
	// CreatedAt and ActivatesAt are in Unix seconds.
	CreatedAt   int64 `json:"created_at"`
	ActivatesAt int64 `json:"activates_at"`
	// Private is the PKCS #8 form.
	Private []byte `json:"private"`
}

const pepperSize = 32

// maxRemoved is the maximum length of Removed, which drops the oldest IDs. It is needed because an ID that was never in
// the ring can be declared compromised too.
const maxRemoved = 1000

// newDocument returns a document with a new pepper and no signing keys.
func newDocument(now time.Time) *document {
	pepper := make([]byte, pepperSize)
	_, _ = rand.Read(pepper) // it never fails (crypto/rand)
	return &document{MadeAt: now.UnixMilli(), Pepper: pepper}
}

// add generates a key that signs from the time activates.
func (d *document) add(algorithm jwks.Algorithm, now, activates time.Time) error {
	private, err := generate(algorithm)
	if err != nil {
		return err
	}
	public, err := jwks.NewKey(algorithm, private.Public())
	if err != nil {
		return err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	d.Keys = append(d.Keys, record{algorithm, public.ID(), now.Unix(), activates.Unix(), encoded})
	d.sort()
	return nil
}

// sort restores the order of the keys. Keys that become active at the same time stay in the order of their addition.
func (d *document) sort() {
	slices.SortStableFunc(d.Keys, func(a, b record) int { return cmp.Compare(a.ActivatesAt, b.ActivatesAt) })
}

// index returns the index of the key with the ID, or -1.
func (d *document) index(id string) int {
	return slices.IndexFunc(d.Keys, func(k record) bool { return k.ID == id })
}

// remove removes a key, if it is present, and ensures that no replica restores it.
func (d *document) remove(id string) {
	d.Keys = slices.DeleteFunc(d.Keys, func(k record) bool { return k.ID == id })
	if !slices.Contains(d.Removed, id) {
		d.Removed = append(d.Removed, id)
		d.Removed = d.Removed[max(0, len(d.Removed)-maxRemoved):]
	}
}

// signing returns the index of the key that signs for the algorithm, or -1. If no key has become active yet the first
// upcoming one signs: this clock is behind the one of the replica that created the ring, and the key is published.
func (d *document) signing(algorithm jwks.Algorithm, now time.Time) int {
	first := -1
	for i, k := range slices.Backward(d.Keys) {
		if k.Algorithm != algorithm {
			continue
		}
		if k.ActivatesAt <= now.Unix() {
			return i
		}
		first = i
	}
	return first
}

// newest returns the key of the algorithm that becomes active last, or nil.
func (d *document) newest(algorithm jwks.Algorithm) *record {
	for i := range slices.Backward(d.Keys) {
		if d.Keys[i].Algorithm == algorithm {
			return &d.Keys[i]
		}
	}
	return nil
}

// successor returns the key that signs after the i-th one, or nil if there is none yet.
func (d *document) successor(i int) *record {
	for j := i + 1; j < len(d.Keys); j++ {
		if d.Keys[j].Algorithm == d.Keys[i].Algorithm {
			return &d.Keys[j]
		}
	}
	return nil
}

// gone reports whether every token that the i-th key signed has expired at the given time. retention is the maximum
// lifetime of a token.
func (d *document) gone(i int, retention time.Duration, at time.Time) bool {
	successor := d.successor(i)
	return successor != nil && at.After(successor.activates().Add(retention+skewMargin))
}

func (k *record) activates() time.Time { return time.Unix(k.ActivatesAt, 0) }

// signer returns the signer of the key.
func (k *record) signer() (*token.Signer, error) {
	private, err := x509.ParsePKCS8PrivateKey(k.Private)
	if err != nil {
		return nil, errors.New("a key in the ring is not PKCS #8")
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key in the ring is a %T, which cannot sign", private)
	}
	return token.NewSigner(k.Algorithm, signer)
}

// generate generates a private key. RSA keys have 2048 bits, the minimum of RFC 7518 §3.3 and the fastest to sign with.
func generate(algorithm jwks.Algorithm) (crypto.Signer, error) {
	switch algorithm {
	case jwks.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jwks.RS256, jwks.PS256:
		return rsa.GenerateKey(rand.Reader, 2048)
	case jwks.EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("unsupported signing algorithm %q", algorithm)
}
