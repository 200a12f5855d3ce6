package jwks_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
)

// webKey returns raw as a JWK with the fields changed; a nil value removes a field.
func webKey(raw any, change map[string]any) map[string]any {
	fields := map[string]any{}
	if err := json.Unmarshal(must.Get(json.Marshal(must.Get(jwk.FromRaw(raw)))), &fields); err != nil {
		panic(err)
	}
	maps.Copy(fields, change)
	maps.DeleteFunc(fields, func(_ string, v any) bool { return v == nil })
	return fields
}

func TestParse(t *testing.T) {
	p256, p384, p521 := newEC(elliptic.P256()), newEC(elliptic.P384()), newEC(elliptic.P521())
	ecKey := func(change map[string]any) map[string]any {
		all := map[string]any{"kid": "a"}
		maps.Copy(all, change)
		return webKey(p256.Public(), all)
	}
	n := strings.Repeat("_", 170) // 1020 bits
	offCurve := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	tests := map[string]struct {
		key  map[string]any
		want jwks.Algorithm // "" if the key is ignored
	}{
		"P-256":                {ecKey(nil), jwks.ES256},
		"P-256 for ES256":      {ecKey(map[string]any{"alg": "ES256", "use": "sig"}), jwks.ES256},
		"P-384":                {webKey(p384.Public(), map[string]any{"kid": "a"}), "ES384"},
		"P-521":                {webKey(p521.Public(), map[string]any{"kid": "a"}), "ES512"},
		"RSA":                  {webKey(rsaKey().Public(), map[string]any{"kid": "a"}), jwks.RS256},
		"RSA for PS256":        {webKey(rsaKey().Public(), map[string]any{"kid": "a", "alg": "PS256"}), jwks.PS256},
		"Ed25519":              {webKey(newEd(), map[string]any{"kid": "a"}), jwks.EdDSA},
		"Ed25519 for EdDSA":    {webKey(newEd(), map[string]any{"kid": "a", "alg": "EdDSA"}), jwks.EdDSA},
		"Ed25519 for Ed25519":  {webKey(newEd(), map[string]any{"kid": "a", "alg": "Ed25519"}), jwks.EdDSA},
		"Ed25519 for Ed448":    {webKey(newEd(), map[string]any{"kid": "a", "alg": "Ed448"}), ""},
		"P-256 for Ed25519":    {ecKey(map[string]any{"alg": "Ed25519"}), ""},
		"alg a number":         {ecKey(map[string]any{"alg": 1}), ""},
		"x5c a text":           {ecKey(map[string]any{"x5c": "x"}), ""},
		"to verify":            {ecKey(map[string]any{"key_ops": []string{"verify"}}), jwks.ES256},
		"a private key":        {webKey(p256, map[string]any{"kid": "a", "key_ops": []string{"sign"}}), jwks.ES256},
		"a private RSA key":    {webKey(rsaKey(), map[string]any{"kid": "a"}), jwks.RS256},
		"an unknown field":     {ecKey(map[string]any{"x-note": map[string]any{"a": 1}}), jwks.ES256},
		"to encrypt":           {ecKey(map[string]any{"use": "enc"}), ""},
		"to derive":            {ecKey(map[string]any{"key_ops": []string{"deriveKey"}}), ""},
		"symmetric":            {webKey([]byte("0123456789abcdef0123456789abcdef"), map[string]any{"kid": "a", "alg": "HS256"}), ""},
		"short RSA":            {map[string]any{"kty": "RSA", "kid": "a", "n": n, "e": "AQAB"}, ""},
		"unknown type":         {map[string]any{"kty": "AKP", "kid": "a", "pub": "AAAA"}, ""},
		"no type":              {ecKey(map[string]any{"kty": nil}), ""},
		"ES256 with P-384":     {webKey(p384.Public(), map[string]any{"kid": "a", "alg": "ES256"}), ""},
		"RS256 with P-256":     {ecKey(map[string]any{"alg": "RS256"}), ""},
		"HS256 with RSA":       {webKey(rsaKey().Public(), map[string]any{"kid": "a", "alg": "HS256"}), ""},
		"none":                 {ecKey(map[string]any{"alg": "none"}), ""},
		"unknown algorithm":    {ecKey(map[string]any{"alg": "ES999"}), ""},
		"RSA-OAEP":             {webKey(rsaKey().Public(), map[string]any{"kid": "a", "alg": "RSA-OAEP"}), ""},
		"x of the wrong size":  {ecKey(map[string]any{"x": "AQAB"}), ""},
		"not on the curve":     {ecKey(map[string]any{"x": offCurve, "y": offCurve}), ""},
		"x not base64url":      {ecKey(map[string]any{"x": "%%%"}), ""},
		"no y":                 {ecKey(map[string]any{"y": nil}), ""},
		"wrong curve name":     {ecKey(map[string]any{"crv": "P-384"}), ""},
		"secp256k1":            {ecKey(map[string]any{"crv": "secp256k1"}), ""},
		"kid of another type":  {ecKey(map[string]any{"kid": 1}), ""},
		"X25519":               {map[string]any{"kty": "OKP", "crv": "X25519", "kid": "a", "x": offCurve}, ""},
		"Ed25519, short":       {map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "AQAB"}, ""},
		"RSA without exponent": {webKey(rsaKey().Public(), map[string]any{"kid": "a", "e": nil}), ""},
	}
	spare := newKey()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			alone := must.Get(json.Marshal(map[string]any{"keys": []any{test.key}}))
			if set, err := jwks.Parse(alone); (err == nil) != (test.want != "") {
				t.Errorf("alone: got %v, %v, want algorithm %q", set, err, test.want)
			}
			// An unusable key does not affect the others (RFC 7517 §5).
			set, err := jwks.Parse(must.Get(json.Marshal(map[string]any{"keys": []any{test.key, must.Get(spare.JWK())}})))
			if err != nil {
				t.Fatal(err)
			}
			if !set.Trusts(spare) {
				t.Error("the usable key is missing")
			}
			k, err := set.Find(t.Context(), "a")
			if k.Algorithm() != test.want || (err == nil) != (test.want != "") || (err != nil && !errors.Is(err, jwks.ErrUnknownKey)) {
				t.Errorf("got %q, %v, want %q", k.Algorithm(), err, test.want)
			}
			if private, ok := k.Public().(interface{ Public() any }); ok {
				t.Errorf("a %T came through", private)
			}
		})
	}
}

func TestParseDocuments(t *testing.T) {
	usable := must.Get(newKey().JWK())
	for name, document := range map[string]string{
		"empty":        "",
		"no JSON":      "<html>",
		"null":         "null",
		"a list":       "[]",
		"no keys":      `{"keys":[]}`,
		"keys null":    `{"keys":null}`,
		"keys a text":  `{"keys":"x"}`,
		"other object": `{"error":"x"}`,
		"cut off":      `{"keys":[{"kty":"EC"`,
		"deep":         strings.Repeat(`{"keys":[`, 20_000),
		"too large":    `{"keys":[` + string(must.Get(json.Marshal(usable))) + `],"pad":"` + strings.Repeat("x", jwks.MaxDocument) + `"}`,
	} {
		if set, err := jwks.Parse([]byte(document)); err == nil {
			t.Errorf("%s: got %v, want an error", name, set.Keys())
		}
	}
}

// Of several keys with the same id, only the first is in the set.
func TestDuplicates(t *testing.T) {
	first, second := must.Get(newKey().JWK()), must.Get(newKey().JWK())
	first.ID, second.ID = "same", "same"
	set := must.Get(jwks.Parse(must.Get(json.Marshal(map[string]any{"keys": []jwks.JWK{first, second}}))))
	if got := len(set.Keys()); got != 1 {
		t.Fatalf("%d keys, want 1", got)
	}
	want := must.Get(jwks.Parse(must.Get(json.Marshal(first)))).Keys()[0]
	if got := must.Get(set.Find(t.Context(), "same")); !got.Equal(want) {
		t.Error("the second key was found")
	}
}

// One id for keys of several types or algorithms (RFC 7517 §4.5), in any order.
func TestSharedID(t *testing.T) {
	rsa256 := webKey(rsaKey().Public(), map[string]any{"kid": "a", "alg": "RS256", "use": "sig"})
	rsa512 := webKey(rsaKey().Public(), map[string]any{"kid": "a", "alg": "RS512"})
	anyRSA := webKey(must.Get(rsa.GenerateKey(rand.Reader, 2048)).Public(), map[string]any{"kid": "a"})
	ec := webKey(newEC(elliptic.P256()).Public(), map[string]any{"kid": "a"})
	ed := webKey(newEd(), map[string]any{"kid": "a", "alg": "Ed25519"})
	encrypting := webKey(must.Get(rsa.GenerateKey(rand.Reader, 2048)).Public(), map[string]any{"kid": "a", "use": "enc", "alg": "RSA-OAEP"})
	unknown := map[string]any{"kty": "AKP", "kid": "a", "alg": "ML-DSA-44", "pub": "AAAA"}
	keys := []any{rsa256, rsa512, anyRSA, ec, ed, encrypting, unknown, nil, 5, "x", []any{}}
	for i := range keys {
		rotated := append(append([]any{}, keys[i:]...), keys[:i]...)
		set := must.Get(jwks.Parse(must.Get(json.Marshal(map[string]any{"keys": rotated}))))
		first := must.Get(set.Find(t.Context(), "a"))
		for algorithm, want := range map[jwks.Algorithm]map[string]any{
			"RS256": rsa256, "RS512": rsa512, "PS256": anyRSA, "ES256": ec, "EdDSA": ed, "Ed25519": ed,
		} {
			got, ok := first.For(algorithm)
			if !ok || !set.Trusts(got) {
				t.Errorf("rotation %d, %s: got %v, want a trusted key", i, algorithm, ok)
				continue
			}
			if published := must.Get(got.JWK()); fmt.Sprint(published.N, published.X) != fmt.Sprint(text(want["n"]), text(want["x"])) {
				t.Errorf("rotation %d, %s: another key was found", i, algorithm)
			}
		}
		for _, algorithm := range []jwks.Algorithm{"", "none", "HS256", "ES384", "RSA-OAEP", "ML-DSA-44"} {
			if got, ok := first.For(algorithm); ok {
				t.Errorf("rotation %d, %s: got %s, want none", i, algorithm, got.Algorithm())
			}
		}
	}
}

// text returns a JSON string, or "" for an absent one.
func text(v any) string {
	s, _ := v.(string)
	return s
}

func TestFindWithoutID(t *testing.T) {
	k := newKey()
	if got, err := jwks.NewSet(k).Find(t.Context(), ""); err != nil || !got.Equal(k) {
		t.Errorf("one key: got %v, %v, want it", got.ID(), err)
	}
	if got, err := jwks.NewSet(k, newKey()).Find(t.Context(), ""); !errors.Is(err, jwks.ErrUnknownKey) {
		t.Errorf("two keys: got %v, %v, want %v", got.ID(), err, jwks.ErrUnknownKey)
	}
	anyRSA := must.Get(json.Marshal(map[string]any{"keys": []any{webKey(rsaKey().Public(), nil)}}))
	if got, err := must.Get(jwks.Parse(anyRSA)).Find(t.Context(), ""); err != nil {
		t.Errorf("one key for several algorithms: got %v", err)
	} else if _, ok := got.For(jwks.PS256); !ok {
		t.Error("one key for several algorithms: not for PS256")
	}
	named := must.Get(json.Marshal(map[string]any{"keys": []any{webKey(rsaKey().Public(), map[string]any{"kid": "a"})}}))
	if got, err := must.Get(jwks.Parse(named)).Find(t.Context(), ""); err != nil || got.ID() != "a" {
		t.Errorf("one named key for several algorithms: got %q, %v", got.ID(), err)
	}
	if got, err := jwks.NewSet().Find(t.Context(), ""); !errors.Is(err, jwks.ErrUnknownKey) {
		t.Errorf("no key: got %v, %v, want %v", got.ID(), err, jwks.ErrUnknownKey)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(must.Get(json.Marshal(map[string]any{"keys": []jwks.JWK{must.Get(newKey().JWK())}})))
	f.Add(must.Get(json.Marshal(webKey(rsaKey(), nil))))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		set, err := jwks.Parse(document)
		if err != nil {
			return
		}
		if len(set.Keys()) == 0 {
			t.Error("a set without keys")
		}
		for _, k := range set.Keys() {
			// A parsed key can be written, and is then the same key.
			reparsed := must.Get(jwks.Parse(must.Get(json.Marshal(must.Get(k.JWK())))))
			if !reparsed.Trusts(k) {
				t.Errorf("%q changes when it is written", k.ID())
			}
		}
	})
}

// A nil or zero set has no keys.
func TestNoSet(t *testing.T) {
	k := newKey()
	for _, set := range []*jwks.Set{nil, {}} {
		for _, id := range []string{"", k.ID()} {
			if _, err := set.Find(t.Context(), id); !errors.Is(err, jwks.ErrUnknownKey) {
				t.Errorf("got %v, want %v", err, jwks.ErrUnknownKey)
			}
		}
		if set.Trusts(k) || len(set.Keys()) > 0 {
			t.Error("the set has a key")
		}
	}
}
