package jwks_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
)

func TestDocument(t *testing.T) {
	ec, ed, rsaKey := jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.EdDSA), jwstest.NewSigner(jwks.RS256)
	text := jwstest.Set(ec, ed, rsaKey)
	set := must.Get(jwks.ParseDocument(text))
	if again := must.Get(jwks.ParseDocument(set.String())); again.String() != set.String() {
		t.Errorf("got %s, then %s", set, again)
	}
	for _, s := range []jwstest.Signer{ec, ed, rsaKey} {
		key := must.Get(set.Find(t.Context(), s.Key().ID()))
		if fitting, ok := key.For(s.Algorithm); !ok || !fitting.Equal(s.Key()) {
			t.Errorf("%s: got %v", s.Algorithm, fitting)
		}
	}
	if _, err := set.Find(t.Context(), ""); !errors.Is(err, jwks.ErrUnknownKey) {
		t.Errorf("no kid among three keys: got %v, want %v", err, jwks.ErrUnknownKey)
	}
	if _, err := (jwks.Document{}).Find(t.Context(), ""); !errors.Is(err, jwks.ErrUnknownKey) {
		t.Errorf("no keys: got %v, want %v", err, jwks.ErrUnknownKey)
	}
	// The private half of a key in memory is not even printed.
	if strings.Contains(set.String(), `"d"`) {
		t.Error("the set has a private key")
	}
}

// A key is found by its thumbprint too, whatever its kid, and gets it as its kid if it has none.
func TestDocumentKeyNames(t *testing.T) {
	s := jwstest.NewSigner(jwks.ES256)
	for _, kid := range []string{"", "my-key"} {
		published := s.JWK()
		published.ID, published.Use, published.Algorithm = kid, "", ""
		set := must.Get(jwks.ParseDocument(string(must.Get(json.Marshal(map[string]any{"keys": []any{published}})))))
		for _, id := range []string{"", s.Key().ID(), kid} {
			if key, err := set.Find(t.Context(), id); err != nil || key.Thumbprint() != s.Key().Thumbprint() {
				t.Errorf("kid %q, asked for %q: got %v, %v", kid, id, key.ID(), err)
			}
		}
		if _, err := set.Find(t.Context(), "other"); !errors.Is(err, jwks.ErrUnknownKey) {
			t.Errorf("kid %q, asked for another: got %v, want %v", kid, err, jwks.ErrUnknownKey)
		}
	}
}

func TestWrongKeySets(t *testing.T) {
	s, other := jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.ES256)
	private := string(must.Get(json.Marshal(must.Get(jwk.FromRaw(s.Private)))))
	public := string(must.Get(json.Marshal(s.JWK())))
	keys := func(list ...string) string { return `{"keys":[` + strings.Join(list, ",") + `]}` }
	twin := other.JWK()
	twin.ID = s.Key().ID()
	for name, text := range map[string]string{
		"not JSON":         "x",
		"one key alone":    public,
		"a list":           "[" + public + "]",
		"no keys":          keys(),
		"keys null":        `{"keys":null}`,
		"a key null":       keys("null"),
		"a key a text":     keys(`"x"`),
		"a private key":    keys(private),
		"among others":     keys(public, private),
		"symmetric":        keys(`{"kty":"oct","k":"AAAA"}`),
		"for encryption":   keys(strings.Replace(public, `"sig"`, `"enc"`, 1)),
		"unknown type":     keys(`{"kty":"AKP","pub":"AAAA"}`),
		"short RSA":        keys(`{"kty":"RSA","n":"` + strings.Repeat("_", 170) + `","e":"AQAB"}`),
		"not on the curve": keys(strings.Replace(public, `"x":"`, `"x":"A`, 1)),
		"alg none":         keys(strings.Replace(public, "ES256", "none", 1)),
		"keys as KEYS":     strings.Replace(keys(public), `"keys"`, `"KEYS"`, 1),
		"kty as Kty":       keys(strings.Replace(public, `"kty"`, `"Kty"`, 1)),
		"one kid twice":    keys(public, string(must.Get(json.Marshal(twin)))),
		"nine keys":        keys(public, public, public, public, public, public, public, public, public),
		"too large":        keys(public) + strings.Repeat(" ", 16<<10),
	} {
		if set, err := jwks.ParseDocument(text); err == nil {
			t.Errorf("%s: got %s, want an error", name, set)
		} else if strings.Contains(err.Error(), `"d":"`) {
			t.Errorf("%s: the error has the private key: %v", name, err)
		}
	}
}

// Of a name that differs from a member's in letter case alone, nothing is stored: the set would not parse again.
func TestDocumentLetterCase(t *testing.T) {
	public := string(must.Get(json.Marshal(jwstest.NewSigner(jwks.ES256).JWK())))
	odd := strings.Replace(public, `"alg":"ES256"`, `"Alg":"00000"`, 1)
	set := must.Get(jwks.ParseDocument(`{"keys":[` + odd + `]}`))
	if text := set.String(); strings.Contains(text, "alg") || must.Get(jwks.ParseDocument(text)).String() != text {
		t.Errorf("%s is stored as %s", odd, text)
	}
}

func FuzzKeySet(f *testing.F) {
	f.Add(jwstest.Set(jwstest.NewSigner(jwks.ES256)))
	f.Add(strings.Replace(jwstest.Set(jwstest.NewSigner(jwks.ES256)), `"alg"`, `"Alg"`, 1))
	f.Add(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB","d":"AQ"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		set, err := jwks.ParseDocument(text)
		if err != nil || text == "" {
			return
		}
		again, err := jwks.ParseDocument(set.String())
		if err != nil || again.String() != set.String() {
			t.Errorf("%q: %s becomes %s, %v", text, set, again, err)
		}
	})
}
