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

// document is what the ring says, in the clear. A store gets it sealed as a whole, by [Sealer.sealRing].
type document struct {
	// MadeAt is when the pepper was made, in milliseconds since 1970: of two peppers the older one stays.
	MadeAt int64 `json:"made_at"`
	// Pepper is the key under which generated client secrets are hashed. It lives here so that it is made once for all
	// replicas and outlives a change of the key-encryption key.
	Pepper []byte `json:"pepper"`
	// Keys are in the order in which they become active.
	Keys []record `json:"keys"`
	// Removed has the ids of keys that were taken away before their time; no replica may put them back.
	Removed []string `json:"removed,omitempty"`

	// reseal asks to seal the ring under the first key-encryption key if a previous one sealed it.
	reseal bool
}

// record is one signing key.
type record struct {
	Algorithm jwks.Algorithm `json:"alg"`
	ID        string         `json:"kid"`
	// Unix seconds.
	CreatedAt   int64 `json:"created_at"`
	ActivatesAt int64 `json:"activates_at"`
	// Private is the PKCS #8 form.
	Private []byte `json:"private"`
}

const pepperSize = 32

// mostRemoved bounds how many removed keys are remembered, the latest: an id need not be one of the ring's to be given up.
const mostRemoved = 1000

// newDocument makes a ring without signing keys.
func newDocument(now time.Time) *document {
	pepper := make([]byte, pepperSize)
	_, _ = rand.Read(pepper) // it never fails (crypto/rand)
	return &document{MadeAt: now.UnixMilli(), Pepper: pepper}
}

// add generates a key that signs from activates on.
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

// sort restores the order of the keys. Of two that become active at once the one that was added later is the later one.
func (d *document) sort() {
	slices.SortStableFunc(d.Keys, func(a, b record) int { return cmp.Compare(a.ActivatesAt, b.ActivatesAt) })
}

// index gives the place of the key with the id, or -1.
func (d *document) index(id string) int {
	return slices.IndexFunc(d.Keys, func(k record) bool { return k.ID == id })
}

// remove takes a key away, if it is there, and sees to it that no replica puts it back.
func (d *document) remove(id string) {
	d.Keys = slices.DeleteFunc(d.Keys, func(k record) bool { return k.ID == id })
	if !slices.Contains(d.Removed, id) {
		d.Removed = append(d.Removed, id)
		d.Removed = d.Removed[max(0, len(d.Removed)-mostRemoved):]
	}
}

// signing gives the place of the key that signs for the algorithm, or -1. Where none has become active the first that
// will signs: the clock is behind the one that made the ring, and the key is published.
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

// newest gives the last key of the algorithm to become active, or nil.
func (d *document) newest(algorithm jwks.Algorithm) *record {
	for i := range slices.Backward(d.Keys) {
		if d.Keys[i].Algorithm == algorithm {
			return &d.Keys[i]
		}
	}
	return nil
}

// successor gives the key that signs after the one at a place; nil where there is none yet.
func (d *document) successor(i int) *record {
	for j := i + 1; j < len(d.Keys); j++ {
		if d.Keys[j].Algorithm == d.Keys[i].Algorithm {
			return &d.Keys[j]
		}
	}
	return nil
}

// gone reports whether at that time every token has expired that the key at a place signed. A token lives for retention
// at the most.
func (d *document) gone(i int, retention time.Duration, at time.Time) bool {
	successor := d.successor(i)
	return successor != nil && at.After(successor.activates().Add(retention+skew))
}

func (k *record) activates() time.Time { return time.Unix(k.ActivatesAt, 0) }

// signer makes the signer of a key.
func (k *record) signer() (*token.Signer, error) {
	private, err := x509.ParsePKCS8PrivateKey(k.Private)
	if err != nil {
		return nil, errors.New("a key in the ring is not PKCS #8")
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T in the ring does not sign", private)
	}
	return token.NewSigner(k.Algorithm, signer)
}

// generate makes a private key. RSA has 2048 bits: the least that RFC 7518 allows, and the fastest to sign with.
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
	return nil, fmt.Errorf("no keys are made for %q", algorithm)
}
