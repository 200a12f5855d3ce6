package ports_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the attack in the processes that attack.
func TestMain(m *testing.M) {
	if name := os.Getenv("ATTACK"); name != "" {
		attack(name)
	}
	goleak.VerifyTestMain(m)
}
