package dpop_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
)

// FuzzVerify checks that no text makes Verify panic, and that what it accepts has not been changed after it was signed.
func FuzzVerify(f *testing.F) {
	key := jwstest.NewSigner(jwks.ES256)
	good := key.Sign(header(key), payload())
	parts := strings.Split(good, ".")
	f.Add(good)
	f.Add(parts[0] + "..")
	f.Add("..")
	f.Add(key.Sign(header(key).With(jwstest.Object{"jwk": jwstest.Object{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, "alg": "RS256"}), payload()))
	f.Add(key.Sign(header(key), payload().With(jwstest.Object{"htu": "https://api.example.com/%6Frders"})))
	f.Fuzz(func(t *testing.T, raw string) {
		proof, err := newVerifier().Verify(raw, request())
		if err == nil && proof.KeyThumbprint != key.Key().Thumbprint() {
			return // signed with a key of the fuzzer's
		}
		if err == nil && raw != good && !strings.HasPrefix(raw, parts[0]+".") {
			t.Errorf("accepted another header with the key: %s", raw)
		}
		if err != nil && !errors.Is(err, dpop.ErrProof) {
			t.Errorf("got %v, want ErrProof", err)
		}
	})
}

// FuzzTarget checks that a URL is the same target as itself whatever it is, and that a proof for another is not accepted for
// being malformed.
func FuzzTarget(f *testing.F) {
	key := jwstest.NewSigner(jwks.EdDSA)
	okp := jwstest.Object{"typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwstest.Object{"kty": "OKP", "crv": "Ed25519", "x": key.JWK().X}}
	for _, seed := range []string{"https://a.example/%2F", "http://[::1]:80", "https://a/../..", "//a", "https://%41/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, claimed string) {
		raw := key.Sign(okp, payload().With(jwstest.Object{"htu": claimed}))
		_, err := newVerifier().Verify(raw, &dpop.Request{Method: "GET", URLs: []string{"https://nowhere.invalid/a/path"}, Token: accessToken})
		if err == nil && !strings.Contains(strings.ToLower(claimed), "nowhere.invalid") {
			t.Errorf("%q is the target https://nowhere.invalid/a/path", claimed)
		}
	})
}
