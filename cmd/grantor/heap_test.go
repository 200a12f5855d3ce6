package main

import (
	"os"
	"runtime"
	runtimemetrics "runtime/metrics"
	"testing"
	"time"
)

// gcPercent gives the percentage by which the collector works.
func gcPercent() uint64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/gogc:percent"}}
	runtimemetrics.Read(sample)
	return sample[0].Value.Uint64()
}

// TestGatherGarbage has the collector wait for leastGarbage beside what is alive, however much that is, and not where the
// environment says how it works.
func TestGatherGarbage(t *testing.T) {
	for live, want := range map[uint64]int{0: 6400, 1 << 20: 6400, 4 << 20: 1600, 32 << 20: 200, 64 << 20: 100, 1 << 30: 100} {
		if got := percentFor(live); got != want {
			t.Errorf("%d bytes alive: got %d %%, want %d", live, got, want)
		}
	}
	t.Setenv("GOGC", "100")
	gatherGarbage()()
	_ = os.Unsetenv("GOGC") // Setenv gives back what there was
	stop := gatherGarbage()
	await := func(what string, reached func(percent uint64) bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !reached(gcPercent()); runtime.GC() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the collector works by %d %%", what, gcPercent())
			}
		}
	}
	await("little is alive", func(percent uint64) bool { return percent > standardGCPercent })
	big := make([]byte, 2*leastGarbage)
	await("much is alive", func(percent uint64) bool { return percent == standardGCPercent })
	runtime.KeepAlive(big)
	await("little is alive again", func(percent uint64) bool { return percent > standardGCPercent })
	stop()
	runtime.GC()
	if got := gcPercent(); got != standardGCPercent {
		t.Errorf("got %d %% after the end, want %d", got, standardGCPercent)
	}
}
