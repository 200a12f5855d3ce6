package jwks_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"os"
	"sync"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwk"
	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must.Get(rsa.GenerateKey(rand.Reader, 2048)) })

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	return must.Get(ecdsa.GenerateKey(curve, rand.Reader))
}

func newKey() jwks.Key { return must.Get(jwks.NewKey(jwks.ES256, newEC(elliptic.P256()).Public())) }

func newEd() ed25519.PublicKey {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return public
}

// TestThumbprint checks the example of RFC 7638 §3.1.
func TestThumbprint(t *testing.T) {
	document := must.Get(os.ReadFile("testdata/rfc7638.json"))
	public := must.Get(jwks.Parse(document)).Keys()[0].Public()
	k := must.Get(jwks.NewKey(jwks.RS256, public))
	if want := "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"; k.ID() != want {
		t.Errorf("got %s, want %s", k.ID(), want)
	}
}

func TestNewKey(t *testing.T) {
	short := rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2046), E: 65537} // 2047 bits
	long := rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 8192), E: 65537}
	tests := map[string]struct {
		algorithm jwks.Algorithm
		public    crypto.PublicKey
		ok        bool
	}{
		"ES256":              {jwks.ES256, newEC(elliptic.P256()).Public(), true},
		"RS256":              {jwks.RS256, rsaKey().Public(), true},
		"PS256":              {jwks.PS256, rsaKey().Public(), true},
		"EdDSA":              {jwks.EdDSA, newEd(), true},
		"ES256 with P-384":   {jwks.ES256, newEC(elliptic.P384()).Public(), false},
		"ES256 with P-224":   {jwks.ES256, newEC(elliptic.P224()).Public(), false},
		"ES256 with RSA":     {jwks.ES256, rsaKey().Public(), false},
		"RS256 with EC":      {jwks.RS256, newEC(elliptic.P256()).Public(), false},
		"EdDSA with EC":      {jwks.EdDSA, newEC(elliptic.P256()).Public(), false},
		"short RSA":          {jwks.RS256, &short, false},
		"long RSA":           {jwks.RS256, &long, false},
		"short Ed25519":      {jwks.EdDSA, newEd()[:31], false},
		"HS256":              {"HS256", []byte("0123456789abcdef0123456789abcdef"), false},
		"none":               {"none", newEC(elliptic.P256()).Public(), false},
		"no algorithm":       {"", newEC(elliptic.P256()).Public(), false},
		"a private key":      {jwks.ES256, newEC(elliptic.P256()), false},
		"nothing":            {jwks.ES256, nil, false},
		"a key by its value": {jwks.RS256, *rsaKey().Public().(*rsa.PublicKey), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			k, err := jwks.NewKey(test.algorithm, test.public)
			if (err == nil) != test.ok {
				t.Fatalf("got %v, want ok %v", err, test.ok)
			}
			if test.ok && (k.Algorithm() != test.algorithm || len(k.ID()) != 43) {
				t.Errorf("got %s %q", k.Algorithm(), k.ID())
			}
		})
	}
}

// The package's parser and jwx read a written JWK as the same key.
func TestJWKRoundTrip(t *testing.T) {
	for algorithm, public := range map[jwks.Algorithm]crypto.PublicKey{
		jwks.ES256: newEC(elliptic.P256()).Public(), jwks.RS256: rsaKey().Public(), jwks.PS256: rsaKey().Public(), jwks.EdDSA: newEd(),
	} {
		t.Run(string(algorithm), func(t *testing.T) {
			k := must.Get(jwks.NewKey(algorithm, public))
			written := must.Get(k.JWK())
			if written.Use != "sig" || written.Algorithm != string(algorithm) || written.ID != k.ID() {
				t.Errorf("got %+v", written)
			}
			document := must.Get(json.Marshal(map[string]any{"keys": []jwks.JWK{written}}))
			if got := must.Get(jwks.Parse(document)).Keys(); len(got) != 1 || !got[0].Equal(k) {
				t.Errorf("got %v, want the key itself", got)
			}
			var theirs any
			if err := must.Get(jwk.ParseKey(must.Get(json.Marshal(written)))).Raw(&theirs); err != nil {
				t.Fatal(err)
			}
			if !theirs.(interface{ Equal(crypto.PublicKey) bool }).Equal(public) {
				t.Error("jwx reads another key")
			}
		})
	}
}

func TestEqual(t *testing.T) {
	k, other := newKey(), newKey()
	pair := map[jwks.Algorithm]jwks.Key{}
	for _, algorithm := range []jwks.Algorithm{jwks.RS256, jwks.PS256} {
		pair[algorithm] = must.Get(jwks.NewKey(algorithm, rsaKey().Public()))
	}
	// The same id for another key, as in a forged set.
	forged := must.Get(other.JWK())
	forged.ID = k.ID()
	sameID := must.Get(jwks.Parse(must.Get(json.Marshal(forged)))).Keys()[0]
	for name, test := range map[string]struct {
		a, b jwks.Key
		want bool
	}{
		"itself":          {k, k, true},
		"other":           {k, other, false},
		"same id":         {k, sameID, false},
		"other algorithm": {pair[jwks.RS256], pair[jwks.PS256], false},
		"zero":            {jwks.Key{}, jwks.Key{}, false},
		"zero and a key":  {jwks.Key{}, k, false},
	} {
		if got := test.a.Equal(test.b); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
	if jwks.NewSet(k).Trusts(jwks.Key{}) || jwks.NewSet(k).Trusts(sameID) || !jwks.NewSet(k).Trusts(k) {
		t.Error("a set trusts its own keys and no other")
	}
}
