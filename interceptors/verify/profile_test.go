package verify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// object is a JSON object.
type object map[string]any

// with returns a copy with the members changed; a nil value removes one.
func (o object) with(change object) object {
	o = maps.Clone(o)
	maps.Copy(o, change)
	maps.DeleteFunc(o, func(_ string, v any) bool { return v == nil })
	return o
}

// foreignSigner signs tokens of any form.
type foreignSigner struct {
	private *ecdsa.PrivateKey
	key     jwks.Key
}

func newForeignSigner() foreignSigner {
	private := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return foreignSigner{private, must.Get(jwks.NewKey(jwks.ES256, private.Public()))}
}

// sign returns a token whose header has the type, or none if it is empty.
func (s foreignSigner) sign(typ string, payload object) string {
	header := object{"alg": "ES256", "kid": s.key.ID()}
	if typ != "" {
		header["typ"] = typ
	}
	signed := encode(header) + "." + encode(payload)
	signature := must.Get(must.Get(jws.NewSigner(jwa.ES256)).Sign([]byte(signed), s.private))
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func encode(o object) string { return base64.RawURLEncoding.EncodeToString(must.Get(json.Marshal(o))) }

// describe returns how a verifier with the options treats the token: the caller, or the reason of the refusal.
func (s foreignSigner) describe(raw string, options ...verify.Option) string {
	reason := error(nil)
	options = append([]verify.Option{
		verify.Audience(orders), verify.Keys(jwks.NewSet(s.key)),
		verify.OnRefusal(func(_ context.Context, _ string, err error) { reason = err }),
	}, options...)
	verifier := must.Get(verify.New(context.Background(), testIssuer, options...))
	caller := ""
	handler := verify.HTTP(verifier, verify.Authenticated())(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c, _ := verify.CallerFrom(r.Context())
		caller = c.ClientID + " " + c.Subject + ": " + c.Scopes.String()
	}))
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("Authorization", "Bearer "+raw)
	handler.ServeHTTP(httptest.NewRecorder(), request)
	if reason != nil {
		return token.Reason(reason)
	}
	return caller
}

// times returns the claims that tokens of all issuers have.
func times() object {
	now := time.Now().Unix()
	return object{"iss": testIssuer, "aud": orders, "iat": now, "exp": now + 3600}
}

// Each profile accepts the documented form of its issuer's access tokens, and neither its ID tokens nor, as the default
// does not, the tokens of others.
func TestProfiles(t *testing.T) {
	const jwt, none, bare = "JWT", "", "no_access_token"
	for name, test := range map[string]struct {
		profile verify.Profile
		typ     string
		token   object
		want    string
		// strict is the reason of the default, and another a profile that refuses the token.
		strict  string
		another verify.Profile
		// id is the change that makes it an ID token, apart from the audience.
		id object
	}{
		"Keycloak": {
			verify.Keycloak, jwt,
			object{"jti": "trrtcc:1", "sub": "d1d1a1c2", "typ": "Bearer", "azp": "billing", "acr": "1", "scope": "email api1", "clientHost": "10.0.0.1", "realm_access": object{"roles": []string{"admin"}}, "aud": []string{orders, "account"}},
			"billing d1d1a1c2: email api1", bare, verify.Okta, object{"typ": "ID", "auth_time": 1},
		},
		"Keycloak, roles": {
			verify.Keycloak.WithRoles("realm_access", "roles"), jwt,
			object{"jti": "1", "sub": "d1d1a1c2", "typ": "Bearer", "azp": "billing", "scope": "api1", "realm_access": object{"roles": []string{"admin", "a b", "api1"}}},
			"billing d1d1a1c2: api1 admin", bare, verify.Okta, object{"typ": "ID"},
		},
		"Entra ID 2.0": {
			verify.EntraID, jwt,
			object{"aio": "E2", "azp": "6e74172b", "azpacr": "1", "oid": "690222be", "rh": "0.A", "scp": "api1 api2", "sub": "HKZpfaHy", "tid": "fa15d692", "uti": "u", "ver": "2.0"},
			"6e74172b HKZpfaHy: api1 api2", bare, verify.Keycloak, object{"azp": nil, "scp": nil, "nonce": "n"},
		},
		"Entra ID 1.0, a client": {
			verify.EntraID.WithRoles("roles"), jwt,
			object{"appid": "6e74172b", "appidacr": "1", "idtyp": "app", "roles": []string{"Orders.Read.All"}, "sub": "690222be", "ver": "1.0"},
			"6e74172b 690222be: Orders.Read.All", bare, verify.Hydra, object{"appid": nil, "roles": nil},
		},
		"Auth0": {
			verify.Auth0, jwt,
			object{"sub": "billing@clients", "azp": "billing", "scope": "api1", "gty": "client-credentials", "permissions": []string{"write"}},
			"billing billing@clients: api1", bare, verify.Hydra, object{"nonce": "n", "azp": nil},
		},
		"Auth0, RFC 9068": {
			verify.Auth0, "at+jwt",
			object{"sub": "billing@clients", "client_id": "billing", "scope": "api1", "jti": "73Wa"},
			"billing billing@clients: api1", "billing billing@clients: api1", verify.EntraID, nil,
		},
		"Okta": {
			verify.Okta, none,
			object{"ver": 1, "jti": "AT.1", "cid": "billing", "scp": []string{"api1", "api2"}, "sub": "billing"},
			"billing billing: api1 api2", bare, verify.Keycloak, object{"jti": "ID.1", "cid": nil, "scp": nil, "at_hash": "h"},
		},
		"Hydra, list": {
			verify.Hydra, jwt,
			object{"client_id": "billing", "ext": object{}, "jti": "1", "nbf": 1, "scp": []string{"api1"}, "sub": "billing", "aud": []string{orders}},
			"billing billing: api1", bare, verify.EntraID, object{"client_id": nil, "scp": nil, "at_hash": "h", "rat": 1},
		},
		"Hydra, string": {
			verify.Hydra, jwt,
			object{"client_id": "billing", "jti": "1", "scope": "api1 api2", "sub": "billing"},
			"billing billing: api1 api2", bare, verify.Okta, object{"client_id": nil},
		},
		"Hydra, both": {
			verify.Hydra, jwt,
			object{"client_id": "billing", "jti": "1", "scope": "api1 api2", "scp": []string{"api1", "api2"}, "sub": "billing"},
			"billing billing: api1 api2", bare, verify.Auth0.WithRoles("scope"), object{"client_id": nil},
		},
		"Spring Authorization Server": {
			verify.SpringAuthorizationServer, none,
			object{"sub": "billing", "nbf": 1, "scope": []string{"api1"}, "jti": "1"},
			"billing billing: api1", bare, verify.Okta, object{"scope": nil, "azp": "billing"},
		},
		"IdentityServer": {
			verify.IdentityServer, "at+jwt",
			object{"client_id": "billing", "nbf": 1, "scope": []string{"api1", "api2"}, "jti": "1"},
			"billing billing: api1 api2", "malformed", verify.Okta, nil,
		},
		"another": {
			verify.Profile{Types: []string{"JWT"}, Use: "token_use", UseValue: "access", ClientID: []string{"app"}, Scopes: []string{"scopes"}, OptionalID: true},
			"jwt", object{"token_use": "access", "app": "billing", "scopes": []string{"api1"}, "sub": "s"},
			"billing s: api1", bare, verify.Keycloak, object{"token_use": "id"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newForeignSigner()
			payload := times().with(test.token)
			raw := s.sign(test.typ, payload)
			if got := s.describe(raw, verify.Accept(test.profile)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if got := s.describe(raw); got != test.strict {
				t.Errorf("by default: got %s, want %s", got, test.strict)
			}
			if got := s.describe(raw, verify.Accept(test.another)); got != "malformed" && got != bare {
				t.Errorf("with another profile: got %s, want a refusal", got)
			}
			if test.id != nil {
				if got := s.describe(s.sign(test.typ, payload.with(test.id)), verify.Accept(test.profile)); got != "malformed" && got != bare {
					t.Errorf("an ID token: got %s, want a refusal", got)
				}
			}
			// What a profile does not concern stays checked.
			for want, change := range map[string]object{
				"other_issuer": {"iss": testIssuer + "/"}, "other_audience": {"aud": "billing"}, "expired": {"exp": 1},
				"malformed": {"exp": nil}, "not_yet_valid": {"iat": time.Now().Unix() + 300},
			} {
				if got := s.describe(s.sign(test.typ, payload.with(change)), verify.Accept(test.profile)); got != want {
					t.Errorf("%v: got %s, want %s", change, got, want)
				}
			}
			forged := raw[:strings.LastIndexByte(raw, '.')+1] + base64.RawURLEncoding.EncodeToString(make([]byte, 64))
			if got := s.describe(forged, verify.Accept(test.profile)); got != "wrong_signature" {
				t.Errorf("forged: got %s", got)
			}
		})
	}
}

// A profile names the forms that it accepts, and no more.
func TestProfileRefuses(t *testing.T) {
	s := newForeignSigner()
	good := times().with(object{"azp": "billing", "jti": "1", "sub": "s", "scope": "api1"})
	for name, test := range map[string]struct {
		typ    string
		change object
	}{
		"typ of a logout token":      {"logout+jwt", nil},
		"no typ":                     {"", nil},
		"Kelvin sign":                {"JW\u212aT", nil},
		"no client":                  {"JWT", object{"azp": nil}},
		"client empty":               {"JWT", object{"azp": ""}},
		"client null":                {"JWT", object{"azp": json.RawMessage("null")}},
		"client a list":              {"JWT", object{"azp": []string{"billing"}}},
		"client in other case":       {"JWT", object{"azp": nil, "AZP": "billing"}},
		"logout token":               {"JWT", object{"events": object{}}},
		"use of a refresh token":     {"JWT", object{"typ": "Refresh"}},
		"use a list":                 {"JWT", object{"typ": []string{"Bearer"}}},
		"scope an object":            {"JWT", object{"scope": object{"api1": true}}},
		"scope null":                 {"JWT", object{"scope": json.RawMessage("null")}},
		"scope a list of a null":     {"JWT", object{"scope": []any{nil}}},
		"scope a list with a space":  {"JWT", object{"scope": []string{"api1 admin"}}},
		"scope a list of a list":     {"JWT", object{"scope": [][]string{{"api1"}}}},
		"roles not in an object":     {"JWT", object{"realm_access": "admin"}},
		"roles a string":             {"JWT", object{"realm_access": object{"roles": "admin"}}},
		"sub a number":               {"JWT", object{"sub": 1}},
		"jti missing":                {"JWT", object{"jti": nil}},
		"an ID token without an use": {"JWT", object{"nonce": "n"}},
	} {
		got := s.describe(s.sign(test.typ, good.with(test.change)), verify.Accept(verify.Keycloak.WithRoles("realm_access", "roles")))
		if got != "malformed" && got != "no_access_token" {
			t.Errorf("%s: got %s, want a refusal", name, got)
		}
	}
	if got := s.describe(s.sign("JWT", good), verify.Accept(verify.Keycloak.WithRoles("realm_access", "roles"))); got != "billing s: api1" {
		t.Errorf("unchanged: got %s", got)
	}
}

// A rule can ask for a scope that is a long URL, as other issuers have them, and a token can have many.
func TestForeignScopes(t *testing.T) {
	scope := "https://orders.internal/" + strings.Repeat("x", 110)
	s := newForeignSigner()
	names := []string{scope}
	for range 200 {
		names = append(names, rand.Text())
	}
	raw := s.sign("at+jwt", times().with(object{"sub": "s", "client_id": "c", "jti": "1", "scope": strings.Join(names, " ")}))
	verifier := must.Get(verify.New(t.Context(), testIssuer, verify.Audience(orders), verify.Keys(jwks.NewSet(s.key))))
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("Authorization", "Bearer "+raw)
	for want, rule := range map[int]verify.Rule{http.StatusOK: verify.Scopes(scope), http.StatusForbidden: verify.Scopes(scope + "x")} {
		if got := serve(verify.HTTP(verifier, rule)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), request).StatusCode; got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
}
