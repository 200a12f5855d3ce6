// Package jwstest makes signed messages for tests: valid ones, and those with which an attacker would try to deceive a verifier.
package jwstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/must"
)

// Object is a JSON object, such as a header or a payload.
type Object map[string]any

// With returns the object with members changed, and without those that are nil in change.
func (o Object) With(change Object) Object {
	all := maps.Clone(o)
	maps.Copy(all, change)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

// Signer is a private key and the algorithm that it is used with.
type Signer struct {
	Algorithm jwks.Algorithm
	Private   crypto.Signer
}

// NewSigner returns a signer with a new key.
func NewSigner(algorithm jwks.Algorithm) Signer {
	switch algorithm {
	case jwks.EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return Signer{algorithm, must.Get(private, err)}
	case jwks.ES256:
		return Signer{algorithm, must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	case "ES384":
		return Signer{algorithm, must.Get(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))}
	default:
		return Signer{algorithm, must.Get(rsa.GenerateKey(rand.Reader, 2048))}
	}
}

// Key returns the public key.
func (s Signer) Key() jwks.Key { return must.Get(jwks.NewKey(s.Algorithm, s.Private.Public())) }

// JWK returns the public key in the form in which it is published.
func (s Signer) JWK() jwks.JWK { return must.Get(s.Key().JWK()) }

// Sign returns the compact serialization of a message. The header is used as it is.
func (s Signer) Sign(header, payload Object) string {
	signed := encode(header) + "." + encode(payload)
	signature := must.Get(must.Get(jws.Signing(s.Algorithm, s.Private))([]byte(signed)))
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func encode(o Object) string { return base64.RawURLEncoding.EncodeToString(must.Get(json.Marshal(o))) }

// Set returns a JWK Set with the keys of the signers, as JSON.
func Set(signers ...Signer) string {
	keys := make([]jwks.JWK, len(signers))
	for i, s := range signers {
		keys[i] = s.JWK()
	}
	return string(must.Get(json.Marshal(Object{"keys": keys})))
}
