package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// result is the outcome of a load. Its JSON is for scripts; durations are in milliseconds.
type result struct {
	Operation   string  `json:"operation"`
	Wire        string  `json:"wire"`
	Algorithm   string  `json:"alg"`
	Connections int     `json:"connections"`
	InFlight    int     `json:"in_flight"`
	Rate        float64 `json:"rate"`
	Seconds     float64 `json:"seconds"`
	// Calls counts the calls that succeeded within Seconds, and Failures the others, by their outcome. Unanswered counts the
	// calls of an open loop that were due and had no response at the end. UnderWay counts the calls that the end cut off,
	// including those of the warm-up, and Oldest is the age of the oldest of them: in an open loop since it was due.
	Calls      int64                   `json:"calls"`
	Failures   map[string]int64        `json:"failures"`
	Unanswered int64                   `json:"unanswered"`
	UnderWay   int64                   `json:"under_way"`
	Oldest     float64                 `json:"oldest_ms"`
	PerSecond  float64                 `json:"per_second"`
	Latency    latencies               `json:"latency_ms"`
	Histogram  *hdrhistogram.Histogram `json:"-"`
}

type latencies struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// result combines what the workers measured.
func (l *load) result(tallies []tally, t *target, measured time.Duration) *result {
	r := &result{
		Operation: l.Operation, Wire: l.Wire, Algorithm: t.Alg, Connections: l.Connections, InFlight: l.InFlight, Rate: l.Rate,
		Seconds: max(measured, 0).Seconds(), Failures: map[string]int64{}, Histogram: hdrhistogram.New(minLatency, maxLatency, digits),
	}
	for i := range tallies {
		kept := &tallies[i]
		r.Histogram.Merge(kept.latency)
		for failure, count := range kept.failures {
			r.Failures[failure] += count
		}
		r.UnderWay += kept.cutOff
		r.Oldest = max(r.Oldest, milliseconds(kept.oldest.Microseconds()))
	}
	r.Calls = r.Histogram.TotalCount()
	r.Unanswered = l.due(max(measured, 0))
	for _, count := range r.Failures {
		r.Unanswered -= count
	}
	r.Unanswered = max(r.Unanswered-r.Calls, 0)
	if r.Calls == 0 {
		return r
	}
	r.PerSecond = float64(r.Calls) / r.Seconds
	at := func(percentile float64) float64 { return milliseconds(r.Histogram.ValueAtPercentile(percentile)) }
	r.Latency = latencies{
		Mean: r.Histogram.Mean() / 1000, P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: milliseconds(r.Histogram.Max()),
	}
	return r
}

// milliseconds converts microseconds.
func milliseconds(us int64) float64 { return float64(us) / 1000 }

func (r *result) writeJSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

func (r *result) writeText(out io.Writer) error {
	loop := fmt.Sprintf("closed, %d in flight", r.InFlight)
	if r.Rate > 0 {
		loop = fmt.Sprintf("open, %g per second, at most %d in flight", r.Rate, r.InFlight)
	}
	lines := [][]string{
		{"calls", fmt.Sprintf("%s over %s, %s, %d connections", r.Operation, r.Wire, r.Algorithm, r.Connections)},
		{"loop", loop},
		{"answered", fmt.Sprintf("%d in %.1fs: %.0f/s", r.Calls, r.Seconds, r.PerSecond)},
	}
	for _, failure := range slices.Sorted(maps.Keys(r.Failures)) {
		lines = append(lines, []string{"failed", fmt.Sprintf("%d: %s", r.Failures[failure], failure)})
	}
	if r.Unanswered > 0 {
		lines = append(lines, []string{"unanswered", fmt.Sprintf("%d were due and had no response at the end", r.Unanswered)})
	}
	if r.Oldest > r.Latency.Max {
		lines = append(lines, []string{"under way", fmt.Sprintf("%d at the end, the oldest for %s", r.UnderWay, r.oldest())})
	}
	if l := r.Latency; r.Calls > 0 {
		lines = append(lines, []string{"latency", fmt.Sprintf("mean %.2f  50%% %.2f  90%% %.2f  99%% %.2f  99.9%% %.2f  max %.2f ms", l.Mean, l.P50, l.P90, l.P99, l.P999, l.Max)})
	}
	if err := cli.WriteTable(out, lines...); err != nil {
		return err
	}
	_, err := io.WriteString(out, r.draw())
	return err
}

// oldest formats the age of the oldest call in flight.
func (r *result) oldest() string {
	if r.Oldest < 1000 {
		return fmt.Sprintf("%.1fms", r.Oldest)
	}
	return fmt.Sprintf("%.1fs", r.Oldest/1000)
}

// barWidth is the width of the longest bar, in characters.
const barWidth = 50

// draw draws the latencies: a line for each step of a factor of about 1.6, so that slow calls, which are few and far
// out, are visible.
func (r *result) draw() string {
	type step struct {
		upTo  int64
		count int64
	}
	var steps []step
	for scale := int64(1); scale <= maxLatency; scale *= 10 {
		for _, bound := range []int64{10, 16, 25, 40, 63} {
			steps = append(steps, step{upTo: bound * scale})
		}
	}
	for _, bar := range r.Histogram.Distribution() {
		at := slices.IndexFunc(steps, func(s step) bool { return bar.From < s.upTo })
		steps[at].count += bar.Count
	}
	used := func(s step) bool { return s.count > 0 }
	first := slices.IndexFunc(steps, used)
	if first < 0 {
		return ""
	}
	last := len(steps) - 1
	for !used(steps[last]) {
		last--
	}
	largest := slices.MaxFunc(steps, func(a, b step) int { return int(a.count - b.count) }).count
	var text strings.Builder
	for _, s := range steps[first : last+1] {
		length := int(s.count * barWidth / largest)
		mark := strings.Repeat("█", length)
		if length == 0 && s.count > 0 {
			mark = "▏"
		}
		_, _ = fmt.Fprintf(&text, "≤ %8.2f ms |%-*s %d\n", milliseconds(s.upTo), barWidth, mark, s.count)
	}
	return text.String()
}
