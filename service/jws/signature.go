package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // the other hashes of the algorithms
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/grantorhq/grantor/service/jwks"
)

// Signatures are created and verified by the standard library alone. jwx copies the key each time, so that the standard
// library repeats its precomputation for a private key: with ES256, an eighth of a signature.

// scheme describes a signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
type scheme struct {
	// hash is the function whose result is signed. If it is zero, the text itself is signed.
	hash crypto.Hash
	// options are passed to a private key: the hash, and for PSS the padding.
	options crypto.SignerOpts
}

func pkcs1(hash crypto.Hash) scheme { return scheme{hash, hash} }

// pss returns a PSS scheme whose salt is as long as the hash (RFC 7518 §3.5).
func pss(hash crypto.Hash) scheme {
	return scheme{hash, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}}
}

// schemes contains all algorithms that a key can have. Those without a constant in jwks occur only at other issuers.
var schemes = map[jwks.Algorithm]scheme{
	jwks.ES256: {crypto.SHA256, crypto.SHA256}, "ES384": {crypto.SHA384, crypto.SHA384}, "ES512": {crypto.SHA512, crypto.SHA512},
	jwks.RS256: pkcs1(crypto.SHA256), "RS384": pkcs1(crypto.SHA384), "RS512": pkcs1(crypto.SHA512),
	jwks.PS256: pss(crypto.SHA256), "PS384": pss(crypto.SHA384), "PS512": pss(crypto.SHA512),
	jwks.EdDSA: {0, crypto.Hash(0)},
}

func (s scheme) digest(text []byte) []byte {
	switch s.hash {
	case 0:
		return text
	case crypto.SHA256: // without the state of a hash on the heap
		sum := sha256.Sum256(text)
		return sum[:]
	}
	h := s.hash.New()
	h.Write(text)
	return h.Sum(nil)
}

// sign returns the signature of a text in the form of RFC 7515.
//
// A signature of ECDSA is deterministic (RFC 6979, FIPS 186-5 §6.3), as those of EdDSA are: it takes a tenth less time and a
// third less memory than one with more randomness, and does not depend on the quality of that. An attacker who can make the
// processor err learns a key from two signatures of one text, one of them faulty; each text that is signed here has a random
// "jti", so there are no two.
func (s scheme) sign(private crypto.Signer, text []byte) ([]byte, error) {
	random := rand.Reader
	if _, ok := private.(*ecdsa.PrivateKey); ok { // of another signer, such as a module of hardware, nothing is known
		random = nil
	}
	signature, err := private.Sign(random, s.digest(text), s.options)
	if public, ok := private.Public().(*ecdsa.PublicKey); ok && err == nil {
		return joinRS(signature, coordinateSize(public))
	}
	return signature, err
}

// coordinateSize returns the size of R and of S in a signature with the key, in bytes (RFC 7518 §3.4).
func coordinateSize(public *ecdsa.PublicKey) int { return (public.Params().BitSize + 7) / 8 }

// joinRS converts an ECDSA signature from ASN.1 DER to R and S, one after the other, each of the given size.
func joinRS(der []byte, size int) ([]byte, error) {
	whole := cryptobyte.String(der)
	var numbers cryptobyte.String
	var r, s []byte
	if !whole.ReadASN1(&numbers, asn1.SEQUENCE) || !numbers.ReadASN1Integer(&r) || !numbers.ReadASN1Integer(&s) || max(len(r), len(s)) > size {
		return nil, errors.New("the key's signature is not one of its curve")
	}
	signature := make([]byte, 2*size)
	copy(signature[size-len(r):], r)
	copy(signature[2*size-len(s):], s)
	return signature, nil
}

// splitRS converts an ECDSA signature from R and S, one after the other, to ASN.1 DER.
func splitRS(signature []byte) []byte {
	const maxSize = 2 * (66 + 3) // of P-521, whose numbers have 66 bytes
	numbers := make([]byte, 0, maxSize)
	for _, number := range [...][]byte{signature[:len(signature)/2], signature[len(signature)/2:]} {
		number = bytes.TrimLeft(number, "\x00")
		positive := []byte{0} // a first byte of 0 keeps the number positive
		if len(number) > 0 && number[0] < 0x80 {
			positive = nil
		}
		numbers = append(numbers, byte(asn1.INTEGER), byte(len(positive)+len(number))) //nolint:gosec // at most 67
		numbers = append(append(numbers, positive...), number...)
	}
	der := append(make([]byte, 0, 3+maxSize), byte(asn1.SEQUENCE))
	if len(numbers) > 0x7f {
		der = append(der, 0x81) // the length has one byte more
	}
	return append(append(der, byte(len(numbers))), numbers...) //nolint:gosec // at most maxSize
}

// ErrSignature reports that a signature is not that of the key.
var ErrSignature = errors.New("wrong signature")

// Verify returns [ErrSignature] if signature is not the key's signature of text, in the form of RFC 7515. Any other error
// means that the key is of no use for verifying.
func Verify(key jwks.Key, text, signature []byte) error {
	s, ok := schemes[key.Algorithm()]
	if !ok {
		return fmt.Errorf("alg %.20q", key.Algorithm())
	}
	digest := s.digest(text)
	var right bool
	switch public := key.Public().(type) {
	case *ecdsa.PublicKey:
		size := coordinateSize(public)
		right = len(signature) == 2*size && ecdsa.VerifyASN1(public, digest, splitRS(signature))
	case *rsa.PublicKey:
		if options, ok := s.options.(*rsa.PSSOptions); ok {
			right = rsa.VerifyPSS(public, s.hash, digest, signature, options) == nil
		} else {
			right = rsa.VerifyPKCS1v15(public, s.hash, digest, signature) == nil
		}
	case ed25519.PublicKey:
		right = ed25519.Verify(public, digest, signature)
	default:
		return fmt.Errorf("a key of type %T", public)
	}
	if !right {
		return ErrSignature
	}
	return nil
}

// Signing returns the function that signs a text with a private key. The key is in a closure so that printing a struct
// that contains the function does not reveal it: some private keys are byte slices and print as such. Signing returns an
// error if it does not know the algorithm; that the key fits it is checked by [jwks.NewKey].
func Signing(algorithm jwks.Algorithm, private crypto.Signer) (func(text []byte) ([]byte, error), error) {
	s, ok := schemes[algorithm]
	if !ok {
		return nil, fmt.Errorf("nothing is signed with %s", algorithm)
	}
	return func(text []byte) ([]byte, error) { return s.sign(private, text) }, nil
}
