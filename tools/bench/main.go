// Bench measures Grantor against its yardsticks, side by side on one machine, and writes what came of it: BENCHMARKS.md and
// the pictures in docs.
//
//	go run ./tools/bench
//
// It starts a Redis, the issuer and the yardsticks itself, each as a process of its own. It needs Linux, go and redis-server
// on the PATH, and the root of the repository as the directory.
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
	"syscall"
	"time"
)

// settings say how much is measured, and where the report goes.
type settings struct {
	rounds   int
	duration time.Duration
	warmUp   time.Duration
	tokens   int
	quick    bool
	out      string
	only     *regexp.Regexp
}

func main() {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 7, "how often each thing is measured")
	flag.DurationVar(&s.duration, "for", 4*time.Second, "how long one measured load lasts")
	flag.IntVar(&s.tokens, "tokens", 10_000_000, "how many tokens are issued to see whether the Redis grows")
	flag.BoolVar(&s.quick, "quick", false, "one short round with a thousandth of everything, to try the program; wants -o")
	flag.StringVar(&s.out, "o", ".", "folder of BENCHMARKS.md and of docs with the pictures")
	only := flag.String("only", "", "regular expression of the sections to run: pairs, micro, scale, fleet; wants -o")
	verifiers := flag.Int("verifiers", 0, "what the program runs itself with: follow revocations at the gRPC ports that are named")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *verifiers > 0 {
		err = follow(ctx, *verifiers, flag.Args())
	} else if err = s.prepare(*only); err == nil {
		err = run(ctx, &s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the signals end with the process
	}
}

// prepare checks the settings and fills in what follows from them.
func (s *settings) prepare(only string) (err error) {
	if s.only, err = regexp.Compile(only); err != nil {
		return err
	}
	s.warmUp = 500 * time.Millisecond
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "o" })
	if only != "" && !given {
		return errors.New("-only wants -o: what it measures is a part of the report")
	}
	if s.quick {
		if !given {
			return errors.New("-quick wants -o: what it measures is no report")
		}
		s.rounds, s.duration, s.warmUp, s.tokens = 1, 300*time.Millisecond, 100*time.Millisecond, s.tokens/1000
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

// sections are in the order of the report. The second is measured first: what it misses it tells at once.
var sections = []section{{"pairs", measurePairs}, {"micro", measureMicro}, {"scale", measureScale}, {"fleet", measureFleet}}

// run measures and writes the report.
func run(ctx context.Context, s *settings) error {
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
	machine, err := describeMachine(ctx)
	if err != nil {
		return err
	}
	machine += fmt.Sprintf("\n- rounds: %d of %s for what has a target, %d for what is for information", s.rounds, s.duration, s.fewer())
	found := make([]*findings, len(sections))
	for _, i := range []int{1, 0, 2, 3} {
		if !s.only.MatchString(sections[i].name) {
			continue
		}
		if found[i], err = sections[i].run(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", sections[i].name, err)
		}
	}
	found = slices.DeleteFunc(found, func(f *findings) bool { return f == nil })
	if len(found) == 0 {
		return errors.New("-only names no section")
	}
	return write(s.out, machine, found)
}

// write puts the report and its pictures into a folder.
func write(dir, machine string, found []*findings) error {
	if err := os.MkdirAll(filepath.Join(dir, "docs"), 0o755); err != nil { //nolint:gosec // it is to be read
		return err
	}
	for _, f := range found {
		if f.chart == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.chart.path), f.chart.svg, 0o644); err != nil { //nolint:gosec // the same
			return err
		}
	}
	report, err := writeReport(machine, found)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "BENCHMARKS.md"), report, 0o644) //nolint:gosec // the same
}

// progressf says on standard error what is being done.
func progressf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
