package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// callMarshaler is the codec of the gateway for administrative calls. Besides the JSON of protobuf, it reads durations as they
// are written in files and flags, such as 10m, and a client to be registered without the object "client" around it.
type callMarshaler struct{ documentMarshaler }

// NewDecoder implements [runtime.Marshaler].
func (m *callMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		values := json.NewDecoder(r)
		var body json.RawMessage
		if err := values.Decode(&body); err != nil {
			return err // io.EOF for an empty body
		}
		if _, err := values.Token(); !errors.Is(err, io.EOF) {
			return errors.New("more than one JSON value")
		}
		if _, ok := v.(*grantorv1.CreateClientRequest); ok {
			body = wrapClient(body)
		}
		body, err := normalize(body, descriptor(v))
		if err != nil {
			return err
		}
		return m.JSONPb.NewDecoder(bytes.NewReader(body)).Decode(v)
	})
}

// descriptor returns the descriptor of the message v, or of the message **v: the gateway decodes the field of a request that
// is its body through a pointer to the field. It returns nil for any other value.
func descriptor(v any) protoreflect.MessageDescriptor {
	t := reflect.TypeOf(v)
	if _, ok := v.(proto.Message); !ok {
		t = t.Elem()
	}
	message, ok := reflect.TypeAssert[proto.Message](reflect.Zero(t))
	if !ok {
		return nil
	}
	return message.ProtoReflect().Descriptor()
}

// member is a member of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// members returns the members of a JSON object in their order, repetitions included. ok is false if raw is not an object.
func members(raw json.RawMessage) (all []member, ok bool) {
	object := json.NewDecoder(bytes.NewReader(raw))
	if open, err := object.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	for object.More() {
		var one member
		name, err := object.Token()
		if err == nil {
			err = object.Decode(&one.value)
		}
		if one.name, ok = name.(string); err != nil || !ok {
			return nil, false
		}
		all = append(all, one)
	}
	return all, true
}

// encodeObject returns the JSON object with the members.
func encodeObject(all []member) json.RawMessage {
	var object bytes.Buffer
	for i, one := range all {
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		object.WriteByte(separator)
		name, err := json.Marshal(one.name)
		if err != nil {
			panic(err) // a string always marshals
		}
		object.Write(append(append(name, ':'), one.value...))
	}
	if len(all) == 0 {
		object.WriteByte('{')
	}
	object.WriteByte('}')
	return object.Bytes()
}

// field returns the field that a member of a JSON object is for, or nil.
func field(message protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	fields := message.Fields()
	if f := fields.ByTextName(name); f != nil {
		return f
	}
	return fields.ByJSONName(name)
}

// wrapClient returns the body of CreateClient with the fields of the client in the member "client". A body that has this
// member, as callers of earlier releases send it, is returned unchanged.
func wrapClient(body json.RawMessage) json.RawMessage {
	all, ok := members(body)
	if !ok {
		return body
	}
	request := (*grantorv1.CreateClientRequest)(nil).ProtoReflect().Descriptor()
	client := request.Fields().ByName("client")
	var outer, inner []member
	for _, one := range all {
		switch field(request, one.name) {
		case client:
			return body
		case nil:
			inner = append(inner, one)
		default:
			outer = append(outer, one)
		}
	}
	return encodeObject(append(outer, member{client.TextName(), encodeObject(inner)}))
}

// normalize returns a JSON object with each duration in the form of protobuf: "600s" for "10m". Its error names the first
// field that is neither a duration nor, where one is expected, a time; the decoder of the message finds all other mistakes.
func normalize(raw json.RawMessage, message protoreflect.MessageDescriptor) (json.RawMessage, error) {
	all, ok := members(raw)
	if message == nil || !ok {
		return raw, nil
	}
	for i, one := range all {
		f := field(message, one.name)
		if f == nil || f.Message() == nil || f.IsList() || f.IsMap() || string(one.value) == "null" {
			continue
		}
		var err error
		switch f.Message().FullName() {
		case (*durationpb.Duration)(nil).ProtoReflect().Descriptor().FullName():
			all[i].value, err = normalizeDuration(one.value)
		case (*timestamppb.Timestamp)(nil).ProtoReflect().Descriptor().FullName():
			err = protojson.Unmarshal(one.value, &timestamppb.Timestamp{})
		default:
			if all[i].value, err = normalize(one.value, f.Message()); err != nil {
				return nil, err
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s in %s", f.Message().FullName(), f.TextName())
		}
	}
	return encodeObject(all), nil
}

// normalizeDuration returns a duration in the form of protobuf.
func normalizeDuration(raw json.RawMessage) (json.RawMessage, error) {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, err
	}
	if d, err := time.ParseDuration(text); err == nil {
		return protojson.Marshal(durationpb.New(d))
	}
	return raw, protojson.Unmarshal(raw, &durationpb.Duration{})
}
