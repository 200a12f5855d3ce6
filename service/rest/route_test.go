package rest_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/rest"
)

// Every path of the mapping has its route, whatever the ids in it are; other paths have none.
func TestRoute(t *testing.T) {
	mapping, err := os.ReadFile("../../proto/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile(`(?m)^ +(?:- )?(?:get|post|patch|delete): (/\S+)$`).FindAllStringSubmatch(string(mapping), -1)
	if len(paths) < 20 {
		t.Fatalf("found only %d paths", len(paths))
	}
	field := regexp.MustCompile(`\{[^}]*\}`)
	for _, path := range paths {
		want := strings.NewReplacer("{client.", "{", "{secret.", "{", "{resource.", "{").Replace(path[1])
		for _, id := range []string{"a", "a%2Fb", "https:%2F%2Fa.internal", "*"} {
			sent := field.ReplaceAllLiteralString(path[1], id)
			if got := rest.Route(httptest.NewRequest(http.MethodGet, sent, nil)); got != want {
				t.Errorf("%s: got %q, want %q", sent, got, want)
			}
		}
	}
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/else", "/v1/clients/a/b/c/d/e/f/g", "/v1/keys/a:b", "/connect/token/", "/v2/clients"} {
		if got := rest.Route(httptest.NewRequest(http.MethodGet, path, nil)); got != "" {
			t.Errorf("%s: got %q, want none", path, got)
		}
	}
}
