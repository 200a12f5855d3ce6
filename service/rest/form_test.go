package rest_test

import (
	"net/url"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/rest"
)

// TestFormFields sends each field of each request that is a form, under its name in the contract.
func TestFormFields(t *testing.T) {
	for _, m := range []proto.Message{&grantorv1.IssueTokenRequest{}, &grantorv1.IntrospectTokenRequest{}, &grantorv1.RevokeTokenRequest{}} {
		want := m.ProtoReflect().New()
		sent := url.Values{}
		fields := want.Descriptor().Fields()
		for i := range fields.Len() {
			field := fields.Get(i)
			name := field.TextName()
			if field.Kind() != protoreflect.StringKind {
				t.Errorf("%s: got a %s, want a string", field.FullName(), field.Kind())
				continue
			}
			sent.Set(name, "value of "+name)
			if !field.IsList() {
				want.Set(field, protoreflect.ValueOfString("value of "+name))
				continue
			}
			sent.Add(name, "another & more")
			sent.Add(name, "")
			list := want.Mutable(field).List()
			list.Append(protoreflect.ValueOfString("value of " + name))
			list.Append(protoreflect.ValueOfString("another & more"))
		}
		sent.Set("state", "of the message")
		sent.Set("unknownFields", "of the message")
		must.Succeed(t, rest.DecodeForm(sent.Encode(), m))
		if !proto.Equal(m, want.Interface()) {
			t.Errorf("got %v, want %v", m, want.Interface())
		}
	}
	if err := rest.DecodeForm("kid=a", &grantorv1.RetireKeyRequest{}); err == nil {
		t.Error("a request that is not sent as a form was decoded")
	}
}
