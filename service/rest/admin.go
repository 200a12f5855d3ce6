package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	gatewayv1 "github.com/grantorhq/grantor/gen/gateway/grantor/v1"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/telemetry"
)

// jsonType is the media type of the bodies of administrative calls.
const jsonType = "application/json"

// newAdmin returns the gateway of the administrative services.
func (h *handler) newAdmin(ctx context.Context, conn grpc.ClientConnInterface) (http.Handler, error) {
	mux := runtime.NewServeMux(append(h.gatewayOptions(),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &callMarshaler{newDocumentMarshaler()}),
		runtime.WithRoutingErrorHandler(h.handleRoutingError),
		// A path is split before its ids are decoded, so that an id may contain any character: a percent-encoded slash
		// separates nothing. Literal segments and verbs are compared without decoding.
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptReserved),
	)...)
	return mux, errors.Join(
		gatewayv1.RegisterClientServiceHandlerClient(ctx, mux, grantorv1.NewClientServiceClient(conn)),
		gatewayv1.RegisterResourceServiceHandlerClient(ctx, mux, grantorv1.NewResourceServiceClient(conn)),
		gatewayv1.RegisterTrustServiceHandlerClient(ctx, mux, grantorv1.NewTrustServiceClient(conn)),
		gatewayv1.RegisterKeyServiceHandlerClient(ctx, mux, grantorv1.NewKeyServiceClient(conn)),
	)
}

// serveAdmin answers an administrative call. It bounds and reads the body before the gateway sees the request.
func (h *handler) serveAdmin(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	body, refusal := readCall(w, r)
	if refusal != nil {
		h.unread(r.Context(), telemetry.EventAdminRefused, refusal.refusal)
		refusal.write(w, h.realm)
		return
	}
	// The id of a key needs no escape, and a proxy in front of the issuer may have decided by the path as it was sent.
	if strings.HasPrefix(path, keyPath) && strings.Contains(path, "%") {
		h.notFound(w, r)
		return
	}
	r.URL.RawPath = path // without it the gateway would split the decoded path
	h.admin.ServeHTTP(w, inner(r, io.NopCloser(bytes.NewReader(body))))
}

// readCall checks the headers and the query of an administrative call and then reads its body.
func readCall(w http.ResponseWriter, r *http.Request) ([]byte, *failure) {
	if len(r.Header.Values("Authorization")) > 1 {
		return nil, invalid("Authorization was sent twice.")
	}
	if types := r.Header.Values("Content-Type"); len(types) > 0 {
		if mediaType, _, err := parseMediaType(types[0]); len(types) > 1 || err != nil || mediaType != jsonType {
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

// checkQuery refuses every query parameter except the few that an administrative call takes besides its path and body.
// Any other is a misspelt name, a parameter that the call would ignore, or a secret that would end up in logs.
func checkQuery(r *http.Request) *failure {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalid("The query is not well-formed.")
	}
	known := map[string][]string{
		http.MethodGet: {"page_size", "page_token"}, http.MethodDelete: {"etag"}, http.MethodPatch: {"update_mask"},
	}[r.Method]
	if r.Method == http.MethodPatch && strings.Contains(r.URL.EscapedPath(), "/secrets/") {
		known = append(known, "etag") // the etag of the client; the body contains only the secret
	}
	for name := range values {
		if !slices.Contains(known, name) {
			return invalid("The query has a parameter that the call does not take.")
		}
	}
	return nil
}

// handleRoutingError answers a request for which the gateway found no call: 405 if the path takes other methods, else
// 404.
func (h *handler) handleRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
	if status == http.StatusMethodNotAllowed {
		h.refuseMethod(w, r)
		return
	}
	h.notFound(w, r)
}
