package token_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
)

func FuzzVerify(f *testing.F) {
	good := must.Get(signerFor(jwks.ES256).Sign(claims()))
	verifier := newVerifier(signerFor(jwks.ES256).Public())
	f.Add(good)
	f.Add(es256(goodHeader().with(object{"alg": "none"}).String(), goodPayload().String()))
	f.Add(es256("null", "[]"))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, raw string) {
		// Each process has a new key: only the one token that was signed with it can be valid.
		if got, err := verify(verifier, raw); err == nil && raw != good {
			t.Errorf("%q is valid: %+v", raw, got)
		} else if err != nil && got != nil {
			t.Errorf("%q: got claims %+v with the error %v", raw, got, err)
		}
	})
}

// A payload signed by the issuer may be arbitrary, too: the claims are those that were signed, or verification fails.
func FuzzSigned(f *testing.F) {
	verifier := newVerifier(signerFor(jwks.ES256).Public())
	header := goodHeader().String()
	f.Add(goodPayload().String())
	f.Add(goodPayload().with(object{"aud": []string{orders, ""}, "exp": raw("1e400")}).String())
	f.Add(`{"iss":null,"aud":[null]}`)
	f.Fuzz(func(t *testing.T, payload string) {
		got, err := verify(verifier, es256(header, payload))
		if err != nil {
			return
		}
		signed := map[string]any{}
		if err := json.Unmarshal([]byte(payload), &signed); err != nil {
			t.Fatalf("%q is valid but not JSON", payload)
		}
		if signed["iss"] != issuer || signed["sub"] != got.Subject || signed["client_id"] != got.ClientID ||
			!strings.Contains(fmt.Sprint(signed["aud"]), orders) || got.ExpiresAt.Unix() <= issued.Unix()+60 {
			t.Errorf("%q is parsed as %+v", payload, got)
		}
	})
}
