package serve

import (
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync"
)

// DefaultGarbage is how many bytes of garbage accumulate before a collection. An issuer has a few MB of live heap and
// allocates hundreds of MB per second under load: Go's default, to collect when the garbage equals the live heap, would
// collect forty times a second. If the live heap exceeds this figure, the default applies, so that memory stays
// bounded. 64 MiB would save a twentieth of the time of a token and take 50 MB more; with 8 MiB a token would take a sixth
// longer.
const DefaultGarbage = 16 << 20

// skipHeapProfile ends the sampling of allocations, which the profiles of the setting profiling alone need. It takes a
// hundredth of the time of a token, and a megabyte.
var skipHeapProfile = sync.OnceFunc(func() { runtime.MemProfileRate = 0 })

// The bounds of GOGC: Go's default, and a value that bounds the heap if the live heap grows suddenly after GOGC was
// set.
const minGCPercent, maxGCPercent = 100, 1600

// TuneGC lets garbage bytes accumulate before a collection, unless the environment sets GOGC. GOMEMLIMIT keeps its
// meaning. The function that it returns restores Go's default.
func TuneGC(garbage uint64) (stop func()) {
	if _, ok := os.LookupEnv("GOGC"); ok {
		return func() {}
	}
	p := &pacer{garbage: garbage, percent: minGCPercent}
	// The figures that GOGC is a percentage of (https://go.dev/doc/gc-guide#GOGC).
	for _, name := range []string{"/gc/heap/live:bytes", "/gc/scan/stack:bytes", "/gc/scan/globals:bytes"} {
		p.marked = append(p.marked, runtimemetrics.Sample{Name: name})
	}
	p.watch()
	return p.stop
}

// pacer sets GOGC after each collection, based on the live heap that the collection found.
type pacer struct {
	garbage uint64

	mu      sync.Mutex
	marked  []runtimemetrics.Sample
	percent int
	stopped bool
}

// watch makes the next collection call adjust.
func (p *pacer) watch() {
	type cycle struct{ _ *byte } // has a pointer, so that the allocator does not combine it with other objects
	runtime.SetFinalizer(&cycle{}, func(*cycle) { p.adjust() })
}

func (p *pacer) adjust() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	runtimemetrics.Read(p.marked)
	marked := uint64(1) // nothing is marked before the first collection
	for _, m := range p.marked {
		marked += m.Value.Uint64()
	}
	percent := int(min(max(p.garbage*100/marked, minGCPercent), maxGCPercent))
	// Each change stops the world briefly, so changes of less than a tenth are skipped.
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
