package rest_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// inactive is the whole answer about a token that is invalid, or that the caller may not ask about.
const inactive = `{"active":false}`

// done maps each endpoint to its answer about an invalid token.
var done = map[string]string{"/connect/introspect": inactive, "/connect/revoke": "{}"}

func wantBody(t *testing.T, a *answer, body string) {
	t.Helper()
	if a.status != http.StatusOK || a.body != body {
		t.Fatalf("got %d %s, want %s", a.status, a.body, body)
	}
	wantHeaders(t, a)
}

// about returns the form in which a client introspects or revokes a token.
func about(id, secret, token string, changes ...string) url.Values {
	values := url.Values{"client_id": {id}, "client_secret": {secret}, "token": {token}}
	for i := 0; i < len(changes); i += 2 {
		values.Set(changes[i], changes[i+1])
	}
	return values
}

// knownCase is a request about a token, over REST or gRPC.
type knownCase struct {
	name          string
	params        url.Values
	authorization string
	// want is the OAuth error code; it is empty if the request succeeds.
	want string
	// yes reports whether an introspection finds the token active, or whether a revocation revokes it.
	yes bool
}

// callers returns the callers that both endpoints treat alike when asked about a token of svc.
func callers(token string) []knownCase {
	anonymous := without(about("", "", token), "client_id", "client_secret")
	return []knownCase{
		{name: "no token", params: without(about("svc", secret, ""), "token"), want: "invalid_request"},
		{name: "empty token", params: about("svc", secret, ""), want: "invalid_request"},
		{name: "no token and a wrong secret", params: about("svc", wrong, ""), want: "invalid_request"},
		{name: "token of 8193", params: about("svc", secret, strings.Repeat("x", 8193))},
		{name: "token of 8192", params: about("svc", secret, strings.Repeat("x", 8192))},
		{name: "NUL in a token", params: about("svc", secret, token+"\x00"), want: "invalid_request"},
		{name: "no identity", params: anonymous, want: "invalid_client"},
		{name: "id alone", params: without(about("svc", "", token), "client_secret"), want: "invalid_client"},
		{name: "empty secret", params: about("svc", "", token), want: "invalid_client"},
		{name: "Bearer", params: anonymous, authorization: "Bearer " + token, want: "invalid_client"},
		{name: "Basic and a body secret", params: about("svc", secret, token), authorization: basic("svc", secret), want: "invalid_request"},
		{name: "Basic and another id", params: without(about("other", "", token), "client_secret"), authorization: basic("svc", secret), want: "invalid_request"},
		{name: "wrong secret", params: about("svc", wrong, token), want: "invalid_client"},
		{name: "wrong secret of the resource server", params: about("res1", wrong, token), want: "invalid_client"},
		{name: "unknown client", params: about("nobody", secret, token), want: "invalid_client"},
		{name: "disabled client", params: about("disabled", secret, token), want: "invalid_client"},
		{name: "malformed Basic", params: anonymous, authorization: "Basic ~~~~", want: "invalid_client"},
		{name: "wrong Basic", params: anonymous, authorization: basic("svc", wrong), want: "invalid_client"},
		{name: "resource server of another", params: about("other", secret, token)},
		{name: "no resource server", params: about("plain", secret, token)},
		{name: "client without a grant", params: about("nogrant", secret, token)},
	}
}

// bad returns invalid tokens by their defect.
func bad(t *testing.T, issuer *tokentest.Issuer) map[string]string {
	good := issuer.Token(t, "svc", res1, "api1")
	_, rest, _ := strings.Cut(good, ".")
	header := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) + "." + rest }
	claims := func(changed map[string]any) map[string]any {
		all := map[string]any{"sub": "svc", "client_id": "svc", "aud": res1, "scope": "api1"}
		maps.Copy(all, changed)
		return all
	}
	return map[string]string{
		"garbage": "x", "dots": "..", "a blank behind": good + " ", "half": good[:len(good)/2], "not ASCII": "é",
		"expired":        issuer.Expired(t, "svc", res1, "api1"),
		"forged":         issuer.Forge(t, claims(nil)),
		"foreign issuer": issuer.Sign(t, claims(map[string]any{"iss": "https://elsewhere.test"})),
		"not yet":        issuer.Sign(t, claims(map[string]any{"iat": issuer.Now().Unix() + 3600, "exp": issuer.Now().Unix() + 7200})),
		"no jti":         issuer.Sign(t, claims(map[string]any{"jti": nil})),
		"no aud":         issuer.Sign(t, claims(map[string]any{"aud": nil})),
		"unsigned":       header(`{"alg":"none","typ":"at+jwt"}`),
		"wrong typ":      header(`{"alg":"ES256","typ":"JWT"}`),
		"a secret":       secret,
	}
}

// TestIntrospection introspects tokens over REST and gRPC.
func TestIntrospection(t *testing.T) {
	issuer := newIssuer(t)
	client := grantorv1.NewTokenServiceClient(issuer.Conn(t))
	raw := wantToken(t, post(t, issuer, good())).AccessToken
	claims := decode(t, raw)
	cases := append(callers(raw),
		knownCase{name: "resource server", params: about("res1", secret, raw), yes: true},
		knownCase{name: "resource server by Basic", params: url.Values{"token": {raw}}, authorization: basic("res1", secret), yes: true},
		knownCase{name: "owner", params: about("svc", secret, raw), yes: true},
		knownCase{name: "hint", params: about("res1", secret, raw, "token_type_hint", "access_token"), yes: true},
		knownCase{name: "wrong hint", params: about("res1", secret, raw, "token_type_hint", "refresh_token"), yes: true},
		knownCase{name: "unknown hint", params: about("res1", secret, raw, "token_type_hint", "no such thing"), yes: true},
		knownCase{name: "empty hint", params: about("res1", secret, raw, "token_type_hint", ""), yes: true},
	)
	for name, token := range bad(t, issuer) {
		for _, id := range []string{"res1", "svc", "plain"} {
			cases = append(cases, knownCase{name: name + " for " + id, params: about(id, secret, token)})
		}
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := postTo(t, issuer, "/connect/introspect", c)
			if c.want != "" {
				wantRefusal(t, a, onWires[c.want].http, c.want, c.authorization, c.params.Get("token"), c.params.Get("client_secret"))
			} else if !c.yes {
				wantBody(t, a, inactive)
			} else {
				wantIntrospected(t, a, claims)
			}
			ctx := t.Context()
			if c.authorization != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", c.authorization)
			}
			answer, err := client.IntrospectToken(ctx, &grantorv1.IntrospectTokenRequest{
				ClientId: c.params.Get("client_id"), ClientSecret: c.params.Get("client_secret"), Token: c.params.Get("token"),
				TokenTypeHint: c.params.Get("token_type_hint"),
			})
			if c.want != "" {
				wantStatus(t, err, onWires[c.want].grpc, c.want)
				return
			}
			must.Succeed(t, err)
			if answer.Active == nil || answer.GetActive() != c.yes {
				t.Errorf("got %v, want active %t", answer, c.yes)
			}
			if got := answer.GetJti(); c.yes != (got == claims.ID) {
				t.Errorf("got the jti %q", got)
			}
		})
	}
}

// postTo posts the form of a case.
func postTo(t *testing.T, issuer *tokentest.Issuer, target string, c knownCase) *answer {
	t.Helper()
	var headers []string
	if c.authorization != "" {
		headers = append(headers, "Authorization: "+c.authorization)
	}
	return send(t, issuer, request{target: target, headers: headers, body: c.params.Encode()})
}

// wantIntrospected checks every field of RFC 7662 section 2.2 against the claims.
func wantIntrospected(t *testing.T, a *answer, want claims) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	wantHeaders(t, a)
	var got map[string]any
	must.Succeed(t, json.Unmarshal([]byte(a.body), &got))
	aud := make([]any, len(want.Audience))
	for i := range aud {
		aud[i] = want.Audience[i]
	}
	fields := map[string]any{
		"active": true, "iss": want.Issuer, "sub": "svc", "client_id": "svc", "aud": aud, "scope": want.Scope,
		"exp": float64(want.ExpiresAt), "iat": float64(want.IssuedAt), "jti": want.ID, "token_type": "Bearer",
	}
	if !reflect.DeepEqual(got, fields) {
		t.Errorf("got %v, want %v", got, fields)
	}
}

// TestRevocation revokes tokens over REST and gRPC. Each case has its own token on each.
func TestRevocation(t *testing.T) {
	issuer := newIssuer(t)
	client := grantorv1.NewTokenServiceClient(issuer.Conn(t))
	cases := []func(token string) []knownCase{callers, func(token string) []knownCase {
		return []knownCase{
			{name: "owner", params: about("svc", secret, token), yes: true},
			{name: "owner by Basic", params: url.Values{"token": {token}}, authorization: basic("svc", secret), yes: true},
			{name: "wrong hint", params: about("svc", secret, token, "token_type_hint", "refresh_token"), yes: true},
			{name: "resource server", params: about("res1", secret, token)},
			{name: "malformed", params: about("svc", secret, token+"x")},
		}
	}}
	active := func(t *testing.T, token string) bool {
		t.Helper()
		a := send(t, issuer, request{target: "/connect/introspect", body: about("res1", secret, token).Encode()})
		return a.body != inactive
	}
	for _, table := range cases {
		for i, c := range table("") {
			t.Run(c.name, func(t *testing.T) {
				token := issuer.Token(t, "svc", res1, "api1")
				c := table(token)[i]
				for range 2 { // a repetition gets the same answer
					a := postTo(t, issuer, "/connect/revoke", c)
					if c.want != "" {
						wantRefusal(t, a, onWires[c.want].http, c.want, c.authorization, c.params.Get("token"), c.params.Get("client_secret"))
					} else {
						wantBody(t, a, "{}")
					}
				}
				if active(t, token) == c.yes {
					t.Errorf("over REST: want revoked %t", c.yes)
				}
				token = issuer.Token(t, "svc", res1, "api1")
				c = table(token)[i]
				ctx := t.Context()
				if c.authorization != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "authorization", c.authorization)
				}
				_, err := client.RevokeToken(ctx, &grantorv1.RevokeTokenRequest{
					ClientId: c.params.Get("client_id"), ClientSecret: c.params.Get("client_secret"), Token: c.params.Get("token"),
					TokenTypeHint: c.params.Get("token_type_hint"),
				})
				if c.want != "" {
					wantStatus(t, err, onWires[c.want].grpc, c.want)
				} else {
					must.Succeed(t, err)
				}
				if active(t, token) == c.yes {
					t.Errorf("over gRPC: want revoked %t", c.yes)
				}
			})
		}
	}
	t.Run("a jti of another form", func(t *testing.T) {
		// The list of revocations cannot hold this id, so success would be false.
		token := issuer.Sign(t, map[string]any{"sub": "svc", "client_id": "svc", "aud": res1, "jti": "mine"})
		a := send(t, issuer, request{target: "/connect/revoke", body: about("svc", secret, token).Encode()})
		wantRefusal(t, a, http.StatusInternalServerError, "server_error")
	})
	for name, token := range bad(t, issuer) {
		t.Run(name, func(t *testing.T) {
			wantBody(t, send(t, issuer, request{target: "/connect/revoke", body: about("svc", secret, token).Encode()}), "{}")
		})
	}
}

// TestFormsAboutTokens sends malformed forms, and parameters and headers that are ignored, to both endpoints.
func TestFormsAboutTokens(t *testing.T) {
	issuer := newIssuer(t)
	form := about("svc", secret, "x").Encode()
	fill := func(n int) string { return form + "&p=" + strings.Repeat("p", n-len(form)-3) }
	count := func(n int) string { return form + strings.Repeat("&", n-3) }
	right := "Authorization: " + basic("svc", secret)
	for _, c := range []struct {
		name, query, body string
		headers           []string
		want              int
		text              string
	}{
		{name: "empty", want: 400, text: "token is missing."},
		{name: "unknown parameters", body: form + "&tokens=y&grant_type=password&Token=z", want: 200},
		{name: "JSON names", body: form + "&tokenTypeHint=a&tokenTypeHint2=b", want: 200},
		{name: "token twice", body: form + "&token=x", want: 400, text: "token is sent more than once."},
		{name: "token_type_hint twice", body: form + "&token_type_hint=a&token_type_hint=a", want: 400, text: "token_type_hint is sent more than once."},
		{name: "client_id twice", body: form + "&client_id=svc", want: 400, text: "client_id is sent more than once."},
		{name: "client_secret twice", body: form + "&client_secret=x", want: 400, text: "client_secret is sent more than once."},
		{name: "unknown twice", body: form + "&a=1&a=2", want: 400, text: "A parameter is sent more than once."},
		{name: "NUL in a hint", body: form + "&token_type_hint=%00", want: 400},
		{name: "not UTF-8", body: form + "&a=%ff", want: 400},
		{name: "half an escape", body: form + "&a=%2", want: 400},
		{name: "65536 bytes", body: fill(65536), want: 200},
		{name: "65537 bytes", body: fill(65537), want: 413},
		{name: "64 parameters", body: count(64), want: 200},
		{name: "66 parameters", body: count(66), want: 400},
		{name: "all in the query", query: "?" + form, want: 400, text: "token is missing."},
		{name: "the secret in the query", query: "?client_secret=" + secret, body: "client_id=svc&token=x", want: 401},
		{name: "a token beyond a token's size", body: about("svc", secret, strings.Repeat("x", 60_000)).Encode(), want: 200},
		{name: "another token in the query", query: "?token=y", body: form, want: 200},
		{name: "two Authorization headers", headers: []string{right, right}, body: "token=x", want: 400, text: "Authorization was sent twice."},
		{name: "ignored headers", headers: []string{"X-HTTP-Method-Override: GET", "Grpc-Metadata-Authorization: x", "X-Forwarded-For: 1.2.3.4", "Grpc-Timeout: 1n", "Accept: text/html"}, body: form, want: 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			for target, body := range done {
				a := send(t, issuer, request{target: target + c.query, headers: c.headers, body: c.body})
				if c.want == http.StatusOK {
					wantBody(t, a, body)
					continue
				}
				code := "invalid_request"
				if c.want == http.StatusUnauthorized {
					code = "invalid_client"
				}
				wantRefusal(t, a, c.want, code, secret)
				if !strings.Contains(a.body, c.text) {
					t.Errorf("%s: got %s, want it to contain %q", target, a.body, c.text)
				}
			}
		})
	}
}

// TestFailedProofsAboutTokens compares whole answers, as TestFailedProofsLookAlike does.
func TestFailedProofsAboutTokens(t *testing.T) {
	issuer := newIssuer(t)
	raw := issuer.Token(t, "svc", res1, "api1")
	for target := range done {
		refused := send(t, issuer, request{target: target, body: about("svc", wrong, raw).Encode()})
		wantRefusal(t, refused, http.StatusUnauthorized, "invalid_client")
		for _, form := range []url.Values{about("nobody", secret, raw), about("disabled", secret, raw), about("expired", secret, "x"), about("res1", wrong, "x")} {
			wantSame(t, send(t, issuer, request{target: target, body: form.Encode()}), refused)
		}
	}
}

// TestBatches introspects several tokens in one call, which only gRPC offers.
func TestBatches(t *testing.T) {
	issuer := newIssuer(t)
	client := grantorv1.NewTokenServiceClient(issuer.Conn(t))
	raw, revoked := issuer.Token(t, "svc", res1, "api1"), issuer.Token(t, "svc", res1, "api1")
	wantBody(t, send(t, issuer, request{target: "/connect/revoke", body: about("svc", secret, revoked).Encode()}), "{}")
	elsewhere := issuer.Token(t, "multi", res2, "other.read")
	mixed := []string{raw, "x", revoked, raw, issuer.Expired(t, "svc", res1, "api1"), elsewhere, strings.Repeat("x", 8192)}
	for _, c := range []struct {
		name, id, secret string
		tokens           []string
		want             string
		active           []int
	}{
		{name: "none", id: "res1", secret: secret, want: "invalid_request"},
		{name: "one", id: "res1", secret: secret, tokens: []string{raw}, active: []int{0}},
		{name: "100", id: "res1", secret: secret, tokens: append(slices.Repeat([]string{"x"}, 99), raw), active: []int{99}},
		{name: "100 of 8192", id: "res1", secret: secret, tokens: slices.Repeat([]string{strings.Repeat("x", 8192)}, 100)},
		{name: "101", id: "res1", secret: secret, tokens: slices.Repeat([]string{raw}, 101), want: "invalid_request"},
		{name: "mixed", id: "res1", secret: secret, tokens: mixed, active: []int{0, 3}},
		{name: "mixed, for the owner of one", id: "multi", secret: secret, tokens: mixed, active: []int{5}},
		{name: "mixed, for the resource server of one", id: "other", secret: secret, tokens: mixed, active: []int{5}},
		{name: "mixed, for an unrelated client", id: "plain", secret: secret, tokens: mixed},
		{name: "an empty one", id: "res1", secret: secret, tokens: []string{raw, ""}, want: "invalid_request"},
		{name: "one of 8193", id: "res1", secret: secret, tokens: []string{raw, strings.Repeat("x", 8193)}, active: []int{0}},
		{name: "wrong secret", id: "res1", secret: wrong, tokens: []string{raw}, want: "invalid_client"},
		{name: "no identity", tokens: []string{raw}, want: "invalid_client"},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, err := client.IntrospectTokens(t.Context(), &grantorv1.IntrospectTokensRequest{ClientId: c.id, ClientSecret: c.secret, Tokens: c.tokens})
			if c.want != "" {
				wantStatus(t, err, onWires[c.want].grpc, c.want)
				return
			}
			must.Succeed(t, err)
			if len(answer.GetTokens()) != len(c.tokens) {
				t.Fatalf("got %d answers to %d tokens", len(answer.GetTokens()), len(c.tokens))
			}
			for i, got := range answer.GetTokens() {
				if got.Active == nil || got.GetActive() != slices.Contains(c.active, i) || got.GetActive() != (got.GetJti() != "") {
					t.Errorf("token %d: got %v", i, got)
				}
			}
		})
	}
}

// TestRevokeClientTokens revokes all tokens of a client, which only gRPC offers.
func TestRevokeClientTokens(t *testing.T) {
	issuer := newIssuer(t)
	client := grantorv1.NewTokenServiceClient(issuer.Conn(t))
	mine := []string{wantToken(t, post(t, issuer, good())).AccessToken, issuer.Token(t, "svc", res1, "api1")}
	others := issuer.Token(t, "plain", res1, "api1")
	want := func(t *testing.T, active bool, tokens ...string) {
		t.Helper()
		for _, token := range tokens {
			a := send(t, issuer, request{target: "/connect/introspect", body: about("res1", secret, token).Encode()})
			if a.status != http.StatusOK || (a.body != inactive) != active {
				t.Errorf("got %d %s, want active %t", a.status, a.body, active)
			}
		}
	}
	for id, secret := range map[string]string{"svc": wrong, "nobody": secret, "disabled": secret} {
		_, err := client.RevokeClientTokens(t.Context(), &grantorv1.RevokeClientTokensRequest{ClientId: id, ClientSecret: secret})
		wantStatus(t, err, codes.Unauthenticated, "invalid_client")
	}
	_, err := client.RevokeClientTokens(t.Context(), &grantorv1.RevokeClientTokensRequest{})
	wantStatus(t, err, codes.Unauthenticated, "invalid_client")
	want(t, true, append(mine, others)...)
	_, err = client.RevokeClientTokens(t.Context(), &grantorv1.RevokeClientTokensRequest{ClientId: "svc", ClientSecret: secret})
	must.Succeed(t, err)
	want(t, false, mine...)
	want(t, true, others, wantToken(t, post(t, issuer, good())).AccessToken)
}
