// Package jwks has the public keys that verify tokens: one key, a fixed set, and a set that is fetched and kept fresh.
// It carries out RFC 7517 (JWK, JWK Set), RFC 7518 §6 and RFC 7638 (thumbprints). No private key passes through it.
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

// Algorithm is a JWS signature algorithm (RFC 7518 §3.1, RFC 8037). Only asymmetric ones exist here.
type Algorithm string

// The algorithms that a token of ours can have.
const (
	ES256 Algorithm = "ES256"
	RS256 Algorithm = "RS256"
	PS256 Algorithm = "PS256"
	EdDSA Algorithm = "EdDSA"
)

// The bounds on an RSA modulus: the least is that of RFC 7518 §3.3, the most keeps one signature check from taking
// milliseconds.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// fitting lists, for each kind of key, the algorithms it can be used with; the first is meant where a JWK names none.
// Those beyond the four constants are met only in the key sets of other issuers.
func fitting(public crypto.PublicKey) ([]Algorithm, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		// ECDH refuses a point that is not on the curve, which jwx lets through.
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

// Key is a public key and the one algorithm it is used with. The zero value is no key.
type Key struct {
	id        string
	algorithm Algorithm
	public    crypto.PublicKey
	// print is the RFC 7638 thumbprint with SHA-256. It stands for the key where keys are compared, which happens on
	// every use of a token that was verified before: comparing the numbers allocates.
	print [sha256.Size]byte
}

// NewKey makes a key whose id is its thumbprint.
func NewKey(algorithm Algorithm, public crypto.PublicKey) (Key, error) {
	algorithms, err := fitting(public)
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
	if k.print, err = fingerprint(raw); err != nil {
		return Key{}, err
	}
	k.id = base64.RawURLEncoding.EncodeToString(k.print[:])
	return k, nil
}

// fingerprint gives the thumbprint of RFC 7638.
func fingerprint(raw jwk.Key) (sum [sha256.Size]byte, err error) {
	thumbprint, err := raw.Thumbprint(crypto.SHA256)
	copy(sum[:], thumbprint)
	return sum, err
}

// ID gives the key's "kid". For a key made by [NewKey] it is the RFC 7638 thumbprint with SHA-256.
func (k Key) ID() string { return k.id }

// Algorithm gives the algorithm that the key is used with.
func (k Key) Algorithm() Algorithm { return k.algorithm }

// Public gives an *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey.
func (k Key) Public() crypto.PublicKey { return k.public }

// Equal reports whether both are the same key under the same id and algorithm.
func (k Key) Equal(other Key) bool {
	return k.public != nil && k.id == other.id && k.algorithm == other.algorithm && k.print == other.print
}

// JWK is the public key as a JSON Web Key (RFC 7517 §4). The fields that do not belong to its type are empty.
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

// JWK gives the key for publication.
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

// key turns what an issuer published into a Key; ok is false for a key that is not for verifying signatures, or of a
// kind that this package does not use.
func key(raw jwk.Key) (_ Key, ok bool) {
	if use := raw.KeyUsage(); use != "" && use != "sig" {
		return Key{}, false
	}
	// A private key that was published by mistake says "sign" (RFC 7517 §4.3).
	ops := raw.KeyOps()
	if len(ops) > 0 && !slices.Contains(ops, jwk.KeyOpVerify) && !slices.Contains(ops, jwk.KeyOpSign) {
		return Key{}, false
	}
	public, err := publicOf(raw)
	if err != nil {
		return Key{}, false
	}
	algorithms, err := fitting(public)
	if err != nil {
		return Key{}, false
	}
	algorithm := algorithms[0]
	if named := raw.Algorithm().String(); named != "" {
		algorithm = Algorithm(named)
	}
	sum, err := fingerprint(raw)
	return Key{raw.KeyID(), algorithm, public, sum}, err == nil && slices.Contains(algorithms, algorithm)
}

// publicOf takes the public key alone, so that an issuer which published a private key by mistake does not make it
// travel any further.
func publicOf(raw jwk.Key) (crypto.PublicKey, error) {
	var public any
	half, err := raw.PublicKey()
	if err != nil {
		return nil, err
	}
	if err := half.Raw(&public); err != nil {
		return nil, err
	}
	if _, symmetric := public.([]byte); symmetric {
		return nil, errors.New("a symmetric key is no public key")
	}
	return public, nil
}
