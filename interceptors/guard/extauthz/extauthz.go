// Package extauthz answers the questions of Envoy about requests: it implements the gRPC service
// envoy.service.auth.v3.Authorization with a [guard.Guard]. Envoy's filter ext_authz asks it, and so do proxies that are made of
// Envoy, such as Istio (action CUSTOM), Contour, Gloo and Emissary.
//
// The server believes what it is asked, also which client certificate the connection has (include_peer_certificate). Only proxies
// may reach it: serve it on a loopback address, or with TLS and client certificates.
//
// A refused HTTP request gets the response that [verify.HTTP] would send. A refused gRPC call gets the status and the
// google.rpc.ErrorInfo that package verify would send, in the place of what Envoy derives from the HTTP status.
//
// # Streams
//
// Envoy asks once, when a stream starts. [LimitStreams] ends a stream when its token expires; a revocation does not end it.
package extauthz

import (
	"context"
	"encoding/base64"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

// Option configures the server of [New].
type Option func(*server)

// LimitStreams ends each request, at the latest, when its token expires: the router of Envoy gets the time that is left in the
// header x-envoy-upstream-stream-duration-ms. By default, a stream runs on.
func LimitStreams() Option { return func(s *server) { s.limitStreams = true } }

// New returns a server that decides by g.
func New(g *guard.Guard, options ...Option) authv3.AuthorizationServer {
	s := &server{guard: g, certificates: newCertificates()}
	for _, option := range options {
		if option != nil {
			option(s)
		}
	}
	return s
}

// server implements [authv3.AuthorizationServer].
type server struct {
	authv3.UnimplementedAuthorizationServer

	guard        *guard.Guard
	limitStreams bool
	certificates *certificates
}

// Check decides about a request. One without HTTP attributes is refused. The error is always nil, so that no failure of the guard
// is one that Envoy's failure_mode_allow would let pass.
func (s *server) Check(ctx context.Context, m *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	attributes := m.GetAttributes()
	sent := attributes.GetRequest().GetHttp()
	d := s.guard.Decide(ctx, &guard.Request{
		Wire: guard.ExtAuthz, Method: sent.GetMethod(), Scheme: sent.GetScheme(), Host: sent.GetHost(), Path: sent.GetPath(),
		Header: header(sent), Certificate: s.certificates.parse(attributes.GetSource().GetCertificate()),
	})
	if d.Refusal != nil {
		return deny(d.Refusal, isGRPC(sent)), nil
	}
	return s.allow(&d), nil
}

// header yields the headers of a request. Pseudo-headers are among them. With encode_raw_headers there are values as they were
// sent; otherwise Envoy has joined several values of a name by commas, which no token and no proof has. A raw value that the guard
// does not read is yielded as an empty one, because each would otherwise be copied.
func header(sent *authv3.AttributeContext_HttpRequest) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for name, value := range sent.GetHeaders() {
			if !yield(name, value) {
				return
			}
		}
		for _, h := range sent.GetHeaderMap().GetHeaders() {
			value := h.GetValue()
			if name := h.GetKey(); len(h.GetRawValue()) > 0 && (oauth.EqualFold(name, "authorization") || oauth.EqualFold(name, dpop.Header)) {
				value = string(h.GetRawValue())
			}
			if !yield(h.GetKey(), value) {
				return
			}
		}
	}
}

// isGRPC reports whether a request is a gRPC call, by its content type, as Envoy does.
func isGRPC(sent *authv3.AttributeContext_HttpRequest) bool {
	contentType := sent.GetHeaders()["content-type"]
	for _, h := range sent.GetHeaderMap().GetHeaders() {
		if h.GetKey() == "content-type" {
			contentType = h.GetValue() + string(h.GetRawValue()) // one of them is empty
		}
	}
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// streamDurationHeader limits the duration of a request in Envoy's router.
const streamDurationHeader = "x-envoy-upstream-stream-duration-ms"

// allowed holds the messages of a response in one allocation: apart, they would cost as much as the decision.
type allowed struct {
	response authv3.CheckResponse
	oneof    authv3.CheckResponse_OkResponse
	ok       authv3.OkHttpResponse
	headers  [3]*corev3.HeaderValueOption
	options  [3]corev3.HeaderValueOption
	values   [3]corev3.HeaderValue
}

// set adds a header that replaces all with its name.
func (a *allowed) set(name, value string) {
	n := len(a.ok.GetHeaders())
	if n == len(a.headers) { // a decision sets two at most
		a.ok.Headers = append(a.ok.Headers, overwrite(name, value))
		return
	}
	a.values[n].Key, a.values[n].Value = name, value
	a.options[n].Header = &a.values[n]
	a.options[n].AppendAction = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	a.headers[n] = &a.options[n]
	a.ok.Headers = a.headers[:n+1]
}

// allow returns the response for a request that is admitted.
func (s *server) allow(d *guard.Decision) *authv3.CheckResponse {
	a := new(allowed)
	a.ok.HeadersToRemove = d.Remove
	for _, h := range d.Set {
		a.set(h.Name, h.Value)
	}
	if s.limitStreams && d.Caller.Claims != nil {
		left := max(time.Until(d.Caller.ExpiresAt).Milliseconds(), 1) // zero would mean no limit
		a.set(streamDurationHeader, strconv.FormatInt(left, 10))
	}
	if d.NextNonce != "" {
		a.ok.ResponseHeadersToAdd = []*corev3.HeaderValueOption{overwrite(strings.ToLower(dpop.NonceHeader), d.NextNonce)}
	}
	a.oneof.OkResponse = &a.ok
	a.response.Status, a.response.HttpResponse = okStatus, &a.oneof
	return &a.response
}

// okStatus is not modified.
var okStatus = &rpcstatus.Status{}

// deny returns the response for a request that is refused.
func deny(refusal *verify.Refusal, isGRPC bool) *authv3.CheckResponse {
	denied := &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode(refusal.Status)}} //nolint:gosec // a status of HTTP
	fields := refusal.Header()
	if isGRPC {
		// Envoy makes the body the message of the status.
		denied.Body = refusal.Message
		fields.Del("Content-Type")
		s := refusal.GRPCStatus()
		fields.Set("Grpc-Status", strconv.Itoa(int(s.Code())))
		if details := encodeDetails(s); details != "" {
			fields.Set("Grpc-Status-Details-Bin", details)
		}
	} else {
		denied.Body = string(refusal.Body())
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		for i, value := range fields[name] {
			option := overwrite(strings.ToLower(name), value)
			if i > 0 {
				option.AppendAction = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
			}
			denied.Headers = append(denied.Headers, option)
		}
	}
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(refusal.Code), Message: refusal.Message}, //nolint:gosec // at most 16
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: denied},
	}
}

// encodeDetails returns the value of grpc-status-details-bin, or "" if the status cannot be encoded.
func encodeDetails(s *status.Status) string {
	encoded, err := proto.Marshal(s.Proto())
	if err != nil {
		return ""
	}
	return base64.RawStdEncoding.EncodeToString(encoded)
}

// overwrite returns a header that replaces all with its name.
func overwrite(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
