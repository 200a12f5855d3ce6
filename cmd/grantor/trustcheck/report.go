package trustcheck

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// The results of a check. They are part of the JSON output.
const (
	right   = "right"
	wrong   = "wrong"
	unknown = "not checked"
)

// checked is the result of one check.
type checked struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Why    string `json:"why,omitempty"`
}

// match is the result of one rule.
type match struct {
	// Rule is the name of the rule, and Place file:line of it.
	Rule    string `json:"rule"`
	Place   string `json:"place,omitempty"`
	Matches bool   `json:"matches"`
	// Client is the client that the rule selects for the identity. Why says why the rule does not match.
	Client string `json:"client_id,omitempty"`
	Why    string `json:"why,omitempty"`
}

// report is the result of the command. Its JSON is for scripts.
type report struct {
	// Kind is token or certificate.
	Kind    string    `json:"kind"`
	Issuer  string    `json:"issuer"`
	Subject string    `json:"subject"`
	Checks  []checked `json:"checks"`
	Rules   []match   `json:"rules"`
	// Clients are those that match.
	Clients []string `json:"clients"`
}

func (r *report) add(name, result, why string) {
	r.Checks = append(r.Checks, checked{name, result, why})
}

// judge adds the result of a check: what is wrong, or what to say if nothing is.
func (r *report) judge(name string, err error, otherwise string) {
	if err != nil {
		r.add(name, wrong, err.Error())
		return
	}
	r.add(name, right, otherwise)
}

// try adds the result of a rule.
func (r *report) try(m match) {
	if m.Matches && !slices.Contains(r.Clients, m.Client) {
		r.Clients = append(r.Clients, m.Client)
	}
	r.Rules = append(r.Rules, m)
}

// failures returns how many checks found something wrong.
func (r *report) failures() (n int) {
	for _, c := range r.Checks {
		if c.Result == wrong {
			n++
		}
	}
	return n
}

func (r *report) print(out io.Writer, form string) error {
	if form == "json" {
		document, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		_, err = out.Write(append(cli.EscapeJSON(document), '\n'))
		return err
	}
	if _, err := fmt.Fprintf(out, "%s of %s\nsubject %s\n\n", r.Kind, cli.Printable(r.Issuer), cli.Printable(r.Subject)); err != nil {
		return err
	}
	lines := make([][]string, 0, len(r.Checks))
	for _, c := range r.Checks {
		lines = append(lines, []string{c.Name, c.Result, c.Why})
	}
	if err := cli.WriteTable(out, lines...); err != nil {
		return err
	}
	if len(r.Rules) > 0 {
		lines = [][]string{{"RULE", "MATCHES", "LINE", "CLIENT OR REASON"}}
		for _, m := range r.Rules {
			lines = append(lines, m.line())
		}
		_, _ = fmt.Fprintln(out)
		if err := cli.WriteTable(out, lines...); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "\n%s\n", cli.Printable(r.summary()))
	return err
}

func (m *match) line() []string {
	if m.Matches {
		return []string{m.Rule, "yes", m.Place, m.Client}
	}
	return []string{m.Rule, "no", m.Place, m.Why}
}

// summary returns the result in one sentence.
func (r *report) summary() string {
	switch len(r.Clients) {
	case 0:
		return "No client matches."
	case 1:
		return "It is the client " + r.Clients[0] + "."
	}
	return "It may be each of the clients " + strings.Join(r.Clients, ", ") + "; the client_id of the request decides."
}
