package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/grantorhq/grantor/tools/figures"
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

// group is a table of goals at the top of the report.
type group struct {
	title string
	// notes is the heading of the text above the table in notes.md.
	notes string
	// columns are the heads of further cells.
	columns []string
}

// The groups in the order of the report.
var (
	callGroup      = &group{title: "Processor time of a call", notes: "calls at the top", columns: []string{"Grantor, µs", "Yardstick, µs", "Ratio with GOGC=100", "Grantor, µs", "Yardstick, µs"}}
	footprintGroup = &group{title: "Memory, start and size", notes: "footprint at the top"}
	otherGroup     = &group{title: "Verification, scale, and the guard behind Envoy", notes: "others at the top"}
	groups         = []*group{callGroup, footprintGroup, otherGroup}
)

// goal is a target and the figure that was measured, as a number to compare and as a text to read.
type goal struct {
	group         *group
	path, against string
	target        target
	value         float64
	figure        string
	// more are the cells of the further columns of the group.
	more []string
	// reason is what the program found about a target that is missed, or empty.
	reason string
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
	table *figures.Table
}

// chart is a picture and the path of its file in the repository.
type chart struct {
	path, alt string
	svg       []byte
}

// judge adds a goal to the last group.
func (f *findings) judge(path, against string, t target, value float64, figure string) {
	f.judgeIn(otherGroup, path, against, t, value, figure)
}

// judgeIn adds a goal to a group and returns it.
func (f *findings) judgeIn(g *group, path, against string, t target, value float64, figure string) *goal {
	f.goals = append(f.goals, goal{group: g, path: path, against: against, target: t, value: value, figure: figure})
	return &f.goals[len(f.goals)-1]
}

// judgeSpread adds a goal for the median of a spread to the last group.
func (f *findings) judgeSpread(path, against string, t target, s figures.Spread, decimals int, unit string) {
	f.judge(path, against, t, s.Median, t.figure(s, decimals, unit))
}

// figure formats a spread with at least that many decimals and the unit, which may be empty.
func (t target) figure(s figures.Spread, decimals int, unit string) string {
	verb := fmt.Sprintf("%%.%df", t.decimals(s.Median, decimals))
	return strings.TrimSpace(s.Text(verb) + " " + unit)
}

// add adds a part.
func (f *findings) add(text string, t *figures.Table) { f.parts = append(f.parts, part{text, t}) }

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

// reason is why a target is missed, for figures from min to max. For another figure it says nothing.
type reason struct {
	min, max float64
	text     string
}

// reasonLine matches the beginning of a reason: "- `path` (0.95–0.97): text".
var reasonLine = regexp.MustCompile("^- `([^`]+)` \\(([0-9.]+)–([0-9.]+)\\): (.*)")

// reasons parses the list of reasons, keyed by path.
func reasons(part string) (map[string]*reason, error) {
	found, last := map[string]*reason{}, (*reason)(nil)
	for line := range strings.Lines(part) {
		line = strings.TrimRight(line, "\n")
		switch match := reasonLine.FindStringSubmatch(line); {
		case match != nil:
			from, err := strconv.ParseFloat(match[2], 64)
			to, err2 := strconv.ParseFloat(match[3], 64)
			if err := errors.Join(err, err2); err != nil {
				return nil, err
			}
			last = &reason{from, to, match[4]}
			found[match[1]] = last
		case last != nil && strings.HasPrefix(line, "  "):
			last.text += " " + strings.TrimSpace(line)
		case line != "":
			return nil, fmt.Errorf("%q is no part of a reason", line)
		}
	}
	return found, nil
}

// report is a report. machine describes what was measured on, and quick says that its figures mean nothing.
type report struct {
	machine string
	quick   bool
	texts   map[string]string
	out     bytes.Buffer
}

// newReport returns an empty report with the texts of notes.md.
func newReport(machine string, quick bool) *report {
	return &report{machine: machine, quick: quick, texts: notes(notesText)}
}

// paragraph writes the text under a heading of notes.md.
func (r *report) paragraph(heading string) error {
	text, ok := r.texts[heading]
	if !ok {
		return fmt.Errorf("notes.md has no heading %q", heading)
	}
	r.out.WriteString(text + "\n\n")
	return nil
}

// write returns the report of the findings.
func (r *report) write(found []*findings) ([]byte, error) {
	r.out.WriteString("<!-- Written by `make bench`; the prose is from tools/bench/notes.md. -->\n# Benchmarks\n\n")
	if r.quick {
		r.out.WriteString("**" + quickWarning + "**\n\n")
	}
	err := errors.Join(r.paragraph("opening"), r.writeGoals(found))
	r.out.WriteString("## How it is measured\n\n")
	err = errors.Join(err, r.paragraph("method"))
	r.out.WriteString(r.machine + "\n\n")
	for _, f := range found {
		fmt.Fprintf(&r.out, "## %s\n\n", f.title)
		err = errors.Join(err, r.paragraph(f.notes))
		if f.chart != nil {
			fmt.Fprintf(&r.out, "![%s](%s)\n\n", f.chart.alt, f.chart.path)
		}
		for _, p := range f.parts {
			if p.text != "" {
				r.out.WriteString(p.text + "\n\n")
			}
			if p.table != nil {
				p.table.Write(&r.out)
			}
		}
	}
	r.out.WriteString("## Settings that were chosen\n\n")
	err = errors.Join(err, r.paragraph("settings"))
	return append(bytes.TrimRight(r.out.Bytes(), "\n"), '\n'), err
}

// writeGoals writes the tables of all goals, and the reason for each target that was missed.
func (r *report) writeGoals(found []*findings) error {
	known, err := reasons(r.texts["misses"])
	if err != nil {
		return err
	}
	var missed []string
	for _, g := range groups {
		t := figures.NewTable(append([]string{"Path", "Against", "Target", "Measured", ""}, g.columns...)...)
		for _, f := range found {
			for _, goal := range f.goals {
				if goal.group != g {
					continue
				}
				mark := r.mark(&goal)
				if mark == markMissed {
					missed = append(missed, fmt.Sprintf("- %s: %s\n", goal.path, goal.why(known[goal.path])))
				}
				t.Add(append([]string{goal.path, goal.against, goal.target.text("%g"), goal.figure, mark}, goal.more...)...)
			}
		}
		if len(t.Rows) == 1 {
			continue
		}
		fmt.Fprintf(&r.out, "## %s\n\n", g.title)
		if err := r.paragraph(g.notes); err != nil {
			return err
		}
		t.Write(&r.out)
	}
	if len(missed) > 0 {
		fmt.Fprintf(&r.out, "Why a target is missed:\n\n%s\n", strings.Join(missed, ""))
	}
	return nil
}

// The marks of a goal.
const (
	markMet    = "**met**"
	markMissed = "**missed**"
	markInfo   = "for information"
	markQuick  = "not judged"
)

// mark returns whether a goal is met. A quick run judges nothing.
func (r *report) mark(g *goal) string {
	switch {
	case g.target == target{}:
		return markInfo
	case r.quick:
		return markQuick
	case g.target.met(g.value):
		return markMet
	}
	return markMissed
}

// why returns why the target is missed: what the program found, and what notes.md says about such a figure.
func (g *goal) why(known *reason) string {
	text := g.reason
	if known != nil && known.min <= g.value && g.value <= known.max {
		text += " " + known.text
	}
	if text == "" {
		return "the reason is not known yet."
	}
	return strings.TrimSpace(text)
}
