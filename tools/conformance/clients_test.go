package conformance_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/must"
)

var (
	// testFunction matches the declaration of a test, and testName a test in a row of the table.
	testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\) \{`)
	testName     = regexp.MustCompile("`(Test\\w+)`")
	// pinned are the files with the versions of what the tests run.
	pinned = []string{
		"go.mod", "testdata/npm/package.json", "testdata/pip/requirements.txt", "testdata/maven/pom.xml", "testdata/kafka/pom.xml",
		"testdata/kafka/requirements.txt", "../../examples/java/pom.xml",
	}
	// exact matches a version that a file pins.
	exact = regexp.MustCompile(`\d+\.\d+\.\d+`)
)

// TestClientsTable checks that each row of the table in docs/clients.md names tests that exist and a version that is pinned.
func TestClientsTable(t *testing.T) {
	functions := make(map[string]bool)
	for _, pattern := range []string{"*_test.go", "../../cmd/grantor/*_test.go"} {
		for _, file := range must.Get(filepath.Glob(pattern)) {
			for _, match := range testFunction.FindAllStringSubmatch(string(must.Get(os.ReadFile(file))), -1) {
				functions[match[1]] = true
			}
		}
	}
	var pins strings.Builder
	for _, file := range pinned {
		pins.Write(must.Get(os.ReadFile(file)))
	}
	page := string(must.Get(os.ReadFile(clientsPage)))
	_, table, found := strings.Cut(page, "\n| client | version | tested | settings |\n|---|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if !found {
		t.Fatal("the page has no table of clients")
	}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) != 6 {
			t.Errorf("got %d cells in %q, want 4", len(cells)-2, row)
			continue
		}
		tests := testName.FindAllStringSubmatch(cells[3], -1)
		if len(tests) == 0 {
			t.Errorf("%s: the row names no test", cells[1])
		}
		for _, test := range tests {
			if !functions[test[1]] {
				t.Errorf("%s: there is no %s", cells[1], test[1])
			}
		}
		for _, version := range exact.FindAllString(cells[2], -1) {
			if !strings.Contains(pins.String(), version) && !strings.Contains(cells[2], "Debian") {
				t.Errorf("%s: no file pins %s", cells[1], version)
			}
		}
	}
}
