package yamldoc

import (
	"encoding/json"
	"math"

	"go.yaml.in/yaml/v4"
)

// JSON returns a value as JSON: of a scalar its text, which must then be JSON itself, and of a mapping or list the
// corresponding object or array.
func (d *Document) JSON(node *yaml.Node) (string, error) {
	if node.Kind == yaml.ScalarNode {
		return d.Scalar(node)
	}
	value, err := d.value(node)
	if err != nil {
		return "", err
	}
	data, err := json.Marshal(value)
	return string(data), err
}

// value returns what a node means in JSON.
func (d *Document) value(node *yaml.Node) (any, error) {
	switch node.Kind {
	case yaml.MappingNode:
		object := make(map[string]any)
		err := d.Fields(node, func(key string, value *yaml.Node) (err error) {
			object[key], err = d.value(value)
			return err
		})
		return object, err
	case yaml.SequenceNode:
		list := make([]any, 0, len(node.Content))
		err := d.Items(node, func(item *yaml.Node) error {
			value, err := d.value(item)
			list = append(list, value)
			return err
		})
		return list, err
	default:
		// JSON has neither times nor infinities, and what YAML reads as one is meant as a text: the kid 2030-01-31 is one.
		if node.ShortTag() == "!!timestamp" {
			return node.Value, nil
		}
		var value any
		if node.Kind != yaml.ScalarNode || node.Decode(&value) != nil {
			return nil, d.Errorf(node, "expected a value")
		}
		if number, ok := value.(float64); ok && (math.IsInf(number, 0) || math.IsNaN(number)) {
			return node.Value, nil
		}
		return value, nil
	}
}
