package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/tools/bench/loader"
)

// callPath is a path of the server, whose processor time per call is compared with that of a yardstick.
type callPath struct {
	path, against string
	// chart is the name in the picture.
	chart  string
	target target
	load   newLoad
	// work is what the yardstick does for each call.
	work string
	// flags are those of the issuer that differ from the default.
	flags []string
	// guarded says that the server is a guard and not an issuer.
	guarded bool
}

// callPaths lists the paths in the order of the report.
var callPaths = []callPath{
	{
		path: "issue, gRPC, ES256", chart: "issue, gRPC, ES256", against: "one signature of ES256", target: atLeast(0.85),
		load: issueGRPC(ordersScope, ordersAPI), work: "ES256",
	},
	{
		path: "issue, gRPC, EdDSA", chart: "issue, gRPC, EdDSA", against: "one signature of EdDSA", target: atLeast(0.80),
		load: issueGRPC(edScope, edAPI), work: "EdDSA",
	},
	{
		path: "issue, gRPC, RS256", chart: "issue, gRPC, RS256", against: "one signature of RS256", target: atLeast(0.98),
		load: issueGRPC(rsaScope, rsaAPI), work: "RS256",
	},
	{
		path: "issue, REST, ES256", chart: "issue, REST, ES256", against: "one signature of ES256", target: atLeast(0.80),
		load: issueREST(ordersScope, ordersAPI), work: "ES256",
	},
	{
		path: "introspect, gRPC, a token seen before", chart: "introspect, gRPC, seen", against: "an answer without work", target: atLeast(0.85),
		load: introspectGRPC, work: "echo",
	},
	{
		path: "introspect, gRPC, a new token", chart: "introspect, gRPC, new", against: "one verification of ES256", target: atLeast(0.92),
		load: introspectGRPC, work: "verify", flags: []string{"--cached-tokens", "1"},
	},
	{
		path: "issue, gRPC, private_key_jwt", chart: "issue, private_key_jwt", against: "one verification and one signature of ES256 and one write in Redis", target: atLeast(0.80),
		load: issueKeyed, work: "assertion",
	},
	{
		path: "issue, gRPC, federated_jwt seen before", chart: "issue, federated_jwt", against: "one signature of ES256", target: atLeast(0.80),
		load: issueFederated, work: "ES256",
	},
	{
		path: "check of the guard, gRPC, a token seen before", chart: "check of the guard", against: "a server that admits all", target: atLeast(0.85),
		load: checkGuard, work: "ext_authz", guarded: true,
	},
}

// collector is a setting of Go's collector, as environment of both servers.
type collector struct {
	name string
	env  []string
}

// The settings of the collector under which both servers are compared.
var (
	// alike bounds the memory of both servers and nothing else, so each uses the same amount.
	alike = collector{"with GOGC=off and GOMEMLIMIT=64MiB for both", []string{"GOGC=off", "GOMEMLIMIT=64MiB"}}
	usual = collector{"with GOGC=100 for both", []string{"GOGC=100"}}
)

// lightLoad puts a light load on a server.
func (l *lab) lightLoad(ctx context.Context, s *server, prepare newLoad) (*loadResult, error) {
	load, err := prepare(ctx, l, s)
	if err != nil {
		return nil, err
	}
	r, err := load.Run(ctx, loader.Timing{Window: l.warmUp / 2, WarmUp: 4 * l.warmUp, Duration: l.duration}, s.cpu)
	if err != nil {
		return nil, err
	}
	if !r.Steady {
		l.unsteady++
	}
	l.loads++
	m := &loadResult{Calls: r.Calls, Seconds: r.Seconds, PerSecond: float64(r.Calls) / r.Seconds, cpu: r.CPU / time.Duration(r.Calls)}
	m.Latency.P50, m.Latency.P99 = percentile(r.Latencies, 50), percentile(r.Latencies, 99)
	return m, nil
}

// compareCalls starts the servers of a path on a new Redis, both with the setting of the collector, and compares them.
func (l *lab) compareCalls(ctx context.Context, p callPath, c collector, rounds int) (*pairResult, error) {
	progressf("%s / %s, %s", p.path, p.against, c.name)
	on, err := l.redis(ctx)
	if err != nil {
		return nil, err
	}
	defer on.stop()
	subject, err := l.issuer(ctx, on, setup{env: c.env, flags: p.flags})
	if err != nil {
		return nil, err
	}
	defer subject.stop()
	if p.guarded {
		if subject, err = l.guard(ctx, subject, c.env); err != nil {
			return nil, err
		}
		defer subject.stop()
	}
	floor, err := l.yardstick(ctx, on, p.work, c.env)
	if err != nil {
		return nil, err
	}
	defer floor.stop()
	compared, err := compareLoads(rounds, func(i int) (*loadResult, error) {
		return l.lightLoad(ctx, []*server{subject, floor}[i], p.load)
	})
	if err != nil {
		return nil, err
	}
	progressf("  %.1f µs, %.1f µs: ratio %s", compared.subject.cpu.median, compared.floor.cpu.median, compared.cpuRatio.text("%.3f"))
	return newPairResult(compared, subject.process, floor.process)
}

// measureCalls measures the processor time of the server for a call on each path, and the calls per second.
func measureCalls(ctx context.Context, l *lab) (*findings, error) {
	f := &findings{title: "The paths of the server", notes: "calls"}
	rates := newTable("Path", "Against", "Ratio", "Grantor, calls/s", "Yardstick, calls/s", "Median and 99 %, ms", "Yardstick's", "Peak memory", "Yardstick's")
	var bars []bar
	for _, p := range slices.DeleteFunc(slices.Clone(callPaths), func(p callPath) bool { return !l.paths.MatchString(p.path) }) {
		same, err := l.compareCalls(ctx, p, alike, l.rounds)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.path, err)
		}
		often, err := l.compareCalls(ctx, p, usual, l.infoRounds())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.path, err)
		}
		g := f.judgeIn(callGroup, p.path, p.against, p.target, same.cpuRatio.median, p.target.figure(same.cpuRatio, 3, ""))
		g.more = []string{
			fmt.Sprintf("%.1f", same.subject.cpu.median), fmt.Sprintf("%.1f", same.floor.cpu.median), often.cpuRatio.text("%.2f"),
			fmt.Sprintf("%.1f", often.subject.cpu.median), fmt.Sprintf("%.1f", often.floor.cpu.median),
		}
		rates.add(p.path, p.against, same.ratio.text("%.2f"), formatCount(same.subject.perSecond.median), formatCount(same.floor.perSecond.median),
			same.subject.latencies(), same.floor.latencies(), megabytes(same.peaks[0]), megabytes(same.peaks[1]))
		bars = append(bars, bar{p.chart, same.subject.perSecond.median, same.floor.perSecond.median, same.ratio.median})
	}
	f.add("Calls per second and latencies of the same loads, "+alike.name+":", rates)
	f.chart = &chart{"docs/bench-throughput.svg", "calls per second, compared with the yardstick", drawBars(bars)}
	return f, nil
}
