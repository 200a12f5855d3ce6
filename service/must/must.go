// Package must shortens tests: its functions end a test at an error or a timeout that the test does not expect. [Buffer]
// holds the output of a server.
//
// It is only for tests, and depends on no other package of this project.
package must

import (
	"testing"
	"time"
)

// timeout is how long [Eventually] waits at most. It is far longer than any condition should take, because the machine
// that runs the tests may be busy.
const timeout = 30 * time.Second

// interval is the time between two evaluations of a condition.
const interval = 2 * time.Millisecond

// Get returns v. It panics if err is not nil, so that it can be used in expressions and in initializers of tables.
func Get[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Succeed ends the test if err is not nil.
func Succeed(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Eventually evaluates cond until it returns true. It ends the test if that takes longer than 30 seconds.
func Eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for deadline := time.Now().Add(timeout); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not within %s", what, timeout)
		}
	}
}
