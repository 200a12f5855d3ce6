package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

func expectClaims(t *testing.T, got, want *token.Claims) {
	t.Helper()
	if got.Issuer != want.Issuer || got.Subject != want.Subject || got.ClientID != want.ClientID || got.ID != want.ID ||
		!slices.Equal(got.Audience, want.Audience) || !slices.Equal(got.Scope, want.Scope) ||
		!got.IssuedAt.Equal(want.IssuedAt) || !got.ExpiresAt.Equal(want.ExpiresAt) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	shapes := map[string]func(*token.Claims){
		"usual":         func(*token.Claims) {},
		"two audiences": func(c *token.Claims) { c.Audience = []string{"https://stock.internal", orders} },
		"no scope":      func(c *token.Claims) { c.Scope = nil },
		"letters":       func(c *token.Claims) { c.Subject = `a"b\c<é> ` },
	}
	for algorithm := range privateKeys() {
		for name, change := range shapes {
			t.Run(string(algorithm)+" "+name, func(t *testing.T) {
				want := claims()
				change(want)
				signer := signerFor(algorithm)
				got, err := verify(newVerifier(signer.Public()), must.Get(signer.Sign(want)))
				if err != nil {
					t.Fatal(err)
				}
				expectClaims(t, got, want)
			})
		}
	}
}

// TestPayload checks that the payload is that of encoding/json, byte for byte, whatever the claims have in them.
func TestPayload(t *testing.T) {
	type cnf struct {
		Certificate string `json:"x5t#S256,omitempty"`
		Key         string `json:"jkt,omitempty"`
	}
	texts := []string{"", "plain", `a"b\c`, "<script>&", "é\u2028", "\xff", "a\x7fb", "tab\tline\n\x00", "https://orders.internal/?a=1&b=2"}
	for i, text := range texts {
		c := claims()
		c.Issuer, c.Subject, c.ClientID, c.ID = text, texts[(i+1)%len(texts)], texts[(i+2)%len(texts)], texts[(i+3)%len(texts)]
		if i%2 == 1 {
			c.Scope = nil
		}
		for _, audience := range [][]string{nil, {}, {text}, {text, "https://orders.internal"}} {
			for _, key := range []cnf{{}, {text, ""}, {"", text}, {text, text}} {
				var wantKey *cnf
				if key != (cnf{}) {
					wantKey = &key
				}
				c.Audience, c.Confirmation = audience, token.Confirmation{CertificateThumbprint: key.Certificate, KeyThumbprint: key.Key}
				var aud any = audience
				if len(audience) == 1 {
					aud = audience[0]
				}
				want := must.Get(json.Marshal(struct {
					Issuer   string `json:"iss"`
					Subject  string `json:"sub"`
					ClientID string `json:"client_id"`
					Audience any    `json:"aud"`
					Scope    string `json:"scope,omitempty"`
					IssuedAt int64  `json:"iat"`
					Expires  int64  `json:"exp"`
					ID       string `json:"jti"`
					Key      *cnf   `json:"cnf,omitempty"`
				}{c.Issuer, c.Subject, c.ClientID, aud, c.Scope.String(), c.IssuedAt.Unix(), c.ExpiresAt.Unix(), c.ID, wantKey}))
				_, payload, _ := parts(must.Get(signerFor(jwks.EdDSA).Sign(c)))
				if got := must.Get(base64.RawURLEncoding.DecodeString(payload)); string(got) != string(want) {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			}
		}
	}
}

// jwx, which shares only the arithmetic of signatures with Sign, accepts the token.
func TestSignedForJWX(t *testing.T) {
	for algorithm, private := range privateKeys() {
		t.Run(string(algorithm), func(t *testing.T) {
			signed := must.Get(signerFor(algorithm).Sign(claims()))
			parsed, err := jwt.ParseString(signed, jwt.WithKey(jwa.SignatureAlgorithm(algorithm), private.Public()),
				jwt.WithIssuer(issuer), jwt.WithAudience(orders), jwt.WithClock(jwt.ClockFunc(func() time.Time { return issued })))
			if err != nil {
				t.Fatal(err)
			}
			if id, _ := parsed.Get("client_id"); id != "billing" || parsed.Subject() != "billing" || parsed.JwtID() != "id-1" ||
				!parsed.Expiration().Equal(issued.Add(time.Hour)) {
				t.Errorf("jwx reads %v", parsed)
			}
			header := must.Get(jws.ParseString(signed)).Signatures()[0].ProtectedHeaders()
			if header.Type() != token.MediaType || header.KeyID() != signerFor(algorithm).Public().ID() {
				t.Errorf("jwx reads the header %v", header)
			}
		})
	}
}

// The standard library alone, following RFC 7518 §3 and RFC 8037 §3.1, accepts the signature.
func TestSignedForStdlib(t *testing.T) {
	for algorithm, private := range privateKeys() {
		t.Run(string(algorithm), func(t *testing.T) {
			header, payload, signature64 := parts(must.Get(signerFor(algorithm).Sign(claims())))
			signed, signature := []byte(header+"."+payload), must.Get(base64.RawURLEncoding.DecodeString(signature64))
			hash := sha256.Sum256(signed)
			var ok bool
			switch public := private.Public().(type) {
			case *ecdsa.PublicKey:
				r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
				ok = len(signature) == 64 && ecdsa.Verify(public, hash[:], r, s)
			case ed25519.PublicKey:
				ok = ed25519.Verify(public, signed, signature)
			case *rsa.PublicKey:
				if algorithm == jwks.PS256 {
					salted := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
					ok = rsa.VerifyPSS(public, crypto.SHA256, hash[:], signature, salted) == nil
				} else {
					ok = rsa.VerifyPKCS1v15(public, crypto.SHA256, hash[:], signature) == nil
				}
			}
			if !ok {
				t.Error("the signature is wrong")
			}
		})
	}
}

// A token signed by jwx is valid.
func TestSignedByJWX(t *testing.T) {
	for algorithm, private := range privateKeys() {
		t.Run(string(algorithm), func(t *testing.T) {
			public := signerFor(algorithm).Public()
			header := jws.NewHeaders()
			_ = header.Set("typ", "application/at+JWT")
			_ = header.Set("kid", public.ID())
			built := must.Get(jwt.NewBuilder().Issuer(issuer).Subject("billing").Claim("client_id", "billing").
				Audience([]string{orders}).Claim("scope", "orders.read orders.write").Claim("tier", 3).
				IssuedAt(issued).NotBefore(issued).Expiration(issued.Add(time.Hour)).JwtID("id-1").Build())
			signed := must.Get(jwt.Sign(built, jwt.WithKey(jwa.SignatureAlgorithm(algorithm), private, jws.WithProtectedHeaders(header))))
			got, err := verify(newVerifier(public), string(signed))
			if err != nil {
				t.Fatal(err)
			}
			expectClaims(t, got, claims())
			var tier int
			if err := got.Decode("tier", &tier); err != nil || tier != 3 {
				t.Errorf("tier: got %d, %v, want 3", tier, err)
			}
			if err := got.Decode("Tier", &tier); !errors.Is(err, token.ErrNoClaim) {
				t.Errorf("a claim in another letter case: got %v, want %v", err, token.ErrNoClaim)
			}
		})
	}
}

// A token and a key set that never change: tokens issued by an older version are read the same way.
func TestGolden(t *testing.T) {
	var vector struct {
		Token  string          `json:"token"`
		Keys   json.RawMessage `json:"jwks"`
		Claims struct {
			Issuer   string   `json:"issuer"`
			Subject  string   `json:"subject"`
			ClientID string   `json:"client_id"`
			Audience []string `json:"audience"`
			Scope    string   `json:"scope"`
			IssuedAt int64    `json:"issued_at"`
			Expires  int64    `json:"expires_at"`
			ID       string   `json:"id"`
		} `json:"claims"`
	}
	if err := json.Unmarshal(must.Get(os.ReadFile("testdata/golden.json")), &vector); err != nil {
		t.Fatal(err)
	}
	verifier := newVerifier(must.Get(jwks.Parse(vector.Keys)).Keys()...)
	got, err := verify(verifier, vector.Token)
	if err != nil {
		t.Fatal(err)
	}
	c := vector.Claims
	expectClaims(t, got, &token.Claims{
		Issuer: c.Issuer, Subject: c.Subject, ClientID: c.ClientID, Audience: c.Audience, ID: c.ID,
		Scope: must.Get(oauth.ParseScopes(c.Scope)), IssuedAt: time.Unix(c.IssuedAt, 0), ExpiresAt: time.Unix(c.Expires, 0),
	})

	// Sign writes the same header and payload, in the same order, for the same claims and key.
	header, payload, _ := parts(vector.Token)
	ours, oursPayload, _ := parts(must.Get(signerFor(jwks.ES256).Sign(got)))
	if oursPayload != payload {
		t.Errorf("payload: got %s, want %s", oursPayload, payload)
	}
	kid := verifier.Keys.(*jwks.Set).Keys()[0].ID()
	if want := encode(`{"alg":"ES256","kid":"` + kid + `","typ":"at+jwt"}`); header != want || len(ours) != len(header) {
		t.Errorf("header: got %s, want %s", header, want)
	}
}

func TestNewSignerRefuses(t *testing.T) {
	if _, err := token.NewSigner(jwks.RS256, privateKeys()[jwks.ES256]); err == nil {
		t.Error("an EC key for RS256: got no error")
	}
	p384 := must.Get(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	if _, err := token.NewSigner(jwks.ES256, p384); err == nil {
		t.Error("a P-384 key for ES256: got no error")
	}
}

// Every call carries a token, so a typical one must be small.
func TestSize(t *testing.T) {
	if got := len(must.Get(signerFor(jwks.ES256).Sign(claims()))); got > 512 {
		t.Errorf("%d bytes, want at most 512", got)
	}
	if strings.Contains(must.Get(signerFor(jwks.ES256).Sign(claims())), "=") {
		t.Error("the token is padded")
	}
}

// Printing a signer, or a struct that contains one, reveals nothing of its private key.
func TestSignerPrintsNoKey(t *testing.T) {
	secrets := map[jwks.Algorithm][]byte{}
	for algorithm, private := range privateKeys() {
		switch k := private.(type) {
		case *ecdsa.PrivateKey:
			secrets[algorithm] = must.Get(k.Bytes())
		case *rsa.PrivateKey:
			secrets[algorithm] = k.D.Bytes()
		case ed25519.PrivateKey:
			secrets[algorithm] = k.Seed()
		}
	}
	for algorithm, secret := range secrets {
		signer := signerFor(algorithm)
		hidden := struct{ inside token.Signer }{*signer}
		var printed strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			for _, value := range []any{signer, *signer, hidden, []*token.Signer{signer}} {
				fmt.Fprintf(&printed, verb+"\n", value)
			}
		}
		printed.Write(must.Get(json.Marshal(hidden)))
		// A few bytes in any form are enough to detect a leak, even if the output is cut or grouped.
		part := secret[:8]
		for _, form := range []string{
			string(part), fmt.Sprintf("%x", part), fmt.Sprintf("%q", part), strings.Trim(fmt.Sprint(part), "[]"),
			strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}"),
			new(big.Int).SetBytes(secret).String(), base64.StdEncoding.EncodeToString(secret[:6]),
		} {
			if strings.Contains(printed.String(), strings.Trim(form, `"`)) {
				t.Errorf("printing a signer for %s shows its key as %s", algorithm, form)
			}
		}
	}
}
