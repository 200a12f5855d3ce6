package rest

import (
	"net/http"

	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
)

// forms is the codec of the form endpoints.
var forms = &formMarshaler{newDocumentMarshaler()}

// Routes maps the template of each path to the methods that it takes.
var Routes = routes

// ReadForm decodes the form of a request as the handler does: into a message, or into a refusal and its HTTP status.
func ReadForm(r *http.Request) (m *grantorv1.IssueTokenRequest, status int, refusal *oauth.Error) {
	f, failed := readForm(nil, r)
	if failed != nil {
		return nil, failed.status, failed.refusal
	}
	m = &grantorv1.IssueTokenRequest{}
	if err := forms.NewDecoder(f).Decode(m); err != nil {
		return nil, http.StatusInternalServerError, oauth.From(err)
	}
	return m, http.StatusOK, nil
}

// DecodeForm decodes a form into a message as the handler does.
func DecodeForm(body string, m proto.Message) error {
	parameters, err := parseForm(body)
	if err != nil {
		return err
	}
	return forms.NewDecoder(&form{http.NoBody, parameters}).Decode(m)
}

// MarshalDocument marshals a message as the handler does.
func MarshalDocument(m proto.Message) ([]byte, error) { return forms.Marshal(m) }
