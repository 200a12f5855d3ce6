package dpop_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
)

const (
	target      = "https://api.example.com/orders"
	accessToken = "a.b.c"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// newVerifier returns a verifier whose clock stands still.
func newVerifier() *dpop.Verifier {
	return &dpop.Verifier{Replays: dpop.NewReplays(dpop.DefaultReplays), Now: func() time.Time { return now }}
}

func request() *dpop.Request {
	return &dpop.Request{Method: "GET", URLs: []string{target}, Token: accessToken}
}

// header and payload return those of a valid proof.
func header(s jwstest.Signer) jwstest.Object {
	key := s.JWK()
	return jwstest.Object{"typ": "dpop+jwt", "alg": s.Algorithm, "jwk": jwstest.Object{"kty": key.KeyType, "crv": key.Curve, "x": key.X, "y": key.Y}}
}

func payload() jwstest.Object {
	return jwstest.Object{
		"jti": rand.Text(), "htm": "GET", "htu": target, "iat": now.Unix(), "ath": "hF4wRIgJ4ryJWOsCW_x5UjXROwd6U9DDq70jhRcNybg",
	}
}

func TestSignedProofsVerify(t *testing.T) {
	for _, algorithm := range []jwks.Algorithm{jwks.ES256, "ES384", jwks.EdDSA, jwks.RS256} {
		key := jwstest.NewSigner(algorithm)
		signer := must.Get(dpop.NewSigner(key.Private))
		verifier := newVerifier()
		for range 2 { // the second time, the key is found by its header
			raw := must.Get(signer.Sign(dpop.Claims{Method: "GET", URL: target + "?page=2#top", Token: accessToken, Time: now}))
			proof, err := verifier.Verify(raw, request())
			if err != nil || proof.KeyThumbprint != key.Key().Thumbprint() || proof.KeyThumbprint != signer.Thumbprint() || proof.NextNonce != "" {
				t.Errorf("%s: got %+v, %v, want the thumbprint %s", algorithm, proof, err, key.Key().Thumbprint())
			}
		}
	}
}

func TestNewSignerRefusesKeys(t *testing.T) {
	if _, err := dpop.NewSigner(nil); err == nil {
		t.Error("got a signer without a key")
	}
	if _, err := dpop.NewSigner(must.Get(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))); err == nil {
		t.Error("got a signer with a key of P-224")
	}
}

// TestExamplesOfRFC9449 checks the proofs in RFC 9449 §4.1 and §7.1.
func TestExamplesOfRFC9449(t *testing.T) {
	const head = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFV" +
		"ZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
	const thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" // §6.1
	examples := map[string]struct {
		at      int64
		raw     string
		request dpop.Request
	}{
		"section 4.1": {1562262616, head + ".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2Vu" +
			"IiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg",
			dpop.Request{Method: "POST", URLs: []string{"https://server.example.com/token"}}},
		"section 7.1": {1562262618, head + ".eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90" +
			"ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9" +
			".2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA",
			dpop.Request{Method: "GET", URLs: []string{"https://resource.example.org/protectedresource"}, Token: "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"}},
	}
	for name, example := range examples {
		verifier := newVerifier()
		verifier.Now = func() time.Time { return time.Unix(example.at, 0) }
		proof, err := verifier.Verify(example.raw, &example.request)
		if err != nil || proof.KeyThumbprint != thumbprint {
			t.Errorf("%s: got %+v, %v, want the thumbprint %s", name, proof, err, thumbprint)
		}
	}
}

func TestRefusesProofs(t *testing.T) {
	key, other := jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.ES256)
	ed := jwstest.NewSigner(jwks.EdDSA)
	jwk := func(change jwstest.Object) jwstest.Object {
		return header(key).With(jwstest.Object{"jwk": header(key)["jwk"].(jwstest.Object).With(change)})
	}
	sign := func(h, p jwstest.Object) string { return key.Sign(header(key).With(h), payload().With(p)) }
	good := sign(nil, nil)
	parts := strings.Split(good, ".")
	for name, raw := range map[string]string{
		"empty":                      "",
		"no JWT":                     "proof",
		"two parts":                  parts[0] + "." + parts[1],
		"four parts":                 good + ".x",
		"padding":                    good + "=",
		"too large":                  sign(nil, jwstest.Object{"x": strings.Repeat("x", dpop.MaxSize)}),
		"no signature":               parts[0] + "." + parts[1] + ".",
		"signature of another proof": parts[0] + "." + parts[1] + "." + strings.Split(sign(nil, nil), ".")[2],
		"signed by another key":      other.Sign(header(key), payload()),
		"payload not an object":      parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`[]`)) + "." + parts[2],

		"typ JWT":                    sign(jwstest.Object{"typ": "JWT"}, nil),
		"typ of an access token":     sign(jwstest.Object{"typ": "at+jwt"}, nil),
		"typ in upper case":          sign(jwstest.Object{"typ": "DPOP+JWT"}, nil),
		"no typ":                     sign(jwstest.Object{"typ": nil}, nil),
		"alg none":                   sign(jwstest.Object{"alg": "none"}, nil),
		"alg HS256":                  sign(jwstest.Object{"alg": "HS256"}, nil),
		"alg of another type of key": sign(jwstest.Object{"alg": "RS256"}, nil),
		"no alg":                     sign(jwstest.Object{"alg": nil}, nil),
		"no jwk":                     sign(jwstest.Object{"jwk": nil}, nil),
		"jwk is text":                sign(jwstest.Object{"jwk": "key"}, nil),
		"jwk is null":                sign(jwstest.Object{"jwk": []string(nil)}, nil),
		"crit":                       sign(jwstest.Object{"crit": []string{"b64"}}, nil),
		"jku":                        sign(jwstest.Object{"jku": "https://evil.example.com/keys"}, nil),
		"x5u":                        sign(jwstest.Object{"x5u": "https://evil.example.com/certificate"}, nil),

		"symmetric jwk":          key.Sign(header(key).With(jwstest.Object{"alg": "HS256", "jwk": jwstest.Object{"kty": "oct", "k": "c2VjcmV0"}}), payload()),
		"symmetric jwk as ES256": key.Sign(header(key).With(jwstest.Object{"jwk": jwstest.Object{"kty": "oct", "k": "c2VjcmV0"}}), payload()),
		"private jwk":            key.Sign(jwk(jwstest.Object{"d": "AAAA"}), payload()),
		"private RSA jwk":        key.Sign(jwk(jwstest.Object{"kty": "RSA", "n": "AQAB", "e": "AQAB", "p": "AQAB"}), payload()),
		"jwk with k":             key.Sign(jwk(jwstest.Object{"k": "AAAA"}), payload()),
		"jwk for encryption":     key.Sign(jwk(jwstest.Object{"use": "enc"}), payload()),
		"jwk for another alg":    key.Sign(jwk(jwstest.Object{"alg": "ES384"}), payload()),
		"jwk off its curve":      key.Sign(jwk(jwstest.Object{"y": header(other)["jwk"].(jwstest.Object)["y"]}), payload()),
		"jwk of another curve":   key.Sign(jwk(jwstest.Object{"crv": "P-384"}), payload()),
		"jwk of secp256k1":       key.Sign(jwk(jwstest.Object{"crv": "secp256k1"}), payload()),
		"jwk without y":          key.Sign(jwk(jwstest.Object{"y": nil}), payload()),
		"jwk of RSA, too small":  key.Sign(header(key).With(jwstest.Object{"alg": "RS256", "jwk": jwstest.Object{"kty": "RSA", "n": "AQAB", "e": "AQAB"}}), payload()),
		"jwk of RSA, e huge":     key.Sign(header(key).With(jwstest.Object{"alg": "RS256", "jwk": jwstest.Object{"kty": "RSA", "n": strings.Repeat("AQAB", 90), "e": "AQABAQAB"}}), payload()),
		"jwk of a short Ed25519": ed.Sign(header(ed).With(jwstest.Object{"jwk": jwstest.Object{"kty": "OKP", "crv": "Ed25519", "x": "AQAB"}}), payload()),
		"jwk in other case":      key.Sign(jwk(jwstest.Object{"kty": nil, "KTY": "EC"}), payload()),

		"no jti":             sign(nil, jwstest.Object{"jti": nil}),
		"jti empty":          sign(nil, jwstest.Object{"jti": ""}),
		"jti a number":       sign(nil, jwstest.Object{"jti": 1}),
		"jti too long":       sign(nil, jwstest.Object{"jti": strings.Repeat("x", 257)}),
		"no htm":             sign(nil, jwstest.Object{"htm": nil}),
		"htm another method": sign(nil, jwstest.Object{"htm": "POST"}),
		"htm in lower case":  sign(nil, jwstest.Object{"htm": "get"}),
		"no htu":             sign(nil, jwstest.Object{"htu": nil}),
		"htu another path":   sign(nil, jwstest.Object{"htu": target + "/1"}),
		"htu path in case":   sign(nil, jwstest.Object{"htu": "https://api.example.com/Orders"}),
		"htu another port":   sign(nil, jwstest.Object{"htu": "https://api.example.com:8443/orders"}),
		"htu another scheme": sign(nil, jwstest.Object{"htu": "http://api.example.com/orders"}),
		"htu another host":   sign(nil, jwstest.Object{"htu": "https://api.example.org/orders"}),
		"htu with userinfo":  sign(nil, jwstest.Object{"htu": "https://user@api.example.com/orders"}),
		"htu relative":       sign(nil, jwstest.Object{"htu": "/orders"}),
		"htu trailing slash": sign(nil, jwstest.Object{"htu": target + "/"}),
		"htu with a space":   sign(nil, jwstest.Object{"htu": " " + target}),
		"htu Kelvin sign":    sign(nil, jwstest.Object{"htu": "https://api.example.com/order\u212a"}),
		"no iat":             sign(nil, jwstest.Object{"iat": nil}),
		"iat text":           sign(nil, jwstest.Object{"iat": "1"}),
		"5 minutes old":      sign(nil, jwstest.Object{"iat": now.Add(-5 * time.Minute).Unix()}),
		"91 seconds old":     sign(nil, jwstest.Object{"iat": now.Add(-91 * time.Second).Unix()}),
		"from the future":    sign(nil, jwstest.Object{"iat": now.Add(31 * time.Second).Unix()}),
		"no ath":             sign(nil, jwstest.Object{"ath": nil}),
		"ath of another":     sign(nil, jwstest.Object{"ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"}),
	} {
		if proof, err := newVerifier().Verify(raw, request()); !errors.Is(err, dpop.ErrProof) || proof != nil {
			t.Errorf("%s: got %+v, %v, want ErrProof", name, proof, err)
		}
	}
	if _, err := newVerifier().Verify(good, request()); err != nil {
		t.Errorf("the proof that the others are made of: %v", err)
	}
}

func TestAcceptsProofs(t *testing.T) {
	key := jwstest.NewSigner(jwks.ES256)
	for name, change := range map[string]jwstest.Object{
		"query":                 {"htu": target + "?a=b"},
		"fragment":              {"htu": target + "#a"},
		"host in upper case":    {"htu": "HTTPS://API.example.COM/orders"},
		"default port":          {"htu": "https://api.example.com:443/orders"},
		"empty port":            {"htu": "https://api.example.com:/orders"},
		"needless escape":       {"htu": "https://api.example.com/%6Frders"},
		"dot segments":          {"htu": "https://api.example.com/a/../orders"},
		"90 seconds old":        {"iat": now.Add(-90 * time.Second).Unix()},
		"30 seconds ahead":      {"iat": now.Add(30 * time.Second).Unix()},
		"jti of 256 bytes":      {"jti": strings.Repeat("x", 256)},
		"unknown claim":         {"x": "y"},
		"nonce nobody asks for": {"nonce": "x"},
	} {
		raw := key.Sign(header(key), payload().With(change))
		if _, err := newVerifier().Verify(raw, request()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ed := jwstest.NewSigner(jwks.EdDSA)
	okp := jwstest.Object{"kty": "OKP", "crv": "Ed25519", "x": ed.JWK().X}
	for name, head := range map[string]jwstest.Object{
		"EdDSA":               {"alg": "EdDSA", "jwk": okp},
		"Ed25519":             {"alg": "Ed25519", "jwk": okp},
		"Ed25519, named so":   {"alg": "EdDSA", "jwk": okp.With(jwstest.Object{"alg": "Ed25519", "use": "sig", "kid": "1"})},
		"Ed25519, named both": {"alg": "Ed25519", "jwk": okp.With(jwstest.Object{"alg": "EdDSA"})},
	} {
		if _, err := newVerifier().Verify(ed.Sign(head.With(jwstest.Object{"typ": "dpop+jwt"}), payload()), request()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Each algorithm in the metadata is accepted.
	for _, algorithm := range dpop.Algorithms() {
		signer := jwstest.NewSigner(jwks.Algorithm(strings.Replace(algorithm, "Ed25519", "EdDSA", 1)))
		if algorithm == "ES512" {
			signer.Private = must.Get(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
		}
		public := signer.JWK()
		key := jwstest.Object{"kty": public.KeyType, "crv": public.Curve, "x": public.X, "y": public.Y, "n": public.N, "e": public.E}
		maps.DeleteFunc(key, func(_ string, v any) bool { return v == "" })
		raw := signer.Sign(jwstest.Object{"typ": "dpop+jwt", "alg": algorithm, "jwk": key}, payload())
		if _, err := newVerifier().Verify(raw, request()); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
	// Of several names of the server, any will do; their own query does not count.
	names := &dpop.Request{Method: "GET", URLs: []string{"https://other.example.com/orders", target + "?page=1"}, Token: accessToken}
	if _, err := newVerifier().Verify(key.Sign(header(key), payload()), names); err != nil {
		t.Errorf("the second name: %v", err)
	}
}

func TestEscapesAreCompared(t *testing.T) {
	key := jwstest.NewSigner(jwks.ES256)
	for _, test := range []struct {
		claimed, called string
		same            bool
	}{
		{"https://a.example/x%2fy", "https://a.example/x%2Fy", true},
		{"https://a.example/x%2Fy", "https://a.example/x/y", false},
		{"https://a.example/%7Ex", "https://a.example/~x", true},
		{"https://a.example/%zz", "https://a.example/%ZZ", false},
		{"https://a.example", "https://a.example/", true},
		{"https://[::1]:443/", "https://[::1]/", true},
		{"http://a.example:443/", "https://a.example/", false},
	} {
		raw := key.Sign(header(key), payload().With(jwstest.Object{"htu": test.claimed}))
		_, err := newVerifier().Verify(raw, &dpop.Request{Method: "GET", URLs: []string{test.called}, Token: accessToken})
		if (err == nil) != test.same {
			t.Errorf("%s and %s: got %v, want same: %t", test.claimed, test.called, err, test.same)
		}
	}
}

func TestProofsAreUsedOnce(t *testing.T) {
	signer := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	raw := must.Get(signer.Sign(dpop.Claims{Method: "GET", URL: target, Token: accessToken, Time: now}))
	verifier, clock := newVerifier(), now
	verifier.Now = func() time.Time { return clock }
	if _, err := verifier.Verify(raw, request()); err != nil {
		t.Fatal(err)
	}
	// Until the proof is too old, it is remembered; afterwards its age counts, also when the clock is set back.
	for _, at := range []time.Duration{0, 30 * time.Second, 90 * time.Second, 91 * time.Second, 5 * time.Minute, time.Second} {
		clock = now.Add(at)
		if _, err := verifier.Verify(raw, request()); !errors.Is(err, dpop.ErrProof) {
			t.Errorf("after %s: got %v, want ErrProof", at, err)
		}
	}
}

func TestNonces(t *testing.T) {
	signer := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	verifier, clock := newVerifier(), now
	verifier.Now = func() time.Time { return clock }
	verifier.Nonces = dpop.NewNonces([]byte("key"))
	sign := func(nonce string) string {
		return must.Get(signer.Sign(dpop.Claims{Method: "GET", URL: target, Token: accessToken, Nonce: nonce, Time: clock}))
	}
	for _, wrong := range []string{"", "x", dpop.NewNonces([]byte("other")).Current(now)} {
		if _, err := verifier.Verify(sign(wrong), request()); !errors.Is(err, dpop.ErrNonce) {
			t.Errorf("nonce %q: got %v, want ErrNonce", wrong, err)
		}
	}
	// Another server with the same key accepts the nonce, and provides the next one in time.
	nonce := dpop.NewNonces([]byte("key")).Current(now)
	if got := verifier.Nonce(); got != nonce {
		t.Errorf("got %q, want %q", got, nonce)
	}
	for _, at := range []struct {
		after time.Duration
		next  bool
		err   error
	}{{0, false, nil}, {2 * time.Minute, true, nil}, {-2 * time.Minute, true, nil}, {4 * time.Minute, false, dpop.ErrNonce}} {
		clock = now.Add(at.after)
		verifier.Replays = dpop.NewReplays(1000)
		proof, err := verifier.Verify(sign(nonce), request())
		if !errors.Is(err, at.err) || err == nil && (proof.NextNonce != "") != at.next {
			t.Errorf("after %s: got %+v, %v", at.after, proof, err)
		}
	}
}

func TestOne(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   string
		ok     bool
	}{{nil, "", true}, {[]string{"a"}, "a", true}, {[]string{""}, "", false}, {[]string{"a", "a"}, "", false}} {
		if got, err := dpop.One(test.values); got != test.want || (err == nil) != test.ok || err != nil && !errors.Is(err, dpop.ErrProof) {
			t.Errorf("%q: got %q, %v", test.values, got, err)
		}
	}
}
