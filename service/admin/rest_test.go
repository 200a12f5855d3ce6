package admin_test

import (
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
		{"a client", http.MethodPost, "/v1/clients", `{"client":{"client_id":"` + id + `","grant_types":["client_credentials"],"scopes":["api1"]}}`, 200, []string{`"client_secret":"grantor_cs_`}},
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
		{"a time of another form", http.MethodPatch, orders, `{"access_token_lifetime":"10m"}`, 400, []string{"iswrittenas600s"}},
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
