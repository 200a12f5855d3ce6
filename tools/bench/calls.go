package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/tools/bench/loader"
	"github.com/grantorhq/grantor/tools/bench/profile"
	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
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
	t := loader.Timing{Window: l.warmUp / 2, WarmUp: 4 * l.warmUp, Duration: l.duration}
	load, err := prepare(ctx, l, s, t.WarmUp+t.Duration)
	if err != nil {
		return nil, err
	}
	r, err := load.Run(ctx, t, s.CPU)
	if err != nil {
		return nil, err
	}
	l.loads++
	if !r.Steady {
		l.unsteady++
	}
	m := &loadResult{
		Calls: r.Calls, Seconds: r.Seconds, PerSecond: float64(r.Calls) / r.Seconds,
		cpu: r.CPU / time.Duration(r.Calls), clientCPU: r.Client / time.Duration(r.Calls),
	}
	m.Latency.P50, m.Latency.P99 = figures.Percentile(r.Latencies, 50), figures.Percentile(r.Latencies, 99)
	return m, nil
}

// duel is the servers of a path, which run beside each other.
type duel struct {
	subject, floor *server
	processes      []*local.Process
}

func (d *duel) stop() {
	for _, p := range slices.Backward(d.processes) {
		p.Stop()
	}
}

// startDuel starts the servers of a path on a new Redis, with the same setting of the collector.
func (l *lab) startDuel(ctx context.Context, p *callPath, c collector) (d *duel, err error) {
	d = &duel{}
	defer func() {
		if err != nil {
			d.stop()
		}
	}()
	on, err := l.redis(ctx)
	if err != nil {
		return d, err
	}
	d.processes = append(d.processes, on.Process)
	if d.subject, err = l.issuer(ctx, on, setup{env: c.env, flags: p.flags}); err != nil {
		return d, err
	}
	d.processes = append(d.processes, d.subject.Process)
	if p.guarded {
		if d.subject, err = l.guard(ctx, d.subject, c.env); err != nil {
			return d, err
		}
		d.processes = append(d.processes, d.subject.Process)
	}
	if d.floor, err = l.yardstick(ctx, on, p.work, c.env); err != nil {
		return d, err
	}
	d.processes = append(d.processes, d.floor.Process)
	return d, nil
}

// callResult is what was measured of a path: both servers under each setting of the collector, and where their time goes under
// the first.
type callResult struct {
	same, usual            *pairResult
	subjectGoes, floorGoes breakdown
}

// compareCall measures a path.
func (l *lab) compareCall(ctx context.Context, p *callPath) (*callResult, error) {
	r := &callResult{}
	for _, under := range []struct {
		collector
		rounds int
		into   **pairResult
	}{{alike, l.rounds, &r.same}, {usual, l.infoRounds(), &r.usual}} {
		progressf("%s / %s, %s", p.path, p.against, under.name)
		d, err := l.startDuel(ctx, p, under.collector)
		if err != nil {
			return nil, err
		}
		compared, err := compareLoads(under.rounds, func(i int) (*loadResult, error) {
			return l.lightLoad(ctx, []*server{d.subject, d.floor}[i], p.load)
		})
		if err == nil {
			progressf("  %.1f µs, %.1f µs: ratio %s", compared.subject.cpu.Median, compared.floor.cpu.Median, compared.cpuRatio.Text("%.3f"))
			*under.into, err = newPairResult(compared, d.subject.Process, d.floor.Process)
		}
		if err == nil && r.subjectGoes == nil {
			r.subjectGoes, err = l.breakDown(ctx, d.subject, p.load)
		}
		if err == nil && r.floorGoes == nil {
			r.floorGoes, err = l.breakDown(ctx, d.floor, p.load)
		}
		d.stop()
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// measureCalls measures the processor time of the server for a call on each path, and the calls per second.
func measureCalls(ctx context.Context, l *lab) (*findings, error) {
	f := &findings{title: "The paths of the server", notes: "calls"}
	rates := figures.NewTable("Path", "Ratio", "Grantor, calls/s", "Yardstick, calls/s", "Median and 99 %, ms", "Yardstick's", "Peak memory", "Yardstick's", "CPU of the client per call, µs")
	goes := figures.NewTable(slices.Concat([]string{"Path", "Server"}, profile.Kinds, []string{"Sum"})...)
	var bars []bar
	for i := range callPaths {
		p := &callPaths[i]
		if !l.paths.MatchString(p.path) {
			continue
		}
		r, err := l.compareCall(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.path, err)
		}
		p.judge(f, r)
		same := r.same
		rates.Add(p.path, same.ratio.Text("%.2f"), figures.Count(same.subject.perSecond.Median), figures.Count(same.floor.perSecond.Median),
			same.subject.latencies(), same.floor.latencies(), figures.Megabytes(same.peaks[0]), figures.Megabytes(same.peaks[1]), fmt.Sprintf("%.1f", same.subject.clientCPU.Median))
		goes.Add(append([]string{p.path, "Grantor"}, r.subjectGoes.cells()...)...)
		goes.Add(append([]string{"", "yardstick"}, r.floorGoes.cells()...)...)
		bars = append(bars, bar{p.chart, same.subject.perSecond.Median, same.floor.perSecond.Median, same.ratio.Median})
	}
	f.add("Calls per second and latencies of the same loads, "+alike.name+":", rates)
	f.add("Where the processor time of a call goes, in µs, from a profile of each server under the same load:", goes)
	f.chart = &chart{"docs/bench-throughput.svg", "calls per second, compared with the yardstick", drawBars(bars)}
	return f, nil
}

// judge adds the goal of a path.
func (p *callPath) judge(f *findings, r *callResult) {
	g := f.judgeIn(callGroup, p.path, p.against, p.target, r.same.cpuRatio.Median, p.target.figure(r.same.cpuRatio, 3, ""))
	g.reason = r.subjectGoes.exceeds(r.floorGoes)
	g.more = []string{
		fmt.Sprintf("%.1f", r.same.subject.cpu.Median), fmt.Sprintf("%.1f", r.same.floor.cpu.Median), r.usual.cpuRatio.Text("%.2f"),
		fmt.Sprintf("%.1f", r.usual.subject.cpu.Median), fmt.Sprintf("%.1f", r.usual.floor.cpu.Median),
	}
}
