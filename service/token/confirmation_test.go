package token_test

import (
	"context"
	"errors"
	"testing"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// TestConfirmation signs tokens that are bound to keys, and reads the keys from them.
func TestConfirmation(t *testing.T) {
	signer := signerFor(jwks.ES256)
	for want, methods := range map[token.Confirmation]string{
		{}: "", {CertificateThumbprint: "c"}: "x5t#S256", {KeyThumbprint: "k"}: "jkt", {CertificateThumbprint: "c", KeyThumbprint: "k"}: "x5t#S256 jkt",
	} {
		c := claims()
		c.Confirmation = want
		got := must.Get(verify(newVerifier(signer.Public()), must.Get(signer.Sign(c))))
		if got.Confirmation != want || got.Confirmation.Bound() != (want != token.Confirmation{}) {
			t.Errorf("got %+v, bound %t, want %+v", got.Confirmation, got.Confirmation.Bound(), want)
		}
		if names := got.Confirmation.Methods(); names != methods {
			t.Errorf("%+v: got the methods %q, want %q", want, names, methods)
		}
	}
}

// TestForeignConfirmation has the claims "cnf" of other issuers.
func TestForeignConfirmation(t *testing.T) {
	verifier := newVerifier(signerFor(jwks.ES256).Public())
	for cnf, want := range map[string]token.Confirmation{
		`{"jwk":{"kty":"EC"}}`:           {Unknown: true},
		`{"X5T#s256":"c"}`:               {Unknown: true},
		`{"x5t#S256":"c","kid":"other"}`: {CertificateThumbprint: "c", Unknown: true},
	} {
		got, err := verifier.Verify(context.Background(), es256(goodHeader().String(), goodPayload().with(object{"cnf": raw(cnf)}).String()))
		if err != nil || got.Confirmation != want || !got.Confirmation.Bound() {
			t.Errorf("%s: got %+v, %v, want %+v", cnf, got, err, want)
		}
	}
	for _, cnf := range []string{`null`, `{}`, `"c"`, `[]`, `{"jkt":1}`, `{"jkt":""}`, `{"x5t#S256":null}`} {
		_, err := verifier.Verify(context.Background(), es256(goodHeader().String(), goodPayload().with(object{"cnf": raw(cnf)}).String()))
		if !errors.Is(err, token.ErrMalformed) {
			t.Errorf("%s: got %v, want %v", cnf, err, token.ErrMalformed)
		}
	}
}
