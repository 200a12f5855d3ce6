package oauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// Code is an OAuth error code, which is part of the response to a client.
type Code string

// The codes of RFC 6749 §5.2 and RFC 8707 §2, and the two of RFC 6749 §4.1.2.1 for failures of the server itself.
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

// Text is the error_description that a client receives. It is a distinct type so that only texts written in this
// program become one: a Go error, or a value from a request, does not turn into a Text by accident. Its characters are
// those that RFC 6749 §5.2 allows: printable ASCII without the double quote and the backslash. [RefuseScope] makes the only
// one with a part of a request.
type Text string

// Error is the refusal of a request. Code and Text are sent to the client; Reason and Cause are for the operator and
// are never sent.
type Error struct {
	// Code classifies the error for the client's program.
	Code Code
	// Text explains the error to the client's developer.
	Text Text
	// Reason classifies the error for the operator, if Code alone does not; it may be empty.
	Reason Reason
	// Cause is the underlying error. It is nil if the request itself is the cause.
	Cause error
	// Limited is true if a TemporarilyUnavailable is due to a rate limit, not to a failure of the server.
	Limited bool
	// RetryAfter is how long a client should wait after a TemporarilyUnavailable. Zero means that no time is known.
	RetryAfter time.Duration
	// Nonce is the nonce for the next DPoP proof, if Code is [UseDPoPNonce].
	Nonce string
}

// Reason is a metric label for a refusal: one of the constants below, never a value from a request. It is not sent to
// clients.
type Reason string

// Reasons for which client authentication fails. The client only learns that it failed.
const (
	UnknownClient        Reason = "unknown_client"
	WrongSecret          Reason = "wrong_secret"
	ClientDisabled       Reason = "client_disabled"
	MethodNotAllowed     Reason = "auth_method_not_allowed"
	MissingCredentials   Reason = "missing_credentials"
	MalformedCredentials Reason = "malformed_credentials" //nolint:gosec // a name, not a credential
	WrongAssertion       Reason = "wrong_assertion"
	AssertionReplayed    Reason = "assertion_replayed"
	WrongCertificate     Reason = "wrong_certificate"
	UntrustedIssuer      Reason = "untrusted_issuer"
	NoMatchingRule       Reason = "no_matching_rule"
	NetworkNotAllowed    Reason = "network_not_allowed"
)

// Limits that were reached, if a refusal is [Error.Limited].
const (
	TooManyFailures Reason = "too_many_failures"
	TooManyRequests Reason = "too_many_requests"
	QuotaReached    Reason = "quota"
)

// Reasons for which a request should be retried. The client learns less exactly what they are.
const (
	// StaleKnowledge means that a replica has not heard from its store for too long.
	StaleKnowledge Reason = "stale_knowledge"
	// StoreUnreachable means that the store did not answer during this request.
	StoreUnreachable Reason = "store_unreachable"
	// KeysUnreachable means that the key set of a client or of a trusted issuer could not be fetched.
	KeysUnreachable Reason = "keys_unreachable"
	// TooManySecrets means that the queue for slow hashes is full.
	TooManySecrets Reason = "too_many_secrets"
	// CallEnded means that the caller went away, or that its deadline passed.
	CallEnded Reason = "call_ended"
)

// Why returns Reason, or Code if Reason is empty.
func (e *Error) Why() Reason { return cmp.Or(e.Reason, Reason(e.Code)) }

// Errorf returns an Error whose Cause is formatted by [fmt.Errorf].
func Errorf(code Code, text Text, format string, args ...any) *Error {
	return &Error{Code: code, Text: text, Cause: fmt.Errorf(format, args...)}
}

// Refuse returns an Error without a Cause: the request itself is the cause.
func Refuse(code Code, text Text) *Error {
	return &Error{Code: code, Text: text}
}

// StoreUnavailable returns a [TemporarilyUnavailable] for a request that failed because the store did not answer. If the
// call, whose context is ctx, has ended, the store is not to blame: the reason is [CallEnded].
func StoreUnavailable(ctx context.Context, reason Reason, cause error) *Error {
	// The deadline of a call is that of its connection to the store too, which may notice it first.
	deadline, ok := ctx.Deadline()
	if ctx.Err() != nil || ok && !time.Now().Before(deadline) {
		return &Error{Code: TemporarilyUnavailable, Text: "The call ended before its answer.", Reason: CallEnded, Cause: cause}
	}
	return &Error{
		Code: TemporarilyUnavailable, Text: "The server cannot reach its store.", RetryAfter: time.Second, Reason: reason,
		Cause: cause,
	}
}

// Error returns the text for the operator, which includes the cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("%s: %s", e.Code, e.Text)
	}
	return fmt.Sprintf("%s: %s: %v", e.Code, e.Text, e.Cause)
}

// Unwrap returns Cause.
func (e *Error) Unwrap() error { return e.Cause }

// From returns the [*Error] in err's chain. If there is none, the failure is the server's own: From returns a
// [ServerError] whose Cause is err.
func From(err error) *Error {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal
	}
	return &Error{Code: ServerError, Text: "The server failed to answer; its log says why.", Cause: err}
}
