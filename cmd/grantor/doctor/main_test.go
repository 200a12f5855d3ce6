package doctor_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
)

// TestMain makes the process trust one authority like those of the system.
func TestMain(m *testing.M) {
	forget := servetest.Trust()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		forget()
		os.Exit(code)
	}))
}
