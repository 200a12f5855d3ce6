package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// measured is what a load on a server came to.
type measured struct {
	Alg      string           `json:"alg"`
	Seconds  float64          `json:"seconds"`
	Calls    int64            `json:"calls"`
	Failures map[string]int64 `json:"failures"`
	// Unanswered are the calls that were due in an open loop and had no answer at the end.
	Unanswered int64   `json:"unanswered"`
	InFlight   int64   `json:"in_flight"`
	PerSecond  float64 `json:"per_second"`
	Latency    struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"latency_ms"`
	// cpu is the server's processor time for each call.
	cpu time.Duration
}

// contestant is a server and the load that is put on it; env is added to the environment of who makes the load.
type contestant struct {
	*server

	args, env []string
}

// issuing are the arguments of a load that asks for tokens with scope and resource.
func issuing(scope, resource string, more ...string) []string {
	return append([]string{"issue", "--client-id", loadClient, "--scope", scope, "--resource", resource}, more...)
}

// introspecting are those of one that asks about tokens.
func introspecting() []string {
	return []string{"introspect", "--client-id", loadClient, "--scope", ordersScope, "--resource", ordersAPI}
}

// usual is a load with the length of the settings.
func (l *lab) usual(ctx context.Context, c contestant) (*measured, error) {
	c.args = slices.Concat(c.args, []string{"--duration", l.duration.String(), "--warm-up", l.warmUp.String()})
	m, took, err := l.load(ctx, c)
	if err == nil {
		calls := float64(m.Calls) * (l.warmUp + l.duration).Seconds() / l.duration.Seconds()
		m.cpu = time.Duration(float64(took) / calls)
	}
	return m, err
}

// load puts a load on a server and gives the processor time that the server took meanwhile. It fails where a
// call does, and where the server did not keep up with a rate.
func (l *lab) load(ctx context.Context, c contestant) (*measured, time.Duration, error) {
	before, err := c.cpu()
	if err != nil {
		return nil, 0, err
	}
	out, err := output(ctx, slices.Concat(l.env, c.env), l.path("grantor"),
		slices.Concat([]string{"bench"}, c.args, []string{"--issuer", c.url, "--quiet", "-o", "json"})...)
	if err != nil {
		return nil, 0, err
	}
	after, err := c.cpu()
	if err != nil {
		return nil, 0, err
	}
	var m measured
	if err := json.Unmarshal(out, &m); err != nil {
		return nil, 0, err
	}
	if err := m.check(); err != nil {
		return nil, 0, fmt.Errorf("bench %s: %w", strings.Join(c.args, " "), err)
	}
	return &m, after - before, nil
}

// check reports a load that is no measurement. Of an open loop those calls that are under way at the end have no answer.
func (m *measured) check() error {
	switch {
	case len(m.Failures) > 0 || m.Calls == 0:
		return fmt.Errorf("%d calls, and these failed: %v", m.Calls, m.Failures)
	case m.Unanswered > m.InFlight:
		return fmt.Errorf("%d calls were due and had no answer, with at most %d in flight", m.Unanswered, m.InFlight)
	}
	return nil
}

// comparison is what two loads came to, round by round.
type comparison struct {
	ratio          spread // of the calls a second
	subject, floor side
}

// side is one of the two.
type side struct {
	perSecond, p50, p99 spread
	cpu                 spread // in microseconds
}

// compare puts the two loads on their servers in turn, each round in the other order.
func (l *lab) compare(ctx context.Context, rounds int, subject, floor contestant) (*comparison, error) {
	var ratios []float64
	var of [2][]*measured
	for round := range rounds {
		order := []int{0, 1}
		if round%2 == 1 {
			order = []int{1, 0}
		}
		for _, i := range order {
			m, err := l.usual(ctx, []contestant{subject, floor}[i])
			if err != nil {
				return nil, err
			}
			of[i] = append(of[i], m)
		}
		ratios = append(ratios, of[0][round].PerSecond/of[1][round].PerSecond)
	}
	return &comparison{spreadOf(ratios), sideOf(of[0]), sideOf(of[1])}, nil
}

func sideOf(all []*measured) side {
	pick := func(of func(*measured) float64) spread {
		var values []float64
		for _, m := range all {
			values = append(values, of(m))
		}
		return spreadOf(values)
	}
	return side{
		pick(func(m *measured) float64 { return m.PerSecond }), pick(func(m *measured) float64 { return m.Latency.P50 }),
		pick(func(m *measured) float64 { return m.Latency.P99 }), pick(func(m *measured) float64 { return float64(m.cpu) / 1e3 }),
	}
}
