package guard_test

import (
	"errors"
	"testing"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
)

// TestLikeExceptions asks for paths that some servers take for the exception of a route.
func TestLikeExceptions(t *testing.T) {
	table := must.Get(guard.NewTable([]guard.Route{
		{Path: "/{rest...}", Except: []string{"/admin/{rest...}", "/%c3%89clair/{x}/Kilo"}, Rule: verify.Authenticated()},
		{Path: "/admin/{rest...}", Rule: verify.Scopes("admin")},
	}))
	for path, want := range map[string]string{
		"/admin": "scopes admin", "/admin/x": "scopes admin", "/admi": "authenticated", "/admin-x": "authenticated", "/x/Admin": "authenticated",
		"/": "authenticated", "/...": "authenticated", "/%20": "authenticated", "/A.b": "authenticated", "/éclair": "ambiguous",
		"/ADMIN": "no rule", "/aDmin/x": "no rule", "/%41dmin": "no rule", "/admin.": "no rule", "/admin../x": "no rule", "/admin%20": "no rule",
		"/Admin.%20./x": "no rule", "/%20admin/X.": "no rule", "/adm%C4%B1n": "authenticated",
		"/%C3%A9CLAIR/1/%E2%84%AAilo": "no rule", "/%C3%A9clair/1": "authenticated", "/ECLAIR/1/kilo": "authenticated",
		"/admin%3Fx": "ambiguous", "/admin%23": "ambiguous", "/Admin/%3F/x": "no rule", "/admin/%3F/x": "scopes admin", "/x%3F": "authenticated",
	} {
		found, err := table.Find("GET", "h", path)
		var got string
		switch {
		case errors.Is(err, guard.ErrAmbiguous):
			got = "ambiguous"
		case err != nil:
			got = "no rule"
		default:
			got = found.Rule.String()
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}
