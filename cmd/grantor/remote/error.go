package remote

import (
	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/oauth"
)

// CallError is a call that an issuer refused, or that did not reach it. Text is one line that is safe to print.
type CallError struct {
	Code codes.Code
	Text string
	// Message is the issuer's own text, which is not safe to print. Field is the field of the request that the issuer
	// refused, if it named one.
	Message, Field string

	// reason is the OAuth error code of a refusal over REST, or empty.
	reason oauth.Code
	// nonceProvided reports that the issuer demands the same request with a nonce that it has provided.
	nonceProvided bool
}

// Error implements error. The text is safe to print.
func (e *CallError) Error() string { return e.Text }

// ExitCode returns the exit code of a command that fails with the error.
func (e *CallError) ExitCode() int {
	if code, ok := exitOf[e.Code]; ok {
		return code
	}
	return cli.ExitOther
}

// exitOf maps the code of a call to an exit code. The others map to [cli.ExitOther].
var exitOf = map[codes.Code]int{
	codes.Unauthenticated:    cli.ExitDenied,
	codes.PermissionDenied:   cli.ExitDenied,
	codes.NotFound:           cli.ExitNotFound,
	codes.AlreadyExists:      cli.ExitConflict,
	codes.Aborted:            cli.ExitConflict,
	codes.FailedPrecondition: cli.ExitConflict,
	codes.Unavailable:        cli.ExitUnavailable,
	codes.DeadlineExceeded:   cli.ExitUnavailable,
	codes.ResourceExhausted:  cli.ExitUnavailable,
	codes.InvalidArgument:    cli.ExitInvalid,
	codes.OutOfRange:         cli.ExitInvalid,
}
