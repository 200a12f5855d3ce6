package main

import (
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync"
)

// leastGarbage is how much dead memory gathers before it is collected, in bytes. An issuer has a few MB alive and makes
// hundreds of MB a second under load: Go's own rule, to collect when as much is dead as alive, would collect sixty times a
// second. Where more than this is alive, that rule is in force, so that memory stays in bounds.
const leastGarbage = 64 << 20

// standardGCPercent is Go's own.
const standardGCPercent = 100

// gatherGarbage has the collector wait for leastGarbage, unless the environment says how it is to work (GOGC). GOMEMLIMIT
// works as ever. It returns what stops it.
func gatherGarbage() (stop func()) {
	if _, ok := os.LookupEnv("GOGC"); ok {
		return func() {}
	}
	p := &pacer{live: []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}, percent: standardGCPercent}
	p.watch()
	return p.stop
}

// pacer sets the collector's percentage after each collection, by how much is alive.
type pacer struct {
	mu      sync.Mutex
	live    []runtimemetrics.Sample
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
	runtimemetrics.Read(p.live)
	p.set(percentFor(p.live[0].Value.Uint64()))
	p.watch()
}

// set spares the collector changes of less than a tenth: each stops the world for a moment.
func (p *pacer) set(percent int) {
	if diff := percent - p.percent; diff*10 > p.percent || -diff*10 > p.percent {
		debug.SetGCPercent(percent)
		p.percent = percent
	}
}

// percentFor gives the percentage with which leastGarbage gathers beside so many bytes that are alive.
func percentFor(live uint64) int {
	return max(standardGCPercent, int(leastGarbage*100/max(live, 1<<20)))
}

func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	debug.SetGCPercent(standardGCPercent)
}
