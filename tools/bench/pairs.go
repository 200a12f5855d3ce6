package main

import (
	"context"
	"fmt"
	"slices"
)

// pair is one path of the server beside what it is measured against. A server is started anew for each.
type pair struct {
	path, against  string
	target         target
	subject, floor way
	// chart is the name in the picture; empty where it has no place there.
	chart string
}

// way says what is started and what load is put on it: the yardstick with a work, else an issuer.
type way struct {
	work  string
	setup setup
	args  []string
	env   []string
}

// The flags of loads over REST: over HTTP/1.1 each call under way needs a connection.
var overREST = []string{"--wire", "rest", "--connections", "64"}

// The pairs that have a target.
func judgedPairs() []pair {
	issue := func(path, alg, scope, api string, bound float64, more ...string) pair {
		args := issuing(scope, api, more...)
		return pair{
			path: path, against: "one signature of " + alg, chart: path, target: atLeast(bound),
			subject: way{args: args}, floor: way{work: alg, args: args},
		}
	}
	return []pair{
		issue("issue, gRPC, ES256", "ES256", ordersScope, ordersAPI, 0.85),
		issue("issue, gRPC, EdDSA", "EdDSA", edScope, edAPI, 0.80),
		issue("issue, gRPC, RS256", "RS256", rsaScope, rsaAPI, 0.97),
		issue("issue, REST, ES256", "ES256", ordersScope, ordersAPI, 0.80, overREST...),
		{
			path: "introspect, gRPC, a token seen before", against: "an answer without work", chart: "introspect, gRPC, seen",
			target: atLeast(0.80), subject: way{args: introspecting()}, floor: way{work: "echo", args: introspecting()},
		},
		{
			path: "introspect, gRPC, a new token", against: "one verification of ES256", chart: "introspect, gRPC, new",
			target: atLeast(0.85), subject: way{args: introspecting(), setup: setup{flags: []string{"--cached-tokens", "1"}}},
			floor: way{work: "verify", args: introspecting()},
		},
	}
}

// comparedPairs are settings of the issuer, and of the yardstick's collector, beside others, for information.
func (l *lab) comparedPairs() []pair {
	issue := func(more ...string) way { return way{args: issuing(ordersScope, ordersAPI, more...)} }
	secure := func(w way, env ...string) way {
		w.setup.tls, w.env = true, slices.Concat(env, []string{"SSL_CERT_FILE=" + l.path("cert.pem")})
		return w
	}
	with := func(w way, s setup) way { w.setup = s; return w }
	collected := func(percent string) way { return with(issue(), setup{env: []string{"GOGC=" + percent}}) }
	rest := issue(overREST...)
	const http1 = "GODEBUG=http2client=0" // for who makes the load
	return []pair{
		{path: "issue, gRPC over TLS 1.3", against: "gRPC in plaintext", subject: secure(issue()), floor: issue()},
		{path: "issue, REST over TLS 1.3, HTTP/1.1", against: "REST in plaintext, HTTP/1.1", subject: secure(rest, http1), floor: rest},
		{
			path: "issue, REST over TLS 1.3, HTTP/2, 4 connections", against: "REST over TLS 1.3, HTTP/1.1, 64 connections",
			subject: secure(issue("--wire", "rest")), floor: secure(rest, http1),
		},
		{
			path: "issue, gRPC, ES256", against: "the yardstick, whose collector waits for 64 MB too (GOGC=1600)",
			subject: issue(), floor: with(way{work: "ES256", args: issue().args}, setup{env: []string{"GOGC=1600"}}),
		},
		{
			path: "introspect, gRPC, a token seen before", against: "the yardstick, whose collector waits for 64 MB too (GOGC=1600)",
			subject: way{args: introspecting()}, floor: with(way{work: "echo", args: introspecting()}, setup{env: []string{"GOGC=1600"}}),
		},
		{path: "issue, gRPC, its own choice for the collector", against: "GOGC=100", subject: issue(), floor: collected("100")},
		{path: "issue, gRPC, GOGC=400", against: "GOGC=100", subject: collected("400"), floor: collected("100")},
		{path: "issue, gRPC, 1 connection", against: "4 connections", subject: issue("--connections", "1"), floor: issue()},
		{path: "issue, gRPC, 64 connections", against: "4 connections", subject: issue("--connections", "64"), floor: issue()},
		{
			path: "issue, gRPC, --audit-entries 0", against: "the default, 100,000",
			subject: with(issue(), setup{flags: []string{"--audit-entries", "0"}}), floor: issue(),
		},
	}
}

// raced is what a pair came to, and the most memory that each server had.
type raced struct {
	*comparison

	peaks [2]float64
}

// fewer is how many rounds there are of what is for information alone.
func (s *settings) fewer() int { return max(s.rounds/2, 1) }

// race starts the servers of a pair on a Redis of their own and compares them.
func (l *lab) race(ctx context.Context, p pair, rounds int) (*raced, error) {
	progressf("%s / %s", p.path, p.against)
	on, err := l.redis(ctx)
	if err != nil {
		return nil, err
	}
	defer on.stop()
	subject, err := l.enter(ctx, on, p.subject, "subject:")
	if err != nil {
		return nil, err
	}
	defer subject.stop()
	floor, err := l.enter(ctx, on, p.floor, "floor:")
	if err != nil {
		return nil, err
	}
	defer floor.stop()
	c, err := l.compare(ctx, rounds, *subject, *floor)
	if err != nil {
		return nil, err
	}
	progressf("  ratio %s", c.ratio.text("%.3f"))
	r := &raced{comparison: c}
	for i, one := range []*contestant{subject, floor} {
		if r.peaks[i], err = one.memory("VmHWM"); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// enter starts what a way says. Two issuers share a Redis, each with keys of its own.
func (l *lab) enter(ctx context.Context, on *store, w way, prefix string) (*contestant, error) {
	if w.work != "" {
		s, err := l.yardstick(ctx, w.work, w.setup.env)
		return &contestant{s, w.args, w.env}, err
	}
	w.setup.flags = append([]string{"--redis-prefix", prefix}, w.setup.flags...)
	s, err := l.issuer(ctx, on, w.setup)
	return &contestant{s, w.args, w.env}, err
}

// measurePairs measures the paths of the server.
func measurePairs(ctx context.Context, l *lab) (*findings, error) {
	f := &findings{title: "The paths of the server", notes: "pairs"}
	judged := newTable("Path", "Against", "Ratio", "Target", "Grantor, calls/s", "Other, calls/s", "CPU per call, µs", "Other's", "Median and 99 %, ms", "Other's")
	var bars []bar
	for _, p := range judgedPairs() {
		r, err := l.race(ctx, p, l.rounds)
		if err != nil {
			return nil, err
		}
		f.judgeSpread(p.path, p.against, p.target, r.ratio, 3, "")
		judged.add(r.cells(p.path, p.against, p.target.text("%.2f"))...)
		bars = append(bars, bar{p.chart, r.subject.perSecond.median, r.floor.perSecond.median, r.ratio.median})
	}
	f.add("", judged)
	compared := newTable("Grantor", "Against", "Ratio", "calls/s", "Other, calls/s", "CPU per call, µs", "Other's", "Median and 99 %, ms", "Other's", "Peak memory", "Other's")
	for _, p := range l.comparedPairs() {
		r, err := l.race(ctx, p, l.fewer())
		if err != nil {
			return nil, err
		}
		compared.add(append(r.cells(p.path, p.against), megabytes(r.peaks[0]), megabytes(r.peaks[1]))...)
	}
	f.add("For information, Grantor beside itself with other settings, and beside a yardstick whose collector is set alike:", compared)
	f.chart = &chart{"docs/bench-throughput.svg", "calls a second, beside the yardstick", drawBars(bars)}
	return f, nil
}

// cells are those of a row; target has none or one.
func (r *raced) cells(path, against string, target ...string) []string {
	latency := func(s side) string { return fmt.Sprintf("%.1f, %.1f", s.p50.median, s.p99.median) }
	cells := append([]string{path, against, r.ratio.text("%.2f")}, target...)
	return append(cells, count(r.subject.perSecond.median), count(r.floor.perSecond.median),
		fmt.Sprintf("%.0f", r.subject.cpu.median), fmt.Sprintf("%.0f", r.floor.cpu.median), latency(r.subject), latency(r.floor))
}
