package conformance_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/cors"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestCORSHeaders compares the headers that a page may send and read with those that the authors of Connect list.
func TestCORSHeaders(t *testing.T) {
	const page = "http://localhost:3000"
	issuer := newIssuer(t, tokentest.CORSOrigins(page))
	list := func(header http.Header, name string) []string {
		return strings.Split(strings.ToLower(header.Get("Access-Control-"+name)), ", ")
	}
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodOptions, issuer.URL+"/grantor.v1.TokenService/IssueToken", http.NoBody))
	request.Header = http.Header{"Origin": {page}, "Access-Control-Request-Method": {"POST"}}
	answer := must.Get(http.DefaultClient.Do(request))
	_ = answer.Body.Close()
	for name, all := range map[string][]string{"Allow-Headers": cors.AllowedHeaders(), "Expose-Headers": cors.ExposedHeaders()} {
		for _, one := range all {
			if got := list(answer.Header, name); !slices.Contains(got, strings.ToLower(one)) {
				t.Errorf("%s: got %q, want %s as well", name, got, one)
			}
		}
	}
	// Without the GET of Connect, which has the request in the URL.
	if got := list(answer.Header, "Allow-Methods"); !slices.Equal(got, []string{"post"}) {
		t.Errorf("got the methods %q, want POST", got)
	}
}
