package admin

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// pairsFlag is a flag that can be repeated, each time with a name and a value; an empty text clears it. It implements
// [pflag.Value].
type pairsFlag map[string]string

// String returns the pairs.
func (f pairsFlag) String() string {
	texts := make([]string, 0, len(f))
	for _, name := range slices.Sorted(maps.Keys(f)) {
		texts = append(texts, name+"="+f[name])
	}
	return strings.Join(texts, " ")
}

// Type returns the name of the flag's value where its usage has none.
func (f pairsFlag) Type() string { return "name=value" }

// Set adds a pair.
func (f pairsFlag) Set(text string) error {
	if text == "" {
		clear(f)
		return nil
	}
	name, value, ok := strings.Cut(text, "=")
	switch _, duplicate := f[name]; {
	case !ok || name == "" || value == "":
		return fmt.Errorf("%.100q is not name=value", text)
	case duplicate:
		return fmt.Errorf("duplicate %.100q", name)
	}
	f[name] = value
	return nil
}

// jsonFlag is a flag for a field that is a message or a list of messages.
type jsonFlag interface {
	pflag.Value
	json() json.RawMessage
}

// newJSONFlag returns the flag of the field.
func newJSONFlag(field string) jsonFlag {
	if field == "federation" {
		return &rulesFlag{}
	}
	return &jsonFile{}
}

// rulesFlag is a flag that can be repeated, each time with a rule of a client's federation; an empty text clears it. It
// implements [pflag.Value].
type rulesFlag struct{ rules []map[string]any }

// String returns the JSON of the rules.
func (f *rulesFlag) String() string { return string(f.json()) }

// Type returns the name of the flag's value where its usage has none.
func (f *rulesFlag) Type() string { return "rule" }

// Set adds a rule: pairs name=value with commas between. A pair with a comma in it is quoted as in CSV (RFC 4180).
func (f *rulesFlag) Set(text string) error {
	if text == "" {
		f.rules = nil
		return nil
	}
	pairs, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return errors.New("the rule has a quote or a line break out of place")
	}
	rule, claims := make(map[string]any), make(map[string]string)
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		claim, isClaim := strings.CutPrefix(name, "claims.")
		switch {
		case !ok || value == "":
			return fmt.Errorf("%.100q is not name=value", pair)
		case rule[name] != nil || isClaim && claims[claim] != "":
			return fmt.Errorf("duplicate %.100q", name)
		case isClaim && claim != "":
			claims[claim] = value
		case slices.Contains([]string{"issuer", "subject", "spiffe_id"}, name):
			rule[name] = value
		default:
			return fmt.Errorf("a rule has no %.100q, only issuer, subject, spiffe_id and claims.NAME", name)
		}
	}
	if len(claims) > 0 {
		rule["claims"] = claims
	}
	f.rules = append(f.rules, rule)
	return nil
}

// json returns the list of the rules; nil of none.
func (f *rulesFlag) json() json.RawMessage {
	if len(f.rules) == 0 {
		return nil
	}
	document, err := json.Marshal(f.rules)
	if err != nil {
		panic(err) // maps of texts always marshal
	}
	return document
}

// jsonFile is a flag that names a file with a JSON object; an empty name clears the field. It implements [pflag.Value].
type jsonFile struct {
	path    string
	content json.RawMessage
}

// String returns the path.
func (f *jsonFile) String() string { return f.path }

// Type returns the name of the flag's value where its usage has none.
func (f *jsonFile) Type() string { return "file" }

// Set reads the file. An error contains no part of it: it may be a private key that was named by mistake.
func (f *jsonFile) Set(path string) error {
	if f.path, f.content = path, nil; path == "" {
		return nil
	}
	content, err := cli.ReadFile(path, maxDocument)
	switch {
	case err != nil:
		return err
	case !json.Valid(content):
		return fmt.Errorf("%s is not JSON", path)
	}
	f.content = content
	return nil
}

// maxDocument is the maximum size of a file that is the value of a field, in bytes.
const maxDocument = 64 << 10

// json returns the content of the file.
func (f *jsonFile) json() json.RawMessage { return f.content }
