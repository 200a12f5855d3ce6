package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// target is the bound of a figure. The zero value is no target.
type target struct {
	sign  string // one of ≥, ≤ and <
	bound float64
	unit  string
}

func atLeast(bound float64) target { return target{sign: "≥", bound: bound} }

func atMost(bound float64, unit string) target { return target{"≤", bound, unit} }

func below(bound float64, unit string) target { return target{"<", bound, unit} }

// met reports whether a figure is within the bound. NaN is not.
func (t target) met(figure float64) bool {
	switch t.sign {
	case "≥":
		return figure >= t.bound
	case "≤":
		return figure <= t.bound
	case "<":
		return figure < t.bound
	}
	return false
}

// decimals returns the number of decimals to format a figure with: minDecimals, or up to 6 more if rounding would move the
// figure to the other side of the bound.
func (t target) decimals(figure float64, minDecimals int) int {
	for digits := minDecimals; digits < minDecimals+6; digits++ {
		rounded, err := strconv.ParseFloat(strconv.FormatFloat(figure, 'f', digits, 64), 64)
		if err == nil && t.met(rounded) == t.met(figure) {
			return digits
		}
	}
	return minDecimals + 6
}

// text formats the target, its bound by a verb such as %.2f.
func (t target) text(verb string) string {
	if t.sign == "" {
		return "none"
	}
	return strings.TrimSpace(fmt.Sprintf("%s "+verb+" %s", t.sign, t.bound, t.unit))
}

// goal is a target and the figure that was measured, as a number to compare and as a text to read.
type goal struct {
	path, against string
	target        target
	value         float64
	figure        string
}

// findings are the results of a section.
type findings struct {
	title string
	// notes is the heading of the section's text in notes.md.
	notes string
	goals []goal
	parts []part
	chart *chart
}

// part is a paragraph, a table, or a table after a paragraph.
type part struct {
	text  string
	table *table
}

// chart is a picture and the path of its file in the repository.
type chart struct {
	path, alt string
	svg       []byte
}

// judge adds a goal.
func (f *findings) judge(path, against string, t target, value float64, figure string) {
	f.goals = append(f.goals, goal{path, against, t, value, figure})
}

// judgeSpread adds a goal for the median of a spread, which it formats with at least that many decimals and the unit, which may
// be empty.
func (f *findings) judgeSpread(path, against string, t target, s spread, decimals int, unit string) {
	verb := fmt.Sprintf("%%.%df", t.decimals(s.median, decimals))
	f.judge(path, against, t, s.median, strings.TrimSpace(s.text(verb)+" "+unit))
}

// add adds a part.
func (f *findings) add(text string, t *table) { f.parts = append(f.parts, part{text, t}) }

// table is a table in Markdown. The first row is its head.
type table struct{ rows [][]string }

func newTable(head ...string) *table { return &table{[][]string{head}} }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(out *bytes.Buffer) {
	for i, cells := range t.rows {
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
		if i == 0 {
			fmt.Fprintf(out, "|%s\n", strings.Repeat("---|", len(cells)))
		}
	}
	out.WriteByte('\n')
}

//go:embed notes.md
var notesText string

// notes splits a text in Markdown into its parts, keyed by their second-level headings.
func notes(text string) map[string]string {
	parts, heading := map[string]string{}, ""
	for line := range strings.Lines(text) {
		if found, ok := strings.CutPrefix(line, "## "); ok {
			heading = strings.TrimSpace(found)
			continue
		}
		parts[heading] += line
	}
	for heading, part := range parts {
		parts[heading] = strings.TrimSpace(part)
	}
	return parts
}

// reasons parses the part about missed targets, which is a list: a path in backticks, a colon and the reason. It maps paths to
// reasons.
func reasons(part string) map[string]string {
	found, path := map[string]string{}, ""
	for line := range strings.Lines(part) {
		if rest, ok := strings.CutPrefix(line, "- `"); ok {
			name, why, _ := strings.Cut(rest, "`:")
			path, found[name] = name, strings.TrimSpace(why)
		} else if path != "" {
			found[path] = strings.TrimSpace(found[path] + " " + strings.TrimSpace(line))
		}
	}
	return found
}

// writeReport returns the report.
func writeReport(machine string, found []*findings) ([]byte, error) {
	texts := notes(notesText)
	var out bytes.Buffer
	out.WriteString("<!-- Written by `make bench`; the prose is from tools/bench/notes.md. -->\n# Benchmarks\n\n")
	paragraph := func(text string) {
		if text != "" {
			fmt.Fprintf(&out, "%s\n\n", text)
		}
	}
	paragraph(texts["opening"])
	writeGoals(&out, found, reasons(texts["misses"]))
	out.WriteString("## How it is measured\n\n")
	paragraph(texts["method"])
	paragraph(machine)
	for _, f := range found {
		text, ok := texts[f.notes]
		if !ok {
			return nil, fmt.Errorf("notes.md has no heading %q", f.notes)
		}
		fmt.Fprintf(&out, "## %s\n\n", f.title)
		paragraph(text)
		if f.chart != nil {
			fmt.Fprintf(&out, "![%s](%s)\n\n", f.chart.alt, f.chart.path)
		}
		for _, p := range f.parts {
			paragraph(p.text)
			if p.table != nil {
				p.table.write(&out)
			}
		}
	}
	for _, last := range []struct{ title, part string }{{"Where the time goes", "profiles"}, {"Settings that were chosen", "settings"}} {
		if texts[last.part] != "" {
			fmt.Fprintf(&out, "## %s\n\n", last.title)
			paragraph(texts[last.part])
		}
	}
	return append(bytes.TrimRight(out.Bytes(), "\n"), '\n'), nil
}

// writeGoals writes the table of all goals, and the reason for each target that was missed.
func writeGoals(out *bytes.Buffer, found []*findings, reasons map[string]string) {
	t, missed := newTable("Path", "Against", "Target", "Measured", ""), []string{}
	for _, f := range found {
		for _, g := range f.goals {
			mark := "**met**"
			switch {
			case g.target == target{}:
				mark = "for information"
			case !g.target.met(g.value):
				mark = "**missed**"
				reason := reasons[g.path]
				if reason == "" {
					reason = "the reason is not known yet."
				}
				missed = append(missed, fmt.Sprintf("- %s: %s\n", g.path, reason))
			}
			t.add(g.path, g.against, g.target.text("%g"), g.figure, mark)
		}
	}
	t.write(out)
	if len(missed) > 0 {
		fmt.Fprintf(out, "Why a target is missed:\n\n%s\n", strings.Join(missed, ""))
	}
}
