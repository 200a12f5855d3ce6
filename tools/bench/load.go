package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// loadResult is what `grantor bench` reports about a load, and the processor time of the server.
type loadResult struct {
	Alg      string           `json:"alg"`
	Seconds  float64          `json:"seconds"`
	Calls    int64            `json:"calls"`
	Failures map[string]int64 `json:"failures"`
	// Unanswered is the number of calls that were due in an open loop and had no answer at the end.
	Unanswered int64   `json:"unanswered"`
	InFlight   int64   `json:"in_flight"`
	PerSecond  float64 `json:"per_second"`
	Latency    struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"latency_ms"`
	// cpu is the processor time of the server per call, and clientCPU that of a light client.
	cpu, clientCPU time.Duration
}

// contestant is a server and the arguments of `grantor bench` for its load. env is added to the environment of
// `grantor bench`.
type contestant struct {
	*server

	args, env []string
}

// issueArgs returns the arguments of a load that requests tokens for the scope and resource.
func issueArgs(scope, resource string, more ...string) []string {
	return append([]string{"issue", "--client-id", loadClient, "--scope", scope, "--resource", resource}, more...)
}

// introspectArgs returns the arguments of a load that introspects tokens.
func introspectArgs() []string {
	return []string{"introspect", "--client-id", loadClient, "--scope", ordersScope, "--resource", ordersAPI}
}

// minTimedLoad is the minimum duration of a load by `grantor bench`, whose first call may take half a second on a busy machine.
const minTimedLoad = time.Second

// timedLoad puts a load on a server for the duration in the settings.
func (l *lab) timedLoad(ctx context.Context, c contestant) (*loadResult, error) {
	duration := max(l.duration, minTimedLoad)
	c.args = slices.Concat(c.args, []string{"--duration", duration.String(), "--warm-up", l.warmUp.String()})
	m, took, err := l.load(ctx, c)
	if err == nil {
		calls := float64(m.Calls) * (l.warmUp + duration).Seconds() / duration.Seconds()
		m.cpu = time.Duration(float64(took) / calls)
	}
	return m, err
}

// load puts a load on a server and returns its result with the processor time that the server used. It fails if a call
// fails or if the server did not keep up with the rate.
func (l *lab) load(ctx context.Context, c contestant) (*loadResult, time.Duration, error) {
	before, err := c.CPU()
	if err != nil {
		return nil, 0, err
	}
	out, err := local.Output(ctx, slices.Concat(l.env, c.env), l.path("grantor"),
		slices.Concat([]string{"bench"}, c.args, []string{"--issuer", c.url, "--quiet", "-o", "json"})...)
	if err != nil {
		return nil, 0, err
	}
	after, err := c.CPU()
	if err != nil {
		return nil, 0, err
	}
	var m loadResult
	if err := json.Unmarshal(out, &m); err != nil {
		return nil, 0, err
	}
	if err := m.check(); err != nil {
		return nil, 0, fmt.Errorf("bench %s: %w", strings.Join(c.args, " "), err)
	}
	return &m, after - before, nil
}

// check returns an error if the load is not a valid measurement. In an open loop, the calls in flight at the end have no
// answer.
func (m *loadResult) check() error {
	switch {
	case len(m.Failures) > 0 || m.Calls == 0:
		return fmt.Errorf("got %d calls and the failures %v, want calls and no failures", m.Calls, m.Failures)
	case m.Unanswered > m.InFlight:
		return fmt.Errorf("%d due calls had no answer, which exceeds the maximum of %d in flight", m.Unanswered, m.InFlight)
	}
	return nil
}

// comparison compares the loads on a subject and its floor.
type comparison struct {
	ratio          figures.Spread // of the calls per second, by round
	cpuRatio       figures.Spread // of the calls per second of processor time, by round
	subject, floor side
}

// side is what was measured of one of them.
type side struct {
	perSecond, p50, p99 figures.Spread
	cpu, clientCPU      figures.Spread // in microseconds
}

// latencies formats the median and the 99th percentile of the latencies.
func (s side) latencies() string { return fmt.Sprintf("%.1f, %.1f", s.p50.Median, s.p99.Median) }

// compare puts the two loads on their servers one after the other, in alternating order from round to round.
func (l *lab) compare(ctx context.Context, rounds int, subject, floor contestant) (*comparison, error) {
	return compareLoads(rounds, func(i int) (*loadResult, error) { return l.timedLoad(ctx, []contestant{subject, floor}[i]) })
}

// compareLoads calls load with 0 for the subject and 1 for the floor, in alternating order from round to round.
func compareLoads(rounds int, load func(int) (*loadResult, error)) (*comparison, error) {
	var ratios, cpuRatios []float64
	var results [2][]*loadResult
	for round := range rounds {
		order := []int{0, 1}
		if round%2 == 1 {
			order = []int{1, 0}
		}
		for _, i := range order {
			m, err := load(i)
			if err != nil {
				return nil, err
			}
			results[i] = append(results[i], m)
		}
		ratios = append(ratios, results[0][round].PerSecond/results[1][round].PerSecond)
		cpuRatios = append(cpuRatios, float64(results[1][round].cpu)/float64(results[0][round].cpu))
	}
	return &comparison{figures.NewSpread(ratios), figures.NewSpread(cpuRatios), newSide(results[0]), newSide(results[1])}, nil
}

// newSide summarizes the results of the rounds.
func newSide(all []*loadResult) side {
	pick := func(field func(*loadResult) float64) figures.Spread {
		var values []float64
		for _, m := range all {
			values = append(values, field(m))
		}
		return figures.NewSpread(values)
	}
	return side{
		pick(func(m *loadResult) float64 { return m.PerSecond }), pick(func(m *loadResult) float64 { return m.Latency.P50 }),
		pick(func(m *loadResult) float64 { return m.Latency.P99 }), pick(func(m *loadResult) float64 { return float64(m.cpu) / 1e3 }),
		pick(func(m *loadResult) float64 { return float64(m.clientCPU) / 1e3 }),
	}
}
