package bench

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The operations and the transports of a load.
const (
	operationIssue      = "issue"
	operationIntrospect = "introspect"
	wireGRPC            = "grpc"
	wireREST            = "rest"
)

// load says which calls are made, how many and how fast.
type load struct {
	Operation, Wire       string
	Connections, InFlight int
	Rate                  float64
	Duration, WarmUp      time.Duration
	Calls                 int64
	Scopes, Resources     []string
	Tokens                int
}

// The bounds of what the histograms hold, in microseconds, and their precision in digits.
const (
	minLatency, maxLatency = 1, int64(10 * time.Minute / time.Microsecond)
	digits                 = 3
)

// tally aggregates the outcomes of calls.
type tally struct {
	mu       sync.Mutex
	latency  *hdrhistogram.Histogram
	failures map[string]int64
	// cutOff counts the calls that the end cut off, and oldest is the duration of the longest of them.
	cutOff int64
	oldest time.Duration
}

// maxTallies bounds the memory of a load: a tally takes about 170 kB. Up to this number of calls in flight each has its
// own, so that measuring makes none wait for another.
const maxTallies = 64

// add records the outcome of a call.
func (r *tally) add(failure string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if failure != "" {
		r.failures[failure]++
		return
	}
	_ = r.latency.RecordValue(min(max(took.Microseconds(), minLatency), maxLatency))
}

// cut records a call that the end cut off.
func (r *tally) cut(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cutOff++
	r.oldest = max(r.oldest, took)
}

// progress is what the workers of a load share.
type progress struct {
	start, measured time.Time
	// interval is the time from one call to the next in an open loop, in nanoseconds. It is 0 in a closed loop.
	interval float64
	number   atomic.Int64 // of the next call
	// answered and failed include the warm-up.
	answered, failed atomic.Int64
}

// run runs and measures the load. It ends early if ctx does, or when a limited number of calls is made.
func (l *load) run(ctx context.Context, t *target, show func(string)) *result {
	start := time.Now()
	u := &progress{start: start, measured: start.Add(l.WarmUp)}
	end := u.measured.Add(l.Duration)
	// The end cancels the calls in flight. A deadline would be sent to the server, which would then answer before it passes.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(time.Until(end), cancel).Stop()
	if l.Rate > 0 {
		u.interval = float64(time.Second) / l.Rate
	}
	tallies := make([]tally, min(l.InFlight, maxTallies))
	for i := range tallies {
		tallies[i].latency, tallies[i].failures = hdrhistogram.New(minLatency, maxLatency, digits), map[string]int64{}
	}
	var working sync.WaitGroup
	for i := range l.InFlight {
		working.Go(func() {
			for l.next(ctx, t, u, &tallies[i%len(tallies)], i%l.Connections) {
			}
		})
	}
	stop := reportProgress(ctx, start, l.WarmUp, &u.answered, &u.failed, show)
	working.Wait()
	stop()
	return l.result(tallies, t, min(time.Since(u.measured), l.Duration))
}

// next makes the next call when it is due, and records its outcome. It returns false if there is no next call.
func (l *load) next(ctx context.Context, t *target, u *progress, r *tally, connection int) bool {
	n := u.number.Add(1) - 1
	if ctx.Err() != nil || l.Calls > 0 && n >= l.Calls {
		return false
	}
	began := time.Now()
	if u.interval > 0 {
		began = u.start.Add(time.Duration(float64(n) * u.interval))
		if began.Before(u.measured) && !time.Now().Before(u.measured) {
			return true // the backlog of the warm-up would delay the calls that are measured
		}
		if !sleepUntil(ctx, began) {
			return false
		}
	}
	failure := t.Call(ctx, connection, n)
	took := time.Since(began)
	if ctx.Err() != nil {
		r.cut(took) // neither answered nor failed
		return false
	}
	if failure == "" {
		u.answered.Add(1)
	} else {
		u.failed.Add(1)
	}
	if !began.Before(u.measured) {
		r.add(failure, took)
	}
	return true
}

// due returns how many calls of an open loop were due after the warm-up, within a measured time.
func (l *load) due(measured time.Duration) int64 {
	// A call is due at each multiple of the interval, and so also at the start. The tolerance makes up for the rounding of
	// fractions.
	until := func(moment time.Duration) int64 { return int64(math.Ceil(moment.Seconds()*l.Rate - 1e-6)) }
	begun, all := until(l.WarmUp), until(l.WarmUp+measured)
	if l.Calls > 0 {
		begun, all = min(begun, l.Calls), min(all, l.Calls)
	}
	return all - begun
}

// sleepUntil waits until t. It returns false if ctx ends first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	wait := time.Until(t)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// reportProgress shows the progress each second, until the function that it returns is called.
func reportProgress(ctx context.Context, start time.Time, warmUp time.Duration, answered, failed *atomic.Int64, show func(string)) func() {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		before := int64(0)
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			now := answered.Load()
			phase := ""
			if time.Since(start) < warmUp {
				phase = "  (warm-up)"
			}
			show(fmt.Sprintf("%4.0fs  %8d/s  %d failed%s", time.Since(start).Seconds(), now-before, failed.Load(), phase))
			before = now
		}
	})
	return func() { close(done); running.Wait() }
}
