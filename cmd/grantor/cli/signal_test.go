package cli_test

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/must"
)

// TestMainAfterSignal expects each command to end after a signal, by itself or not.
func TestMainAfterSignal(t *testing.T) {
	written := false
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	for _, c := range []struct {
		name    string
		signal  syscall.Signal
		command func(context.Context) error
		code    int
		text    string
	}{
		{"ends by itself", syscall.SIGTERM, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 143, "grantor: interrupted\n"},
		{"has an error of its own", syscall.SIGINT, func(context.Context) error { return errors.New("broken") }, 130, "grantor: interrupted: broken\n"},
		{"is done", syscall.SIGINT, func(context.Context) error { return nil }, 0, ""},
		{"does not notice", syscall.SIGINT, func(context.Context) error { <-never; return nil }, 130, "grantor: interrupted\n"},
		{"writes a file", syscall.SIGTERM, func(ctx context.Context) error {
			end := cli.Uninterrupted(ctx)
			time.Sleep(1500 * time.Millisecond)
			written = true
			end()
			<-never
			return nil
		}, 143, "grantor: interrupted\n"},
		{"takes its time", syscall.SIGTERM, func(ctx context.Context) error {
			cli.EndsItself(ctx)
			time.Sleep(1500 * time.Millisecond)
			return cli.WithExit(cli.ExitConflict, errors.New("cut off"))
		}, cli.ExitConflict, "grantor: cut off\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var errOut bytes.Buffer
			begin := time.Now()
			code := cli.Main(func(ctx context.Context) error {
				must.Succeed(t, syscall.Kill(syscall.Getpid(), c.signal))
				if c.text != "" {
					<-ctx.Done()
				} else {
					time.Sleep(100 * time.Millisecond)
				}
				return c.command(ctx)
			}, &errOut)
			if code != c.code || errOut.String() != c.text || time.Since(begin) > 10*time.Second {
				t.Errorf("got %d after %s with %q, want %d with %q", code, time.Since(begin), errOut.String(), c.code, c.text)
			}
		})
	}
	if !written {
		t.Error("a section that must not be interrupted was")
	}
}

// TestMainWithoutSignal expects the exit code of the error.
func TestMainWithoutSignal(t *testing.T) {
	var errOut bytes.Buffer
	code := cli.Main(func(ctx context.Context) error {
		defer cli.Uninterrupted(ctx)()
		return cli.UsageError(errors.New("wrong"))
	}, &errOut)
	if code != cli.ExitUsage || errOut.String() != "grantor: wrong\n" {
		t.Errorf("got %d and %q", code, errOut.String())
	}
	cli.Uninterrupted(t.Context())() // of a command that runs without Main
	cli.EndsItself(t.Context())
}
