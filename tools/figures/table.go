package figures

import (
	"bytes"
	"fmt"
	"strings"
)

// Table is a table in Markdown. The first row is its head.
type Table struct{ Rows [][]string }

// NewTable returns a table with a head.
func NewTable(head ...string) *Table { return &Table{[][]string{head}} }

// Add adds a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Write appends the table to out, with an empty line after it.
func (t *Table) Write(out *bytes.Buffer) {
	for i, cells := range t.Rows {
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
		if i == 0 {
			fmt.Fprintf(out, "|%s\n", strings.Repeat("---|", len(cells)))
		}
	}
	out.WriteByte('\n')
}
