package yamldoc_test

import (
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
)

// TestParseErrors expects the place and the name of what is not supported, and no text of the file that may be a secret
// without its quotes.
func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an alias", "a: &base x\nb: *base\n", "f:2: the alias *base stands for the value at line 1"},
		{"an alias in a list", "a: &base x\nb:\n  - y\n  - *base\n", "f:4: the alias *base "},
		{"an alias in a list of one line", "a: &base x\nb: [y, *base]\n", "f:2: the alias *base "},
		{"an alias of a map", "a: &base\n  x: y\nb: *base\n", "f:3: the alias *base "},
		{"an alias of a list", "a: &base\n  - x\nb: *base\n", "f:3: the alias *base "},
		{"an alias as a key", "a: &base x\n*base : y\n", "f:2: the alias *base "},
		{"an alias deep inside", "a: &base x\nb:\n  - c:\n      - d: *base\n", "f:4: the alias *base "},
		{"a merge key", "a: &base\n  x: y\nb:\n  <<: *base\n  z: y\n", "f:4: the merge key <<"},
		{"a merge key of several", "a: &one {x: y}\nb: &two {z: y}\nc:\n  <<: [*one, *two]\n", "f:4: the merge key <<"},
		{"a merge key without an alias", "a:\n  <<: {x: y}\n", "f:2: the merge key <<"},
		{"an anchor", "a: x\nb: &hush\n", "f:2: an anchor"},
		{"an anchor of a list", "a: x\nb: &hush\n  - y\n", "f:2: an anchor"},
		{"an alias without an anchor", "a: x\nb: *hush\n", "f:2: an alias without an anchor"},
		{"a tag", "a: x\nb: !hush y\n", "f:2: a tag"},
		{"a tag alone", "a: x\nb: !hush\n", "f:2: a tag"},
		{"a tag of a list", "a: x\nb: !hush [y]\n", "f:2: a tag"},
		{"a text by tag", "a: x\nb: !!str 5\n", "f:2: a tag"},
		{"a number by tag", "a: x\nb: !!int \"7\"\n", "f:2: a tag"},
		{"base64 by tag", "a: x\nb: !!binary eA==\n", "f:2: a tag"},
		{"nothing by tag", "a: x\nb: !!null\n", "f:2: a tag"},
		{"a list by tag", "a: x\nb: !!seq [y]\n", "f:2: a tag"},
		{"names by tag", "a: x\nb: !!map {y: z}\n", "f:2: a tag"},
		{"a name by tag", "a: x\n!!str b: y\n", "f:2: a tag"},
		{"a file by tag", "!!map\na: x\n", "f:1: a tag"},
		{"no tag", "a: x\nb: ! y\n", "f:2: a tag"},
		{"a whole tag", "a: x\nb: !<tag:yaml.org,2002:str> y\n", "f:2: a tag"},
		{"a directive of tags", "%TAG !h! tag:yaml.org,2002:\n---\na: x\nb: !h!str y\n", "f:4: a tag"},
		{"no YAML", "a: x\nb: [hush\n", "f:3: "},
		{"two documents", "a: x\n---\nb: y\n", "f: there is more than one document"},
		{"empty", "", "f: the file is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := yamldoc.Parse("f", []byte(c.text))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := yamldoc.Parse("f", []byte("a: \"*x\"\nb: '&y'\nc: \"!z\"\n\"<<\": z\n")); err != nil {
		t.Errorf("texts in quotes: got %v", err)
	}
}

// TestJSON converts values whose YAML means something that JSON lacks.
func TestJSON(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"{b: [x, 1, true, null], a: {c: d}}", `{"a":{"c":"d"},"b":["x",1,true,null]}`},
		{"{day: 2030-01-31, time: 2030-01-31T12:00:00Z, much: .inf, none: .nan}", `{"day":"2030-01-31","much":".inf","none":".nan","time":"2030-01-31T12:00:00Z"}`},
		{`'{"a": 1}'`, `{"a": 1}`},
		{"[]", "[]"},
	} {
		doc, err := yamldoc.Parse("f", []byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := doc.JSON(doc.Root); err != nil || got != c.want {
			t.Errorf("%s: got %s, %v, want %s", c.text, got, err, c.want)
		}
	}
	for text, want := range map[string]string{"a:\n  b:\n    c: 1\n    c: 2": `f:4: duplicate "c"`, "a: {[x]: y}": "f:1: expected a name"} {
		doc, err := yamldoc.Parse("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := doc.JSON(doc.Root); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}
