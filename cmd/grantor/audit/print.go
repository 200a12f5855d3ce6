package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/telemetry"
)

// entry is an audit event from Redis. An attacker may have chosen its texts.
type entry struct {
	*redisstore.AuditEntry

	values map[string]any
}

func readEntry(kept *redisstore.AuditEntry) *entry {
	entry := &entry{AuditEntry: kept}
	decoder := json.NewDecoder(bytes.NewReader(kept.Attributes))
	decoder.UseNumber()
	_ = decoder.Decode(&entry.values) // the store returns only objects
	return entry
}

// text returns an attribute that is a text, or an empty string.
func (e *entry) text(name string) string {
	text, _ := e.values[name].(string)
	return text
}

// printer prints events piece by piece.
type printer struct {
	out   io.Writer
	form  string
	table cli.Table
	begun bool
}

func newPrinter(out io.Writer, form string) (*printer, error) {
	if err := cli.CheckOutput(form); err != nil {
		return nil, err
	}
	return &printer{out: out, form: form}, nil
}

func (p *printer) print(entries []*entry) error {
	if p.form == "json" {
		for _, e := range entries {
			if _, err := p.out.Write(append(e.json(), '\n')); err != nil {
				return err
			}
		}
		return nil
	}
	var lines [][]string
	if !p.begun {
		p.begun = true
		lines = append(lines, []string{"TIME", "EVENT", "CLIENT", "FROM", "DETAILS"})
	}
	for _, e := range entries {
		lines = append(lines, e.row())
	}
	return p.table.Write(p.out, lines...)
}

// timeFormat is RFC 3339 with the milliseconds that a stream keeps.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// json returns the event as one line.
func (e *entry) json() []byte {
	name, _ := json.Marshal(e.Event) //nolint:errchkjson // marshaling a string cannot fail
	line := fmt.Appendf(nil, `{"time":%q,"event":%s`, e.Time.UTC().Format(timeFormat), name)
	var attributes bytes.Buffer
	_ = json.Compact(&attributes, e.Attributes) // the store returns only objects
	if rest := attributes.Bytes()[1:]; len(rest) > 1 {
		line = append(append(line, ','), rest...)
	} else {
		line = append(line, '}')
	}
	return cli.EscapeJSON(line)
}

// row returns the event for people: who made the call, from which address, and the other attributes.
func (e *entry) row() []string {
	who := "client_id"
	if _, ok := e.values["by"]; ok {
		who = "by"
	}
	var details []string
	for _, name := range e.names() {
		if name == who || name == "peer" {
			continue
		}
		if text := detail(e.values[name]); text != "" {
			details = append(details, name+"="+text)
		}
	}
	return []string{e.Time.UTC().Format(timeFormat), e.Event, e.text(who), e.text("peer"), strings.Join(details, " ")}
}

// names returns the attributes in the order of their declaration, and then the undeclared ones.
func (e *entry) names() []string {
	i := slices.IndexFunc(telemetry.Events, func(known telemetry.Event) bool { return known.Name == e.Event })
	var names []string
	if i >= 0 {
		names = slices.Clone(telemetry.Events[i].Attributes)
	}
	for _, name := range slices.Sorted(maps.Keys(e.values)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// detail formats a value. It returns an empty string for a value without information.
func detail(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		if v == "" || !strings.ContainsAny(v, " \"=") {
			return v
		}
		return strconv.Quote(v)
	case bool:
		if !v {
			return ""
		}
	case []any:
		texts := make([]string, len(v))
		for i, one := range v {
			texts[i] = itemDetail(one)
		}
		return strings.Join(texts, ",")
	}
	return fmt.Sprint(value)
}

// itemDetail formats an item of a list: a text, or a change of a field.
func itemDetail(value any) string {
	change, ok := value.(map[string]any)
	if !ok {
		return detail(value)
	}
	return fmt.Sprintf("%v:%q->%q", change["field"], fmt.Sprint(change["from"]), fmt.Sprint(change["to"]))
}
