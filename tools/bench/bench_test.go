package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/tools/figures"
)

// TestMarks checks figures on both sides of each kind of target: those on the wrong side are marked as missed.
func TestMarks(t *testing.T) {
	for _, c := range []struct {
		target target
		value  float64
		met    bool
	}{
		{atLeast(0.85), 0.85, true},
		{atLeast(0.85), 0.8499, false},
		{atMost(6, "allocations"), 6, true},
		{atMost(6, "allocations"), 7, false},
		{below(1000, "ns"), 999, true},
		{below(1000, "ns"), 1000, false},
		{atLeast(0.85), math.NaN(), false},
		{target{}, 1, false},
	} {
		if c.target.met(c.value) != c.met {
			t.Errorf("%g against %s: want met=%t", c.value, c.target.text("%g"), c.met)
		}
	}
	f := &findings{title: "Section", notes: "calls"}
	f.judge("fast", "floor", atLeast(0.85), 0.9, "0.90")
	f.judge("slow", "floor", atLeast(0.85), 0.8, "0.80")
	f.judgeSpread("close", "floor", atLeast(0.80), figures.Spread{Median: 0.798, Min: 0.7, Max: 0.9}, 3, "")
	f.judgeSpread("closer", "floor", atLeast(0.80), figures.Spread{Median: 0.79996, Min: 0.7, Max: 0.9}, 3, "times")
	f.judgeSpread("beside", "floor", target{}, figures.Spread{Median: 2, Min: 1, Max: 3}, 1, "s")
	report, err := newReport("a machine", false).write([]*findings{f})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| fast | floor | ≥ 0.85 | 0.90 | **met** |\n", "| slow | floor | ≥ 0.85 | 0.80 | **missed** |\n", "- slow: ",
		"| close | floor | ≥ 0.8 | 0.798 (0.700–0.900) | **missed** |\n", "| closer | floor | ≥ 0.8 | 0.79996 (0.70000–0.90000) times | **missed** |\n",
		"| beside | floor | none | 2.0 (1.0–3.0) s | for information |\n",
	} {
		if !strings.Contains(string(report), want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	if _, err := newReport("", false).write([]*findings{{notes: "no such part"}}); err == nil {
		t.Error("got no error for a section without notes")
	}
	quick, err := newReport("a machine", true).write([]*findings{f})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"its loads are too short", "| fast | floor | ≥ 0.85 | 0.90 | not judged |\n", "| slow | floor | ≥ 0.85 | 0.80 | not judged |\n"} {
		if !strings.Contains(string(quick), want) {
			t.Errorf("the report of a quick run lacks %q:\n%s", want, quick)
		}
	}
	for _, mark := range []string{markMet, markMissed} {
		if strings.Contains(string(quick), mark) {
			t.Errorf("the report of a quick run has %s:\n%s", mark, quick)
		}
	}
}

// TestGroups expects that the processor time of calls is the first table, with its further columns.
func TestGroups(t *testing.T) {
	f := &findings{title: "Section", notes: "calls"}
	f.judge("other", "floor", atLeast(1), 1, "1")
	f.judgeIn(callGroup, "call", "floor", atLeast(0.85), 0.9, "0.900").more = []string{"40.0", "36.0", "0.95", "50.0", "47.5"}
	report, err := newReport("a machine", false).write([]*findings{f})
	if err != nil {
		t.Fatal(err)
	}
	call := strings.Index(string(report), "| call | floor | ≥ 0.85 | 0.900 | **met** | 40.0 | 36.0 | 0.95 | 50.0 | 47.5 |\n")
	other := strings.Index(string(report), "| other | floor | ≥ 1 | 1 | **met** |\n")
	if call < 0 || other < call {
		t.Errorf("the rows are at %d and %d:\n%s", call, other, report)
	}
}

// TestLoadCheck checks that a load with failures, without calls or behind its rate is an error.
func TestLoadCheck(t *testing.T) {
	for _, c := range []struct {
		m  loadResult
		ok bool
	}{
		{loadResult{Calls: 5, InFlight: 64, Unanswered: 64}, true},
		{loadResult{Calls: 5, InFlight: 64, Unanswered: 65}, false},
		{loadResult{Calls: 5, Failures: map[string]int64{"Unavailable": 1}}, false},
		{loadResult{}, false},
	} {
		if err := c.m.check(); (err == nil) != c.ok {
			t.Errorf("%+v: got %v", c.m, err)
		}
	}
}

// TestReads checks that an unknown command counts as a read.
func TestReads(t *testing.T) {
	for command, want := range map[string]bool{"hget": true, "xread": true, "xinfo|stream": true, "new": true, "hset": false, "client|setinfo": false, "evalsha": false} {
		if isRead(command) != want {
			t.Errorf("%s: want %t", command, want)
		}
	}
}

// TestPart checks that a partial report requires -o, so that it does not replace the whole report.
func TestPart(t *testing.T) {
	usual := settings{rounds: 7, duration: time.Second, tokens: 1000}
	if s := usual; s.prepare("", "") != nil {
		t.Error("the whole report requires -o")
	}
	if s := usual; s.prepare("scale", "") == nil {
		t.Error("a part of the report does not require -o")
	}
	if s := usual; s.prepare("", "federated") == nil {
		t.Error("a part of the pairs does not require -o")
	}
	if s := usual; func() error { s.quick = true; return s.prepare("", "") }() == nil {
		t.Error("a quick run does not require -o")
	}
}

// TestReasons expects that a reason is printed for the figures that it explains, and for no other.
func TestReasons(t *testing.T) {
	parts := notes("## one\n\ntext\n\n## misses\n\n- `a, b` (0.7–0.75): because\n  of this\n- `c` (1–2): that\n")
	if parts["one"] != "text" {
		t.Errorf("got %q", parts["one"])
	}
	found, err := reasons(parts["misses"])
	if err != nil || len(found) != 2 || *found["a, b"] != (reason{0.7, 0.75, "because of this"}) || *found["c"] != (reason{1, 2, "that"}) {
		t.Errorf("got %v, %v", found, err)
	}
	for _, c := range []struct {
		goal goal
		want string
	}{
		{goal{value: 0.74}, "because of this"},
		{goal{value: 0.74, reason: "9 µs more."}, "9 µs more. because of this"},
		{goal{value: 0.76}, "the reason is not known yet."},
		{goal{value: 0.76, reason: "9 µs more."}, "9 µs more."},
	} {
		if got := c.goal.why(found["a, b"]); got != c.want {
			t.Errorf("at %g: got %q, want %q", c.goal.value, got, c.want)
		}
	}
	if _, err := reasons("- `a`: without a range"); err == nil {
		t.Error("got no error for a reason without a range")
	}
	if _, err := reasons(notes(notesText)["misses"]); err != nil {
		t.Errorf("notes.md: %v", err)
	}
}

func TestParseBenchmark(t *testing.T) {
	name, figures, ok := parseBenchmark("BenchmarkSign/ES256/grantor-2   \t 100\t 12345 ns/op\t 4.5 B/op\t 5 allocs/op\t 6 bytes/revocation\n")
	if !ok || name != "BenchmarkSign/ES256/grantor" || len(figures) != 4 {
		t.Fatalf("got %s, %v, %t", name, figures, ok)
	}
	for unit, want := range map[string]float64{"ns/op": 12345, "B/op": 4.5, "allocs/op": 5, "bytes/revocation": 6} {
		if figures[unit] != want {
			t.Errorf("%s: got %g, want %g", unit, figures[unit], want)
		}
	}
	if name, _, _ := parseBenchmark("BenchmarkRevocations/seen/n=1000 5 1.5e+03 ns/op"); name != "BenchmarkRevocations/seen/n=1000" {
		t.Errorf("got %s", name)
	}
	for _, line := range []string{"", "PASS", "BenchmarkSign", "BenchmarkSign/ES256", "BenchmarkSign 100 x ns/op", "BenchmarkSign 100 5", "goos: linux a b"} {
		if _, _, ok := parseBenchmark(line); ok {
			t.Errorf("%q parses as a benchmark", line)
		}
	}
}

// newRuns returns the benchmarks of the lines, each run twice.
func newRuns(lines ...string) *runs {
	r := &runs{figures: map[benchmark]map[string][]float64{}}
	for range 2 {
		for _, line := range lines {
			suite, line, _ := strings.Cut(line, ": ")
			r.add(suite, line)
		}
	}
	return r
}

// goodLines is a full set of the benchmarks with a target.
var goodLines = []string{
	"interceptors/verify: BenchmarkUnary/seen/grantor 1 1009 ns/op 0 B/op 6 allocs/op",
	"interceptors/verify: BenchmarkUnary/seen/floor 1 10 ns/op 0 B/op 0 allocs/op",
	"interceptors/verify: BenchmarkUnary/new/grantor 1 111 ns/op 0 B/op 9 allocs/op",
	"interceptors/verify: BenchmarkUnary/new/floor 1 100 ns/op 0 B/op 1 allocs/op",
	"interceptors/verify: BenchmarkBound/seen/grantor 1 309 ns/op 0 B/op 3 allocs/op",
	"interceptors/verify: BenchmarkBound/seen/floor 1 10 ns/op 0 B/op 2 allocs/op",
	"interceptors/verify: BenchmarkProof/seen/grantor 1 116 ns/op 0 B/op 80 allocs/op",
	"interceptors/verify: BenchmarkProof/seen/floor 1 100 ns/op 0 B/op 65 allocs/op",
	"interceptors/attach: BenchmarkUnary/warm/grantor 1 300 ns/op 0 B/op 2 allocs/op",
	"interceptors/attach: BenchmarkUnary/warm/floor 1 10 ns/op 0 B/op 0 allocs/op",
	"interceptors/guard/extauthz: BenchmarkCheck/grpc/grantor 1 117 ns/op 0 B/op 90 allocs/op",
	"interceptors/guard/extauthz: BenchmarkCheck/grpc/floor 1 100 ns/op 0 B/op 80 allocs/op",
	"interceptors/verify: BenchmarkRevocations/seen/n=0 1 90 ns/op",
	"interceptors/verify: BenchmarkRevocations/seen/n=1000000 1 100 ns/op",
	"interceptors/verify: BenchmarkRevocations/new/n=0 1 89 ns/op",
	"interceptors/verify: BenchmarkRevocations/new/n=1000000 1 100 ns/op",
	"interceptors/verify: BenchmarkRevocationMemory 1 5 ns/op 64.5 bytes/revocation",
}

// TestMicroReport checks which targets are met, and that a missing benchmark is an error that names it.
func TestMicroReport(t *testing.T) {
	r := newRuns(goodLines...)
	f, err := r.report(r)
	if err != nil {
		t.Fatal(err)
	}
	var met []bool
	for _, g := range f.goals {
		met = append(met, g.target.met(g.value))
	}
	if want := []bool{true, true, false, true, false, true, true, true, false, false}; !slices.Equal(met, want) {
		t.Errorf("met are %v, want %v: %+v", met, want, f.goals)
	}
	for i, line := range goodLines {
		r := newRuns(slices.Delete(slices.Clone(goodLines), i, i+1)...)
		name := strings.Fields(line)[1]
		if _, err := r.report(r); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: got the error %v, which must name it", name, err)
		}
	}
}
