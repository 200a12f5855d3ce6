package serve_test

import (
	"os"
	"runtime"
	runtimemetrics "runtime/metrics"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/serve"
)

// gcPercent returns GOGC as the runtime has it.
func gcPercent() uint64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/gogc:percent"}}
	runtimemetrics.Read(sample)
	return sample[0].Value.Uint64()
}

// TestTuneGC expects GOGC to grow where the live heap is small, and to be Go's default where it is large, after the
// end, and where the environment sets it. The live heap of the test process is unknown, so the amount of garbage varies
// instead.
func TestTuneGC(t *testing.T) {
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
		// A change would be visible by now.
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
