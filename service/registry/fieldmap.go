package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/grantorhq/grantor/service/trust"
)

// patternField returns a field that is a pattern.
func patternField[T any](name, absent string, at func(*T) *trust.Pattern) Field[T] {
	add := func(t *T, text string) error {
		pattern, err := trust.ParsePattern(text)
		if err == nil {
			*at(t) = pattern
		}
		return err
	}
	return Field[T]{
		Name: name, Absent: absent,
		get: func(t *T) any { return at(t).String() },
		set: func(t *T, value any) error {
			text, ok := value.(string)
			if *at(t) = (trust.Pattern{}); text == "" {
				return typeError(ok, value)
			}
			return add(t, text)
		},
		add:  add,
		copy: func(to, from *T) { *at(to) = *at(from) },
	}
}

// mapField returns a field that maps names to values, which parse and format convert from and to text.
func mapField[T any, V ~map[string]E, E any](name, absent string, at func(*T) *V, parse func(string) (E, error), format func(E) string) Field[T] {
	put := func(t *T, name, text string) error {
		element, err := parse(text)
		if err != nil {
			return fmt.Errorf("%.100q: %w", name, err)
		}
		if *at(t) == nil {
			*at(t) = make(V)
		}
		(*at(t))[name] = element
		return nil
	}
	return Field[T]{
		Name: name, Absent: absent,
		get: func(t *T) any {
			texts := make(map[string]string, len(*at(t)))
			for name, element := range *at(t) {
				texts[name] = format(element)
			}
			return texts
		},
		set: func(t *T, value any) error {
			texts, ok := value.(map[string]string)
			*at(t) = nil
			for _, name := range slices.Sorted(maps.Keys(texts)) {
				if err := put(t, name, texts[name]); err != nil {
					return err
				}
			}
			return typeError(ok, value)
		},
		add: func(t *T, text string) error {
			name, value, ok := strings.Cut(text, "=")
			if !ok || name == "" {
				return fmt.Errorf("%.100q is not of the form name=value", text)
			}
			if _, taken := (*at(t))[name]; taken {
				return duplicateError(name)
			}
			return put(t, name, value)
		},
		copy: func(to, from *T) { *at(to) = maps.Clone(*at(from)) },
	}
}

// messagesField returns a field that is a list of messages, in the form of a JSON array of them. An element is added in the
// form of its JSON object.
func messagesField[T, E any](name, absent string, at func(*T) *[]E) Field[T] {
	return Field[T]{
		Name: name, Absent: absent,
		get: func(t *T) any {
			if len(*at(t)) == 0 {
				return json.RawMessage(nil)
			}
			data, _ := json.Marshal(*at(t)) // an E has nothing that JSON cannot express
			return json.RawMessage(data)
		},
		set: func(t *T, value any) error {
			text, ok := value.(json.RawMessage)
			if *at(t) = nil; len(text) == 0 {
				return typeError(ok, value)
			}
			return decodeStrictly(text, at(t))
		},
		add: func(t *T, text string) error {
			var element E
			if err := decodeStrictly([]byte(text), &element); err != nil {
				return err
			}
			*at(t) = append(*at(t), element)
			return nil
		},
		copy: func(to, from *T) { *at(to) = slices.Clone(*at(from)) },
	}
}

// decodeStrictly decodes JSON that has no unknown member.
func decodeStrictly(data []byte, to any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}
