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

// Error says why there is no token. Toward gRPC it is a status: UNAVAILABLE where asking again may help,
// DEADLINE_EXCEEDED or CANCELLED where the caller's context ended the wait, INTERNAL for the rest. It is never
// UNAUTHENTICATED: a server that passes its own failure on would make its callers throw away tokens that are good.
type Error struct {
	// Code is the OAuth error code (RFC 6749 §5.2); empty where the issuer did not answer with one.
	Code oauth.Code
	// Description is the issuer's text for the developer, cut to 256 bytes of printable ASCII; it may be empty.
	Description string
	// Cause is what went wrong where no issuer's words tell it; beside a Code, what may have led to the refusal.
	Cause error

	grpc codes.Code
	// passing is whether the same request may well succeed in a moment, at another replica.
	passing bool
}

// Error has the OAuth error code, the description and the cause, and never the client's secret.
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

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// GRPCStatus is what a gRPC call that needed the token ends with.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.grpc, e.Error()) }

// misuse is an error that will not go away by asking again.
func misuse(format string, args ...any) *Error {
	return &Error{Cause: fmt.Errorf(format, args...), grpc: codes.Internal}
}

// unavailable is an error of the way to the issuer, or of its own trouble.
func unavailable(cause error) *Error { return &Error{Cause: cause, grpc: codes.Unavailable} }

// passing marks an error of the kind that a restart of a replica causes.
func passing(e *Error) *Error {
	e.passing = true
	return e
}

// gaveUp is the end of a caller's own context.
func gaveUp(ctx context.Context) *Error {
	return &Error{
		Cause: fmt.Errorf("waiting for the issuer: %w", ctx.Err()),
		grpc:  status.FromContextError(ctx.Err()).Code(),
	}
}

// refusal is the issuer's answer that it gives no token. A server that echoes what it was sent must not carry the
// secret into a log, nor control characters.
func refusal(code, description, secret string) *Error {
	e := &Error{Code: oauth.Code(printable(code, secret)), Description: printable(description, secret)}
	e.grpc = codes.Internal
	if e.Code == oauth.TemporarilyUnavailable || e.Code == oauth.ServerError {
		e.grpc = codes.Unavailable
	}
	return e
}

// echoes reports whether text has the secret in a form in which it was sent: as it is, form-encoded, or in the credentials
// of Basic, where it may begin at any of three places of the base64.
func echoes(text, secret string) bool {
	escaped := url.QueryEscape(secret)
	if strings.Contains(text, secret) || strings.Contains(text, escaped) {
		return true
	}
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(":", before) + escaped))
		// The characters at both ends also depend on what stands beside the secret.
		if core := encoded[min(len(encoded), 2*before):max(0, len(encoded)-2)]; len(core) >= 8 && strings.Contains(text, core) {
			return true
		}
	}
	return false
}

func printable(text, secret string) string {
	const most = 256
	if secret != "" && echoes(text, secret) {
		return "(left out: it repeated the secret)"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text[:min(len(text), most)])
}
