package token_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// Keys of an attacker, made to look like the issuer's.
func TestForgedKeys(t *testing.T) {
	ec, rsaKey := privateKeys()[jwks.ES256], privateKeys()[jwks.RS256]
	ecPublic, rs256, ps256 := signerFor(jwks.ES256).Public(), signerFor(jwks.RS256).Public(), signerFor(jwks.PS256).Public()
	withKid := func(alg, kid string) string { return goodHeader().with(object{"alg": alg, "kid": kid}).String() }
	payload := goodPayload().String()
	foreign := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tests := map[string]struct {
		key   jwks.Key
		token string
		want  error
	}{
		"foreign key, same kid":  {ecPublic, sign(jwks.ES256, foreign, withKid("ES256", ecPublic.ID()), payload), token.ErrSignature},
		"RS256 for a PS256 key":  {ps256, sign(jwks.RS256, rsaKey, withKid("RS256", ps256.ID()), payload), token.ErrKey},
		"PS256 for an RS256 key": {rs256, sign(jwks.PS256, rsaKey, withKid("PS256", rs256.ID()), payload), token.ErrKey},
		"PS256 that says RS256":  {rs256, sign(jwks.PS256, rsaKey, withKid("RS256", rs256.ID()), payload), token.ErrSignature},
		"RS384":                  {rs256, sign("RS384", rsaKey, withKid("RS384", rs256.ID()), payload), token.ErrKey},
		"ES256 for an RSA key":   {rs256, sign(jwks.ES256, ec, withKid("ES256", rs256.ID()), payload), token.ErrKey},
	}
	for name, secret := range publicBytes(ec.Public()) {
		tests["HS256 with the EC key's "+name] = struct {
			key   jwks.Key
			token string
			want  error
		}{ecPublic, hs256(secret, withKid("HS256", ecPublic.ID()), payload), token.ErrKey}
		tests["HS256 that says ES256 with the EC key's "+name] = struct {
			key   jwks.Key
			token string
			want  error
		}{ecPublic, hs256(secret, withKid("ES256", ecPublic.ID()), payload), token.ErrSignature}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := verify(newVerifier(test.key), test.token); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// publicBytes returns the encodings of a public key that an attacker could use as an HMAC secret.
func publicBytes(public crypto.PublicKey) map[string][]byte {
	der := must.Get(x509.MarshalPKIXPublicKey(public))
	set := must.Get(jwks.NewKey(jwks.ES256, public))
	return map[string][]byte{
		"DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"JWK": must.Get(json.Marshal(must.Get(set.JWK()))), "nothing": {},
	}
}

func hs256(secret []byte, header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Algorithms beyond the four of Grantor occur in other issuers' sets. A token of each is valid with its own key only,
// whichever library signed it, and with its whole signature only.
func TestAlgorithms(t *testing.T) {
	rsaKey := must.Get(rsa.GenerateKey(rand.Reader, 2048))
	edKey := privateKeys()[jwks.EdDSA]
	for algorithm, private := range map[jwks.Algorithm]crypto.Signer{
		"ES256": must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "ES384": must.Get(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ES512": must.Get(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		"RS256": rsaKey, "RS384": rsaKey, "RS512": rsaKey, "PS256": rsaKey, "PS384": rsaKey, "PS512": rsaKey, "EdDSA": edKey,
	} {
		key := must.Get(jwks.NewKey(algorithm, private.Public()))
		header := goodHeader().with(object{"alg": algorithm, "kid": key.ID()}).String()
		good := sign(algorithm, private, header, goodPayload().String())
		if _, err := verify(newVerifier(key), good); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
		end := strings.LastIndexByte(good, '.')
		signed, text := good[:end], good[end+1:]
		signature := must.Get(base64.RawURLEncoding.DecodeString(text))
		altered := bytes.Clone(signature)
		altered[len(altered)/2] ^= 1
		for name, wrong := range map[string][]byte{
			"altered": altered, "short": signature[1:], "cut": signature[:len(signature)-1], "long": append([]byte{0}, signature...),
			"longer": append(bytes.Clone(signature), 0), "zero": make([]byte, len(signature)), "one byte": {1},
		} {
			if _, err := verify(newVerifier(key), signed+"."+base64.RawURLEncoding.EncodeToString(wrong)); !errors.Is(err, token.ErrSignature) {
				t.Errorf("%s, %s: got %v, want %v", algorithm, name, err, token.ErrSignature)
			}
		}
	}
}

// TestSalt checks that a PSS signature is valid only with a salt as long as the hash (RFC 7518 §3.5).
func TestSalt(t *testing.T) {
	private, _ := privateKeys()[jwks.PS256].(*rsa.PrivateKey)
	key := must.Get(jwks.NewKey(jwks.PS256, private.Public()))
	signed := encode(goodHeader().with(object{"alg": "PS256", "kid": key.ID()}).String()) + "." + encode(goodPayload().String())
	digest := sha256.Sum256([]byte(signed))
	for salt, right := range map[int]bool{20: false, 31: false, 32: true, 33: false, rsa.PSSSaltLengthAuto: false} {
		options := &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA256}
		signature := must.Get(rsa.SignPSS(rand.Reader, private, crypto.SHA256, digest[:], options))
		if _, err := verify(newVerifier(key), signed+"."+base64.RawURLEncoding.EncodeToString(signature)); (err == nil) != right {
			t.Errorf("a salt of %d bytes: got %v", salt, err)
		}
	}
}
