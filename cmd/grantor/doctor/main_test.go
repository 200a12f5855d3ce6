package doctor_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
)

// TestMain has the process trust one authority as it does those of the system: nothing else can name it to go-redis.
func TestMain(m *testing.M) {
	forget := servetest.Trust()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		forget()
		os.Exit(code)
	}))
}
