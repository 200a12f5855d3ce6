// Command peers measures Grantor beside other authorization servers on one machine, each with its defaults and with the settings
// under which it is fastest, and writes the results to a section of BENCHMARKS.md and a picture in docs:
//
//	go run ./tools/peers
//
// It runs in the root of the repository and needs Linux, with go, redis-server, java and mvn on the PATH. It builds the other servers
// from what their users install: a Go module, the distribution of Keycloak, and Spring Boot's starter.
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
	"syscall"
	"time"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// settings say how much to measure and where to write the report.
type settings struct {
	rounds   int
	duration time.Duration
	// warmUp is how long a server for a Java machine has the load before the first round, and settle how long a server is idle
	// before its memory is read.
	warmUp, settle time.Duration
	quick          bool
	out            string
	only           *regexp.Regexp
}

func main() {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 5, "`number` of times to measure each server")
	flag.DurationVar(&s.duration, "for", 4*time.Second, "`duration` of one measured load")
	flag.BoolVar(&s.quick, "quick", false, "run one short round, to try the program; requires -o")
	flag.StringVar(&s.out, "o", ".", "`folder` to write BENCHMARKS.md and docs with the picture to")
	only := flag.String("only", "", "`regexp` of the servers to measure; requires -o")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := s.prepare(*only)
	if err == nil {
		err = run(ctx, &s)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// prepare checks the settings and derives the others. A partial report requires -o, so that it does not replace the whole.
func (s *settings) prepare(only string) (err error) {
	if s.only, err = regexp.Compile(only); err != nil {
		return err
	}
	outGiven := false
	flag.Visit(func(f *flag.Flag) { outGiven = outGiven || f.Name == "o" })
	if (only != "" || s.quick) && !outGiven {
		return errors.New("-only and -quick require -o, because what they measure is not a report")
	}
	s.warmUp, s.settle = 20*time.Second, 5*time.Second
	if s.quick {
		s.rounds, s.duration, s.warmUp, s.settle = 1, 500*time.Millisecond, time.Second, time.Second
	}
	if s.rounds < 1 || s.duration <= 0 {
		return errors.New("-rounds or -for is too small")
	}
	return nil
}

// run measures the servers and writes the report.
func run(ctx context.Context, s *settings) error {
	dir, err := os.MkdirTemp("", "peers")
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
	results, err := l.measure(ctx)
	if err != nil {
		return err
	}
	return write(s.out, report(machine+l.describe(), results, s.quick), draw(results))
}

// picture is the path of the picture in the repository.
const picture = "docs/bench-peers.svg"

// write replaces the section in BENCHMARKS.md of a folder, and the picture.
func write(dir string, section, svg []byte) error {
	path := filepath.Join(dir, "BENCHMARKS.md")
	document, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "docs"), 0o755); err != nil { //nolint:gosec // readable by everyone, as the other files of a repository
		return err
	}
	return errors.Join(
		os.WriteFile(path, figures.ReplaceSection(document, "peers", section), 0o644), //nolint:gosec // as above
		os.WriteFile(filepath.Join(dir, picture), svg, 0o644))                         //nolint:gosec // as above
}

// progressf reports progress on standard error, with the time.
func progressf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
