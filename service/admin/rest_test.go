package admin_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/registry"
)

// TestREST administers the issuer over REST, as a person with curl does.
func TestREST(t *testing.T) {
	f := newFixture(t)
	const id = "a/b:c+d%2F?#/secrets/e"
	at := "/v1/clients/" + url.PathEscape(id)
	orders := "/v1/resources/" + url.PathEscape("https://orders.internal")
	steps := []struct {
		name, method, path, body string
		status                   int
		// has are substrings of the answer.
		has []string
	}{
		{"a resource", http.MethodPost, "/v1/resources", `{"resource":"https://orders.internal","scopes":["api1","api2"]}`, 200, []string{`"resource":"https://orders.internal"`, `"etag"`}},
		{"it again", http.MethodPost, "/v1/resources", `{"resource":"https://orders.internal"}`, 409, []string{`"error":"already_exists"`}},
		{"read it", http.MethodGet, orders, "", 200, []string{`"scopes":["api1","api2"]`}},
		{"bound its tokens", http.MethodPatch, orders, `{"access_token_lifetime":"600s"}`, 200, []string{`"access_token_lifetime":"600s"`, `"scopes":["api1","api2"]`}},
		{"and not", http.MethodPatch, orders, `{"access_token_lifetime":null}`, 200, []string{`"scopes":["api1","api2"]`}},
		{"a client", http.MethodPost, "/v1/clients", `{"client_id":"` + id + `","grant_types":["client_credentials"],"scopes":["api1"]}`, 200, []string{`"client_secret":"grantor_cs_`}},
		{"read it", http.MethodGet, at, "", 200, []string{`"client_id":"` + id + `"`, `"kind":"KIND_GENERATED"`}},
		{"change it", http.MethodPatch, at, `{"client_name":"Odd"}`, 200, []string{`"client_name":"Odd"`, `"scopes":["api1"]`}},
		{"disable it", http.MethodPatch, at, `{"disabled":true}`, 200, []string{`"disabled":true`}},
		{"enable it", http.MethodPatch, at, `{"disabled":false}`, 200, []string{`"client_name":"Odd"`}},
		{"by mask", http.MethodPatch, at + "?update_mask=client_name", `{"client_name":"Odder","disabled":true}`, 200, []string{`"client_name":"Odder"`}},
		{"another secret", http.MethodPost, at + "/secrets", `{}`, 200, []string{`"client_secret":"grantor_cs_`, `"secret_id"`}},
		{"rotate", http.MethodPost, at + "/secrets:rotate", `{"grace_period":"60s"}`, 200, []string{`"client_secret":"grantor_cs_`, `"expire_time"`}},
		{"revoke its tokens", http.MethodPost, at + "/tokens:revoke", `{}`, 200, nil},
		{"list", http.MethodGet, "/v1/clients?page_size=10", "", 200, []string{`"clients":[{`}},
		{"no such list", http.MethodGet, "/v1/clients?pagesize=10", "", 400, []string{`"error":"invalid_request"`}},
		{"a secret in the query", http.MethodGet, "/v1/clients?client_secret=x", "", 400, []string{`"error":"invalid_request"`}},
		{"an old state", http.MethodDelete, at + "?etag=1", "", 409, []string{`"error":"conflict"`}},
		{"delete", http.MethodDelete, at, "", 200, nil},
		{"deleted", http.MethodGet, at, "", 404, []string{`"error":"not_found"`}},
		{"keys", http.MethodGet, "/v1/keys", "", 200, []string{`"state":"STATE_ACTIVE"`, `"public_key":{"kty":"EC"`}},
		{"rotate keys", http.MethodPost, "/v1/keys:rotate", `{"alg":"ES256"}`, 200, []string{`"state":"STATE_UPCOMING"`}},
		{"rotate nothing", http.MethodPost, "/v1/keys:rotate", `{"alg":"none"}`, 400, []string{`"error":"invalid_request"`}},
		{"retire nothing", http.MethodPost, "/v1/keys/" + strings.Repeat("A", 43) + ":retire", `{}`, 404, []string{`"error":"not_found"`}},
		{"no JSON", http.MethodPost, "/v1/resources", `resource=a`, 400, []string{`"error":"invalid_request"`}},
		{"no such field", http.MethodPost, "/v1/resources", `{"resource":"https://x","scops":[]}`, 400, []string{`"error":"invalid_request"`, "thereisnofieldscops"}},
		{"a field of another type", http.MethodPatch, orders, `{"scopes":"api1"}`, 400, []string{`"error":"invalid_request"`}},
		{"a secret of another type", http.MethodPost, at + "/secrets", `{"client_secret":471147114711}`, 400, []string{"thefieldclientSecretisnotofitstype"}},
		{"an etag that is ignored", http.MethodPatch, orders + "?etag=stale", `{"name":"x"}`, 400, []string{`"error":"invalid_request"`}},
		{"a query where there is a body", http.MethodPost, at + "/secrets?client_secret=x", `{}`, 400, []string{`"error":"invalid_request"`}},
		{"a body where there is none", http.MethodDelete, orders, `{"etag":"stale"}`, 400, []string{`"error":"invalid_request"`}},
		{"an escape outside the ids", http.MethodGet, "/v1/%6beys", "", 404, []string{`"error":"invalid_request"`}},
		{"an escaped verb", http.MethodPost, "/v1/keys%3Arotate", `{}`, 404, []string{`"error":"invalid_request"`}},
		{"a large body", http.MethodPost, "/v1/resources", `{"name":"` + strings.Repeat("a", 64<<10) + `"}`, 413, []string{`"error":"invalid_request"`}},
		{"no such path", http.MethodGet, "/v1/secrets", "", 404, []string{`"error":"invalid_request"`}},
		{"no such verb", http.MethodPost, "/v1/keys:destroy", `{}`, 404, []string{`"error":"invalid_request"`}},
	}
	for _, step := range steps {
		got := f.rest(t, step.method, step.path, step.body)
		if got.status != step.status {
			t.Fatalf("%s: got %d %s, want %d", step.name, got.status, got.body, step.status)
		}
		for _, part := range step.has {
			if !strings.Contains(strings.ReplaceAll(got.body, " ", ""), part) {
				t.Errorf("%s: got %s, want %s in it", step.name, got.body, part)
			}
		}
		if got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got an answer that may be cached", step.name)
		}
	}
}

// TestRESTDurations sends each form of a duration wherever there is one. The answer has the form of protobuf, and the
// refusal of another text names the field.
func TestRESTDurations(t *testing.T) {
	f := newFixture(t)
	const orders, client = "/v1/resources/urn:orders", "/v1/clients/worker"
	for _, create := range []struct{ path, body string }{
		{"/v1/resources", `{"resource":"urn:orders","scopes":["api1"],"access_token_lifetime":"10m"}`},
		{"/v1/clients", `{"client_id":"worker","grant_types":["client_credentials"],"scopes":["api1"],"access_token_lifetime":"10m"}`},
	} {
		if got := f.rest(t, http.MethodPost, create.path, create.body); got.status != http.StatusOK || !strings.Contains(strings.ReplaceAll(got.body, " ", ""), `"access_token_lifetime":"600s"`) {
			t.Errorf("POST %s: got %d %s", create.path, got.status, got.body)
		}
	}
	for i, c := range []struct{ sent, want string }{
		{`"600s"`, `"600s"`}, {`"10m"`, `"600s"`}, {`"0h10m0s"`, `"600s"`}, {`"1h30m"`, `"5400s"`}, {`"0.5h"`, `"1800s"`}, {`"600.0s"`, `"600s"`},
		{`"60000ms"`, `"60s"`}, {`"\u0031\u0030m"`, `"600s"`}, {`null`, ""}, {`"0s"`, ""},
		{`"10"`, "400"}, {`10`, "400"}, {`600`, "400"}, {`"10 m"`, "400"}, {`"ten"`, "400"}, {`""`, "400"}, {`"PT10M"`, "400"}, {`"1d"`, "400"}, {`true`, "400"},
		{`["10m"]`, "400"}, {`{"seconds":600}`, "400"}, {`"-10m"`, "400"}, {`"1500ms"`, "400"}, {`"9999999999h"`, "400"}, {`"10m\u0000"`, "400"},
		{`"canary-secret"`, "400"},
	} {
		rotated := fmt.Sprintf("rotated%d", i)
		f.rest(t, http.MethodPost, "/v1/clients", `{"client_id":"`+rotated+`"}`)
		for _, place := range []struct{ method, path, field string }{
			{http.MethodPatch, orders, "access_token_lifetime"}, {http.MethodPatch, orders, "accessTokenLifetime"},
			{http.MethodPatch, client, "access_token_lifetime"}, {http.MethodPatch, client, "accessTokenLifetime"},
			{http.MethodPost, "/v1/clients/" + rotated + "/secrets:rotate", "grace_period"}, {http.MethodPost, "/v1/clients/" + rotated + "/secrets:rotate", "gracePeriod"},
		} {
			got := f.rest(t, place.method, place.path, `{"`+place.field+`":`+c.sent+`}`)
			if c.want == "400" {
				name := map[bool]string{true: "access_token_lifetime", false: "grace_period"}[place.method == http.MethodPatch]
				if got.status != http.StatusBadRequest || !strings.Contains(got.body, name) || strings.Contains(got.body, "canary") {
					t.Errorf("%s %s of %s: got %d %s, want 400 that names %s", place.path, place.field, c.sent, got.status, got.body, name)
				}
				continue
			}
			if place.method == http.MethodPatch && c.want != "" && !strings.Contains(strings.ReplaceAll(got.body, " ", ""), `"access_token_lifetime":`+c.want) {
				t.Errorf("%s %s of %s: got %s, want %s", place.path, place.field, c.sent, got.body, c.want)
			}
			if got.status != http.StatusOK {
				t.Errorf("%s %s of %s: got %d %s", place.path, place.field, c.sent, got.status, got.body)
			}
		}
	}
	for _, path := range []string{client + "/secrets", client + "/secrets:rotate"} {
		for _, sent := range []string{`"tomorrow"`, `1893456000`, `"2030-01-31"`, `"10m"`, `{}`} {
			got := f.rest(t, http.MethodPost, path, `{"expire_time":`+sent+`}`)
			if got.status != http.StatusBadRequest || !strings.Contains(got.body, "expire_time is not a time such as 2030-01-31T12:00:00Z.") {
				t.Errorf("%s, expire_time %s: got %d %s", path, sent, got.status, got.body)
			}
		}
	}
}

// TestRESTShapes registers clients with the fields of the client beside those of the call, like every other call, and with
// the object "client" around them, as earlier releases required.
func TestRESTShapes(t *testing.T) {
	f := newFixture(t)
	f.rest(t, http.MethodPost, "/v1/resources", `{"resource":"urn:orders","scopes":["api1"]}`)
	const chosen = "a-secret-that-a-person-chose"
	for _, c := range []struct {
		body   string
		status int
		has    string
	}{
		{`{"client_id":"a","grant_types":["client_credentials"],"scopes":["api1"],"client_name":"A","access_token_lifetime":"10m"}`, 200, `"client_secret":"grantor_cs_`},
		{`{"client":{"client_id":"b","grant_types":["client_credentials"],"scopes":["api1"],"client_name":"A","access_token_lifetime":"10m"}}`, 200, `"client_secret":"grantor_cs_`},
		{`{"clientId":"c","grantTypes":["client_credentials"],"scopes":["api1"],"clientName":"A","accessTokenLifetime":"600s"}`, 200, `"client_secret":"grantor_cs_`},
		{`{"client_secret":"` + chosen + `","client_id":"d","grant_types":["client_credentials"],"scopes":["api1"],"client_name":"A","access_token_lifetime":"600s"}`, 200, `KIND_CHOSEN`},
		{`{"clientSecret":"` + chosen + `","client":{"client_id":"e","grant_types":["client_credentials"],"scopes":["api1"],"client_name":"A","access_token_lifetime":"600s"}}`, 200, `KIND_CHOSEN`},
		{`{"client_id":"f","without_secret":true}`, 200, `"client_id":"f"`},
		{`{"client_id":"g","withoutSecret":true}`, 200, `"client_id":"g"`},
		{`{"client":{"client_id":"h"},"scopes":["api1"]}`, 400, "thereisnofieldscopeshere"},
		{`{"scopes":["api1"],"client":{"client_id":"h"}}`, 400, "thereisnofieldscopeshere"},
		{`{"client_id":"h","scops":["api1"]}`, 400, "thereisnofieldscopshere"},
		{`{"client_id":"h","client_id":"i"}`, 400, "invalid_request"},
		{`{"client_id":"h","clientId":"i"}`, 400, "invalid_request"},
		{`{"client_id":"h","client_secret":"` + chosen + `","client_secret":"` + chosen + `"}`, 400, "invalid_request"},
		{`{"client_id":"h"} {"client_id":"i"}`, 400, "couldnotberead"},
		{`{"client_id":"h"}x`, 400, "couldnotberead"},
		{`{}`, 400, "client_id"},
		{`{"client":{}}`, 400, "client_id"},
		{`{"client":null}`, 400, "client_id"},
		{`[]`, 400, "couldnotberead"}, {`null`, 400, "invalid_request"}, {`"a"`, 400, "couldnotberead"}, {`{`, 400, "couldnotberead"}, {`{"client_id"}`, 400, "couldnotberead"},
		{strings.Repeat(`{"client":`, 5000) + "1" + strings.Repeat("}", 5000), 400, "invalid_request"},
		{strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9000), 400, "invalid_request"},
	} {
		got := f.rest(t, http.MethodPost, "/v1/clients", c.body)
		if got.status != c.status || !strings.Contains(strings.ReplaceAll(got.body, " ", ""), c.has) {
			t.Errorf("%.200s: got %d %s, want %d with %s", c.body, got.status, got.body, c.status, c.has)
		}
	}
	want := f.rest(t, http.MethodGet, "/v1/clients/b", "")
	for _, id := range []string{"a", "c", "d", "e"} {
		got := f.rest(t, http.MethodGet, "/v1/clients/"+id, "")
		for _, field := range []string{"client_name", "access_token_lifetime"} {
			if got.json[field] != want.json[field] || got.json[field] == nil {
				t.Errorf("%s: got %s %v, want %v", id, field, got.json[field], want.json[field])
			}
		}
	}
	for _, id := range []string{"h", "i"} {
		if got := f.rest(t, http.MethodGet, "/v1/clients/"+id, ""); got.status != http.StatusNotFound {
			t.Errorf("%s was registered: %s", id, got.body)
		}
	}
}

// TestRESTMethods sends a method that no path takes to each path.
func TestRESTMethods(t *testing.T) {
	f := newFixture(t)
	for path, allowed := range map[string]string{
		"/v1/clients": "GET, POST", "/v1/clients/a": "DELETE, GET, PATCH", "/v1/clients/a/secrets": "POST",
		"/v1/clients/a/secrets:rotate": "POST", "/v1/clients/a/secrets/b": "DELETE, PATCH", "/v1/clients/a/tokens:revoke": "POST",
		"/v1/resources": "GET, POST", "/v1/resources/a": "DELETE, GET, PATCH",
		"/v1/keys": "GET", "/v1/keys:rotate": "POST", "/v1/keys/a:retire": "POST", "/v1/keys/a:compromise": "POST",
	} {
		got := f.rest(t, http.MethodPut, path, "")
		if got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != allowed {
			t.Errorf("PUT %s: got %d and Allow %q, want 405 and %q", path, got.status, got.header.Get("Allow"), allowed)
		}
	}
}

// TestChallenges checks the challenge to a caller without a sufficient token (RFC 6750 §3).
func TestChallenges(t *testing.T) {
	f := newFixture(t)
	realm := `Bearer realm="` + f.URL + `"`
	for name, test := range map[string]struct {
		token     string
		status    int
		challenge string
	}{
		"none":    {"", 401, realm},
		"garbage": {"garbage", 401, realm + `, error="invalid_token"`},
		"another": {f.Token(t, "boss", registry.AdminResource, registry.ScopeKeysRead), 403, realm + `, error="insufficient_scope", scope="grantor:clients.read"`},
	} {
		got := f.restAs(t, test.token, http.MethodGet, "/v1/clients", "")
		if got.status != test.status || got.header.Get("WWW-Authenticate") != test.challenge {
			t.Errorf("%s: got %d %q, want %d %q", name, got.status, got.header.Get("WWW-Authenticate"), test.status, test.challenge)
		}
	}
}
