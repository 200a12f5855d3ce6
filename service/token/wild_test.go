package token_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// published returns a verifier of a key set with the public half of the algorithm's private key, under the id k.
func published(algorithm jwks.Algorithm, alg any) *token.Verifier {
	key := object{}
	public := must.Get(jwk.FromRaw(privateKeys()[algorithm].Public()))
	if err := json.Unmarshal(must.Get(json.Marshal(public)), &key); err != nil {
		panic(err)
	}
	key = key.with(object{"kid": "k", "alg": alg})
	verifier := newVerifier()
	verifier.Keys = must.Get(jwks.Parse(must.Get(json.Marshal(object{"keys": []object{key}}))))
	return verifier
}

// A key that names no algorithm verifies each that its type allows; one that names an algorithm verifies that alone.
func TestKeyWithoutAlgorithm(t *testing.T) {
	rsaKey := privateKeys()[jwks.RS256]
	for _, algorithm := range []jwks.Algorithm{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
		raw := sign(algorithm, rsaKey, goodHeader().with(object{"alg": algorithm, "kid": "k"}).String(), goodPayload().String())
		if _, err := verify(published(jwks.RS256, nil), raw); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
		if _, err := verify(published(jwks.RS256, "RS256"), raw); (err == nil) != (algorithm == "RS256") {
			t.Errorf("%s with a key for RS256: got %v", algorithm, err)
		}
	}
	// The header cannot choose an algorithm of another type of key.
	forged := sign(jwks.ES256, privateKeys()[jwks.ES256], goodHeader().with(object{"kid": "k"}).String(), goodPayload().String())
	if _, err := verify(published(jwks.RS256, nil), forged); !errors.Is(err, token.ErrKey) {
		t.Errorf("ES256 with an RSA key: got %v, want %v", err, token.ErrKey)
	}
}

// EdDSA and Ed25519 (RFC 9864) are names of the same algorithm, in the key and in the token.
func TestEd25519(t *testing.T) {
	private := privateKeys()[jwks.EdDSA].(ed25519.PrivateKey)
	for _, alg := range []any{nil, "EdDSA", "Ed25519"} {
		for _, name := range []string{"EdDSA", "Ed25519"} {
			raw := sign(jwks.Algorithm(jwa.EdDSA), private, goodHeader().with(object{"alg": name, "kid": "k"}).String(), goodPayload().String())
			if _, err := verify(published(jwks.EdDSA, alg), raw); err != nil {
				t.Errorf("key %v, token %s: %v", alg, name, err)
			}
		}
	}
	raw := sign(jwks.Algorithm(jwa.EdDSA), private, goodHeader().with(object{"alg": "ed25519", "kid": "k"}).String(), goodPayload().String())
	if _, err := verify(published(jwks.EdDSA, nil), raw); !errors.Is(err, token.ErrKey) {
		t.Errorf("ed25519: got %v, want %v", err, token.ErrKey)
	}
}
