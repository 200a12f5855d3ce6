package rest

import (
	"net/http"

	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
)

// forms is what the face decodes forms with.
var forms = &formMarshaler{newDocumentMarshaler()}

// ReadForm decodes the form of a request as the face does: into a message, or into a refusal and its HTTP status.
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

// MarshalDocument writes a message as the face does.
func MarshalDocument(m proto.Message) ([]byte, error) { return forms.Marshal(m) }
