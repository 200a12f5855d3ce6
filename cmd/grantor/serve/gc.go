package serve

import (
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync"
)

// DefaultGarbage is how much dead memory gathers before it is collected, in bytes. An issuer has a few MB alive and makes
// hundreds of MB a second under load: Go's own rule, to collect when as much is dead as alive, would collect sixty times a
// second. Where more than this is alive, that rule is in force, so that memory stays in bounds.
const DefaultGarbage = 64 << 20

// The bounds of the collector's percentage: Go's own, and as much as does not let memory grow far where suddenly much more
// is alive than when it was set.
const minGCPercent, maxGCPercent = 100, 1600

// TuneGC has the collector wait for so many bytes, unless the environment says how it is to work (GOGC). GOMEMLIMIT
// works as ever. It returns what gives the collector back.
func TuneGC(garbage uint64) (stop func()) {
	if _, ok := os.LookupEnv("GOGC"); ok {
		return func() {}
	}
	p := &pacer{garbage: garbage, percent: minGCPercent}
	// What the percentage is of (https://go.dev/doc/gc-guide#GOGC).
	for _, name := range []string{"/gc/heap/live:bytes", "/gc/scan/stack:bytes", "/gc/scan/globals:bytes"} {
		p.marked = append(p.marked, runtimemetrics.Sample{Name: name})
	}
	p.watch()
	return p.stop
}

// pacer sets the collector's percentage after each collection, by how much it found.
type pacer struct {
	garbage uint64

	mu      sync.Mutex
	marked  []runtimemetrics.Sample
	percent int
	stopped bool
}

// watch has adjust called after the next collection.
func (p *pacer) watch() {
	type cycle struct{ _ *byte } // with a pointer, so that it is no part of another object
	runtime.SetFinalizer(&cycle{}, func(*cycle) { p.adjust() })
}

func (p *pacer) adjust() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	runtimemetrics.Read(p.marked)
	marked := uint64(1) // before the first collection nothing is
	for _, m := range p.marked {
		marked += m.Value.Uint64()
	}
	percent := int(min(max(p.garbage*100/marked, minGCPercent), maxGCPercent))
	// Each change stops the world for a moment, so small ones are left out.
	if diff := percent - p.percent; diff*10 > p.percent || -diff*10 > p.percent {
		debug.SetGCPercent(percent)
		p.percent = percent
	}
	p.watch()
}

func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	debug.SetGCPercent(minGCPercent)
}
