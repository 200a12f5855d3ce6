package rest_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/registry"
)

// row is a request of the table in TestRows, and its answer.
type row struct {
	name string
	request
	params url.Values
	status int
	// code is the OAuth error code of a refusal. Otherwise answer is the whole body; it is empty for a token.
	code, answer string
}

// tokenRows are the answers of every endpoint, with the token endpoint for an example, and those of the token endpoint.
var tokenRows = []row{
	{name: "GET", request: request{method: "GET"}, status: 405, code: "invalid_request"},
	{name: "PUT", request: request{method: "PUT"}, params: good(), status: 405, code: "invalid_request"},
	{name: "DELETE", request: request{method: "DELETE"}, status: 405, code: "invalid_request"},
	{name: "no Content-Type", request: request{contentType: "-"}, params: good(), status: 400, code: "invalid_request"},
	{name: "JSON", request: request{contentType: "application/json", body: "{}"}, status: 400, code: "invalid_request"},
	{name: "junk glued on", request: request{contentType: formType + "junk"}, params: good(), status: 400, code: "invalid_request"},
	{name: "form with parameters", request: request{contentType: formType + "; charset=utf-8"}, params: good(), status: 200},
	{name: "form in other letter case", request: request{contentType: strings.ToUpper(formType)}, params: good(), status: 200},
	{name: "path in other letter case", request: request{target: "/CONNECT/token"}, params: good(), status: 404, code: "invalid_request"},
	{name: "trailing slash", request: request{target: "/connect/token/"}, params: good(), status: 404, code: "invalid_request"},
	{name: "parameters in the query", request: request{target: "/connect/token?scope=nothing"}, params: good(), status: 200},
	{name: "credentials in the query", request: request{target: "/connect/token?client_id=svc&client_secret=" + secret}, params: onlyGrant(), status: 401, code: "invalid_client"},
	{name: "a parameter twice", request: request{body: good().Encode() + "&scope=api1"}, status: 400, code: "invalid_request"},
	{name: "resource twice", request: request{body: good().Encode() + "&resource=" + res1 + "&resource=" + res1}, status: 200},
	{name: "empty value", params: good("audience", ""), status: 200},
	{name: "unknown parameter", params: good("acr_values", "x"), status: 200},
	{name: "64 KiB", request: request{body: fill(64 << 10)}, status: 200},
	{name: "over 64 KiB", request: request{body: fill(64<<10 + 1)}, status: 413, code: "invalid_request"},
	{name: "over 64 parameters", request: request{body: count(65)}, status: 400, code: "invalid_request"},
	{name: "invalid percent-encoding", request: request{body: good().Encode() + "&a=%g0"}, status: 400, code: "invalid_request"},
	{name: "NUL", request: request{body: good().Encode() + "&a=%00"}, status: 400, code: "invalid_request"},
	{name: "invalid UTF-8", request: request{body: good().Encode() + "&a=%fe"}, status: 400, code: "invalid_request"},
	{name: "a value over its limit", params: good("scope", strings.Repeat("s", 129)), status: 400, code: "invalid_request"},

	{name: "empty body", status: 400, code: "invalid_request"},
	{name: "no grant_type", params: without(good(), "grant_type"), status: 400, code: "invalid_request"},
	{name: "empty grant_type", params: good("grant_type", ""), status: 400, code: "invalid_request"},
	{name: "password", params: good("grant_type", "password"), status: 400, code: "unsupported_grant_type"},
	{name: "Client_Credentials", params: good("grant_type", "Client_Credentials"), status: 400, code: "unsupported_grant_type"},
	{name: "no client identity", params: onlyGrant(), status: 401, code: "invalid_client"},
	{name: "client_id alone", params: without(good(), "client_secret"), status: 401, code: "invalid_client"},
	{name: "empty secret", params: good("client_secret", ""), status: 401, code: "invalid_client"},
	{name: "secret in the body", params: good(), status: 200},
	{name: "Basic", request: request{headers: []string{"Authorization: " + basic("svc", secret)}}, params: onlyGrant("scope", "api1"), status: 200},
	{name: "Basic with escapes", request: request{headers: []string{"Authorization: " + basic(oddID, oddSecret)}}, params: onlyGrant(), status: 200},
	{name: "wrong secret", params: good("client_secret", wrong), status: 401, code: "invalid_client"},
	{name: "unknown client", params: good("client_id", "nobody"), status: 401, code: "invalid_client"},
	{name: "disabled client", params: ask("disabled", secret), status: 401, code: "invalid_client"},
	{name: "expired secret", params: ask("expired", secret), status: 401, code: "invalid_client"},
	{name: "id in other letter case", params: good("client_id", "SVC"), status: 401, code: "invalid_client"},
	{name: "secret with one byte more", params: good("client_secret", secret+"0"), status: 401, code: "invalid_client"},
	{name: "secret with one byte fewer", params: good("client_secret", secret[:len(secret)-1]), status: 401, code: "invalid_client"},
	{name: "a client that has no secret", params: ask("keys", secret), status: 401, code: "invalid_client"},
	{name: "a method that the client does not have", params: ask("basiconly", secret), status: 401, code: "invalid_client"},
	{name: "Basic that is not base64", request: request{headers: []string{"Authorization: Basic !"}}, params: onlyGrant(), status: 401, code: "invalid_client"},
	{name: "Basic without a colon", request: request{headers: []string{"Authorization: " + rawBasic("svc")}}, params: onlyGrant(), status: 401, code: "invalid_client"},
	{name: "Basic and a body secret", request: request{headers: []string{"Authorization: " + basic("svc", secret)}}, params: good(), status: 400, code: "invalid_request"},
	{name: "Basic and an assertion", request: request{headers: []string{"Authorization: " + basic("svc", secret)}}, params: onlyGrant(assertion...), status: 400, code: "invalid_request"},
	{name: "an assertion and a secret", params: good(assertion...), status: 400, code: "invalid_request"},
	{name: "Basic and another client_id", request: request{headers: []string{"Authorization: " + basic("svc", secret)}}, params: without(good("client_id", "other"), "client_secret"), status: 400, code: "invalid_request"},
	{name: "Bearer", request: request{headers: []string{"Authorization: Bearer x"}}, params: good(), status: 200},
	{name: "nogrant", params: ask("nogrant", secret), status: 400, code: "unauthorized_client"},
	{name: "nogrant with a wrong secret", params: ask("nogrant", wrong), status: 401, code: "invalid_client"},
	{name: "unregistered scope", params: good("scope", "nothing"), status: 400, code: "invalid_scope"},
	{name: "scope that is not granted", params: good("scope", "api2"), status: 400, code: "invalid_scope"},
	{name: "one of each", params: good("scope", "api1 nothing"), status: 400, code: "invalid_scope"},
	{name: "unregistered scope and a wrong secret", params: good("scope", "nothing", "client_secret", wrong), status: 401, code: "invalid_client"},
	{name: "blanks and repeats", params: good("scope", "api1  api1"), status: 200},
	{name: "tab", params: good("scope", "api1\tapi1"), status: 400, code: "invalid_scope"},
	{name: "comma", params: good("scope", "api1,api1"), status: 400, code: "invalid_scope"},
	{name: "openid", params: good("scope", "openid"), status: 400, code: "invalid_scope"},
	{name: "offline_access", params: good("scope", "offline_access"), status: 400, code: "invalid_scope"},
	{name: "no scope", params: without(good(), "scope"), status: 200},
	{name: "resource", params: good("resource", res1), status: 200},
	{name: "audience", params: good("audience", res1), status: 200},
	{name: "unknown resource", params: good("resource", "https://nothing.internal"), status: 400, code: "invalid_target"},
	{name: "resource that is not allowed", params: good("resource", res2), status: 400, code: "invalid_target"},
	{name: "no audience", params: ask("noscope", secret), status: 400, code: "invalid_target"},
}

// assertion are the parameters of a client assertion (RFC 7521 §4.2).
var assertion = []string{"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "client_assertion", "a.b.c"}

// knownRows are the answers of introspection and revocation.
func knownRows(token string) []row {
	var rows []row
	for target, invalid := range done {
		at := request{target: target}
		rows = append(rows,
			row{name: "no token", request: at, params: without(about("svc", secret, ""), "token"), status: 400, code: "invalid_request"},
			row{name: "no client authentication", request: at, params: url.Values{"token": {token}}, status: 401, code: "invalid_client"},
			row{name: "client_id alone", request: at, params: url.Values{"token": {token}, "client_id": {"svc"}}, status: 401, code: "invalid_client"},
			row{name: "bad client authentication", request: at, params: about("svc", wrong, token), status: 401, code: "invalid_client"},
			row{name: "no resource and not the owner", request: at, params: about("plain", secret, token), status: 200, answer: invalid},
			row{name: "no resource, a bad token", request: at, params: about("plain", secret, "x"), status: 200, answer: invalid},
			row{name: "another resource", request: at, params: about("other", secret, token), status: 200, answer: invalid},
			row{name: "garbage", request: at, params: about("res1", secret, "x"), status: 200, answer: invalid},
			row{name: "longer than a token", request: at, params: about("res1", secret, strings.Repeat("x", 9000)), status: 200, answer: invalid},
			row{name: "wrong hint", request: at, params: about("res1", secret, "x", "token_type_hint", "refresh_token"), status: 200, answer: invalid},
			row{name: "GET", request: request{method: "GET", target: target}, status: 405, code: "invalid_request"},
			row{name: "JSON", request: request{target: target, contentType: "application/json"}, params: about("svc", secret, token), status: 400, code: "invalid_request"},
			row{name: "over 64 KiB", request: at, params: about("svc", secret, strings.Repeat("x", 64<<10)), status: 413, code: "invalid_request"},
		)
	}
	return append(rows,
		row{name: "the owner revokes", request: request{target: "/connect/revoke"}, params: about("svc", secret, token), status: 200, answer: "{}"},
		row{name: "and again", request: request{target: "/connect/revoke"}, params: about("svc", secret, token), status: 200, answer: "{}"},
		row{name: "after the revocation", request: request{target: "/connect/introspect"}, params: about("res1", secret, token), status: 200, answer: inactive},
	)
}

// TestRows goes through what the endpoints answer, input by input, in one order: every endpoint, the token endpoint,
// introspection and revocation. Other tests have more of each kind. All refusals have the headers and the characters that
// wantRefusal checks, and all failed authentications are equal.
func TestRows(t *testing.T) {
	issuer := newIssuer(t)
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{{Client: client(t, "keys", registry.Client{Scopes: scopes(t, "api1")}).Client}}})
	var failed *answer
	for _, c := range append(tokenRows, knownRows(issuer.Token(t, "svc", res1, "api1"))...) {
		t.Run(c.name+" "+c.target, func(t *testing.T) {
			if c.params != nil {
				c.body = c.params.Encode()
			}
			a := send(t, issuer, c.request)
			switch {
			case c.code != "":
				wantRefusal(t, a, c.status, c.code, secret, wrong)
			case c.answer != "":
				wantBody(t, a, c.answer)
			default:
				wantToken(t, a)
			}
			if c.status != http.StatusUnauthorized {
				return
			}
			if failed == nil {
				failed = a
			}
			wantSame(t, a, failed)
		})
	}
}

// TestTooManyFailures guesses the secret of a client from one address. The address is refused for a time; the client itself
// gets in from another.
func TestTooManyFailures(t *testing.T) {
	r := newReplica(t, time.Hour)
	r.run(t)
	r.service.SetLimits(limit.Limits{FailuresPerClient: 3, FailuresPerSource: 6})
	from := func(source string, values url.Values) *answer {
		request := httptest.NewRequest(http.MethodPost, "/connect/token", strings.NewReader(values.Encode()))
		request.RemoteAddr = source + ":4711"
		request.Header.Set("Content-Type", formType)
		recorder := httptest.NewRecorder()
		r.handler.ServeHTTP(recorder, request)
		return &answer{recorder.Code, recorder.Header(), recorder.Body.String()}
	}
	for name, id := range map[string]func(i int) string{
		"192.0.2.7": func(int) string { return "svc" }, "192.0.2.8": func(i int) string { return "nobody" + string(rune('a'+i)) },
	} {
		statuses := make(map[int]int)
		for i := range 12 {
			a := from(name, good("client_id", id(i), "client_secret", "a-guess-of-a-chosen-secret"))
			statuses[a.status]++
			if a.status == http.StatusTooManyRequests {
				wantRefusal(t, a, http.StatusTooManyRequests, "temporarily_unavailable")
				continue
			}
			wantRefusal(t, a, http.StatusUnauthorized, "invalid_client")
		}
		if statuses[http.StatusTooManyRequests] == 0 || statuses[http.StatusUnauthorized] == 0 {
			t.Errorf("from %s: got %v, want 401 and then 429", name, statuses)
		}
	}
	wantToken(t, from("192.0.2.9", good()))
	wantToken(t, from("192.0.2.7", good())) // a generated secret cannot be guessed
}
