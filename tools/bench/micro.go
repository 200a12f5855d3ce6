package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// suites lists the packages whose benchmarks are run.
var suites = []string{
	"service/token", "service/clientauth", "service/rest", "service/revocation", "service", "interceptors/verify", "interceptors/attach", guardSuite,
}

// skipped matches benchmarks without a floor that take minutes.
const skipped = "^(BenchmarkManyClients|BenchmarkSnapshot|BenchmarkLedgerMemory)$"

// The two benchmarks of a pair have the same name but for these endings.
const (
	grantorEnd = "/grantor"
	floorEnd   = "/floor"
)

// The packages of the benchmarks that have a target, and the larger number of revocations.
const (
	verifySuite = "interceptors/verify"
	attachSuite = "interceptors/attach"
	guardSuite  = "interceptors/guard/extauthz"
	million     = 1_000_000
)

// benchmark names a benchmark.
type benchmark struct{ suite, name string }

// runs maps each benchmark to its figures by unit, one figure for each run. order lists the benchmarks as they came.
type runs struct {
	figures map[benchmark]map[string][]float64
	order   []benchmark
}

// add adds the benchmarks in the output of a test binary.
func (r *runs) add(suite, out string) {
	for line := range strings.Lines(out) {
		name, figures, ok := parseBenchmark(line)
		if !ok {
			continue
		}
		at := benchmark{suite, name}
		if r.figures[at] == nil {
			r.figures[at] = map[string][]float64{}
			r.order = append(r.order, at)
		}
		for unit, value := range figures {
			r.figures[at][unit] = append(r.figures[at][unit], value)
		}
	}
}

// values returns the figures of a benchmark. It is an error if there are none.
func (r *runs) values(suite, name, unit string) ([]float64, error) {
	if found := r.figures[benchmark{suite, name}][unit]; len(found) > 0 {
		return found, nil
	}
	return nil, fmt.Errorf("%s has no %s of %s", suite, unit, name)
}

// processors matches the suffix that Go adds to the name of a benchmark that ran on more than one processor.
var processors = regexp.MustCompile(`-\d+$`)

// parseBenchmark parses a line such as "BenchmarkName-2  100  123 ns/op  5 allocs/op": the name, the number of runs, then
// alternating values and units.
func parseBenchmark(line string) (name string, figures map[string]float64, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || len(fields)%2 != 0 || !strings.HasPrefix(fields[0], "Benchmark") {
		return "", nil, false
	}
	if _, err := strconv.Atoi(fields[1]); err != nil {
		return "", nil, false
	}
	figures = map[string]float64{}
	for pair := range slices.Chunk(fields[2:], 2) {
		value, err := strconv.ParseFloat(pair[0], 64)
		if err != nil {
			return "", nil, false
		}
		figures[pair[1]] = value
	}
	return processors.ReplaceAllString(fields[0], ""), figures, true
}

// measureMicro runs the benchmarks of the packages, in rounds.
func measureMicro(ctx context.Context, l *lab) (*findings, error) {
	once, err := l.runOnce(ctx)
	if err != nil {
		return nil, err
	}
	all := &runs{figures: map[benchmark]map[string][]float64{}}
	length := "0.5s"
	if l.quick {
		length = "5ms"
	}
	for round := range l.rounds {
		progressf("benchmarks, round %d", round+1)
		for _, suite := range suites {
			if names := once.pairedFunctions(suite); len(names) > 0 {
				if err := l.runSuite(ctx, all, suite, "-test.bench", "^("+strings.Join(names, "|")+")$", "-test.benchtime", length); err != nil {
					return nil, err
				}
			}
		}
	}
	return all.report(once)
}

// runOnce compiles the packages and runs each benchmark once, to list them. It is an error if one with a target is
// missing.
func (l *lab) runOnce(ctx context.Context) (*runs, error) {
	once := &runs{figures: map[benchmark]map[string][]float64{}}
	for _, suite := range suites {
		progressf("compiling %s", suite)
		if _, err := local.Output(ctx, os.Environ(), "go", "test", "-c", "-o", l.binary(suite), "./"+suite); err != nil {
			return nil, err
		}
		if err := l.runSuite(ctx, once, suite, "-test.bench", ".", "-test.skip", skipped, "-test.benchtime", "1x"); err != nil {
			return nil, err
		}
	}
	_, err := once.report(once)
	return once, err
}

// binary returns the path of the test binary of a package.
func (l *lab) binary(suite string) string {
	return l.path(strings.ReplaceAll(suite, "/", "_") + ".test")
}

// runSuite runs the benchmarks of a package on one processor.
func (l *lab) runSuite(ctx context.Context, into *runs, suite string, flags ...string) error {
	c := exec.CommandContext(ctx, l.binary(suite), append([]string{"-test.run", "^$", "-test.cpu", "1", "-test.benchmem"}, flags...)...) //nolint:gosec // fixed programs and arguments
	c.Dir, c.Env = filepath.FromSlash(suite), l.env
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("benchmarks of %s: %w\n%s", suite, err, out)
	}
	into.add(suite, string(out))
	return nil
}

// pairedFunctions returns the names of the benchmark functions of a package that have pairs, or a figure for each
// number of revocations.
func (r *runs) pairedFunctions(suite string) []string {
	var names []string
	for _, b := range r.order {
		name, _, _ := strings.Cut(b.name, "/")
		paired := strings.HasSuffix(b.name, grantorEnd) || name == "BenchmarkRevocations"
		if b.suite == suite && paired && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// benchmarkPair is what was measured of a pair of benchmarks, and the number of allocations of each.
type benchmarkPair struct {
	benchmark

	grantor, floor, ratio, added  figures.Spread // in ns; ratio and difference by round
	allocations, floorAllocations float64
}

// pair returns the pair of benchmarks with the name before the ending.
func (r *runs) pair(suite, name string) (*benchmarkPair, error) {
	ours, err := r.values(suite, name+grantorEnd, "ns/op")
	if err != nil {
		return nil, err
	}
	floor, err := r.values(suite, name+floorEnd, "ns/op")
	if err != nil {
		return nil, err
	}
	if len(ours) != len(floor) {
		return nil, fmt.Errorf("%s of %s has %d runs, and its floor has %d", name, suite, len(ours), len(floor))
	}
	var ratios, added []float64
	for i := range ours {
		ratios, added = append(ratios, ours[i]/floor[i]), append(added, ours[i]-floor[i])
	}
	c := &benchmarkPair{
		benchmark: benchmark{suite, name}, grantor: figures.NewSpread(ours), floor: figures.NewSpread(floor), ratio: figures.NewSpread(ratios), added: figures.NewSpread(added),
	}
	for end, into := range map[string]*float64{grantorEnd: &c.allocations, floorEnd: &c.floorAllocations} {
		allocations, err := r.values(suite, name+end, "allocs/op")
		if err != nil {
			return nil, err
		}
		*into = figures.NewSpread(allocations).Median
	}
	return c, nil
}

// report returns the findings. once holds the figures that are measured once.
func (r *runs) report(once *runs) (*findings, error) {
	f := &findings{title: "The parts", notes: "micro"}
	pairs := figures.NewTable("Package", "Benchmark", "Time, Grantor / floor", "Floor, ns", "Added, ns", "Allocations", "Floor's")
	for _, b := range r.order {
		name, ok := strings.CutSuffix(b.name, grantorEnd)
		if !ok {
			continue
		}
		c, err := r.pair(b.suite, name)
		if err != nil {
			return nil, err
		}
		pairs.Add(b.suite, strings.TrimPrefix(name, "Benchmark"), c.ratio.Text("%.2f"), figures.Count(math.Round(c.floor.Median)),
			figures.Count(math.Round(c.added.Median)), figures.Count(c.allocations), figures.Count(c.floorAllocations))
	}
	f.add("", pairs)
	return f, errors.Join(r.judgeCalls(f), r.judgeRevocations(f), once.judgeMemory(f))
}

// judgeCalls judges the cost that Grantor's interceptors add to a call.
func (r *runs) judgeCalls(f *findings) error {
	seen, err := r.pair(verifySuite, "BenchmarkUnary/seen")
	fresh, err2 := r.pair(verifySuite, "BenchmarkUnary/new")
	warm, err3 := r.pair(attachSuite, "BenchmarkUnary/warm")
	bound, err4 := r.pair(verifySuite, "BenchmarkBound/seen")
	proven, err5 := r.pair(verifySuite, "BenchmarkProof/seen")
	check, err6 := r.pair(guardSuite, "BenchmarkCheck/grpc")
	if err := errors.Join(err, err2, err3, err4, err5, err6); err != nil {
		return err
	}
	const alone = "the handler alone"
	f.judgeSpread("verify a token seen before, time", alone, below(1000, "ns more"), seen.added, 0, "ns more")
	f.judge("verify a token seen before, memory", alone, atMost(6, "allocations"), seen.allocations, figures.Count(seen.allocations)+" allocations")
	f.judgeSpread("verify a new token", "the signature alone", atMost(1.10, "times"), fresh.ratio, 3, "times")
	f.judgeSpread("verify a token seen before that is bound to a certificate", "one that is not bound", below(300, "ns more"), bound.added, 0, "ns more")
	f.judgeSpread("verify a token seen before with a DPoP proof", "the check of the proof", atMost(1.15, "times"), proven.ratio, 3, "times")
	f.judgeSpread("attach a token to a call", "the call alone", below(500, "ns more"), warm.added, 0, "ns more")
	// 1.17 times the time is 0.85 as many checks per second.
	f.judgeSpread("check of the guard over gRPC, a token seen before", "a server that admits all", atMost(1.17, "times"), check.ratio, 3, "times")
	return nil
}

// revocationName matches a benchmark that verifies a token, seen or new, with a number of revocations in effect.
var revocationName = regexp.MustCompile(`^BenchmarkRevocations/(seen|new)/n=(\d+)$`)

// judgeRevocations compares verification with a million revocations and with none.
func (r *runs) judgeRevocations(f *findings) error {
	var lines []curve
	t := figures.NewTable("Token", "Revocations", "Speed relative to none", "ns")
	for _, token := range []string{"seen", "new"} {
		base := "BenchmarkRevocations/" + token + "/n="
		none, err := r.values(verifySuite, base+"0", "ns/op")
		if err != nil {
			return err
		}
		many, err := r.values(verifySuite, base+strconv.Itoa(million), "ns/op")
		if err != nil {
			return err
		}
		line := curve{name: "a token " + token}
		if token == "new" {
			line.name = "a new token"
		}
		for _, b := range r.order {
			match := revocationName.FindStringSubmatch(b.name)
			if b.suite != verifySuite || match == nil || match[1] != token {
				continue
			}
			n, err := strconv.ParseFloat(match[2], 64)
			if err != nil {
				return err
			}
			took := r.figures[b]["ns/op"]
			speed := speedRatios(none, took)
			line.points = append(line.points, dot{n, 1 / speed.Median, figures.NewSpread(took).Median})
			t.Add(token, figures.Count(n), speed.Text("%.2f"), figures.Count(math.Round(figures.NewSpread(took).Median)))
		}
		lines = append(lines, line)
		speed := speedRatios(none, many)
		f.judgeSpread("verify a "+token+" token with 1,000,000 revocations", "with none", atLeast(0.90), speed, 3, "")
	}
	f.add("Verification with revocations in effect:", t)
	f.chart = &chart{"docs/bench-revocations.svg", "time to verify a token by the number of revocations, relative to none", drawCurves(lines)}
	return nil
}

// speedRatios returns the speed relative to that of base, by round.
func speedRatios(base, took []float64) figures.Spread {
	var ratios []float64
	for i := range min(len(base), len(took)) {
		ratios = append(ratios, base[i]/took[i])
	}
	return figures.NewSpread(ratios)
}

// judgeMemory judges the memory of a verifier per revocation.
func (r *runs) judgeMemory(f *findings) error {
	found, err := r.values(verifySuite, "BenchmarkRevocationMemory", "bytes/revocation")
	if err != nil {
		return err
	}
	bytes := figures.NewSpread(found).Median
	f.judge("memory of a revocation in a verifier", "of 1,000,000", atMost(64, "bytes"), bytes, fmt.Sprintf("%.2f bytes", bytes))
	return nil
}
