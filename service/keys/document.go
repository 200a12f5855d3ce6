package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/token"
)

// ErrConflict says that the ring was changed by somebody else meanwhile.
var ErrConflict = errors.New("the key ring was changed by somebody else meanwhile")

// Store keeps the key ring as one document. Every change is announced to all replicas in the same step that makes it.
// It may be used by several goroutines.
type Store interface {
	// LoadRing gives the document as last saved and its version; nil and zero where none was.
	LoadRing(ctx context.Context) (document []byte, version uint64, err error)
	// SaveRing replaces the document, and revokes the tokens of the keys whose ids are given, if the document's version is
	// still the one given; else it gives [ErrConflict].
	SaveRing(ctx context.Context, document []byte, version uint64, revoked ...string) error
}

// document is the ring as it is stored. What is secret in it is sealed, and bound to what stands in the clear beside it.
type document struct {
	// Format tells a later release how to read the rest.
	Format int `json:"format"`
	// Pepper is the sealed key under which generated client secrets are hashed. It lives here so that it is made once for
	// all replicas and outlives a change of the key-encryption key.
	Pepper []byte   `json:"pepper"`
	Keys   []record `json:"keys"`
	// Removed has the ids of keys that were taken away before their time; no replica may put them back.
	Removed []string `json:"removed,omitempty"`
}

const (
	format      = 1
	pepperLabel = "grantor pepper 1"
	pepperSize  = 32
)

// record is one signing key as it is stored.
type record struct {
	Algorithm jwks.Algorithm `json:"alg"`
	ID        string         `json:"kid"`
	// Unix seconds.
	CreatedAt   int64 `json:"created_at"`
	ActivatesAt int64 `json:"activates_at"`
	// Private is the sealed PKCS #8 form.
	Private []byte `json:"private"`
}

// label binds the private key to the rest of the record: who alters a time or moves a key makes it unreadable.
func (r *record) label() string {
	return fmt.Sprintf("grantor key 1 %s %s %d %d", r.Algorithm, r.ID, r.CreatedAt, r.ActivatesAt)
}

// newDocument makes a ring without signing keys.
func newDocument(sealer *Sealer) *document {
	pepper := make([]byte, pepperSize)
	_, _ = rand.Read(pepper) // it never fails (crypto/rand)
	return &document{Format: format, Pepper: sealer.seal(pepperLabel, pepper)}
}

func parseDocument(data []byte) (*document, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("the stored key ring: %w", err)
	}
	if d.Format != format {
		return nil, fmt.Errorf("the stored key ring has format %d, and this release reads %d", d.Format, format)
	}
	return &d, nil
}

// add generates a key that signs from activates on.
func (d *document) add(sealer *Sealer, algorithm jwks.Algorithm, now, activates time.Time) error {
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
	r := record{Algorithm: algorithm, ID: public.ID(), CreatedAt: now.Unix(), ActivatesAt: activates.Unix()}
	r.Private = sealer.seal(r.label(), encoded)
	d.Keys = append(d.Keys, r)
	return nil
}

// open makes the signer of a stored key.
func (r *record) open(sealer *Sealer) (*token.Signer, error) {
	encoded, err := sealer.open(r.label(), r.Private)
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(encoded)
	if err != nil {
		return nil, errors.New("a sealed key is not PKCS #8")
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a sealed %T does not sign", private)
	}
	return token.NewSigner(r.Algorithm, signer)
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
