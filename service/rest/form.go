package rest

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/grantorhq/grantor/service/oauth"
)

const (
	formType = "application/x-www-form-urlencoded"
	// maxForm is the maximum size of a body in bytes, maxParameters the maximum number of parameters in it.
	maxForm       = 64 << 10
	maxParameters = 64
)

// repeatable is the only parameter that may be sent more than once (RFC 8707 §2).
const repeatable = "resource"

// form is a well-formed body after parsing. It replaces the body of the request, where the decoder of the gateway finds
// it. A malformed form is thereby refused before the gateway, which would lose the reason.
type form struct {
	io.ReadCloser
	values url.Values
}

// readForm reads the form of a request (RFC 6749 §3.2). It checks the size of each part before parsing it.
func readForm(w http.ResponseWriter, r *http.Request) (*form, *failure) {
	if len(r.Header.Values("Authorization")) > 1 {
		return nil, invalid("Authorization was sent twice.")
	}
	types := r.Header.Values("Content-Type")
	if len(types) != 1 {
		return nil, invalid("Content-Type must be application/x-www-form-urlencoded.")
	}
	if mediaType, _, err := parseMediaType(types[0]); err != nil || mediaType != formType {
		return nil, invalid("Content-Type must be application/x-www-form-urlencoded.")
	}
	body, refusal := readBody(w, r)
	if refusal != nil {
		return nil, refusal
	}
	if bytes.Count(body, []byte("&")) >= maxParameters {
		return nil, invalid("The body has more than 64 parameters.")
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, invalid("The body is not a well-formed form.")
	}
	for name, sent := range values {
		if refusal := checkParameter(name, sent); refusal != nil {
			return nil, refusal
		}
	}
	return &form{r.Body, values}, nil
}

// readBody reads a body of at most maxForm bytes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *failure) {
	if refusal := checkEncoding(r.Header); refusal != nil {
		return nil, refusal
	}
	tooLarge := &failure{status: http.StatusRequestEntityTooLarge, refusal: oauth.Refuse(oauth.InvalidRequest, "The body has more than 65536 bytes.")}
	if r.ContentLength > maxForm {
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil && len(body) >= maxForm {
		return nil, tooLarge
	}
	if err != nil {
		return nil, invalid("The body could not be read.")
	}
	return body, nil
}

// checkEncoding refuses a body with a content coding (RFC 9110 §8.4). The coding identity, however often it is listed, is
// none.
func checkEncoding(header http.Header) *failure {
	for _, line := range header["Content-Encoding"] {
		for coding := range strings.SplitSeq(line, ",") {
			if coding = strings.Trim(coding, " \t"); coding != "" && !oauth.EqualFold(coding, "identity") {
				return &failure{
					status: http.StatusUnsupportedMediaType, coding: true,
					refusal: oauth.Refuse(oauth.InvalidRequest, "The body has a Content-Encoding; only identity is accepted."),
				}
			}
		}
	}
	return nil
}

// checkParameter refuses a parameter that is not UTF-8, contains a NUL, or is sent more than once without being
// repeatable. values are all that were sent under the name.
func checkParameter(name string, values []string) *failure {
	for _, value := range append(values, name) {
		if !utf8.ValidString(value) {
			return invalid("A parameter is not UTF-8.")
		}
		if strings.Contains(value, "\x00") {
			return invalid("A parameter contains a NUL byte.")
		}
	}
	if len(values) > 1 && name != repeatable {
		if text, known := repeated[name]; known {
			return invalid(text)
		}
		return invalid("A parameter is sent more than once.")
	}
	return nil
}

// repeated maps a parameter to the text of the refusal if it is sent twice. The texts are literals so that no answer
// contains a part of its request.
var repeated = map[string]oauth.Text{ //nolint:gosec // names of parameters, no credentials
	"grant_type":    "grant_type is sent more than once.",
	"client_id":     "client_id is sent more than once.",
	"client_secret": "client_secret is sent more than once.",
	"scope":         "scope is sent more than once.",
	"audience":      "audience is sent more than once.",
	"token":         "token is sent more than once.",

	"client_assertion":      "client_assertion is sent more than once.",
	"client_assertion_type": "client_assertion_type is sent more than once.",
	"token_type_hint":       "token_type_hint is sent more than once.",
}

// invalid returns a 400 with the OAuth error invalid_request.
func invalid(text oauth.Text) *failure {
	return &failure{status: http.StatusBadRequest, refusal: oauth.Refuse(oauth.InvalidRequest, text)}
}

// formMarshaler is the codec of the gateway for forms. It decodes a [form] and encodes JSON, like the marshaler that it
// embeds.
type formMarshaler struct{ documentMarshaler }

// NewDecoder implements [runtime.Marshaler].
func (m *formMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		message, ok := v.(proto.Message)
		f, decoded := r.(*form)
		if !ok || !decoded {
			return io.ErrUnexpectedEOF
		}
		f.fill(message.ProtoReflect())
		return nil
	})
}

// fill sets the fields of message whose names are those of parameters. It ignores other parameters, and treats an empty
// value as absent (RFC 6749 §3.2).
func (f *form) fill(message protoreflect.Message) {
	fields := message.Descriptor().Fields()
	for name, sent := range f.values {
		field := fields.ByTextName(name)
		if field == nil || field.Kind() != protoreflect.StringKind {
			continue
		}
		if !field.IsList() {
			message.Set(field, protoreflect.ValueOfString(sent[0]))
			continue
		}
		list := message.Mutable(field).List()
		for _, value := range sent {
			if value != "" {
				list.Append(protoreflect.ValueOfString(value))
			}
		}
	}
}
