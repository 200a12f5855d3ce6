package admin_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/registry"
)

// TestWriterReadsNothing changes a client and a resource with the right to write alone. The answers contain only the id and
// the etag, and a change of nothing creates no new version.
func TestWriterReadsNothing(t *testing.T) {
	f := newFixture(t)
	f.rest(t, http.MethodPost, "/v1/resources", `{"resource":"urn:hidden","name":"secret words"}`)
	f.rest(t, http.MethodPost, "/v1/clients", `{"client":{"client_id":"hidden","client_name":"secret words"}}`)
	f.rest(t, http.MethodPost, "/v1/trusted-issuers", `{"issuer":"https://hidden.example"}`)
	f.rest(t, http.MethodPost, "/v1/workloads", `{"client_id":"hidden","issuer":"https://hidden.example","subject":"secret words"}`)
	for path, c := range map[string]struct{ scope, name string }{
		"/v1/clients/hidden":       {registry.ScopeClientsWrite, "client_name"},
		"/v1/resources/urn:hidden": {registry.ScopeResourcesWrite, "name"},
		"/v1/workloads/hidden":     {registry.ScopeTrustWrite, "subject"},
	} {
		writer := f.Token(t, "boss", registry.AdminResource, c.scope)
		states := make(map[any]bool)
		for _, body := range []string{"{}", `{"` + c.name + `":"secret words"}`, "{}", `{"` + c.name + `":"other words"}`, "{}"} {
			a := f.restAs(t, writer, http.MethodPatch, path, body)
			if a.status != http.StatusOK || len(a.json) != 2 || strings.Contains(a.body, "words") {
				t.Errorf("%s %s: got %d %s, want the id and the etag alone", path, body, a.status, a.body)
			}
			states[a.json["etag"]] = true
		}
		if len(states) != 2 {
			t.Errorf("%s: got the states %v, want two", path, states)
		}
		if a := f.rest(t, http.MethodPatch, path, "{}"); !strings.Contains(a.body, "other words") {
			t.Errorf("%s: a reader gets %s", path, a.body)
		}
	}
}
