package conformance_test

import (
	"os"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/must"
)

// clientsPage is the page with what these tests have found.
const clientsPage = "../../docs/clients.md"

// The two documents with the issuer's metadata, by the names of their places.
const (
	authorizationServer = "oauth-authorization-server" // RFC 8414 §3
	openIDConfiguration = "openid-configuration"       // OpenID Connect Discovery §4
)

var (
	documents = []string{authorizationServer, openIDConfiguration}
	// issuerPaths are the paths of the issuers' URLs.
	issuerPaths = []string{"", "/tenant1"}
)

// outcome is what a reader made of one document and of a token: "yes" if it accepts it with the settings that the table
// names, otherwise "no".
type outcome struct{ reader, document, token string }

// parseOutcomes parses the output of a script: lines of the fields of an outcome, separated by tabs.
func parseOutcomes(t *testing.T, output string) []outcome {
	t.Helper()
	var all []outcome
	for line := range strings.Lines(output) {
		if fields := strings.Split(strings.TrimSpace(line), "\t"); len(fields) == 3 {
			all = append(all, outcome{fields[0], fields[1], fields[2]})
		}
	}
	if len(all) == 0 {
		t.Errorf("got no outcome in %q", output)
	}
	return all
}

// wantDocumented checks that the table of readers in docs/clients.md has the outcomes of readers that read the document.
func wantDocumented(t *testing.T, document string, outcomes ...outcome) {
	t.Helper()
	column := 2
	if document == openIDConfiguration {
		column = 3
	}
	_, page, _ := strings.Cut(string(must.Get(os.ReadFile(clientsPage))), "\n## Readers of the metadata\n")
	for _, o := range outcomes {
		_, row, found := strings.Cut(page, "\n| "+o.reader+" |")
		row, _, _ = strings.Cut("| "+o.reader+" |"+row, "\n")
		cells := strings.Split(row, "|")
		if !found || len(cells) < 6 || strings.TrimSpace(cells[column]) != o.document || strings.TrimSpace(cells[4]) != o.token {
			t.Errorf("%s: got %s for the document and %s for the token, the table has %q", o.reader, o.document, o.token, row)
		}
	}
}

// documented returns the n-th block of settings below a heading of docs/clients.md, with each key of changes replaced by its value.
func documented(t *testing.T, heading string, n int, changes map[string]string) string {
	t.Helper()
	page := string(must.Get(os.ReadFile(clientsPage)))
	_, section, _ := strings.Cut(page, "\n### "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n#")
	parts := strings.Split(section, "```") // text and blocks take turns
	if len(parts) < 2*n+2 {
		t.Fatalf("docs/clients.md has no block %d of settings for %s", n, heading)
	}
	_, block, _ := strings.Cut(parts[2*n+1], "\n") // without the language
	var replacements []string
	for old, replacement := range changes {
		if !strings.Contains(block, old) {
			t.Fatalf("the settings of %s do not have %q:\n%s", heading, old, block)
		}
		replacements = append(replacements, old, replacement)
	}
	return strings.NewReplacer(replacements...).Replace(block)
}
