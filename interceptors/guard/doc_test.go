package guard_test

import (
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/must"
)

// TestDocumentation checks that docs/guard.md and the package comment have the same lists of how requests are compared.
func TestDocumentation(t *testing.T) {
	_, page, found := strings.Cut(string(must.Get(os.ReadFile("../../docs/guard.md"))), "\n## How requests are compared\n")
	page, _, ended := strings.Cut(page, "\n## ")
	if !found || !ended {
		t.Fatal("docs/guard.md lacks the section")
	}
	file := must.Get(parser.ParseFile(token.NewFileSet(), "guard.go", nil, parser.ParseComments|parser.PackageClauseOnly))
	_, comment, found := strings.Cut(file.Doc.Text(), "\n# How requests are compared\n")
	comment, _, ended = strings.Cut(comment, "\n# ")
	if !found || !ended {
		t.Fatal("the package comment lacks the section")
	}
	got, want := listed(page), listed(comment)
	if len(want) < 10 || !slices.Equal(got, want) {
		t.Errorf("docs/guard.md has\n%s\nand the package comment has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// listed returns the items of the lists in a text, without marks of code and quotation marks.
func listed(text string) []string {
	var items []string
	for _, item := range regexp.MustCompile(`(?m)^ *- .*(\n +[^ -].*)*`).FindAllString(text, -1) {
		items = append(items, strings.NewReplacer("`", "", `"`, "").Replace(strings.Join(strings.Fields(item), " ")))
	}
	return items
}
