package rest_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/rest"
)

// binding is a path of proto/gateway.yaml and the method that it is bound to.
type binding struct{ method, path string }

// bindings returns every binding of proto/gateway.yaml.
func bindings(t *testing.T) []binding {
	t.Helper()
	type rule struct {
		Get, Put, Post, Delete, Patch string
		Additional                    []rule `yaml:"additional_bindings"`
	}
	var mapping struct{ HTTP struct{ Rules []rule } }
	must.Succeed(t, yaml.Unmarshal(must.Get(os.ReadFile("../../proto/gateway.yaml")), &mapping))
	var all []binding
	for rules := mapping.HTTP.Rules; len(rules) > 0; rules = rules[1:] {
		r := rules[0]
		rules = append(rules, r.Additional...)
		for method, path := range map[string]string{
			http.MethodGet: r.Get, http.MethodPut: r.Put, http.MethodPost: r.Post, http.MethodDelete: r.Delete, http.MethodPatch: r.Patch,
		} {
			if path != "" {
				all = append(all, binding{method, path})
			}
		}
	}
	if len(all) < 20 {
		t.Fatalf("got only %d bindings", len(all))
	}
	return all
}

// parents matches the messages in a field path: in "{client.client_id}" the part before the field.
var parents = regexp.MustCompile(`\{(?:\w+\.)+`)

// template returns the template of the path of a binding, which names a variable by its field alone.
func (b binding) template() string { return parents.ReplaceAllLiteralString(b.path, "{") }

// TestRoutesAreThoseOfTheMapping compares the table of routes with proto/gateway.yaml in both directions.
func TestRoutesAreThoseOfTheMapping(t *testing.T) {
	methods := make(map[string][]string)
	for _, b := range bindings(t) {
		methods[b.template()] = append(methods[b.template()], b.method)
		if strings.HasPrefix(b.path, "/.well-known/") { // a document also answers HEAD
			methods[b.template()] = append(methods[b.template()], http.MethodHead)
		}
	}
	for template, want := range methods {
		slices.Sort(want)
		if got := rest.Routes[template]; got != strings.Join(want, ", ") {
			t.Errorf("%s: got the methods %q, want %q", template, got, want)
		}
	}
	for template := range rest.Routes {
		if methods[template] == nil && template != "/" { // it has no call
			t.Errorf("proto/gateway.yaml does not contain %s", template)
		}
	}
}

// TestRoute checks that every path of the mapping has its route, whatever the ids in it, and that no other path has
// one.
func TestRoute(t *testing.T) {
	variable := regexp.MustCompile(`\{[^}]*\}`)
	for _, b := range bindings(t) {
		for _, id := range []string{"a", "a%2Fb", "https:%2F%2Fa.internal", "*"} {
			sent := variable.ReplaceAllLiteralString(b.path, id)
			if got, want := rest.Route(httptest.NewRequest(http.MethodGet, sent, nil)), b.template(); got != want {
				t.Errorf("%s: got %q, want %q", sent, got, want)
			}
		}
	}
	for _, path := range []string{"//", "/v1", "/v1/", "/v1/else", "/v1/clients/a/b/c/d/e/f/g", "/v1/keys/a:b", "/connect/token/", "/v2/clients"} {
		if got := rest.Route(httptest.NewRequest(http.MethodGet, path, nil)); got != "" {
			t.Errorf("%s: got %q, want none", path, got)
		}
	}
}
