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

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
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

// TestRoutesAreThoseOfTheMapping compares the table of routes with proto/gateway.yaml and the methods of the token service, in both
// directions.
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
	service := grantorv1.TokenService_ServiceDesc
	for _, method := range service.Methods {
		path := "/" + service.ServiceName + "/" + method.MethodName
		methods[path] = []string{http.MethodPost}
		wantRoute(t, "https://issuer.test", path, path)
		wantRoute(t, "https://issuer.test/tenant1", "/tenant1"+path, path)
		if rest.Routes[path] != http.MethodPost {
			t.Errorf("%s: got the methods %q, want POST", path, rest.Routes[path])
		}
	}
	for template := range rest.Routes {
		if methods[template] == nil && template != "/" && template != "/connect/authorize" { // they have no call
			t.Errorf("neither proto/gateway.yaml nor the service contains %s", template)
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
			wantRoute(t, "https://issuer.test", sent, b.template())
		}
	}
	wantRoute(t, "https://issuer.test", "/", "/")
	for _, path := range []string{"//", "/v1", "/v1/", "/v1/else", "/v1/clients/a/b/c/d/e/f/g", "/v1/keys/a:b", "/connect/token/", "/v2/clients"} {
		wantRoute(t, "https://issuer.test", path, "")
	}
}

// TestRouteOfAnIssuerWithAPath checks that every path has its route below an issuer's path and without it, as a proxy
// sends it that removes the path, and that the metadata have theirs at the places of RFC 8414 and of OpenID Connect. Some
// of the issuers' paths begin like paths of ours.
func TestRouteOfAnIssuerWithAPath(t *testing.T) {
	variable := regexp.MustCompile(`\{[^}]*\}`)
	for _, base := range []string{"/tenant1", "/a/b", "/%C3%BC", "/v1", "/v1/clients", "/v1/keys", "/connect", "/connect/token", "/.well-known", "/.well-known/openid-configuration"} {
		issuer := "https://issuer.test" + base
		for _, b := range bindings(t) {
			path := variable.ReplaceAllLiteralString(b.path, "a")
			wantRoute(t, issuer, base+path, b.template())
			wantRoute(t, issuer, path, b.template())
		}
		for _, document := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
			wantRoute(t, issuer, document+base, document)
		}
		wantRoute(t, issuer, base+base+"/connect/introspect", "")
		wantRoute(t, issuer, base+"/connect/introspect/", "")
		wantRoute(t, issuer, base+"x/connect/introspect", "")
		wantRoute(t, issuer, "/.well-known/jwks.json"+base, "")
	}
	for _, path := range []string{"/Tenant1/connect/token", "/%74enant1/connect/token", "//tenant1/connect/token", "/tenant1//connect/token", "/tenant1/../connect/token", "/tenant2/connect/token"} {
		wantRoute(t, "https://issuer.test/tenant1", path, "")
	}
}

// wantRoute checks the route of a path at an issuer.
func wantRoute(t *testing.T, issuer, path, want string) {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, path, nil)
	if got := rest.Route(must.Get(oauth.ParseIssuer(issuer)))(request); got != want {
		t.Errorf("%s at %s: got %q, want %q", path, issuer, got, want)
	}
}
