// Package jwks provides the public keys with which tokens are verified. It implements RFC 7517 (JWK and JWK Set),
// RFC 7518 §6 and RFC 7638 (thumbprints). No private key passes through it.
//
// A [Key] is one public key, a [Set] is a fixed set of them, and a [Remote] is the set that an issuer publishes,
// fetched and kept fresh:
//
//	keys := jwks.NewRemote(jwks.HTTP(http.DefaultClient, "https://auth.example.com"), jwks.RemoteConfig{})
//	key, err := keys.Find(ctx, id)
package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// Algorithm is the name of a JWS signature algorithm (RFC 7518 §3.1, RFC 8037). Only asymmetric algorithms are
// supported.
type Algorithm string

// The algorithms with which Grantor signs tokens.
const (
	ES256 Algorithm = "ES256"
	RS256 Algorithm = "RS256"
	PS256 Algorithm = "PS256"
	EdDSA Algorithm = "EdDSA"
)

// ed25519Name is the name of RFC 9864 for [EdDSA] with an Ed25519 key, the only keys that this package has for it.
const ed25519Name Algorithm = "Ed25519"

// canonical returns the name under which a Key has the algorithm.
func (a Algorithm) canonical() Algorithm {
	if a == ed25519Name {
		return EdDSA
	}
	return a
}

// Bounds on the size of an RSA modulus: the minimum is that of RFC 7518 §3.3, the maximum keeps a signature check from
// taking milliseconds.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// Algorithms returns the names of all algorithms that a [Key] can be used with, sorted.
func Algorithms() []Algorithm {
	return []Algorithm{ES256, "ES384", "ES512", ed25519Name, EdDSA, PS256, "PS384", "PS512", RS256, "RS384", "RS512"}
}

// algorithmsFor returns the algorithms that a key can be used with. The first is the default for a JWK that names none.
// Algorithms without a constant occur only in the key sets of other issuers.
func algorithmsFor(public crypto.PublicKey) ([]Algorithm, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		// ECDH rejects a point that is not on the curve, which jwx accepts.
		if _, err := k.ECDH(); err != nil {
			return nil, err
		}
		switch k.Curve {
		case elliptic.P256():
			return []Algorithm{ES256}, nil
		case elliptic.P384():
			return []Algorithm{"ES384"}, nil
		case elliptic.P521():
			return []Algorithm{"ES512"}, nil
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits is not within %d to %d", bits, minRSABits, maxRSABits)
		}
		return []Algorithm{RS256, PS256, "RS384", "RS512", "PS384", "PS512"}, nil
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return []Algorithm{EdDSA}, nil
		}
	}
	return nil, fmt.Errorf("a %T of this kind verifies no token", public)
}

// DefaultAlgorithm returns the algorithm with which a key signs unless another one that its type allows is chosen: RS256 for
// RSA. It is an error if the key is not of a supported type or not secure.
func DefaultAlgorithm(public crypto.PublicKey) (Algorithm, error) {
	algorithms, err := algorithmsFor(public)
	if err != nil {
		return "", err
	}
	return algorithms[0], nil
}

// Key is a public key with the one algorithm that it is used with. The zero Key is not a key.
type Key struct {
	id        string
	algorithm Algorithm
	public    crypto.PublicKey
	// thumbprint is the RFC 7638 thumbprint with SHA-256. Keys are compared by it on every use of a token that was
	// verified before, because comparing the numbers allocates.
	thumbprint [sha256.Size]byte
	// next is another key of the same set with the same id and another algorithm, or nil.
	next *Key
}

// NewKey returns a key whose id is its thumbprint. The public key is an *ecdsa.PublicKey, *rsa.PublicKey or
// ed25519.PublicKey. NewKey returns an error if the key does not fit the algorithm or is not secure: RSA keys have
// 2,048 to 8,192 bits.
func NewKey(algorithm Algorithm, public crypto.PublicKey) (Key, error) {
	algorithms, err := algorithmsFor(public)
	if err != nil {
		return Key{}, err
	}
	if !slices.Contains(algorithms, algorithm) {
		return Key{}, fmt.Errorf("a %T is not for %s", public, algorithm)
	}
	raw, err := jwk.FromRaw(public)
	if err != nil {
		return Key{}, err
	}
	k := Key{algorithm: algorithm, public: public}
	if k.thumbprint, err = computeThumbprint(raw); err != nil {
		return Key{}, err
	}
	k.id = base64.RawURLEncoding.EncodeToString(k.thumbprint[:])
	return k, nil
}

// computeThumbprint returns the thumbprint of RFC 7638 with SHA-256.
func computeThumbprint(raw jwk.Key) (sum [sha256.Size]byte, err error) {
	thumbprint, err := raw.Thumbprint(crypto.SHA256)
	copy(sum[:], thumbprint)
	return sum, err
}

// Thumbprint returns the RFC 7638 thumbprint of a public key with SHA-256, in base64url.
func Thumbprint(public crypto.PublicKey) (string, error) {
	raw, err := jwk.FromRaw(public)
	if err != nil {
		return "", err
	}
	sum, err := computeThumbprint(raw)
	return base64.RawURLEncoding.EncodeToString(sum[:]), err
}

// ID returns the key's "kid". For a key made by [NewKey], it is the RFC 7638 thumbprint with SHA-256, in base64url.
func (k Key) ID() string { return k.id }

// Algorithm returns the algorithm that the key is used with.
func (k Key) Algorithm() Algorithm { return k.algorithm }

// For returns the key that has the same id in the same set and is used with the algorithm, which may be k itself. RFC
// 7517 §4.5 permits one "kid" for keys of several types, and a key that names no algorithm is used with each that its
// type allows. The names EdDSA and Ed25519 (RFC 9864) denote the same algorithm.
func (k Key) For(algorithm Algorithm) (_ Key, ok bool) {
	algorithm = algorithm.canonical()
	for other := &k; other != nil; other = other.next {
		if other.algorithm == algorithm {
			return *other, true
		}
	}
	return Key{}, false
}

// Thumbprint returns the RFC 7638 thumbprint with SHA-256, in base64url.
func (k Key) Thumbprint() string { return base64.RawURLEncoding.EncodeToString(k.thumbprint[:]) }

// WithID returns the key with another "kid".
func (k Key) WithID(id string) Key {
	k.id, k.next = id, nil
	return k
}

// Public returns an *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey.
func (k Key) Public() crypto.PublicKey { return k.public }

// Equal reports whether k and other are the same key with the same id and algorithm. The zero Key equals no key.
func (k Key) Equal(other Key) bool {
	return k.public != nil && k.id == other.id && k.algorithm == other.algorithm && k.thumbprint == other.thumbprint
}

// JWK is a public key as a JSON Web Key (RFC 7517 §4). Fields that do not apply to its type are empty.
type JWK struct {
	KeyType   string `json:"kty"`
	Use       string `json:"use,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	ID        string `json:"kid,omitempty"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
}

// JWK returns the key in the form in which it is published.
func (k Key) JWK() (JWK, error) {
	raw, err := jwk.FromRaw(k.public)
	if err != nil {
		return JWK{}, err
	}
	data, err := json.Marshal(raw)
	if err != nil {
		return JWK{}, err
	}
	out := JWK{Use: "sig", Algorithm: string(k.algorithm), ID: k.id}
	return out, json.Unmarshal(data, &out)
}

// parseKey converts a published key to one Key for each algorithm that it is used with: the one that it names, or all
// that its type allows. There are none if the key is not for verifying signatures, or not of a supported type.
func parseKey(raw jwk.Key) []Key {
	if use := raw.KeyUsage(); use != "" && use != "sig" {
		return nil
	}
	// A private key that was published by mistake has "sign" (RFC 7517 §4.3).
	ops := raw.KeyOps()
	if len(ops) > 0 && !slices.Contains(ops, jwk.KeyOpVerify) && !slices.Contains(ops, jwk.KeyOpSign) {
		return nil
	}
	public, err := publicKey(raw)
	if err != nil {
		return nil
	}
	algorithms, err := algorithmsFor(public)
	if err != nil {
		return nil
	}
	if named := Algorithm(raw.Algorithm().String()).canonical(); named != "" {
		if !slices.Contains(algorithms, named) {
			return nil
		}
		algorithms = []Algorithm{named}
	}
	sum, err := computeThumbprint(raw)
	if err != nil {
		return nil
	}
	keys := make([]Key, len(algorithms))
	for i, algorithm := range algorithms {
		keys[i] = Key{id: raw.KeyID(), algorithm: algorithm, public: public, thumbprint: sum}
	}
	return keys
}

// publicKey returns the public key alone, so that a private key which an issuer published by mistake goes no further.
func publicKey(raw jwk.Key) (crypto.PublicKey, error) {
	var public any
	half, err := raw.PublicKey()
	if err != nil {
		return nil, err
	}
	if err := half.Raw(&public); err != nil {
		return nil, err
	}
	if _, symmetric := public.([]byte); symmetric {
		return nil, errors.New("a symmetric key is not a public key")
	}
	return public, nil
}
