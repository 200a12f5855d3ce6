package migrate_test

import (
	"strings"
	"testing"
	"unicode"

	"github.com/grantorhq/grantor/cmd/grantor/migrate"
)

// FuzzImport checks that no export makes the readers panic, that an export always yields the same manifest, and that
// nothing in it can act on the terminal that shows the report.
func FuzzImport(f *testing.F) {
	// Short seeds: minimizing an input of the size of the exports would take the whole run.
	for _, seed := range []string{
		`{"scopes":[{"Name":"a","Resources":"[\"b\",\"https://c\"]"}]}`,
		`[{"ClientId":"b","Permissions":["ept:token","gt:client_credentials","scp:a"]}]`,
		`[{"ClientId":"b","Permissions":["ept:token","gt:client_credentials"],"Settings":{"tkn_lft:act":"1:00"}}]`,
		`{"items":[{"id":"a","grant_types":"client_credentials|x","audience":"b","scope":"c d"}]}`,
		`[{"client_id":"a","grant_types":["client_credentials"],"rotated_secrets":"[\"$2a$\"]","jwks":{"keys":[]}}]`,
		`{"realm":"a","clients":[{"clientId":"a","secret":"s","serviceAccountsEnabled":true,"defaultClientScopes":["b"]}],"clientScopes":[{"name":"b"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, server := range []string{"openiddict", "hydra", "keycloak"} {
			var first string
			for range 2 {
				manifest, report, err := migrate.Convert(server, data, "https://services.internal")
				if err != nil {
					break
				}
				if strings.ContainsFunc(report, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
					t.Errorf("the report has what is not printable: %q", report)
				}
				if again := manifest + report; first == "" {
					first = again
				} else if first != again {
					t.Errorf("the same export yielded two manifests:\n%s\n%s", first, again)
				}
			}
		}
	})
}
