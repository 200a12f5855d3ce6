package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// maxExport bounds a JSON file that is read, in bytes.
const maxExport = 64 << 20

// export is a JSON file that another server, or its database, gave.
type export struct {
	file string
	data []byte
}

// readExport reads a file whole. What is wrong with its JSON is told with line and column.
func readExport(path string) (value, error) {
	f, err := os.Open(path)
	if err != nil {
		return value{}, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxExport+1))
	if err != nil {
		return value{}, err
	}
	if len(data) > maxExport {
		return value{}, fmt.Errorf("%s has more than %d bytes", path, maxExport)
	}
	return parseExport(path, data)
}

func parseExport(file string, data []byte) (value, error) {
	// Tools on Windows put a byte order mark first.
	whole := value{doc: &export{file, bytes.TrimPrefix(data, []byte("\ufeff"))}}
	whole.raw = whole.doc.data
	// The JSON reader would put one replacement character for whatever is not UTF-8: two ids could become one.
	if i := invalidUTF8(whole.raw); i >= 0 {
		return value{}, whole.at(i).errorf("is not UTF-8")
	}
	if err := checkJSON(whole.raw); err != nil {
		syntax, ok := errors.AsType[*json.SyntaxError](err)
		if !ok {
			return value{}, err
		}
		return value{}, whole.at(max(int(syntax.Offset)-1, 0)).errorf("%v", syntax)
	}
	return whole, nil
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

func checkJSON(data []byte) error {
	var whole json.RawMessage
	return json.Unmarshal(data, &whole)
}

// value is one JSON value and where it stands.
type value struct {
	doc    *export
	offset int
	// inner is set where the JSON was the text of a string: the string's place is the place of all that is in it.
	inner bool
	// name is that of the member of an object that the value is, or is in.
	name string
	raw  json.RawMessage
}

// at is a value within this one.
func (v value) at(offset int) value {
	if !v.inner {
		v.offset += offset
	}
	return v
}

// place gives file:line:column. Exports are often one long line.
func (v value) place() string {
	before := v.doc.data[:min(v.offset, len(v.doc.data))]
	line := bytes.Count(before, []byte("\n")) + 1
	return fmt.Sprintf("%s:%d:%d", v.doc.file, line, len(before)-bytes.LastIndexByte(before, '\n'))
}

// errorf makes an error about the value. It must not quote one that may be a secret.
func (v value) errorf(format string, args ...any) error {
	what := v.place()
	if v.name != "" {
		what += ": " + shown(v.name)
	}
	return fmt.Errorf("%s: %s", what, fmt.Sprintf(format, args...))
}

// shown gives a name from an export as it can be told on a terminal.
func shown(name string) string { return fmt.Sprintf("%.100s", cli.Printable(name)) }

// is reports whether the value begins with a character: { an object, [ a list, " text.
func (v value) is(first byte) bool {
	trimmed := bytes.TrimLeft(v.raw, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == first
}

// empty reports whether nothing is said by the value, as by null, "", [], {"keys": []} or false. An export has every
// column, most of them in one of these forms.
func (v value) empty() bool {
	switch text := strings.TrimSpace(string(v.raw)); {
	case text == "null" || text == "false" || text == "0":
		return true
	case v.is('"'):
		inside, err := v.unwrapped()
		return v.blank() || (err == nil && !inside.is('"') && inside.empty())
	case v.is('['), v.is('{'):
		said := errors.New("something is said")
		return v.parts(func(part value) error {
			if part.empty() {
				return nil
			}
			return said
		}) == nil
	}
	return false
}

// blank reports whether the value is text without a visible character, or the text null.
func (v value) blank() bool {
	text, err := v.text()
	text = strings.TrimSpace(text)
	return err == nil && (text == "" || text == "null")
}

// text gives a string; null is an empty one.
func (v value) text() (string, error) {
	var text *string
	if json.Unmarshal(v.raw, &text) != nil {
		return "", v.errorf("expected text")
	}
	if text == nil {
		return "", nil
	}
	return *text, nil
}

// unwrapped gives the JSON that is the value's text, where it is a list or an object: databases keep and export such
// columns so. Any other value is given as it is.
func (v value) unwrapped() (value, error) {
	if !v.is('"') {
		return v, nil
	}
	text, err := v.text()
	if err != nil {
		return v, err
	}
	within := v
	within.inner, within.raw = true, json.RawMessage(text)
	if !within.is('[') && !within.is('{') {
		return v, nil
	}
	if err := checkJSON(within.raw); err != nil {
		return v, v.errorf("the text is malformed JSON: %v", err)
	}
	return within, nil
}

// parts calls each for every item of a list or every member of an object.
func (v value) parts(each func(part value) error) error {
	decoder := json.NewDecoder(bytes.NewReader(v.raw))
	if _, err := decoder.Token(); err != nil {
		return v.errorf("%v", err)
	}
	for decoder.More() {
		part := v
		if v.is('{') {
			name, err := decoder.Token()
			if err != nil {
				return v.errorf("%v", err)
			}
			part.name = fmt.Sprint(name)
		}
		part.raw = nil
		if err := decoder.Decode(&part.raw); err != nil {
			return v.errorf("%v", err)
		}
		if err := each(part.at(int(decoder.InputOffset()) - len(part.raw))); err != nil {
			return err
		}
	}
	return nil
}

// list gives the texts of a list, each once. The list may itself stand in a string; with a separator, so may the texts.
func (v value) list(separator string) (texts []string, err error) {
	if v.empty() {
		return nil, nil
	}
	if v, err = v.unwrapped(); err != nil {
		return nil, err
	}
	switch {
	case v.is('['):
		err = v.parts(func(part value) error {
			text, err := part.text()
			texts = append(texts, text)
			return err
		})
	case separator != "" && v.is('"'):
		var text string
		text, err = v.text()
		texts = strings.Split(text, separator)
	default:
		err = v.errorf("expected a list")
	}
	seen := make(map[string]bool, len(texts))
	return slices.DeleteFunc(texts, func(text string) bool {
		again := text == "" || seen[text]
		seen[text] = true
		return again
	}), err
}

// record is one row of an export.
type record struct {
	value
	fields []*field
	byName map[string]*field
}

// field is a column of a record.
type field struct {
	value
	used bool
}

// plain gives the form of a name in which ClientId, clientId and client_id are one.
func plain(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// record reads an object. A name that is there twice, in whatever form, is an error: either could be the one that
// counts.
func (v value) record() (*record, error) {
	if !v.is('{') {
		return nil, v.errorf("expected names and values")
	}
	r := &record{value: v, byName: make(map[string]*field)}
	return r, v.parts(func(part value) error {
		if r.byName[plain(part.name)] != nil {
			return part.errorf("is there twice")
		}
		f := &field{value: part}
		r.fields = append(r.fields, f)
		r.byName[plain(part.name)] = f
		return nil
	})
}

// records reads a list of objects.
func (v value) records() (list []*record, err error) {
	if !v.is('[') {
		return nil, v.errorf("expected a list")
	}
	return list, v.parts(func(part value) error {
		r, err := part.record()
		list = append(list, r)
		return err
	})
}

// take gives the first of the columns that is there and says something; else one that says nothing. What is taken is no
// longer among the rest.
func (r *record) take(names ...string) *field {
	found := &field{value: r.value}
	found.name, found.raw = names[0], json.RawMessage("null")
	for _, name := range slices.Backward(names) {
		f := r.byName[plain(name)]
		if f == nil {
			continue
		}
		f.used = true
		if found.empty() || !f.empty() {
			found = f
		}
	}
	return found
}

// rest names the columns that nobody took and that say something, in order.
func (r *record) rest() (names []string) {
	for _, f := range r.fields {
		if !f.used && !f.empty() {
			names = append(names, shown(f.name))
		}
	}
	slices.Sort(names)
	return names
}
