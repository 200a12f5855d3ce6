package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// WriteTable writes lines in aligned columns.
func WriteTable(out io.Writer, lines ...[]string) error { return new(Table).Write(out, lines...) }

// Table writes lines in aligned columns, piece by piece. A column never becomes narrower, so that the pieces look like one
// table. The zero value is ready to use.
type Table struct{ widths []int }

// Write appends lines to the table. An empty cell is written as a hyphen.
func (t *Table) Write(out io.Writer, lines ...[]string) error {
	for _, line := range lines {
		for i, cell := range line {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	var text strings.Builder
	for _, line := range lines {
		var row strings.Builder
		for i, cell := range line {
			if cell == "" {
				cell = "-"
			}
			_, _ = fmt.Fprintf(&row, "%-*s  ", t.widths[i], Printable(cell))
		}
		text.WriteString(strings.TrimRight(row.String(), " ") + "\n")
	}
	_, err := io.WriteString(out, text.String())
	return err
}
