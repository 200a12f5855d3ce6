package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxFile bounds a YAML file that is read, in bytes.
const maxFile = 64 << 20

// document is a YAML file read node by node, so that whatever is wrong in it can be told with its line.
type document struct {
	file string
	root *yaml.Node
}

// readYAML reads the one document of a file.
func readYAML(path string) (*document, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseYAML(path, data)
}

func parseYAML(file string, data []byte) (*document, error) {
	var node, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(&node)
	if errors.Is(err, io.EOF) || (err == nil && len(node.Content) == 0) {
		return nil, fmt.Errorf("%s: the file is empty", file)
	}
	if err != nil {
		// What follows would be the text behind a *, which may be a secret that lacks its quotes.
		problem, _, alias := strings.Cut(strings.TrimPrefix(err.Error(), "yaml: "), "unknown anchor")
		if alias {
			problem += "an alias of nothing; a value that begins with * goes between quotes"
		}
		return nil, fmt.Errorf("%s: %s", file, problem)
	}
	// What stands after the first document would be left out without a word.
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: there is more than one document in the file", file)
	}
	return &document{file, node.Content[0]}, nil
}

// place gives file:line of a node.
func (d *document) place(node *yaml.Node) string { return fmt.Sprintf("%s:%d", d.file, node.Line) }

// errorf makes an error about a node.
func (d *document) errorf(node *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s: %s", d.place(node), fmt.Sprintf(format, args...))
}

// fields calls each for every key of a mapping and its value. A key that is there twice is an error, as is an alias: a
// file that registers clients should say the same to whoever reads it.
func (d *document) fields(node *yaml.Node, each func(key string, value *yaml.Node) error) error {
	if node.Kind != yaml.MappingNode {
		return d.errorf(node, "expected names and values")
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return d.errorf(key, "expected a name")
		}
		if seen[key.Value] {
			return d.errorf(key, "%q is there twice", key.Value)
		}
		seen[key.Value] = true
		if err := each(key.Value, value); err != nil {
			return err
		}
	}
	return nil
}

// items calls each for every item of a list.
func (d *document) items(node *yaml.Node, each func(*yaml.Node) error) error {
	if node.Kind != yaml.SequenceNode {
		return d.errorf(node, "expected a list")
	}
	for _, item := range node.Content {
		if err := each(item); err != nil {
			return err
		}
	}
	return nil
}

// scalar gives a single value as it is written.
func (d *document) scalar(node *yaml.Node) (string, error) {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		return "", d.errorf(node, "expected a value")
	}
	return node.Value, nil
}

// list gives the values of a list.
func (d *document) list(node *yaml.Node) (values []string, err error) {
	err = d.items(node, func(item *yaml.Node) error {
		value, err := d.scalar(item)
		values = append(values, value)
		return err
	})
	return values, err
}

// scalarOrList gives one value or those of a list.
func (d *document) scalarOrList(node *yaml.Node) ([]string, error) {
	if node.Kind == yaml.SequenceNode {
		return d.list(node)
	}
	value, err := d.scalar(node)
	return []string{value}, err
}
