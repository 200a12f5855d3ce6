package jwks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

// Parse reads the keys that verify signatures and ignores the others. The EC key is that of RFC 7517 appendix A.1.
func ExampleParse() {
	set, err := jwks.Parse([]byte(`{"keys": [
		{"kty":"EC", "crv":"P-256", "use":"sig", "kid":"1",
		 "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
		 "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
		{"kty":"oct", "k":"AAAA", "kid":"ignored, because it is symmetric"}
	]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, key := range set.Keys() {
		fmt.Println(key.ID(), key.Algorithm())
	}
	// Output: 1 ES256
}

// A Remote follows the keys that an issuer publishes.
func ExampleRemote() {
	key := newKey()
	issuer := exampleIssuer(key)
	defer issuer.Close()

	keys := jwks.NewRemote(jwks.HTTP(http.DefaultClient, issuer.URL), jwks.RemoteConfig{})
	found, err := keys.Find(context.Background(), key.ID())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(found.Equal(key), keys.Trusts(key))
	_, err = keys.Find(context.Background(), "another")
	fmt.Println(errors.Is(err, jwks.ErrUnknownKey))
	// Output:
	// true true
	// true
}

// A published key has no private part.
func ExampleKey_JWK() {
	published := must.Get(newKey().JWK())
	fmt.Println(published.KeyType, published.Curve, published.Use, published.Algorithm)
	// Output: EC P-256 sig ES256
}

// exampleIssuer starts an issuer that publishes the key.
func exampleIssuer(key jwks.Key) *httptest.Server {
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == oauth.WellKnownServer {
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, server.URL, server.URL+"/keys")
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []jwks.JWK{must.Get(key.JWK())}})
	}))
	return server
}
