package rest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	gatewayv1 "github.com/grantorhq/grantor/gen/gateway/grantor/v1"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/telemetry"
)

// adminPath is where the administrative services are.
const adminPath = "/v1/"

// jsonType is what the bodies of administrative calls are.
const jsonType = "application/json"

// newAdmin makes the gateway of the administrative services.
func (f *face) newAdmin(ctx context.Context, conn grpc.ClientConnInterface) (http.Handler, error) {
	documents := newDocumentMarshaler()
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &documents),
		runtime.WithErrorHandler(f.handleError),
		runtime.WithRoutingErrorHandler(f.handleRoutingError),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
		runtime.WithIncomingHeaderMatcher(none),
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithMetadata(authorization),
		runtime.WithForwardResponseOption(setHeaders),
	)
	conn = &slashes{conn}
	return mux, errors.Join(
		gatewayv1.RegisterClientServiceHandlerClient(ctx, mux, grantorv1.NewClientServiceClient(conn)),
		gatewayv1.RegisterResourceServiceHandlerClient(ctx, mux, grantorv1.NewResourceServiceClient(conn)),
		gatewayv1.RegisterKeyServiceHandlerClient(ctx, mux, grantorv1.NewKeyServiceClient(conn)),
	)
}

// serveAdmin takes an administrative call. Its body is bounded and read before the gateway sees it.
func (f *face) serveAdmin(w http.ResponseWriter, r *http.Request) {
	path, ok := decoded(r.URL.EscapedPath())
	body, refusal := readCall(w, r)
	switch {
	case refusal != nil:
		f.unread(r.Context(), telemetry.EventAdminRefused, refusal.refusal)
		refusal.write(w, f.realm)
		return
	case !ok:
		f.notFound(w)
		return
	}
	r.URL.Path, r.URL.RawPath = path, ""
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.Header = http.Header{"Content-Type": {jsonType}, "Authorization": r.Header["Authorization"]}
	f.admin.ServeHTTP(w, r)
}

// readCall reads the body of an administrative call, once the rest of the request is one that such a call can have.
func readCall(w http.ResponseWriter, r *http.Request) ([]byte, *failure) {
	if len(r.Header.Values("Authorization")) > 1 {
		return nil, invalid("Authorization was sent twice.")
	}
	if types := r.Header.Values("Content-Type"); len(types) > 0 {
		if mediaType, _, err := mime.ParseMediaType(types[0]); len(types) > 1 || err != nil || mediaType != jsonType {
			return nil, invalid("Content-Type must be application/json.")
		}
	}
	if refusal := checkQuery(r); refusal != nil {
		return nil, refusal
	}
	body, refusal := readBody(w, r)
	if refusal == nil && len(body) > 0 && (r.Method == http.MethodGet || r.Method == http.MethodDelete) {
		refusal = invalid("The call takes no body.")
	}
	return body, refusal
}

// slash stands for a slash within an id on its way through the gateway, which would take it for the end of the id. Nobody
// outside this process can know it, so nothing else that is sent has it.
var slash = "\x01" + rand.Text()

// decoded decodes the ids in a path, /v1/LIST/ID/LIST/ID, so that they may have any character: percent-encoded, a slash in
// one is no border. Elsewhere an escape is not forgiven, since whatever stands in front of the issuer may have decided by
// the path as it was sent.
func decoded(path string) (string, bool) {
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		if !strings.Contains(segment, "%") {
			continue
		}
		plain, err := url.PathUnescape(segment)
		if err != nil || (i != 3 && i != 5) || segments[2] == "keys" {
			return "", false
		}
		segments[i] = strings.ReplaceAll(plain, "/", slash)
	}
	return strings.Join(segments, "/"), true
}

// slashes gives ids their slashes back.
type slashes struct{ grpc.ClientConnInterface }

// Invoke implements [grpc.ClientConnInterface].
func (s *slashes) Invoke(ctx context.Context, name string, request, reply any, options ...grpc.CallOption) error {
	restore(request.(proto.Message).ProtoReflect()) //nolint:forcetypeassert // generated code passes messages
	return s.ClientConnInterface.Invoke(ctx, name, request, reply, options...)
}

// restore looks at the fields that a path can fill: texts of the request, and of a message in it.
func restore(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList() || field.IsMap():
		case field.Kind() == protoreflect.StringKind:
			m.Set(field, protoreflect.ValueOfString(strings.ReplaceAll(value.String(), slash, "/")))
		case field.Kind() == protoreflect.MessageKind:
			restore(value.Message())
		}
		return true
	})
}

// checkQuery takes the few parameters that an administrative call can have beside its path and body. Any other is refused:
// a name that is misspelt, one that the call would not look at, or a secret where logs would have it.
func checkQuery(r *http.Request) *failure {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalid("The query is not well-formed.")
	}
	taken := map[string][]string{
		http.MethodGet: {"page_size", "page_token"}, http.MethodDelete: {"etag"}, http.MethodPatch: {"update_mask"},
	}[r.Method]
	if r.Method == http.MethodPatch && strings.Contains(r.URL.EscapedPath(), "/secrets/") {
		taken = append(taken, "etag") // that of the client, which is not in the body
	}
	for name := range values {
		if !slices.Contains(taken, name) {
			return invalid("The query has a parameter that the call does not take.")
		}
	}
	return nil
}

// methods has the shape of a path, with * for what varies, → the methods that there are. The shapes that are not in it
// take POST.
var methods = map[string]string{
	"clients": "GET, POST", "clients/*": "DELETE, GET, PATCH", "clients/*/secrets/*": "DELETE, PATCH",
	"resources": "GET, POST", "resources/*": "DELETE, GET, PATCH",
	"keys": "GET",
}

// handleRoutingError answers where the gateway finds no call for a path or its method.
func (f *face) handleRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
	if status != http.StatusMethodNotAllowed {
		f.notFound(w)
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), adminPath), "/")
	for i := 1; i < len(parts); i += 2 {
		parts[i] = "*"
	}
	allowed, ok := methods[strings.Join(parts, "/")]
	if !ok {
		allowed = http.MethodPost
	}
	f.refuseMethod(w, allowed)
}

func (f *face) notFound(w http.ResponseWriter) {
	(&failure{status: http.StatusNotFound, refusal: oauth.Refuse(oauth.InvalidRequest, "There is nothing at this path.")}).write(w, f.realm)
}
