package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

const (
	issuer = "https://auth.internal"
	orders = "https://orders.internal"
)

// issued is when the test tokens are issued. They live an hour.
var issued = time.Unix(1_800_000_000, 0)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// privateKeys maps each algorithm to a private key. RS256 and PS256 share one.
var privateKeys = sync.OnceValue(func() map[jwks.Algorithm]crypto.Signer {
	rsaKey := must.Get(rsa.GenerateKey(rand.Reader, 2048))
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	return map[jwks.Algorithm]crypto.Signer{
		jwks.ES256: must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		jwks.RS256: rsaKey, jwks.PS256: rsaKey, jwks.EdDSA: must.Get(edKey, err),
	}
})

func signerFor(algorithm jwks.Algorithm) *token.Signer {
	return must.Get(token.NewSigner(algorithm, privateKeys()[algorithm]))
}

func claims() *token.Claims {
	return &token.Claims{
		Issuer: issuer, Subject: "billing", ClientID: "billing", Audience: []string{orders},
		Scope: must.Get(oauth.ParseScopes("orders.read orders.write")), IssuedAt: issued, ExpiresAt: issued.Add(time.Hour), ID: "id-1",
	}
}

func newVerifier(keys ...jwks.Key) *token.Verifier {
	return &token.Verifier{
		Issuer: issuer, Audience: []string{orders}, Keys: jwks.NewSet(keys...), Leeway: 30 * time.Second,
		Now: func() time.Time { return issued.Add(time.Minute) },
	}
}

// object is a JSON object. Values of type json.RawMessage are written as they are.
type object map[string]any

func (o object) with(change object) object {
	o = maps.Clone(o)
	maps.Copy(o, change)
	maps.DeleteFunc(o, func(_ string, v any) bool { return v == nil })
	return o
}

func (o object) String() string { return string(must.Get(json.Marshal(o))) }

func raw(s string) json.RawMessage { return json.RawMessage(s) }

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// sign returns a token of any header and payload, with a valid signature of the key.
func sign(algorithm jwks.Algorithm, key any, header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	signature := must.Get(must.Get(jws.NewSigner(jwa.SignatureAlgorithm(algorithm))).Sign([]byte(signed), key))
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// goodHeader and goodPayload are those of a valid token of the ES256 key.
func goodHeader() object {
	return object{"alg": "ES256", "kid": signerFor(jwks.ES256).Public().ID(), "typ": "at+jwt"}
}

func goodPayload() object {
	return object{
		"iss": issuer, "sub": "billing", "client_id": "billing", "aud": orders, "scope": "orders.read orders.write",
		"iat": issued.Unix(), "exp": issued.Unix() + 3600, "jti": "id-1",
	}
}

// es256 signs header and payload with the ES256 key.
func es256(header, payload string) string {
	return sign(jwks.ES256, privateKeys()[jwks.ES256], header, payload)
}

// parts returns the encoded header, payload and signature of a token.
func parts(t string) (header, payload, signature string) {
	p := strings.Split(t, ".")
	return p[0], p[1], p[2]
}

func verify(v interface {
	Verify(ctx context.Context, raw string) (*token.Claims, error)
}, t string,
) (*token.Claims, error) {
	return v.Verify(context.Background(), t)
}
