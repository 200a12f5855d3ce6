// Package yamldoc reads a YAML file node by node, so that each error names a file and a line. It imports no other package of
// this module.
package yamldoc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxSize bounds a file, in bytes.
const maxSize = 64 << 20

// Document is a YAML file as nodes, which know their lines.
type Document struct {
	// File is the name of the file in errors, and Root the outermost node.
	File string
	Root *yaml.Node
}

// Read reads a file, which must have exactly one document.
func Read(path string) (*Document, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	// A device or a FIFO may have any number of bytes, whatever its size is said to be.
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxSize)
	}
	return Parse(path, data)
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
		// The rest of the error is the text behind a *, which may be a secret that lacks its quotes.
		problem, _, alias := strings.Cut(strings.TrimPrefix(err.Error(), "yaml: "), "unknown anchor")
		if alias {
			problem += "an alias without an anchor; a value that begins with * needs quotes"
		}
		return nil, fmt.Errorf("%s: %s", file, problem)
	}
	// A decoder ignores everything after the first document.
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: there is more than one document in the file", file)
	}
	return &Document{file, node.Content[0]}, nil
}

// Place returns file:line of a node.
func (d *Document) Place(node *yaml.Node) string { return fmt.Sprintf("%s:%d", d.File, node.Line) }

// Errorf returns an error about a node.
func (d *Document) Errorf(node *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s: %s", d.Place(node), fmt.Sprintf(format, args...))
}

// Fields calls fn for each key of a mapping and its value. A duplicate key is an error, as is an alias: a file that
// registers clients should mean the same to every reader.
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
