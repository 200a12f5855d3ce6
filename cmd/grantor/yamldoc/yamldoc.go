// Package yamldoc reads a YAML file node by node, so that each error names a file and a line. It imports no other package of
// this module.
package yamldoc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// MaxSize bounds a file, in bytes.
const MaxSize = 64 << 20

// Document is a YAML file as nodes, which know their lines.
type Document struct {
	// File is the name of the file in errors, and Root the outermost node.
	File string
	Root *yaml.Node
}

// Parse parses data, which must have exactly one document. Errors call it file.
func Parse(file string, data []byte) (*Document, error) {
	var node, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(&node)
	if errors.Is(err, io.EOF) || (err == nil && len(node.Content) == 0) {
		return nil, fmt.Errorf("%s: the file is empty", file)
	}
	if err != nil {
		return nil, parserError(file, err)
	}
	// A decoder ignores everything after the first document.
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: there is more than one document in the file", file)
	}
	d := &Document{file, node.Content[0]}
	return d, d.checkPlain()
}

// parserError returns the error of the parser without the text behind a *, which may be a secret that lacks its quotes. The
// parser quotes nothing else.
func parserError(file string, err error) error {
	problem := strings.TrimPrefix(err.Error(), "yaml: ")
	if found, ok := errors.AsType[*yaml.LoadError](err); ok {
		file, problem = fmt.Sprintf("%s:%d", file, found.Mark.Line), found.Message
	}
	if before, _, alias := strings.Cut(problem, "unknown anchor"); alias {
		problem = before + "an alias without an anchor; a text that begins with * needs quotes"
	}
	return fmt.Errorf("%s: %s", file, problem)
}

// checkPlain refuses aliases, merge keys, anchors and tags: a file that registers clients should mean the same to every
// reader, of YAML 1.1 and 1.2. Standard tags are refused too, because readers differ in whether !!binary eA== is x or eA==.
// An unused anchor and a tag may be the beginning of a secret that lacks its quotes, so that the error does not quote them.
func (d *Document) checkPlain() error {
	for _, check := range []func(*yaml.Node) error{d.checkAlias, d.checkProperties} {
		if err := walk(d.Root, check); err != nil {
			return err
		}
	}
	return nil
}

// walk calls check for a node and the nodes in it, in the order of the file. It follows no alias.
func walk(node *yaml.Node, check func(*yaml.Node) error) error {
	if err := check(node); err != nil {
		return err
	}
	for _, child := range node.Content {
		if err := walk(child, check); err != nil {
			return err
		}
	}
	return nil
}

func (d *Document) checkAlias(node *yaml.Node) error {
	switch {
	case node.Kind == yaml.AliasNode:
		return d.Errorf(node, "the alias *%.100s stands for the value at line %d; aliases are not supported, so write the value out", node.Value, node.Alias.Line)
	case node.Kind == yaml.ScalarNode && node.ShortTag() == "!!merge":
		return d.Errorf(node, "the merge key << is not supported, and neither are aliases; write the fields out")
	}
	return nil
}

func (d *Document) checkProperties(node *yaml.Node) error {
	switch {
	case node.Anchor != "":
		return d.Errorf(node, "an anchor, which is not supported; a text that begins with & needs quotes")
	case node.Style&yaml.TaggedStyle != 0 || strings.HasPrefix(node.Tag, "!") && !strings.HasPrefix(node.Tag, "!!"):
		return d.Errorf(node, "a tag, which is not supported; a text that begins with ! needs quotes")
	}
	return nil
}

// Place returns file:line of a node.
func (d *Document) Place(node *yaml.Node) string { return fmt.Sprintf("%s:%d", d.File, node.Line) }

// Errorf returns an error about a node.
func (d *Document) Errorf(node *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s: %s", d.Place(node), fmt.Sprintf(format, args...))
}

// Fields calls fn for each key of a mapping and its value. A duplicate key is an error: a file that registers
// clients should mean the same to every reader.
func (d *Document) Fields(node *yaml.Node, fn func(key string, value *yaml.Node) error) error {
	if node.Kind != yaml.MappingNode {
		return d.Errorf(node, "expected names and values")
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return d.Errorf(key, "expected a name")
		}
		if seen[key.Value] {
			return d.Errorf(key, "duplicate %q", key.Value)
		}
		seen[key.Value] = true
		if err := fn(key.Value, value); err != nil {
			return err
		}
	}
	return nil
}

// Items calls fn for each item of a list.
func (d *Document) Items(node *yaml.Node, fn func(*yaml.Node) error) error {
	if node.Kind != yaml.SequenceNode {
		return d.Errorf(node, "expected a list")
	}
	for _, item := range node.Content {
		if err := fn(item); err != nil {
			return err
		}
	}
	return nil
}

// Scalar returns a single value as it is written.
func (d *Document) Scalar(node *yaml.Node) (string, error) {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		return "", d.Errorf(node, "expected a value")
	}
	return node.Value, nil
}

// List returns the values of a list.
func (d *Document) List(node *yaml.Node) (values []string, err error) {
	err = d.Items(node, func(item *yaml.Node) error {
		value, err := d.Scalar(item)
		values = append(values, value)
		return err
	})
	return values, err
}

// ScalarOrList returns one value or those of a list.
func (d *Document) ScalarOrList(node *yaml.Node) ([]string, error) {
	if node.Kind == yaml.SequenceNode {
		return d.List(node)
	}
	value, err := d.Scalar(node)
	return []string{value}, err
}
