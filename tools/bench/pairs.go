package main

import (
	"context"
	"fmt"
	"slices"
)

// pair is a path of the server, the subject, and what it is measured against, the floor. Each pair gets new servers.
type pair struct {
	path, against  string
	target         target
	subject, floor scenario
	// chart is the name in the picture; empty if the pair is not in it.
	chart string
}

// scenario is a server to start and the load to put on it. The server is the yardstick if work is set, an issuer
// otherwise.
type scenario struct {
	work  string
	setup setup
	args  []string
	env   []string
}

// overREST lists the flags of loads over REST. Over HTTP/1.1 each call in progress needs a connection.
var overREST = []string{"--wire", "rest", "--connections", "64"}

// targetPairs returns the pairs that have a target.
func (l *lab) targetPairs() []pair {
	issue := func(path, alg, scope, api string, bound float64, more ...string) pair {
		args := issueArgs(scope, api, more...)
		return pair{
			path: path, against: "one signature of " + alg, chart: path, target: atLeast(bound),
			subject: scenario{args: args}, floor: scenario{work: alg, args: args},
		}
	}
	keyed := scenario{
		args: issueArgs(ordersScope, ordersAPI, "--client-id", keyedClient, "--private-key-file", l.path(keyFile)),
		env:  []string{"GRANTOR_CLIENT_SECRET="},
	}
	federated := scenario{
		args: issueArgs(ordersScope, ordersAPI, "--client-id", "k8s:orders", "--token-file", l.path(tokenFile)), env: []string{"GRANTOR_CLIENT_SECRET="},
	}
	return []pair{
		issue("issue, gRPC, ES256", "ES256", ordersScope, ordersAPI, 0.85),
		issue("issue, gRPC, EdDSA", "EdDSA", edScope, edAPI, 0.80),
		issue("issue, gRPC, RS256", "RS256", rsaScope, rsaAPI, 0.97),
		issue("issue, REST, ES256", "ES256", ordersScope, ordersAPI, 0.80, overREST...),
		{
			path: "introspect, gRPC, a token seen before", against: "an answer without work", chart: "introspect, gRPC, seen",
			target: atLeast(0.80), subject: scenario{args: introspectArgs()}, floor: scenario{work: "echo", args: introspectArgs()},
		},
		{
			path: "introspect, gRPC, a new token", against: "one verification of ES256", chart: "introspect, gRPC, new",
			target: atLeast(0.85), subject: scenario{args: introspectArgs(), setup: setup{flags: []string{"--cached-tokens", "1"}}},
			floor: scenario{work: "verify", args: introspectArgs()},
		},
		{
			path: "issue, gRPC, private_key_jwt with ES256", chart: "issue, gRPC, private_key_jwt", target: atLeast(0.80), subject: keyed,
			against: "one verification and one signature of ES256 and one write in Redis, by a yardstick whose collector also waits for 64 MB (GOGC=1600)",
			floor:   scenario{work: "assertion", args: keyed.args, env: keyed.env, setup: setup{env: []string{"GOGC=1600"}}},
		},
		{
			path: "issue, gRPC, federated_jwt seen before, with ES256", chart: "issue, gRPC, federated_jwt", target: atLeast(0.80), subject: federated,
			against: "one signature of ES256, by a yardstick whose collector also waits for 64 MB (GOGC=1600)",
			floor:   scenario{work: "ES256", args: federated.args, env: federated.env, setup: setup{env: []string{"GOGC=1600"}}},
		},
	}
}

// infoPairs returns pairs that compare settings of the issuer, and of the yardstick's collector, for information.
func (l *lab) infoPairs() []pair {
	issue := func(more ...string) scenario { return scenario{args: issueArgs(ordersScope, ordersAPI, more...)} }
	secure := func(w scenario, env ...string) scenario {
		w.setup.tls, w.env = true, slices.Concat(env, []string{"SSL_CERT_FILE=" + l.path("cert.pem")})
		return w
	}
	with := func(w scenario, s setup) scenario { w.setup = s; return w }
	collected := func(percent string) scenario { return with(issue(), setup{env: []string{"GOGC=" + percent}}) }
	rest := issue(overREST...)
	const http1 = "GODEBUG=http2client=0" // for the process that makes the load
	return []pair{
		{path: "issue, gRPC over TLS 1.3", against: "gRPC in plaintext", subject: secure(issue()), floor: issue()},
		{path: "issue, REST over TLS 1.3, HTTP/1.1", against: "REST in plaintext, HTTP/1.1", subject: secure(rest, http1), floor: rest},
		{
			path: "issue, REST over TLS 1.3, HTTP/2, 4 connections", against: "REST over TLS 1.3, HTTP/1.1, 64 connections",
			subject: secure(issue("--wire", "rest")), floor: secure(rest, http1),
		},
		{
			path: "issue, gRPC, ES256", against: "the yardstick, whose collector also waits for 64 MB (GOGC=1600)",
			subject: issue(), floor: with(scenario{work: "ES256", args: issue().args}, setup{env: []string{"GOGC=1600"}}),
		},
		{
			path: "introspect, gRPC, a token seen before", against: "the yardstick, whose collector also waits for 64 MB (GOGC=1600)",
			subject: scenario{args: introspectArgs()}, floor: with(scenario{work: "echo", args: introspectArgs()}, setup{env: []string{"GOGC=1600"}}),
		},
		{path: "issue, gRPC, Grantor's default for the collector", against: "GOGC=100", subject: issue(), floor: collected("100")},
		{path: "issue, gRPC, GOGC=400", against: "GOGC=100", subject: collected("400"), floor: collected("100")},
		{path: "issue, gRPC, 1 connection", against: "4 connections", subject: issue("--connections", "1"), floor: issue()},
		{path: "issue, gRPC, 64 connections", against: "4 connections", subject: issue("--connections", "64"), floor: issue()},
		{
			path: "issue, gRPC, --audit-entries 0", against: "the default, 100,000",
			subject: with(issue(), setup{flags: []string{"--audit-entries", "0"}}), floor: issue(),
		},
	}
}

// pairResult is what was measured of a pair, and the peak memory of each server.
type pairResult struct {
	*comparison

	peaks [2]float64
}

// selected returns the pairs whose paths the settings select.
func (s *settings) selected(pairs []pair) []pair {
	return slices.DeleteFunc(pairs, func(p pair) bool { return !s.paths.MatchString(p.path) })
}

// infoRounds returns the number of rounds for figures that have no target.
func (s *settings) infoRounds() int { return max(s.rounds/2, 1) }

// comparePair starts the servers of a pair on a new Redis and compares them.
func (l *lab) comparePair(ctx context.Context, p pair, rounds int) (*pairResult, error) {
	progressf("%s / %s", p.path, p.against)
	on, err := l.redis(ctx)
	if err != nil {
		return nil, err
	}
	defer on.stop()
	subject, err := l.startScenario(ctx, on, p.subject, "subject:")
	if err != nil {
		return nil, err
	}
	defer subject.stop()
	floor, err := l.startScenario(ctx, on, p.floor, "floor:")
	if err != nil {
		return nil, err
	}
	defer floor.stop()
	c, err := l.compare(ctx, rounds, *subject, *floor)
	if err != nil {
		return nil, err
	}
	progressf("  ratio %s, of processor time %s", c.ratio.text("%.3f"), c.cpuRatio.text("%.3f"))
	r := &pairResult{comparison: c}
	for i, one := range []*contestant{subject, floor} {
		if r.peaks[i], err = one.memory("VmHWM"); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// startScenario starts the server of a scenario. Two issuers share a Redis, each with its own prefix of keys.
func (l *lab) startScenario(ctx context.Context, on *store, w scenario, prefix string) (*contestant, error) {
	if w.work != "" {
		s, err := l.yardstick(ctx, on, w.work, w.setup.env)
		return &contestant{s, w.args, w.env}, err
	}
	w.setup.flags = append([]string{"--redis-prefix", prefix}, w.setup.flags...)
	s, err := l.issuer(ctx, on, w.setup)
	return &contestant{s, w.args, w.env}, err
}

// measurePairs measures the paths of the server against the yardstick, and against each other.
func measurePairs(ctx context.Context, l *lab) (*findings, error) {
	f := &findings{title: "The paths of the server", notes: "pairs"}
	judged := newTable("Path", "Against", "Ratio", "Target", "Grantor, calls/s", "Other, calls/s", "CPU per call, µs", "Other's", "Median and 99 %, ms", "Other's")
	var bars []bar
	for _, p := range l.selected(l.targetPairs()) {
		r, err := l.comparePair(ctx, p, l.rounds)
		if err != nil {
			return nil, err
		}
		f.judgeSpread(p.path, p.against, p.target, r.ratio, 3, "")
		judged.add(r.cells(p.path, p.against, p.target.text("%.2f"))...)
		bars = append(bars, bar{p.chart, r.subject.perSecond.median, r.floor.perSecond.median, r.ratio.median})
	}
	f.add("", judged)
	compared := newTable("Grantor", "Against", "Ratio", "calls/s", "Other, calls/s", "CPU per call, µs", "Other's", "Median and 99 %, ms", "Other's", "Peak memory", "Other's")
	for _, p := range l.selected(l.infoPairs()) {
		r, err := l.comparePair(ctx, p, l.infoRounds())
		if err != nil {
			return nil, err
		}
		compared.add(append(r.cells(p.path, p.against), megabytes(r.peaks[0]), megabytes(r.peaks[1]))...)
	}
	f.add("For information: Grantor compared with itself under other settings, and with a yardstick whose collector has the same setting:", compared)
	f.chart = &chart{"docs/bench-throughput.svg", "calls per second, compared with the yardstick", drawBars(bars)}
	return f, nil
}

// cells returns the cells of a row. target is one cell or none.
func (r *pairResult) cells(path, against string, target ...string) []string {
	latency := func(s side) string { return fmt.Sprintf("%.1f, %.1f", s.p50.median, s.p99.median) }
	cells := append([]string{path, against, r.ratio.text("%.2f")}, target...)
	return append(cells, formatCount(r.subject.perSecond.median), formatCount(r.floor.perSecond.median),
		fmt.Sprintf("%.0f", r.subject.cpu.median), fmt.Sprintf("%.0f", r.floor.cpu.median), latency(r.subject), latency(r.floor))
}
