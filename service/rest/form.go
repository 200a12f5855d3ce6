package rest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
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

// form is a well-formed body after parsing. It replaces the body of the request, where the gateway finds it and its
// decoder. A malformed form is thereby refused before the gateway, which would lose the reason.
type form struct {
	io.ReadCloser
	parameters []parameter
}

// parameter is a name and a value in a form.
type parameter struct{ name, value string }

// readForm reads the form of a request (RFC 6749 §3.2). It checks the size of each part before parsing it.
func readForm(w http.ResponseWriter, r *http.Request) (*form, *failure) {
	if len(r.Header.Values("Authorization")) > 1 {
		return nil, invalid("Authorization was sent twice.")
	}
	types := r.Header["Content-Type"]
	if len(types) != 1 || types[0] != formType && !isForm(types[0]) {
		return nil, invalid("Content-Type must be application/x-www-form-urlencoded.")
	}
	body, refusal := readBody(w, r)
	if refusal != nil {
		return nil, refusal
	}
	if bytes.Count(body, []byte("&")) >= maxParameters {
		return nil, invalid("The body has more than 64 parameters.")
	}
	parameters, err := parseForm(string(body))
	if err != nil {
		return nil, invalid("The body is not a well-formed form.")
	}
	if refusal := checkParameters(parameters); refusal != nil {
		return nil, refusal
	}
	return &form{http.NoBody, parameters}, nil
}

// parseForm parses a form like [url.ParseQuery]. A slice takes a third of the time of a map, and keeps the order.
func parseForm(body string) ([]parameter, error) {
	parameters := make([]parameter, 0, 8)
	for pair := range strings.SplitSeq(body, "&") {
		if strings.Contains(pair, ";") {
			return nil, errors.New("a semicolon separates nothing")
		}
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, err
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, err
		}
		parameters = append(parameters, parameter{name, value})
	}
	return parameters, nil
}

// isForm reports whether the value of a Content-Type header is that of a form, with parameters or without.
func isForm(value string) bool {
	mediaType, _, err := parseMediaType(value)
	return err == nil && mediaType == formType
}

// readBody reads a body of at most maxForm bytes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *failure) {
	if refusal := checkEncoding(r.Header); refusal != nil {
		return nil, refusal
	}
	if r.ContentLength > maxForm {
		return nil, tooLarge()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil && len(body) >= maxForm {
		return nil, tooLarge()
	}
	if err != nil {
		return nil, invalid("The body could not be read.")
	}
	return body, nil
}

// tooLarge returns a 413.
func tooLarge() *failure {
	return &failure{status: http.StatusRequestEntityTooLarge, refusal: oauth.Refuse(oauth.InvalidRequest, "The body has more than 65536 bytes.")}
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

// checkParameters refuses a parameter that is not UTF-8, contains a NUL, or is sent more than once without being
// repeatable.
func checkParameters(parameters []parameter) *failure {
	for _, p := range parameters {
		for _, text := range [...]string{p.value, p.name} {
			if !utf8.ValidString(text) {
				return invalid("A parameter is not UTF-8.")
			}
			if strings.Contains(text, "\x00") {
				return invalid("A parameter contains a NUL byte.")
			}
		}
	}
	for i, p := range parameters {
		if p.name == repeatable || !slices.ContainsFunc(parameters[:i], func(q parameter) bool { return q.name == p.name }) {
			continue
		}
		if text, known := repeated[p.name]; known {
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
func (*formMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	if f, ok := r.(*form); ok {
		return f
	}
	return runtime.DecoderFunc(func(any) error { return io.ErrUnexpectedEOF })
}

// Decode implements [runtime.Decoder]. It sets the fields of a request whose names are those of parameters. It ignores
// other parameters, and treats an empty value as absent (RFC 6749 §3.2).
func (f *form) Decode(v any) error {
	fields, ok := requestFields[reflect.TypeOf(v)]
	if !ok {
		return fmt.Errorf("%T is not the request of a form", v)
	}
	request := reflect.ValueOf(v).Elem()
	for _, p := range f.parameters {
		i, ok := fields[p.name]
		if !ok || p.value == "" {
			continue
		}
		switch field := request.Field(i).Addr().Interface().(type) {
		case *string:
			*field = p.value
		case *[]string:
			*field = append(*field, p.value)
		}
	}
	return nil
}

// requestFields maps the type of each request that is sent as a form to the indices of its fields, keyed by the names of
// the parameters. The reflection of protobuf takes five times as long to set a field.
var requestFields = func() map[reflect.Type]map[string]int {
	requests := make(map[reflect.Type]map[string]int)
	for _, request := range []proto.Message{&grantorv1.IssueTokenRequest{}, &grantorv1.IntrospectTokenRequest{}, &grantorv1.RevokeTokenRequest{}} {
		t := reflect.TypeOf(request)
		requests[t] = make(map[string]int)
		for i := range t.Elem().NumField() {
			if name, _, ok := strings.Cut(t.Elem().Field(i).Tag.Get("json"), ","); ok {
				requests[t][name] = i
			}
		}
	}
	return requests
}()
