package connectrpc

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/status"
)

var errNotProto = errors.New("connectrpc: not a message of protobuf")

// unreadable returns the refusal of a request that could not be read. cause is for the audit log, and quotes nothing of
// the request; it may be nil.
func unreadable(text oauth.Text, cause error) *oauth.Error {
	return &oauth.Error{Code: oauth.InvalidRequest, Text: text, Cause: cause}
}

// refusal returns the error of an answer by the protocol for that of a call: its code, text and details, and as
// metadata what REST sends as headers. Connect sends the metadata as headers too, and so does gRPC-Web for an answer
// without a message; gRPC sends it as trailers, among which no challenge can be (RFC 9110 §6.5.1). An error without one
// of our reasons was made neither by a handler nor here, and its message is not sent.
func (h *Handler) refusal(p *protocol, err error) *connect.Error {
	s := grpcstatus.Convert(status.From(err))
	info := find[*errdetails.ErrorInfo](s)
	if info == nil {
		s = grpcstatus.Convert(status.From(oauth.From(err)))
		info = find[*errdetails.ErrorInfo](s)
	}
	refusal := connect.NewError(connect.Code(s.Code()), errors.New(s.Message()))
	for _, encoded := range s.Proto().GetDetails() {
		if detail, err := connect.NewErrorDetail(encoded); err == nil {
			refusal.AddDetail(detail)
		}
	}
	header := refusal.Meta()
	if oauth.Code(info.GetReason()) == oauth.InvalidClient && p != grpcProtocol {
		header.Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q", h.config.Realm))
	}
	if nonce := info.GetMetadata()[status.NonceKey]; nonce != "" {
		header.Set(dpop.NonceHeader, nonce)
	}
	if retry := find[*errdetails.RetryInfo](s); retry != nil {
		seconds := (retry.GetRetryDelay().AsDuration() + time.Second - 1) / time.Second
		header.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	return refusal
}

// find returns the first detail of a status that has the type, or the zero value.
func find[T any](s *grpcstatus.Status) (found T) {
	for _, detail := range s.Details() {
		if d, ok := detail.(T); ok {
			return d
		}
	}
	return found
}
