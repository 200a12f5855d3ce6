package service

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/grantorhq/grantor/service/oauth"
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
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: string(r.Code), Domain: Domain}}
	if r.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.RetryAfter)})
	}
	plain := status.New(code, string(r.Text))
	detailed, err := plain.WithDetails(details...)
	if err != nil {
		return plain.Err()
	}
	return detailed.Err()
}
