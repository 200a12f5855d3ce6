package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
)

// TestMain makes the process trust one authority like those of the system. In the processes that attack, it
// runs the attack.
func TestMain(m *testing.M) {
	if name := os.Getenv("ATTACK"); name != "" {
		attack(name)
	}
	forget := servetest.Trust()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		forget()
		os.Exit(code)
	}))
}
