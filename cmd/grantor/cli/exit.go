// Package cli is how a command of grantor fails, asks and prints: exit codes, prompts, tables, JSON and YAML. It knows no
// domain and imports no other package of this module.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes of a command, which let a script distinguish failures. 0 is success.
const (
	ExitOther = iota + 1
	ExitUsage
	ExitDenied
	ExitNotFound
	ExitConflict
	ExitUnavailable
	ExitInvalid
)

// NewExitCodesTopic returns the help topic on exit codes.
func NewExitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit code of a command means",
		Long: `Every command ends with one of these codes:

  0  it succeeded
  1  it failed for a reason that is not below
  2  the command line or a setting is wrong, or names a file or a key that cannot be used
  3  the issuer or Redis refused the client or user, which could not authenticate or lacks a permission
  4  there is no such client, secret, resource or key
  5  it already exists, was changed concurrently, or its state does not allow this
  6  the issuer or Redis is unreachable, or asks to retry later
  7  the input is not valid: a field of a client or resource, a line of a file of clients, or a token

  130, 143  it was interrupted by SIGINT (Ctrl-C) or SIGTERM before it was done

grantor serve, grantor guard, grantor audit --follow and grantor bench have done their work when they are interrupted, and
end with 0.
grantor doctor ends with 0, 1 or 2: an issuer or a Redis that it cannot reach is a finding, and so 1.`,
	}
}

// exitError is an error with an exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// WithExit returns err with an exit code, or nil if err is nil.
func WithExit(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code, err}
}

// UsageError returns err as an error of the command line, or nil if err is nil.
func UsageError(err error) error { return WithExit(ExitUsage, err) }

// InputError returns the error of reading a file that the command line names: of the command line if the file cannot be
// read, and otherwise of its content. It returns nil if err is nil.
func InputError(err error) error {
	if _, unreadable := errors.AsType[*fs.PathError](err); unreadable {
		return UsageError(err)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return WithExit(ExitInvalid, err)
}

// SettingError returns an error that names the setting which caused it.
func SettingError(name string, err error) error { return UsageError(fmt.Errorf("%s: %w", name, err)) }

// OneOf validates that the value of a setting is one of the words. Its error does not name the setting.
func OneOf(value string, words ...string) error {
	switch {
	case slices.Contains(words, value):
		return nil
	case len(words) == 2:
		return fmt.Errorf("%.20q is neither %s nor %s", value, words[0], words[1])
	}
	return fmt.Errorf("%.20q is not one of %s", value, strings.Join(words, ", "))
}

// CheckOutput validates the setting output of a command that prints text or JSON.
func CheckOutput(form string) error {
	if err := OneOf(form, "text", "json"); err != nil {
		return SettingError("output", err)
	}
	return nil
}

// exitCoder is an error that determines its exit code itself, such as the refusal of an issuer.
type exitCoder interface {
	error
	ExitCode() int
}

// ExitCode returns the exit code of a command that returned err. The code of a remote call takes precedence, then a
// network failure, then the code given to [WithExit], the innermost one if there are several: it is the most specific.
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
	code := ExitOther
	for coded, ok := errors.AsType[*exitError](err); ok; coded, ok = errors.AsType[*exitError](coded.err) {
		code = coded.code
	}
	return code
}

// unreachable reports whether err means that the peer did not answer.
func unreachable(err error) bool {
	// The other operations are listening, and "remote error", by which a peer says why it ends a TLS connection.
	if operation, ok := errors.AsType[*net.OpError](err); ok && slices.Contains([]string{"dial", "read", "write"}, operation.Op) {
		return true
	}
	timeout, ok := errors.AsType[net.Error](err) // context.DeadlineExceeded is a net.Error too
	return ok && timeout.Timeout()
}
