package connectrpc

import (
	"bytes"
	"encoding/json"
	"regexp"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/service/oauth"
)

// payload is the message of a request before it is decoded, or of an answer. A handler of connect-go gets and returns
// it in place of the message, so that a message that cannot be decoded is refused by this package.
type payload struct {
	// data is an encoded message; it is JSON if json is true, else the binary form of protobuf.
	data []byte
	json bool
	// message is a [proto.Message].
	message any
}

// decode decodes the data into a message. Its errors have no cause, because those of the decoders can quote a secret.
func (p *payload) decode(message any) *oauth.Error {
	m, ok := message.(proto.Message)
	if !ok {
		return oauth.From(errNotProto)
	}
	if !p.json {
		if err := proto.Unmarshal(p.data, m); err != nil {
			return unreadable("The message could not be read.", nil)
		}
		return nil
	}
	// A client of a later release may send more fields, as in the binary form.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(p.data, m); err != nil {
		return unreadable(describeDecodeError(m, err.Error()), nil)
	}
	return nil
}

// malformedField matches the name of a field in an error of the JSON decoder. The rest of such an error can quote a
// secret.
var malformedField = regexp.MustCompile(`field ([A-Za-z_]{1,64}):`)

// describeDecodeError returns the text for a message that could not be decoded. It takes nothing from the decoder's error
// except the name of a field that the message has.
func describeDecodeError(m proto.Message, text string) oauth.Text {
	if found := malformedField.FindStringSubmatch(text); found != nil {
		if fields := m.ProtoReflect().Descriptor().Fields(); fields.ByJSONName(found[1]) != nil || fields.ByTextName(found[1]) != nil {
			return oauth.Text("The message could not be read: the field " + found[1] + " is not of its type.")
		}
	}
	return "The message could not be read."
}

// codec is a [connect.Codec] for payloads and, since errors have details, for the messages of protobuf.
type codec struct {
	name string
	json bool
}

// codecs returns the options that replace the codecs of connect-go, under all of their names.
func codecs() []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithCodec(codec{"proto", false}), connect.WithCodec(codec{"json", true}), connect.WithCodec(codec{"json; charset=utf-8", true}),
	}
}

// Name implements [connect.Codec].
func (c codec) Name() string { return c.name }

// Unmarshal implements [connect.Codec]. It copies data, whose buffer connect-go uses again.
func (c codec) Unmarshal(data []byte, into any) error {
	p, ok := into.(*payload)
	if !ok {
		return errNotProto
	}
	p.data, p.json = bytes.Clone(data), c.json
	return nil
}

// Marshal implements [connect.Codec].
func (c codec) Marshal(value any) ([]byte, error) {
	if p, ok := value.(*payload); ok {
		value = p.message
	}
	m, ok := value.(proto.Message)
	if !ok {
		return nil, errNotProto
	}
	if !c.json {
		return proto.Marshal(m)
	}
	data, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer // protojson inserts blanks at random
	err = json.Compact(&compact, data)
	return compact.Bytes(), err
}
