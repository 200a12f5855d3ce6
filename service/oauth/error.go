package oauth

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Code is an error code that a client meets in an answer.
type Code string

// The codes of RFC 6749 §5.2 and RFC 8707 §2, and the two of RFC 6749 §4.1.2.1 that tell of the server's own trouble.
const (
	InvalidRequest         Code = "invalid_request"
	InvalidClient          Code = "invalid_client"
	UnauthorizedClient     Code = "unauthorized_client"
	UnsupportedGrantType   Code = "unsupported_grant_type"
	InvalidScope           Code = "invalid_scope"
	InvalidTarget          Code = "invalid_target"
	TemporarilyUnavailable Code = "temporarily_unavailable"
	ServerError            Code = "server_error"
)

// Text is what a client reads of an error. It is a type of its own so that only texts written in this program become
// one: a Go error, or a value from a request, does not turn into a Text by accident. Its characters are those that
// RFC 6749 §5.2 allows: printable ASCII without the double quote and the backslash.
type Text string

// Error is a refusal. Code and Text are for the client; Cause is for the operator and never crosses the wire.
type Error struct {
	// Code tells the client's program what went wrong.
	Code Code
	// Text tells the client's developer what went wrong.
	Text Text
	// Reason tells the operator's programs what went wrong, where Code alone does not.
	Reason Reason
	// Cause is the error behind it; nil where the request itself is the cause.
	Cause error
	// Limited says that a TemporarilyUnavailable comes from a limit on what is asked, not from a fault of the server.
	Limited bool
	// RetryAfter is how long a client should wait after a TemporarilyUnavailable; zero where it does not apply.
	RetryAfter time.Duration
}

// Reason is what a refusal is counted by: one of the words below, never a value from a request. It does not cross the wire.
type Reason string

// Why a client was not proved, which it is not told.
const (
	UnknownClient        Reason = "unknown_client"
	WrongSecret          Reason = "wrong_secret"
	ClientDisabled       Reason = "client_disabled"
	MethodNotAllowed     Reason = "auth_method_not_allowed"
	MalformedCredentials Reason = "malformed_credentials" //nolint:gosec // a word, no credential
	AssertionNotOffered  Reason = "assertion_not_offered"
	NetworkNotAllowed    Reason = "network_not_allowed"
)

// Which limit was reached, where a refusal is [Error.Limited].
const (
	TooManyFailures Reason = "too_many_failures"
	TooManyRequests Reason = "too_many_requests"
	QuotaReached    Reason = "quota"
)

// Why a request was put off, which its client is told less exactly.
const (
	// StaleKnowledge is of a replica that has had no word from its store for too long.
	StaleKnowledge Reason = "stale_knowledge"
	// StoreUnreachable is of a store that did not answer this request.
	StoreUnreachable Reason = "store_unreachable"
	// TooManySecrets is of the queue for slow hashes.
	TooManySecrets Reason = "too_many_secrets"
)

// Why gives the reason; the code is one where there is none more exact.
func (e *Error) Why() Reason { return cmp.Or(e.Reason, Reason(e.Code)) }

// Errorf makes a refusal whose cause is worded by format and args, as by [fmt.Errorf].
func Errorf(code Code, text Text, format string, args ...any) *Error {
	return &Error{Code: code, Text: text, Cause: fmt.Errorf(format, args...)}
}

// Refuse makes a refusal that the request itself is the cause of.
func Refuse(code Code, text Text) *Error {
	return &Error{Code: code, Text: text}
}

// Error gives the operator's text, cause included.
func (e *Error) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("%s: %s", e.Code, e.Text)
	}
	return fmt.Sprintf("%s: %s: %v", e.Code, e.Text, e.Cause)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// From finds the refusal in err. An error that holds none is the server's own fault: it becomes a [ServerError] with
// err as its cause.
func From(err error) *Error {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal
	}
	return &Error{Code: ServerError, Text: "The server failed to answer; its log says why.", Cause: err}
}
