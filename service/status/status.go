// Package status maps errors of the domain to what a caller gets for them: a code of a short fixed list, a text, and the
// status code of either wire. The code is the reason in google.rpc.ErrorInfo over gRPC, and the "error" of RFC 6749 §5.2
// over REST. The cause of an error never goes out.
package status

import (
	"context"
	"errors"
	"net/http"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// wires maps a code to the status codes that it goes out with. A code that is not in it is the server's own fault.
var wires = map[oauth.Code]struct {
	grpc codes.Code
	http int
}{
	oauth.InvalidRequest:         {codes.InvalidArgument, http.StatusBadRequest},
	oauth.InvalidScope:           {codes.InvalidArgument, http.StatusBadRequest},
	oauth.InvalidTarget:          {codes.InvalidArgument, http.StatusBadRequest},
	oauth.UnsupportedGrantType:   {codes.InvalidArgument, http.StatusBadRequest},
	oauth.UnauthorizedClient:     {codes.PermissionDenied, http.StatusBadRequest},
	oauth.InvalidClient:          {codes.Unauthenticated, http.StatusUnauthorized},
	oauth.TemporarilyUnavailable: {codes.Unavailable, http.StatusServiceUnavailable},
	oauth.ServerError:            {codes.Internal, http.StatusInternalServerError},

	oauth.InvalidDPoPProof: {codes.InvalidArgument, http.StatusBadRequest},
	oauth.UseDPoPNonce:     {codes.InvalidArgument, http.StatusBadRequest},

	oauth.InvalidToken:       {codes.Unauthenticated, http.StatusUnauthorized},
	oauth.InsufficientScope:  {codes.PermissionDenied, http.StatusForbidden},
	oauth.NoRule:             {codes.PermissionDenied, http.StatusForbidden},
	oauth.NotFound:           {codes.NotFound, http.StatusNotFound},
	oauth.AlreadyExists:      {codes.AlreadyExists, http.StatusConflict},
	oauth.Conflict:           {codes.Aborted, http.StatusConflict},
	oauth.FailedPrecondition: {codes.FailedPrecondition, http.StatusBadRequest},
}

// NonceKey is the key of the nonce for the next DPoP proof in the metadata of google.rpc.ErrorInfo.
const NonceKey = "dpop_nonce"

// retryAfter is how long a caller waits before it repeats a request that the server could not answer.
const retryAfter = time.Second

// refusals maps errors of the domain, for which OAuth has no words, to refusals. The first that matches counts.
var refusals = []struct {
	err     error
	refusal oauth.Error
}{
	{registry.ErrNotFound, oauth.Error{Code: oauth.NotFound, Text: "Not found."}},
	{keys.ErrNotFound, oauth.Error{Code: oauth.NotFound, Text: "Not found."}},
	{registry.ErrExists, oauth.Error{Code: oauth.AlreadyExists, Text: "Already exists."}},
	{registry.ErrConflict, oauth.Error{Code: oauth.Conflict, Text: "It was changed by somebody else meanwhile; read it again."}},
	{keys.ErrConflict, oauth.Error{Code: oauth.Conflict, Text: "It was changed by somebody else meanwhile; read it again."}},
	{keys.ErrRetiring, oauth.Error{Code: oauth.FailedPrecondition, Text: "The key is retiring already."}},
	{revocation.ErrNotReplicated, oauth.Error{
		Code: oauth.TemporarilyUnavailable, Text: "It is done, but too few replicas of the store have it; ask again.", RetryAfter: retryAfter,
	}},
	{registry.ErrNewer, oauth.Error{
		Code: oauth.TemporarilyUnavailable, Text: "A newer release of Grantor wrote this; a replica of that release can answer.",
		RetryAfter: retryAfter,
	}},
	{keys.ErrNewer, oauth.Error{
		Code: oauth.TemporarilyUnavailable, Text: "A newer release of Grantor wrote this; a replica of that release can answer.",
		RetryAfter: retryAfter,
	}},
	// A caller that cancels its call is not the server's fault.
	{context.Canceled, oauth.Error{Code: oauth.TemporarilyUnavailable, Text: "The call ended before its answer."}},
	{context.DeadlineExceeded, oauth.Error{Code: oauth.TemporarilyUnavailable, Text: "The call ended before its answer."}},
}

// answer is a refusal, and what gRPC can carry beside it: the scope or the field that it is about.
type answer struct {
	*oauth.Error

	scope string
	field *registry.FieldError
}

// lookup returns the refusal that err wraps or is mapped to. ok is false for an error that this package does not know,
// which is the server's own fault.
func lookup(err error) (_ answer, ok bool) {
	if refusal, ok := errors.AsType[*oauth.Error](err); ok {
		return answer{Error: refusal}, true
	}
	// The texts of these errors name what is wrong with the request, and nothing else.
	if forbidden, ok := errors.AsType[*registry.ForbiddenError](err); ok {
		refusal := &oauth.Error{Code: oauth.InsufficientScope, Text: oauth.Text(forbidden.Error()), Cause: err}
		return answer{Error: refusal, scope: forbidden.Scope.String()}, true
	}
	for _, row := range refusals {
		if errors.Is(err, row.err) {
			refusal := row.refusal
			refusal.Cause = err
			return answer{Error: &refusal}, true
		}
	}
	field, isField := errors.AsType[*registry.FieldError](err)
	if isField || errors.Is(err, keys.ErrID) || errors.Is(err, keys.ErrAlgorithm) {
		refusal := &oauth.Error{Code: oauth.InvalidRequest, Text: oauth.Text(err.Error()), Cause: err}
		return answer{Error: refusal, field: field}, true
	}
	return answer{Error: oauth.From(err)}, false
}

// Refusal returns the refusal that err wraps or is mapped to. An error that this package does not know is the server's
// own fault.
func Refusal(err error) *oauth.Error {
	a, _ := lookup(err)
	return a.Error
}

// OrStore returns err if this package knows it, and otherwise a refusal for a store that is out of reach, with err as its
// cause. It is for calls, whose context is ctx, all of whose other failures come from the store.
func OrStore(ctx context.Context, err error) error {
	if _, ok := lookup(err); ok {
		return err
	}
	return oauth.StoreUnavailable(ctx, "", err)
}

// Is reports whether err itself is a gRPC status. One that it merely wraps came from elsewhere, for example from a key
// management service, and is not for the caller.
func Is(err error) bool {
	_, ok := err.(interface{ GRPCStatus() *status.Status })
	return ok
}

// From returns err as the gRPC status that its caller gets. An error that is such a status already is returned unchanged.
func From(err error) error {
	if Is(err) {
		return err
	}
	a, _ := lookup(err)
	plain := status.New(a.grpc(), string(a.Text))
	detailed, err := plain.WithDetails(a.details()...)
	if err != nil {
		return plain.Err()
	}
	return detailed.Err()
}

func (a answer) grpc() codes.Code {
	if a.Limited {
		return codes.ResourceExhausted
	}
	if wire, ok := wires[a.Code]; ok {
		return wire.grpc
	}
	return codes.Internal
}

// details returns the messages of google.rpc that the status carries.
func (a answer) details() []protoadapt.MessageV1 {
	info := &errdetails.ErrorInfo{Reason: string(a.Code), Domain: oauth.ErrorDomain}
	switch {
	case a.scope != "":
		info.Metadata = map[string]string{"scope": a.scope}
	case a.Nonce != "":
		info.Metadata = map[string]string{NonceKey: a.Nonce}
	}
	details := []protoadapt.MessageV1{info}
	if a.field != nil {
		details = append(details, &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: a.field.Field, Description: a.field.Problem}},
		})
	}
	if a.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(a.RetryAfter)})
	}
	return details
}

// HTTP returns the HTTP status code that a refusal with the code goes out with. A limit is 429 instead, which the gRPC
// code RESOURCE_EXHAUSTED says.
func HTTP(code oauth.Code) int {
	if wire, ok := wires[code]; ok {
		return wire.http
	}
	return http.StatusInternalServerError
}
