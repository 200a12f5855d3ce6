package attach

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/recovery"
)

// Error reports why no token could be obtained. As a gRPC status, its code is
//
//   - UNAUTHENTICATED if the issuer refused the client's credentials (invalid_client, or an HTTP status 401),
//   - PERMISSION_DENIED if it refused the client (unauthorized_client, access_denied, or an HTTP status 403),
//   - UNAVAILABLE if a retry may help,
//   - DEADLINE_EXCEEDED or CANCELLED if the caller's context ended the wait,
//   - INTERNAL otherwise: the program or the issuer has to be changed. Those are the codes that gRPC permits for a
//     failure to get credentials (gRFC A54); invalid_scope, for example, is no INVALID_ARGUMENT of the call.
//
// A server that needs a token for a call of its own should not return the error to its callers as it is: with
// UNAUTHENTICATED, they would request new tokens although theirs are valid.
type Error struct {
	// Code is the OAuth error code (RFC 6749 §5.2). It is empty if the issuer did not answer with one.
	Code oauth.Code
	// Description is the issuer's error_description, cut to 256 bytes of printable ASCII. It may be empty.
	Description string
	// Cause is the underlying error. If Code is set, it is the error of reading a newer secret, if any.
	Cause error

	grpc codes.Code
	// transient is true if the same request may succeed shortly after, at another replica.
	transient bool
	// limited is true for a temporarily_unavailable that is due to a limit on the client or its address, not to a failure
	// of the issuer.
	limited bool
	// nonceProvided is true for a use_dpop_nonce whose nonce is remembered, so that the request is repeated with it.
	nonceProvided bool
}

// Error returns the OAuth error code, the description and the cause. It never contains the client's secret.
func (e *Error) Error() string {
	parts := []string{"attach: no access token"}
	if e.Code != "" {
		parts = append(parts, string(e.Code))
	}
	if e.Description != "" {
		parts = append(parts, e.Description)
	}
	if e.Cause != nil {
		parts = append(parts, e.Cause.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns Cause.
func (e *Error) Unwrap() error { return e.Cause }

// GRPCStatus returns the status with which a gRPC call that needed the token fails.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.statusCode(), e.Error()) }

// statusCode returns the gRPC code of e, which is never OK.
func (e *Error) statusCode() codes.Code {
	if e.grpc != codes.OK {
		return e.grpc
	}
	switch e.Code {
	case oauth.InvalidClient:
		return codes.Unauthenticated
	case oauth.UnauthorizedClient, accessDenied:
		return codes.PermissionDenied
	case oauth.TemporarilyUnavailable, oauth.ServerError:
		return codes.Unavailable
	}
	return codes.Internal
}

// accessDenied is a code of RFC 6749 §4.1.2.1 with which some issuers refuse a client that may not use a resource.
const accessDenied oauth.Code = "access_denied"

// misuse returns an error that a retry does not cure.
func misuse(format string, args ...any) *Error {
	return &Error{Cause: fmt.Errorf(format, args...), grpc: codes.Internal}
}

// unavailable returns an error for a failure of the network or of the issuer itself.
func unavailable(cause error) *Error { return &Error{Cause: cause, grpc: codes.Unavailable} }

// asTransient marks e as the kind of error that the restart of a replica causes.
func asTransient(e *Error) *Error {
	e.transient = true
	return e
}

// contextError returns the error for a wait that ended with the caller's context.
func contextError(ctx context.Context) *Error {
	return &Error{
		Cause: fmt.Errorf("waiting for the issuer: %w", ctx.Err()),
		grpc:  status.FromContextError(ctx.Err()).Code(),
	}
}

// refusal returns the error for an OAuth error response. Texts that contain the secret, or control characters, are made
// safe for a log, because some servers echo what they were sent.
func refusal(code, description, secret string) *Error {
	e := &Error{Code: oauth.Code(code), Description: sanitize(description, secret)}
	// A code that this package knows is no echo, whatever the secret is.
	if label(e.Code) == otherCode {
		e.Code = oauth.Code(sanitize(code, secret))
	}
	return e
}

// guard calls f, which runs code of the program: a function for the secret, a transport, a connection. If that code
// panics, guard returns an [*Error] instead, because f runs in a goroutine in which the program cannot recover.
func guard[T any](what string, f func() (T, error)) (T, error) {
	result, err := recovery.Call(what, f)
	if panicked, ok := err.(*recovery.Error); ok { //nolint:errorlint // an error of f may wrap that of an inner guard
		return result, misuse("%w", panicked)
	}
	return result, err
}
