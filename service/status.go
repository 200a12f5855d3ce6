package service

import (
	"context"
	"errors"
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

// Domain is the domain of every google.rpc.ErrorInfo that this service sends; the reason is the OAuth error code.
const Domain = "grantor"

// codeOf has OAuth error code → gRPC code. A code that is not in it is the server's own fault.
var codeOf = map[oauth.Code]codes.Code{
	oauth.InvalidRequest:         codes.InvalidArgument,
	oauth.InvalidScope:           codes.InvalidArgument,
	oauth.InvalidTarget:          codes.InvalidArgument,
	oauth.UnsupportedGrantType:   codes.InvalidArgument,
	oauth.InvalidClient:          codes.Unauthenticated,
	oauth.UnauthorizedClient:     codes.PermissionDenied,
	oauth.TemporarilyUnavailable: codes.Unavailable,
	oauth.ServerError:            codes.Internal,
}

// administrative words what the administrative servers refuse, for which OAuth has no words. What it does not know came
// from the store.
func administrative(err error) error {
	var (
		known     *oauth.Error
		field     *registry.FieldError
		forbidden *registry.ForbiddenError
	)
	switch {
	case errors.As(err, &known):
		return toStatus(known)
	case errors.As(err, &forbidden):
		return refuse(codes.PermissionDenied, "insufficient_scope", forbidden.Error(),
			&errdetails.ErrorInfo{Metadata: map[string]string{"scope": forbidden.Scope.String()}})
	case errors.Is(err, registry.ErrNotFound), errors.Is(err, keys.ErrNotFound):
		return refuse(codes.NotFound, "not_found", "There is nothing of that name.", nil)
	case errors.Is(err, registry.ErrExists):
		return refuse(codes.AlreadyExists, "already_exists", "The name is taken.", nil)
	case errors.Is(err, registry.ErrConflict), errors.Is(err, keys.ErrConflict):
		return refuse(codes.Aborted, "conflict", "It was changed by somebody else meanwhile; read it again.", nil)
	case errors.Is(err, keys.ErrRetiring):
		return refuse(codes.FailedPrecondition, "failed_precondition", "The key is retiring already.", nil)
	case errors.Is(err, keys.ErrID), errors.Is(err, keys.ErrAlgorithm):
		return refuse(codes.InvalidArgument, string(oauth.InvalidRequest), err.Error(), nil)
	case errors.As(err, &field):
		return refuse(codes.InvalidArgument, string(oauth.InvalidRequest), err.Error(), nil, &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field.Field, Description: field.Problem}},
		})
	case errors.Is(err, revocation.ErrNotReplicated):
		return toStatus(&oauth.Error{
			Code: oauth.TemporarilyUnavailable, Text: "It is done, but too few replicas of the store have it; ask again.",
			RetryAfter: time.Second, Cause: err,
		})
	case errors.Is(err, registry.ErrNewer), errors.Is(err, keys.ErrNewer):
		return toStatus(&oauth.Error{
			Code: oauth.TemporarilyUnavailable, Text: "A newer release of Grantor wrote this; a replica of that release can answer.",
			RetryAfter: time.Second, Cause: err,
		})
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return toStatus(refusal(err))
	}
	return toStatus(&oauth.Error{
		Code: oauth.TemporarilyUnavailable, Text: "The server cannot reach its store.", RetryAfter: time.Second, Cause: err,
	})
}

// refuse makes a status with a reason; info adds to it what the reason is about.
func refuse(code codes.Code, reason, text string, info *errdetails.ErrorInfo, details ...protoadapt.MessageV1) error {
	if info == nil {
		info = &errdetails.ErrorInfo{}
	}
	info.Reason, info.Domain = reason, Domain
	plain := status.New(code, text)
	detailed, err := plain.WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		return plain.Err()
	}
	return detailed.Err()
}

// refusal finds the refusal in err; a call that its caller gave up is not the server's fault.
func refusal(err error) *oauth.Error {
	var known *oauth.Error
	if !errors.As(err, &known) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return &oauth.Error{Code: oauth.TemporarilyUnavailable, Text: "The call ended before its answer.", Cause: err}
	}
	return oauth.From(err)
}

// toStatus is the one place that turns a refusal into what a caller gets. The cause stays here.
func toStatus(r *oauth.Error) error {
	code, ok := codeOf[r.Code]
	if !ok {
		code = codes.Internal
	}
	if r.Limited {
		code = codes.ResourceExhausted
	}
	var details []protoadapt.MessageV1
	if r.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.RetryAfter)})
	}
	return refuse(code, string(r.Code), string(r.Text), nil, details...)
}
