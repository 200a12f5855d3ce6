package vaulttest

import (
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/interceptors/secretvar"
)

// Mark is part of every secret of the tests, and of every token, so that a fragment of one in an error is found too.
const Mark = "s3cret"

// interval is the time between two reads of a variable.
const interval = 10 * time.Millisecond

// Open opens a variable, which is closed when the test ends.
func Open(t testing.TB, rawURL string) *secretvar.Variable {
	t.Helper()
	variable, err := secretvar.Open(t.Context(), rawURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := variable.Close(); err != nil {
			t.Error(err)
		}
	})
	return variable
}

// Refused checks that a URL cannot be opened, for the reason want and without a secret in the error.
func Refused(t testing.TB, rawURL, want string) {
	t.Helper()
	variable, err := secretvar.Open(t.Context(), rawURL)
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), Mark) {
		t.Errorf("%s: got %v, want %q in it and no secret", rawURL, err, want)
	}
	if variable != nil {
		_ = variable.Close()
	}
}

// Fails checks that a secret cannot be read, for the reason want and without a secret in the error.
func Fails(t testing.TB, rawURL, want string) {
	t.Helper()
	got, err := Open(t, rawURL).Secret(t.Context())
	if got != "" || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), Mark) {
		t.Errorf("%s: got %q, %v, want one line with %q and no secret", rawURL, got, err, want)
	}
}

// Await waits until a variable has the value want.
func Await(t testing.TB, variable *secretvar.Variable, want string) {
	t.Helper()
	const timeout = 30 * time.Second
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for deadline := time.Now().Add(timeout); ; <-tick.C {
		got, err := variable.Secret(t.Context())
		if err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %q, %v, want %q within %v", got, err, want, timeout)
		}
	}
}

// Keeps checks that a variable keeps its value while reads fail.
func Keeps(t testing.TB, variable *secretvar.Variable, want string) {
	t.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for deadline := time.Now().Add(15 * interval); time.Now().Before(deadline); <-tick.C {
		if got, err := variable.Secret(t.Context()); got != want || err != nil {
			t.Fatalf("got %q, %v, want the last secret", got, err)
		}
	}
}
