package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// maxExport bounds an export, in bytes, maxDepth the levels of lists and objects in it, maxRows the rows of a table, and
// maxNames a list of names and the columns of a row. They are far beyond those of real exports; what is beyond them would
// take time and memory for nothing.
const (
	maxExport = 64 << 20
	maxDepth  = 100
	maxRows   = 100_000
	maxNames  = 1000
)

// export is a JSON file of another server or of its database.
type export struct {
	file string
	data []byte
}

// readExport reads a file. Errors in its JSON have line and column.
func readExport(path string) (value, error) {
	data, err := cli.ReadFile(path, maxExport)
	if err != nil {
		return value{}, err
	}
	return parseExport(path, data)
}

func parseExport(file string, data []byte) (value, error) {
	// Tools on Windows begin a file with a byte order mark.
	whole := value{doc: &export{file, bytes.TrimPrefix(data, []byte("\ufeff"))}}
	whole.raw = whole.doc.data
	// encoding/json replaces invalid UTF-8 with one replacement character: two IDs could become one.
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
	return whole.indexed()
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

// value is a JSON value and its place.
type value struct {
	doc    *export
	offset int
	// inner is set if the JSON was the text of a string: everything in it has the place of the string.
	inner bool
	// name is the name of the object member that is or contains the value.
	name string
	raw  json.RawMessage
	// ends is the index of the JSON that raw is part of, and start the offset of raw in it.
	ends  ends
	start int
}

// at returns the value at an offset within v.
func (v value) at(offset int) value {
	if !v.inner {
		v.offset += offset
	}
	return v
}

// place returns file:line:column. Exports are often one long line.
func (v value) place() string {
	before := v.doc.data[:min(v.offset, len(v.doc.data))]
	line := bytes.Count(before, []byte("\n")) + 1
	return fmt.Sprintf("%s:%d:%d", v.doc.file, line, len(before)-bytes.LastIndexByte(before, '\n'))
}

// errorf returns an error about the value. It must not quote a value that may be a secret.
func (v value) errorf(format string, args ...any) error {
	what := v.place()
	if v.name != "" {
		what += ": " + shown(v.name)
	}
	return fmt.Errorf("%s: %s", what, fmt.Sprintf(format, args...))
}

// shown returns a name from an export in printable form.
func shown(name string) string { return fmt.Sprintf("%.100s", cli.Printable(name)) }

// is reports whether the value begins with a character: { an object, [ a list, " a text.
func (v value) is(first byte) bool {
	trimmed := bytes.TrimLeft(v.raw, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == first
}

// empty reports whether the value carries no information, also in nested values.
func (v value) empty() bool {
	switch {
	case v.is('"'):
		inside, err := v.unwrapped()
		return v.blank() || (err == nil && !inside.is('"') && inside.empty())
	case v.is('['), v.is('{'):
		return v.parts(func(part value) error {
			if part.empty() {
				return nil
			}
			return errNotEmpty
		}) == nil
	}
	switch string(bytes.TrimSpace(v.raw)) {
	case "null", "false", "0":
		return true
	}
	return false
}

// errNotEmpty ends the search for a part that is not empty.
var errNotEmpty = errors.New("not empty")

// blank reports whether the value is a text without a visible character, or the text null.
func (v value) blank() bool {
	text, err := v.text()
	text = strings.TrimSpace(text)
	return err == nil && (text == "" || text == "null")
}

// text returns a string; null is an empty one.
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

// boolean returns true or false, or byDefault for null. Anything else is an error: taken for one of them, it could enable
// what is disabled.
func (v value) boolean(byDefault bool) (bool, error) {
	switch string(bytes.TrimSpace(v.raw)) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return byDefault, nil
	}
	return false, v.errorf("expected true or false")
}

// booleanText returns the boolean that is a text, or byDefault if the text is empty or null.
func (v value) booleanText(byDefault bool) (bool, error) {
	text, err := v.text()
	switch {
	case err != nil:
		return false, err
	case text == "":
		return byDefault, nil
	case text == "true" || text == "false":
		return text == "true", nil
	}
	return false, v.errorf(`expected "true" or "false"`)
}

// unwrapped returns the list or the object that is the text of a string, as databases store and export such columns. It
// returns any other value unchanged.
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
	return within.indexed()
}

// list returns the distinct texts of a list. The list may itself be in a string; with a separator, so may the texts.
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
			if texts = append(texts, text); len(texts) > maxNames && err == nil {
				err = v.errorf("the list has more than %d entries", maxNames)
			}
			return err
		})
	case separator != "" && v.is('"'):
		var text string
		text, err = v.text()
		if texts = strings.Split(text, separator); len(texts) > maxNames && err == nil {
			err = v.errorf("the list has more than %d entries", maxNames)
		}
	default:
		err = v.errorf("expected a list")
	}
	seen := make(map[string]bool, len(texts))
	return slices.DeleteFunc(texts, func(text string) bool {
		duplicate := text == "" || seen[text]
		seen[text] = true
		return duplicate
	}), err
}

// record is a row of an export.
type record struct {
	value
	fields []*field
	// byName has the fields by the key of their names.
	byName map[string]*field
	key    func(name string) string
}

// field is a column of a record.
type field struct {
	value
	used bool
}

// normalize maps ClientId, clientId and client_id to one name.
func normalize(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// exactly returns a name as it is.
func exactly(name string) string { return name }

// record parses an object. A duplicate name, in any spelling, is an error: either could be the effective one.
func (v value) record() (*record, error) { return v.recordBy(normalize) }

// recordBy is like record, for an object whose names are the same if key returns the same for them.
func (v value) recordBy(key func(name string) string) (*record, error) {
	if !v.is('{') {
		return nil, v.errorf("expected names and values")
	}
	r := &record{value: v, key: key, byName: make(map[string]*field)}
	return r, v.parts(func(part value) error {
		if r.byName[key(part.name)] != nil {
			return part.errorf("duplicate name")
		}
		if len(r.fields) == maxNames {
			return v.errorf("there are more than %d names", maxNames)
		}
		f := &field{value: part}
		r.fields = append(r.fields, f)
		r.byName[key(part.name)] = f
		return nil
	})
}

// records parses a list of objects.
func (v value) records() (list []*record, err error) {
	if !v.is('[') {
		return nil, v.errorf("expected a list")
	}
	return list, v.parts(func(part value) error {
		if len(list) == maxRows {
			return v.errorf("the list has more than %d entries", maxRows)
		}
		r, err := part.record()
		list = append(list, r)
		return err
	})
}

// take returns the first of the columns that exists and is not empty, or else an empty one. It marks all of them as
// used.
func (r *record) take(names ...string) *field {
	found := &field{value: r.value}
	found.name, found.raw = names[0], json.RawMessage("null")
	for _, name := range slices.Backward(names) {
		f := r.byName[r.key(name)]
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

// rest returns the names of the columns that are neither used nor empty, sorted.
func (r *record) rest() (names []string) {
	for _, f := range r.fields {
		if !f.used && !f.empty() {
			names = append(names, shown(f.name))
		}
	}
	slices.Sort(names)
	return names
}
