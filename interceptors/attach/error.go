package attach

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/oauth"
)

// Error reports why no token could be obtained. As a gRPC status, its code is UNAVAILABLE if a retry may help,
// DEADLINE_EXCEEDED or CANCELLED if the caller's context ended the wait, and INTERNAL otherwise. The code is never
// UNAUTHENTICATED: a server that returns the error to its own callers would make them discard tokens that are valid.
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
func (e *Error) GRPCStatus() *status.Status { return status.New(e.grpc, e.Error()) }

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
	e := &Error{Code: oauth.Code(sanitize(code, secret)), Description: sanitize(description, secret)}
	e.grpc = codes.Internal
	if e.Code == oauth.TemporarilyUnavailable || e.Code == oauth.ServerError {
		e.grpc = codes.Unavailable
	}
	return e
}

// containsSecret reports whether text contains the secret in a form in which it was sent: verbatim, form-encoded, or
// inside Basic credentials, where it may begin at any of three offsets of the base64 encoding.
func containsSecret(text, secret string) bool {
	escaped := url.QueryEscape(secret)
	if strings.Contains(text, secret) || strings.Contains(text, escaped) {
		return true
	}
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(":", before) + escaped))
		// The first and last characters also depend on the bytes next to the secret.
		if core := encoded[min(len(encoded), 2*before):max(0, len(encoded)-2)]; len(core) >= 8 && strings.Contains(text, core) {
			return true
		}
	}
	return false
}

// sanitize returns up to 256 bytes of text in printable ASCII, or a placeholder if text contains the secret.
func sanitize(text, secret string) string {
	const maxText = 256
	if secret != "" && containsSecret(text, secret) {
		return "(omitted: it contains the secret)"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text[:min(len(text), maxText)])
}
