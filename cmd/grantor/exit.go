package main

import (
	"errors"
	"net"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// The exit codes, which tell a script what went wrong. 0 is success.
const (
	exitOther = iota + 1
	exitUsage
	exitDenied
	exitNotFound
	exitConflict
	exitUnavailable
	exitInvalid
)

func newExitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit code of a command says",
		Long: `Every command ends with one of these codes:

  0  it did what was asked for
  1  it failed for a reason that is not below
  2  the command line or a setting is wrong; nothing was asked of anybody
  3  the client is not who it says it is, or may not do this
  4  there is no such client, secret, resource or key
  5  it is there already, somebody else changed it meanwhile, or its state does not allow this
  6  the issuer or the Redis cannot be reached, or asks to try later
  7  what was given is not valid: a field of a client or resource, or a line of a file

grantor doctor ends with 0, 1 or 2: an issuer or a Redis that it cannot reach is what it finds, and so 1.`,
	}
}

// exitError is an error of which it is known what kind it is.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// withExit marks an error with an exit code; no error stays none.
func withExit(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code, err}
}

// usage marks an error of the command line.
func usage(err error) error { return withExit(exitUsage, err) }

// callError is an issuer's refusal, or a call that did not reach it. The text is one line that is safe to print.
type callError struct {
	code codes.Code
	text string
	// message is what the issuer said, not safe to print; field and problem are what it found wrong, where it told.
	message, field, problem string
}

func (e *callError) Error() string { return e.text }

// exitOf has the code of a call → exit code. Others are exitOther.
var exitOf = map[codes.Code]int{
	codes.Unauthenticated:    exitDenied,
	codes.PermissionDenied:   exitDenied,
	codes.NotFound:           exitNotFound,
	codes.AlreadyExists:      exitConflict,
	codes.Aborted:            exitConflict,
	codes.FailedPrecondition: exitConflict,
	codes.Unavailable:        exitUnavailable,
	codes.DeadlineExceeded:   exitUnavailable,
	codes.ResourceExhausted:  exitUnavailable,
	codes.InvalidArgument:    exitInvalid,
	codes.OutOfRange:         exitInvalid,
}

// exitCode gives the exit code of a command that ended with err.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if call, ok := errors.AsType[*callError](err); ok {
		if code, ok := exitOf[call.code]; ok {
			return code
		}
		return exitOther
	}
	if unreachable(err) {
		return exitUnavailable
	}
	if known, ok := errors.AsType[*exitError](err); ok {
		return known.code
	}
	return exitOther
}

// unreachable reports whether nobody answered.
func unreachable(err error) bool {
	if operation, ok := errors.AsType[*net.OpError](err); ok && operation.Op == "dial" {
		return true
	}
	timed, ok := errors.AsType[net.Error](err) // a context's end by time is one, too
	return ok && timed.Timeout()
}
