package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/tools/bench/loader"
	"github.com/grantorhq/grantor/tools/bench/profile"
	"github.com/grantorhq/grantor/tools/local"
)

// breakdown is the processor time of a call by kind of work, in microseconds.
type breakdown map[string]float64

// breakDown takes a CPU profile of a server under a light load. The parts are those of the profile, and their sum is the
// processor time of a call as the kernel counts it.
func (l *lab) breakDown(ctx context.Context, s *server, prepare newLoad) (breakdown, error) {
	seconds := 4 // about 700 samples of two processors
	if l.quick {
		seconds = 1
	}
	const lead = 200 * time.Millisecond
	length := time.Duration(seconds)*time.Second + 2*lead
	load, err := prepare(ctx, l, s, length)
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	go func() {
		local.Sleep(ctx, lead)
		failed <- l.fetch(ctx, fmt.Sprintf("%s?seconds=%d", s.profiles, seconds), "cpu.pprof")
	}()
	r, err := load.Run(ctx, loader.Timing{Duration: length}, s.CPU)
	if err2 := <-failed; err == nil {
		err = err2
	}
	if err != nil {
		return nil, err
	}
	traces, err := local.Output(ctx, os.Environ(), "go", "tool", "pprof", "-traces", "-unit=us", l.path("cpu.pprof"))
	if err != nil {
		return nil, err
	}
	shares, err := profile.Shares(string(traces))
	if err != nil {
		return nil, err
	}
	b := breakdown{}
	for kind, share := range shares {
		b[kind] = share * float64(r.CPU.Microseconds()) / float64(r.Calls)
	}
	return b, nil
}

// fetch writes what a URL answers to a file of the lab.
func (l *lab) fetch(ctx context.Context, address, name string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, answer.Status)
	}
	return l.write(name, content)
}

// sum returns the processor time of a call.
func (b breakdown) sum() (sum float64) {
	for _, part := range b {
		sum += part
	}
	return sum
}

// cells returns the parts, and the sum.
func (b breakdown) cells() []string {
	var cells []string
	for _, kind := range profile.Kinds {
		cells = append(cells, fmt.Sprintf("%.1f", b[kind]))
	}
	return append(cells, fmt.Sprintf("**%.1f**", b.sum()))
}

// exceeds says by how much the parts exceed those of another server, the largest first. A difference of less than a
// twentieth of the whole is left out.
func (b breakdown) exceeds(other breakdown) string {
	more := b.sum() - other.sum()
	kinds := slices.DeleteFunc(slices.Clone(profile.Kinds), func(kind string) bool { return math.Abs(b[kind]-other[kind]) < math.Abs(more)/20 })
	slices.SortStableFunc(kinds, func(x, y string) int { return cmp.Compare(b[y]-other[y], b[x]-other[x]) })
	var parts []string
	for _, kind := range kinds {
		parts = append(parts, fmt.Sprintf("%s %+.1f", kind, b[kind]-other[kind]))
	}
	return fmt.Sprintf("in the profile, Grantor takes %.1f µs more than the yardstick: %s.", more, strings.Join(parts, ", "))
}
