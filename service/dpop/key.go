package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"math/big"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
)

// private are the members of a private or symmetric key (RFC 7518 §6). A proof that has one has given its key away.
var private = [...]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}

// parseKey parses the "jwk" of a header for the algorithm of that header. It does not use package jwks, whose parser drops the
// private half of a key instead of refusing the key.
func parseKey(raw json.RawMessage, algorithm jwks.Algorithm) (jwks.Key, error) {
	// A map, so that names are compared with their letter case.
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return jwks.Key{}, fail("jwk is not an object")
	}
	for _, name := range private {
		if _, ok := members[name]; ok {
			return jwks.Key{}, fail("jwk has the member %s of a private or symmetric key", name)
		}
	}
	if use, ok := members["use"]; ok && string(use) != `"sig"` {
		return jwks.Key{}, fail("jwk is not for signatures")
	}
	if algorithm == "Ed25519" {
		algorithm = jwks.EdDSA // RFC 9864 calls it by both names
	}
	if named := text(members, "alg"); members["alg"] != nil && named != string(algorithm) && (algorithm != jwks.EdDSA || named != "Ed25519") {
		return jwks.Key{}, fail("jwk is for the algorithm %.20q", named)
	}
	public := publicKey(members)
	if public == nil {
		return jwks.Key{}, fail("jwk is not a public key of a known type")
	}
	// Whether the key fits the algorithm, is on its curve and is large enough is checked by NewKey.
	key, err := jwks.NewKey(algorithm, public)
	if err != nil {
		return jwks.Key{}, fail("jwk: %v", err)
	}
	return key, nil
}

// publicKey returns the public key with the members, or nil.
func publicKey(members map[string]json.RawMessage) crypto.PublicKey {
	switch text(members, "kty") {
	case "EC":
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[text(members, "crv")]
		x, y := octets(members, "x"), octets(members, "y")
		if curve == nil || len(x) != len(y) {
			return nil
		}
		public, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
		if err != nil {
			return nil
		}
		return public
	case "RSA":
		n, e := octets(members, "n"), octets(members, "e")
		const maxExponent = 4 // bytes
		if n == nil || e == nil || n[0] == 0 || e[0] == 0 || len(e) > maxExponent {
			return nil
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	case "OKP":
		if x := octets(members, "x"); text(members, "crv") == "Ed25519" && x != nil {
			return ed25519.PublicKey(x)
		}
	}
	return nil
}

// text returns a member that is a string, or "".
func text(members map[string]json.RawMessage, name string) (value string) {
	if raw := members[name]; raw == nil || !jws.String(raw, &value) {
		return ""
	}
	return value
}

// octets returns a member that is base64url, or nil.
func octets(members map[string]json.RawMessage, name string) []byte {
	data, err := jws.Decode(text(members, name))
	if err != nil {
		return nil
	}
	return data
}
