package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
)

// TestMain makes the process trust one authority like those of the system. In the processes that
// attack, it runs the attack, and in those of a command, the command.
func TestMain(m *testing.M) {
	if os.Getenv("COMMAND") != "" {
		main()
	}
	if name := os.Getenv("ATTACK"); name != "" {
		attack(name)
	}
	forget := servetest.Trust()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		forget()
		os.Exit(code)
	}))
}
