// Package must shortens tests: it turns errors that a test does not expect into the end of that test.
//
// It is for tests alone and knows nothing of this project.
package must

import (
	"testing"
	"time"
)

// timeout is the longest that [Eventually] waits. It is far longer than any condition should take, since the machine that
// runs the tests may be busy.
const timeout = 30 * time.Second

// interval is the time between two evaluations of a condition.
const interval = 2 * time.Millisecond

// Get returns v. It panics if err is not nil, so that it serves in expressions and in the initializers of tables.
func Get[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Succeed ends the test if err is not nil.
func Succeed(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually evaluates cond until it returns true. It ends the test if that takes longer than 30 seconds.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for deadline := time.Now().Add(timeout); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, timeout)
		}
	}
}
