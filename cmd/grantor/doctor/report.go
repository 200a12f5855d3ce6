package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// outcome is the result of one check. Its JSON is for scripts.
type outcome struct {
	Check    string   `json:"check"`
	Severity severity `json:"severity"`
	// Found and Do are empty if nothing was found.
	Found string `json:"found,omitempty"`
	Do    string `json:"do,omitempty"`
}

// report collects outcomes. It has no entry for a check that was not made.
type report struct {
	skip []string
	made map[string]*outcome
}

func newReport(skip []string) *report { return &report{skip, make(map[string]*outcome)} }

const (
	// maxFound bounds the text of one finding, in characters.
	maxFound = 1000
	// maxNamed bounds how many replicas or clients a finding names.
	maxNamed = 10
)

// checkf records the outcome of a check: a finding, which format and args describe, or none. Several findings of one
// check are combined.
func (r *report) checkf(id string, bad bool, format string, args ...any) {
	i := slices.IndexFunc(checks, func(c check) bool { return c.ID == id })
	if slices.Contains(r.skip, id) {
		return
	}
	if r.made[id] == nil {
		r.made[id] = &outcome{Check: id, Severity: severityOK}
	}
	if !bad {
		return
	}
	found := fmt.Sprintf(format, args...)
	one := r.made[id]
	switch {
	case slices.Contains(strings.Split(one.Found, "; "), found):
		return // several requests failed for one reason
	case one.Found != "":
		found = one.Found + "; " + found
	}
	if utf8.RuneCountInString(found) > maxFound {
		found = string([]rune(found)[:maxFound]) + "…"
	}
	*one = outcome{id, checks[i].Severity, found, checks[i].Do}
}

// named records a check whose findings are those of the names.
func (r *report) named(id string, names []string) { r.some(id, names, len(names)) }

// some records a check with count findings, of which names has at least the first maxNamed.
func (r *report) some(id string, names []string, count int) {
	more := ""
	if count > maxNamed {
		names, more = names[:maxNamed], fmt.Sprintf(" and %d more", count-maxNamed)
	}
	r.checkf(id, count > 0, "%s%s", strings.Join(names, ", "), more)
}

// outcomes returns all outcomes, in the order of the checks.
func (r *report) outcomes() []outcome {
	var all []outcome
	for _, c := range checks {
		if made := r.made[c.ID]; made != nil {
			all = append(all, *made)
		}
	}
	return all
}

func (r *report) count(s severity) int {
	n := 0
	for _, made := range r.made {
		if made.Severity == s {
			n++
		}
	}
	return n
}

// summary returns the number of findings as one line.
func (r *report) summary() string {
	return fmt.Sprintf("%s, %s, %s; %s made", plural(r.count(severityError), "error"), plural(r.count(severityWarning), "warning"),
		plural(r.count(severityNote), "note"), plural(len(r.made), "check"))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// printText writes the findings for people, the worst first. all includes the checks that found nothing.
func (r *report) printText(out io.Writer, all bool) error {
	var text strings.Builder
	list := []severity{severityError, severityWarning, severityNote}
	if all {
		list = append(list, severityOK)
	}
	for _, s := range list {
		for _, made := range r.outcomes() {
			if made.Severity != s {
				continue
			}
			_, _ = fmt.Fprintf(&text, "%-8s %s", s, made.Check)
			if s != severityOK {
				_, _ = fmt.Fprintf(&text, ": %s\n%8s %s", cli.Printable(made.Found), "", made.Do)
			}
			text.WriteString("\n")
		}
	}
	text.WriteString(r.summary() + "\n")
	_, err := io.WriteString(out, text.String())
	return err
}

// printJSON writes all outcomes for scripts.
func (r *report) printJSON(out io.Writer) error {
	document := struct {
		Checks   []outcome `json:"checks"`
		Errors   int       `json:"errors"`
		Warnings int       `json:"warnings"`
		Notes    int       `json:"notes"`
	}{r.outcomes(), r.count(severityError), r.count(severityWarning), r.count(severityNote)}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	_, err = out.Write(append(cli.EscapeJSON(text), '\n'))
	return err
}
