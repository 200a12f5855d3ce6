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

// outcome is what came of one check. Its JSON is what scripts read.
type outcome struct {
	Check    string   `json:"check"`
	Severity severity `json:"severity"`
	// Found and Do are empty where nothing was found.
	Found string `json:"found,omitempty"`
	Do    string `json:"do,omitempty"`
}

// report collects outcomes. A check that was not made is not in it.
type report struct {
	skip []string
	made map[string]*outcome
}

func newReport(skip []string) *report { return &report{skip, make(map[string]*outcome)} }

const (
	// mostFound bounds what is told of one finding, in characters.
	mostFound = 1000
	// mostNamed bounds how many replicas or clients are named.
	mostNamed = 10
)

// checkf notes what came of a check: that it found something, which format and args then tell, or nothing. What several
// say of one check is put together.
func (r *report) checkf(id string, bad bool, format string, args ...any) {
	i := slices.IndexFunc(checks, func(c check) bool { return c.ID == id })
	if slices.Contains(r.skip, id) {
		return
	}
	if r.made[id] == nil {
		r.made[id] = &outcome{Check: id, Severity: isFine}
	}
	if !bad {
		return
	}
	found := fmt.Sprintf(format, args...)
	one := r.made[id]
	if one.Found != "" {
		found = one.Found + "; " + found
	}
	if utf8.RuneCountInString(found) > mostFound {
		found = string([]rune(found)[:mostFound]) + "…"
	}
	*one = outcome{id, checks[i].Severity, found, checks[i].Do}
}

// named notes a check of many, which found those that are named.
func (r *report) named(id string, names []string) {
	all := names
	more := ""
	if len(names) > mostNamed {
		names, more = names[:mostNamed], fmt.Sprintf(" and %d more", len(names)-mostNamed)
	}
	r.checkf(id, len(all) > 0, "%s%s", strings.Join(names, ", "), more)
}

// outcomes gives all, in the order of the checks.
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

// summary says how many findings there are.
func (r *report) summary() string {
	return fmt.Sprintf("%s, %s, %s; %s made", plural(r.count(isError), "error"), plural(r.count(isWarning), "warning"),
		plural(r.count(isNote), "note"), plural(len(r.made), "check"))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// printText writes the findings for people, the worst first; all says that the checks which found nothing are listed too.
func (r *report) printText(out io.Writer, all bool) error {
	var text strings.Builder
	list := []severity{isError, isWarning, isNote}
	if all {
		list = append(list, isFine)
	}
	for _, s := range list {
		for _, made := range r.outcomes() {
			if made.Severity != s {
				continue
			}
			_, _ = fmt.Fprintf(&text, "%-8s %s", s, made.Check)
			if s != isFine {
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
	}{r.outcomes(), r.count(isError), r.count(isWarning), r.count(isNote)}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	_, err = out.Write(append(cli.EscapeJSON(text), '\n'))
	return err
}
