package remote

import (
	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// CallError is an issuer's refusal, or a call that did not reach it. The text is one line that is safe to print.
type CallError struct {
	Code codes.Code
	Text string
	// message is what the issuer said, not safe to print; field and problem are what it found wrong, where it told.
	Message, Field, Problem string
}

func (e *CallError) Error() string { return e.Text }

// ExitCode gives the exit code of a command that ended with the error.
func (e *CallError) ExitCode() int {
	if code, ok := exitOf[e.Code]; ok {
		return code
	}
	return cli.ExitOther
}

// exitOf has the code of a call → exit code. Others are exitOther.
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
