package registrypb

import (
	"encoding/json"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/grantorhq/grantor/service/registry"
)

// setFields sets the fields of a message from those of t.
func setFields[T any](m proto.Message, fields []registry.Field[T], t *T) {
	for i := range fields {
		SetField(m, fields[i].Name, fields[i].Get(t))
	}
}

// SetField sets a field of a message that represents an entry of the registry to a value of the type that
// [registry.Field.Get] returns.
func SetField(message proto.Message, name string, value any) {
	m := message.ProtoReflect()
	field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	switch value := value.(type) {
	case string:
		m.Set(field, protoreflect.ValueOfString(value))
	case bool:
		m.Set(field, protoreflect.ValueOfBool(value))
	case time.Duration:
		if m.Clear(field); value != 0 {
			m.Set(field, protoreflect.ValueOfMessage(durationpb.New(value).ProtoReflect()))
		}
	case time.Time:
		if m.Clear(field); !value.IsZero() {
			m.Set(field, protoreflect.ValueOfMessage(timestamppb.New(value).ProtoReflect()))
		}
	case json.RawMessage:
		m.Clear(field)
		if inner, err := fromJSON(m.NewField(field), value); err == nil { // it is from the registry, which has parsed it
			m.Set(field, inner)
		}
	case map[string]string:
		texts := m.NewField(field).Map()
		for key, text := range value {
			texts.Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString(text))
		}
		m.Set(field, protoreflect.ValueOfMap(texts))
	case []string:
		list := m.NewField(field).List()
		for _, text := range value {
			list.Append(protoreflect.ValueOfString(text))
		}
		m.Set(field, protoreflect.ValueOfList(list))
	}
}

// FieldText returns the value of a field of a message that represents an entry of the registry, as [registry.Field.Text]
// formats it.
func FieldText(m proto.Message, name string) string {
	value, err := fieldValue(m, name)
	if err != nil {
		return err.Error() // it is shown to people
	}
	return registry.FormatValue(value)
}

// readFields sets the fields of t from those of a message.
func readFields[T any](t *T, fields []registry.Field[T], m proto.Message) error {
	for i := range fields {
		value, err := fieldValue(m, fields[i].Name)
		if err != nil {
			return err
		}
		if err := fields[i].Set(t, value); err != nil {
			return err
		}
	}
	return nil
}

// fieldValue returns the value of a field of a message, of a type that [registry.Field.Set] accepts.
func fieldValue(message proto.Message, name string) (any, error) {
	m := message.ProtoReflect()
	field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	switch value := m.Get(field).Interface().(type) {
	case protoreflect.List:
		if field.Message() != nil {
			return listValue(name, value)
		}
		texts := make([]string, value.Len())
		for i := range texts {
			texts[i] = value.Get(i).String()
		}
		return texts, nil
	case protoreflect.Map:
		texts := make(map[string]string, value.Len())
		value.Range(func(key protoreflect.MapKey, text protoreflect.Value) bool {
			texts[key.String()] = text.String()
			return true
		})
		return texts, nil
	case protoreflect.Message:
		return messageValue(name, value.Interface(), m.Has(field))
	default:
		return value, nil
	}
}

// messageValue returns the value of a field that is a message; the zero value of its type if it is not set.
func messageValue(name string, value proto.Message, set bool) (any, error) {
	switch value := value.(type) {
	case *durationpb.Duration:
		if !set {
			value = nil
		}
		return ToDuration(name, value)
	case *timestamppb.Timestamp:
		switch {
		case !set:
			return time.Time{}, nil
		case value.CheckValid() != nil:
			return nil, &registry.FieldError{Field: name, Problem: "is not a time"}
		}
		return value.AsTime(), nil
	default:
		if !set {
			return json.RawMessage(nil), nil
		}
		return toJSON(name, value)
	}
}

// listValue returns the JSON of a list of messages; nil of an empty one.
func listValue(name string, list protoreflect.List) (json.RawMessage, error) {
	if list.Len() == 0 {
		return nil, nil
	}
	items := make([]json.RawMessage, list.Len())
	for i := range items {
		var err error
		if items[i], err = toJSON(name, list.Get(i).Message().Interface()); err != nil {
			return nil, err
		}
	}
	return json.Marshal(items)
}

// toJSON returns the JSON of a message in a field.
func toJSON(name string, m proto.Message) (json.RawMessage, error) {
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, &registry.FieldError{Field: name, Problem: "is not JSON"}
	}
	return data, nil
}

// fromJSON returns a new value of a field, a message or a list of messages, filled from its JSON. It returns an error for an
// empty text.
func fromJSON(value protoreflect.Value, text json.RawMessage) (protoreflect.Value, error) {
	list, ok := value.Interface().(protoreflect.List)
	if !ok {
		return value, protojson.Unmarshal(text, value.Message().Interface())
	}
	var items []json.RawMessage
	if err := json.Unmarshal(text, &items); err != nil {
		return value, err
	}
	for _, item := range items {
		if err := protojson.Unmarshal(item, list.AppendMutable().Message().Interface()); err != nil {
			return value, err
		}
	}
	return value, nil
}

// ToDuration returns a duration in whole seconds; nil is zero.
func ToDuration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil || d.GetNanos() != 0 {
		return 0, &registry.FieldError{Field: field, Problem: "is not a number of whole seconds"}
	}
	return d.AsDuration(), nil
}

// FromTime returns a timestamp; nil for the zero time.
func FromTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
