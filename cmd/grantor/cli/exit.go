// Package cli is how a command of grantor fails, asks and prints: exit codes, prompts, tables, JSON and YAML. It knows no
// domain and imports no other package of this module.
package cli

import (
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"
)

// The exit codes, which tell a script what went wrong. 0 is success.
const (
	ExitOther = iota + 1
	ExitUsage
	ExitDenied
	ExitNotFound
	ExitConflict
	ExitUnavailable
	ExitInvalid
)

func NewExitCodesTopic() *cobra.Command {
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

// WithExit marks an error with an exit code; no error stays none.
func WithExit(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code, err}
}

// UsageError marks an error of the command line.
func UsageError(err error) error { return WithExit(ExitUsage, err) }

// SettingError names the setting that is wrong.
func SettingError(name string, err error) error { return UsageError(fmt.Errorf("%s: %w", name, err)) }

// exitCoder is an error that has an exit code of its own, such as the refusal of an issuer.
type exitCoder interface {
	error
	ExitCode() int
}

// ExitCode gives the exit code of a command that ended with err.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if call, ok := errors.AsType[exitCoder](err); ok {
		return call.ExitCode()
	}
	if unreachable(err) {
		return ExitUnavailable
	}
	if known, ok := errors.AsType[*exitError](err); ok {
		return known.code
	}
	return ExitOther
}

// unreachable reports whether nobody answered.
func unreachable(err error) bool {
	if operation, ok := errors.AsType[*net.OpError](err); ok && operation.Op == "dial" {
		return true
	}
	timed, ok := errors.AsType[net.Error](err) // a context's end by time is one, too
	return ok && timed.Timeout()
}
