package local_test

import (
	"testing"
	"time"

	"github.com/grantorhq/grantor/tools/local"
)

func TestParseCPU(t *testing.T) {
	got, err := local.ParseCPU("42 (a b) c) S 1 1 1 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 8 0 1000 0 0")
	if err != nil || got != 2*time.Second {
		t.Errorf("got %v, %v; want 2s", got, err)
	}
	if _, err := local.ParseCPU("42 (a) S 1"); err == nil {
		t.Error("got no error for a truncated line")
	}
}
