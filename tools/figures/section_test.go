package figures_test

import (
	"testing"

	"github.com/grantorhq/grantor/tools/figures"
)

// TestSection expects that a section is added once and replaced from then on, and that the rest stays.
func TestSection(t *testing.T) {
	const begin, end = "<!-- begin peers: written by `make peers` -->\n", "<!-- end peers -->\n"
	document := []byte("# Title\n\ntext\n")
	if got := figures.Section(document, "peers"); got != nil {
		t.Errorf("got the section %q of a document without one", got)
	}
	document = figures.ReplaceSection(document, "peers", []byte("first\n"))
	if want := "# Title\n\ntext\n\n" + begin + "first\n" + end; string(document) != want {
		t.Errorf("got %q, want %q", document, want)
	}
	document = figures.ReplaceSection(append(document, "\nmore\n"...), "peers", []byte("second"))
	if want := "# Title\n\ntext\n\n" + begin + "second\n" + end + "\nmore\n"; string(document) != want {
		t.Errorf("got %q, want %q", document, want)
	}
	if got, want := string(figures.Section(document, "peers")), begin+"second\n"+end; got != want {
		t.Errorf("got the section %q, want %q", got, want)
	}
	if got := figures.Section([]byte(begin+"text\n"), "peers"); got != nil {
		t.Errorf("got the section %q without an end", got)
	}
}
