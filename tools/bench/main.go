// Command bench measures Grantor and its yardsticks side by side on one machine and writes the results to BENCHMARKS.md
// and the pictures in docs:
//
//	go run ./tools/bench
//
// It starts a Redis, the issuer and the yardsticks, each as its own process. It runs in the root of the repository and
// needs Linux, with go and redis-server on the PATH.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// settings say how much to measure and where to write the report.
type settings struct {
	rounds   int
	duration time.Duration
	warmUp   time.Duration
	tokens   int
	quick    bool
	// out is the folder of the report; only matches the names of the sections to run, and paths those of the pairs.
	out   string
	only  *regexp.Regexp
	paths *regexp.Regexp
}

func main() {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 5, "`number` of times to measure each figure that has a target")
	flag.DurationVar(&s.duration, "for", 2*time.Second, "`duration` of one measured load")
	flag.IntVar(&s.tokens, "tokens", 1_000_000, "`number` of tokens to issue when measuring whether the Redis grows")
	flag.BoolVar(&s.quick, "quick", false, "run one short round with a thousandth of everything, to try the program; requires -o")
	flag.StringVar(&s.out, "o", ".", "`folder` to write BENCHMARKS.md and docs with the pictures to")
	only := flag.String("only", "", "`regexp` of the sections to run: calls, footprint, pairs, micro, guard, scale, fleet; requires -o")
	paths := flag.String("paths", "", "`regexp` of the paths of calls to run, such as federated; requires -o")
	verifiers := flag.Int("verifiers", 0, "for the program's own use: run this `number` of verifiers, which follow revocations at the gRPC ports in the arguments")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *verifiers > 0 {
		err = runVerifiers(ctx, *verifiers, flag.Args())
	} else if err = s.prepare(*only, *paths); err == nil {
		err = run(ctx, &s)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// prepare checks the settings and derives the others. A partial report requires -o, so that it does not replace the whole.
func (s *settings) prepare(only, paths string) (err error) {
	if s.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if s.paths, err = regexp.Compile(paths); err != nil {
		return err
	}
	s.warmUp = 500 * time.Millisecond
	outGiven := false
	flag.Visit(func(f *flag.Flag) { outGiven = outGiven || f.Name == "o" })
	if only+paths != "" && !outGiven {
		return errors.New("-only and -paths require -o, because they measure a part of the report")
	}
	if s.quick {
		if !outGiven {
			return errors.New("-quick requires -o, because its figures are not a report")
		}
		s.rounds, s.duration, s.warmUp, s.tokens = 1, 300*time.Millisecond, 100*time.Millisecond, s.tokens/100
	}
	if s.rounds < 1 || s.duration <= 0 || s.tokens < 100 {
		return errors.New("-rounds, -for or -tokens is too small")
	}
	return nil
}

// section is a part of the report.
type section struct {
	name string
	run  func(context.Context, *lab) (*findings, error)
}

// sections lists the sections in the order of the report.
var sections = []section{
	{"calls", measureCalls},
	{"footprint", measureFootprint},
	{"pairs", measurePairs},
	{"micro", measureMicro},
	{"guard", measureGuard},
	{"scale", measureScale},
	{"fleet", measureFleet},
}

// run measures the sections and writes the report.
func run(ctx context.Context, s *settings) error {
	if s.quick {
		progressf("%s", quickWarning)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := newLab(ctx, s, dir)
	if err != nil {
		return err
	}
	machine, err := local.DescribeMachine(ctx)
	if err != nil {
		return err
	}
	found := make([]*findings, len(sections))
	took := figures.NewTable("Section", "Seconds")
	for i, section := range sections {
		if !s.only.MatchString(section.name) {
			continue
		}
		began := time.Now()
		if found[i], err = section.run(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
		took.Add(section.name, fmt.Sprintf("%.0f", time.Since(began).Seconds()))
	}
	found = slices.DeleteFunc(found, func(f *findings) bool { return f == nil })
	if len(found) == 0 {
		return errors.New("-only matches no section")
	}
	machine += l.describe(took)
	return write(s.out, newReport(machine, s.quick), found)
}

// describe returns how often and how long was measured, and how long each section took, which it also reports as progress.
func (l *lab) describe(took *figures.Table) string {
	text := fmt.Sprintf("\n- rounds: %d of %s for figures with a target, %d for figures for information", l.rounds, l.duration, l.infoRounds())
	text += fmt.Sprintf("\n- light loads: %d, of which %d were measured before their rate was steady", l.loads, l.unsteady)
	var each []string
	for _, row := range took.Rows[1:] {
		progressf("%s took %s s", row[0], row[1])
		each = append(each, row[0]+" "+row[1])
	}
	if l.quick {
		progressf("%s", quickWarning)
	}
	return text + "\n- seconds for each section: " + strings.Join(each, ", ")
}

// quickWarning says what a quick run is for.
const quickWarning = "This is a quick run, to try the program: its loads are too short for a figure or a ratio to mean anything, and no target is judged."

// write writes the report and its pictures to a folder.
func write(dir string, r *report, found []*findings) error {
	if err := os.MkdirAll(filepath.Join(dir, "docs"), 0o755); err != nil { //nolint:gosec // readable by everyone, as the other files of a repository
		return err
	}
	for _, f := range found {
		if f.chart == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.chart.path), f.chart.svg, 0o644); err != nil { //nolint:gosec // as above
			return err
		}
	}
	report, err := r.write(found)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "BENCHMARKS.md")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// make peers writes a section of its own, which stays.
	if section := figures.Section(old, "peers"); section != nil {
		report = slices.Concat(report, []byte("\n"), section)
	}
	return os.WriteFile(path, report, 0o644) //nolint:gosec // as above
}

// progressf reports progress on standard error, with the time.
func progressf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
