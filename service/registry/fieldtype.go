package registry

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
)

// textField returns a field that is a text. at returns its place in a T.
func textField[T any, V ~string](name, absent string, at func(*T) *V) Field[T] {
	return Field[T]{
		Name: name, Absent: absent,
		get: func(t *T) any { return string(*at(t)) },
		set: func(t *T, value any) error {
			text, ok := value.(string)
			*at(t) = V(text)
			return typeError(ok, value)
		},
		add:  func(t *T, text string) error { *at(t) = V(text); return nil },
		copy: func(to, from *T) { *at(to) = *at(from) },
	}
}

// flagField returns a field that is true or false.
func flagField[T any](name, absent string, at func(*T) *bool) Field[T] {
	return Field[T]{
		Name: name, Absent: absent,
		get: func(t *T) any { return *at(t) },
		set: func(t *T, value any) (err error) {
			flag, ok := value.(bool)
			*at(t) = flag
			return typeError(ok, value)
		},
		add: func(t *T, text string) error {
			flag, err := strconv.ParseBool(text)
			if err != nil || text != strconv.FormatBool(flag) {
				return fmt.Errorf("%.100q is neither true nor false", text)
			}
			*at(t) = flag
			return nil
		},
		copy: func(to, from *T) { *at(to) = *at(from) },
	}
}

// durationField returns a field that is a duration.
func durationField[T any](name, absent string, at func(*T) *time.Duration) Field[T] {
	return Field[T]{
		Name: name, Absent: absent,
		get: func(t *T) any { return *at(t) },
		set: func(t *T, value any) error {
			d, ok := value.(time.Duration)
			*at(t) = d
			return typeError(ok, value)
		},
		add: func(t *T, text string) error {
			d, err := time.ParseDuration(text)
			switch {
			case err != nil:
				return fmt.Errorf("%.100q is not a duration such as 30s, 5m or 1h", text)
			case d <= 0:
				return fmt.Errorf("%.100q is not a positive duration", text)
			}
			*at(t) = d
			return nil
		},
		copy: func(to, from *T) { *at(to) = *at(from) },
	}
}

// timeField returns a field that is a moment, in whole seconds.
func timeField[T any](name, absent string, at func(*T) *time.Time) Field[T] {
	return Field[T]{
		Name: name, Absent: absent,
		get: func(t *T) any { return *at(t) },
		set: func(t *T, value any) error {
			moment, ok := value.(time.Time)
			if *at(t) = moment; !moment.IsZero() {
				*at(t) = moment.UTC().Truncate(time.Second)
			}
			return typeError(ok, value)
		},
		add: func(t *T, text string) error {
			for _, layout := range [...]string{time.RFC3339, time.DateOnly} {
				if moment, err := time.Parse(layout, text); err == nil {
					*at(t) = moment.UTC().Truncate(time.Second)
					return nil
				}
			}
			return fmt.Errorf("%.100q is not a time such as 2030-01-31 or 2030-01-31T12:00:00Z", text)
		},
		copy: func(to, from *T) { *at(to) = *at(from) },
	}
}

// documentField returns a field that is a message, in the form of its JSON.
func documentField[T any, V fmt.Stringer](name, absent string, at func(*T) *V, parse func(string) (V, error)) Field[T] {
	add := func(t *T, text string) error {
		v, err := parse(text)
		if err == nil {
			*at(t) = v
		}
		return err
	}
	return Field[T]{
		Name: name, Absent: absent,
		get: func(t *T) any { return json.RawMessage((*at(t)).String()) },
		set: func(t *T, value any) error {
			text, ok := value.(json.RawMessage)
			if !ok {
				return typeError(ok, value)
			}
			return add(t, string(text))
		},
		add:  add,
		copy: func(to, from *T) { *at(to) = *at(from) },
	}
}

// listField returns a field that is a list, whose elements parse and format convert from and to text.
func listField[T any, V ~[]E, E comparable](name, absent string, at func(*T) *V, parse func(string) (E, error), format func(E) string) Field[T] {
	return Field[T]{
		Name: name, Absent: absent,
		get: func(t *T) any {
			texts := make([]string, len(*at(t)))
			for i, element := range *at(t) {
				texts[i] = format(element)
			}
			return texts
		},
		set: func(t *T, value any) error {
			texts, ok := value.([]string)
			var list V
			for _, text := range texts {
				element, err := parse(text)
				if err != nil {
					return err
				}
				list = append(list, element)
			}
			*at(t) = list
			return typeError(ok, value)
		},
		add: func(t *T, text string) error {
			element, err := parse(text)
			if err != nil {
				return err
			}
			if slices.Contains(*at(t), element) {
				return duplicateError(format(element))
			}
			*at(t) = append(*at(t), element)
			return nil
		},
		copy: func(to, from *T) { *at(to) = slices.Clone(*at(from)) },
	}
}

// scopesField returns a field that is a set of scopes. Unlike other lists, a set that is sent may have an element twice.
func scopesField[T any](name, absent string, at func(*T) *oauth.Scopes) Field[T] {
	f := listField(name, absent, at, oauth.ParseScope, oauth.Scope.String)
	addElement, setList := f.add, f.set
	f.add = func(t *T, text string) error {
		if len(*at(t)) == oauth.MaxScopes {
			return fmt.Errorf("more than %d scopes", oauth.MaxScopes)
		}
		return addElement(t, text)
	}
	f.set = func(t *T, value any) error {
		if names, _ := value.([]string); len(names) > oauth.MaxScopes {
			return fmt.Errorf("has more than %d scopes", oauth.MaxScopes)
		}
		if err := setList(t, value); err != nil {
			return err
		}
		var set oauth.Scopes
		for _, scope := range *at(t) {
			if !set.Has(scope) {
				set = append(set, scope)
			}
		}
		*at(t) = set
		return nil
	}
	return f
}

// verbatim and identity convert the elements of a list of texts.
func verbatim(text string) (string, error) { return text, nil }
func identity(text string) string          { return text }

// typeError reports that a value is not of the type of its field.
func typeError(ok bool, value any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("cannot be a %T", value)
}

func duplicateError(text string) error { return fmt.Errorf("duplicate %q", text) }
