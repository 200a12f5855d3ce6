package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
)

// TestMain makes the process trust one authority like those of the system. In the processes of a command, it runs the
// command.
func TestMain(m *testing.M) {
	if os.Getenv("COMMAND") != "" {
		main()
	}
	forget := servetest.Trust()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		forget()
		os.Exit(code)
	}))
}
