package serve_test

import (
	"os"
	"runtime"
	runtimemetrics "runtime/metrics"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/serve"
)

// gcPercent gives the percentage by which the collector works.
func gcPercent() uint64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/gogc:percent"}}
	runtimemetrics.Read(sample)
	return sample[0].Value.Uint64()
}

// TestGatherGarbage has the collector wait where little is alive, and not where much is, when that has ended, or where the
// environment says how it works. How much is alive in the process of the tests is not known, so what is little is chosen.
func TestGatherGarbage(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Fatal("the environment has GOGC, by which the tests do not work")
	}
	const tebibyte = 1 << 40
	for _, c := range []struct {
		name    string
		garbage uint64
		gogc    bool
		want    uint64
	}{
		{"little is alive", tebibyte, false, serve.MaxGCPercent},
		{"much is alive", 1, false, serve.MinGCPercent},
		{"GOGC is set", tebibyte, true, serve.MinGCPercent},
	} {
		if c.gogc {
			t.Setenv("GOGC", "100")
		}
		stop := serve.TuneGC(c.garbage)
		for deadline := time.Now().Add(10 * time.Second); gcPercent() != c.want && time.Now().Before(deadline); {
			runtime.GC()
		}
		// It would show by now.
		for range 3 {
			runtime.GC()
		}
		if got := gcPercent(); got != c.want {
			t.Errorf("%s: the collector works by %d %%, want %d", c.name, got, c.want)
		}
		stop()
		runtime.GC()
		if got := gcPercent(); got != serve.MinGCPercent {
			t.Errorf("%s: %d %% after the end", c.name, got)
		}
	}
}
