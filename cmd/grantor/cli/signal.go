package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// interruptTimeout is how long a command may take to end after a signal.
const interruptTimeout = time.Second

// exitSignal is added to the number of the signal that ended a command, as a shell does.
const exitSignal = 128

// interruption says what may happen to a command after a signal. It is in the context of the command.
type interruption struct {
	// section is held for reading by the sections that must not be interrupted.
	section sync.RWMutex
	// own is set if the command decides itself when and how it ends.
	own atomic.Bool
}

type interruptionKey struct{}

// Uninterrupted begins a section that must not end halfway, such as writing a file, and returns the function that ends it.
// A section must be short, and must not contain another.
func Uninterrupted(ctx context.Context) (end func()) {
	i, ok := ctx.Value(interruptionKey{}).(*interruption)
	if !ok {
		return func() {}
	}
	i.section.RLock()
	return i.section.RUnlock
}

// EndsItself says that the command ends after a signal in its own time and with its own exit code, as a server does that
// lets calls in flight end.
func EndsItself(ctx context.Context) {
	if i, ok := ctx.Value(interruptionKey{}).(*interruption); ok {
		i.own.Store(true)
	}
}

// Main runs a command and returns the exit code of the process. It writes the error of the command to errOut.
//
// SIGINT and SIGTERM end the context of the command. The command may be unable to notice, because it waits for something
// that no context ends, such as a FIFO without a writer, or computes. Main therefore waits for it no longer than a second,
// except for the end of a section that is [Uninterrupted]. A second signal ends the process at once.
func Main(command func(context.Context) error, errOut io.Writer) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	i := &interruption{}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), interruptionKey{}, i))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- command(ctx) }()
	select {
	case err := <-ended:
		return report(err, errOut)
	case s := <-signals:
		signal.Stop(signals)
		cancel()
		err := i.wait(ended)
		if err == nil || i.own.Load() {
			return report(err, errOut)
		}
		return reportInterrupted(err, s, errOut)
	}
}

// wait waits for the end of a command after a signal. If that takes too long, it returns [context.Canceled], and no
// uninterrupted section can begin anymore.
func (i *interruption) wait(ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-time.After(interruptTimeout):
	}
	if i.own.Load() {
		return <-ended
	}
	outside := make(chan struct{})
	go func() {
		i.section.Lock()
		close(outside)
	}()
	select {
	case err := <-ended:
		return err
	case <-outside:
		return context.Canceled
	}
}

// report writes the error of a command and returns its exit code.
func report(err error, errOut io.Writer) int {
	if err != nil {
		_, _ = fmt.Fprintln(errOut, "grantor:", err)
	}
	return ExitCode(err)
}

// reportInterrupted reports that a signal ended a command, and the error of the command if it has another reason.
func reportInterrupted(err error, s os.Signal, errOut io.Writer) int {
	if errors.Is(err, context.Canceled) {
		_, _ = fmt.Fprintln(errOut, "grantor: interrupted")
	} else {
		_, _ = fmt.Fprintln(errOut, "grantor: interrupted:", err)
	}
	number, ok := s.(syscall.Signal)
	if !ok {
		return ExitOther
	}
	return exitSignal + int(number)
}
