package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// pair is two settings of the issuer that are compared. Each pair gets new servers.
type pair struct {
	path, against  string
	subject, floor scenario
}

// scenario is an issuer to start and the load to put on it, by the arguments and the environment of `grantor bench`.
type scenario struct {
	setup setup
	args  []string
	env   []string
}

// overREST lists the flags of loads over REST. Over HTTP/1.1 each call in progress needs a connection.
var overREST = []string{"--wire", "rest", "--connections", "64"}

// pairs returns the pairs.
func (l *lab) pairs() []pair {
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
		{path: "issue, gRPC, Grantor's default for the collector", against: "GOGC=100", subject: issue(), floor: collected("100")},
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

// newPairResult returns the result with the peak memory of the two processes.
func newPairResult(c *comparison, subject, floor *local.Process) (*pairResult, error) {
	r := &pairResult{comparison: c}
	for i, one := range []*local.Process{subject, floor} {
		var err error
		if r.peaks[i], err = one.Memory("VmHWM"); err != nil {
			return nil, err
		}
	}
	return r, nil
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
	defer subject.Stop()
	floor, err := l.startScenario(ctx, on, p.floor, "floor:")
	if err != nil {
		return nil, err
	}
	defer floor.Stop()
	c, err := l.compare(ctx, rounds, *subject, *floor)
	if err != nil {
		return nil, err
	}
	progressf("  ratio %s, of processor time %s", c.ratio.Text("%.3f"), c.cpuRatio.Text("%.3f"))
	return newPairResult(c, subject.Process, floor.Process)
}

// startScenario starts the server of a scenario. Two issuers share a Redis, each with its own prefix of keys.
func (l *lab) startScenario(ctx context.Context, on *store, w scenario, prefix string) (*contestant, error) {
	w.setup.flags = append([]string{"--redis-prefix", prefix}, w.setup.flags...)
	s, err := l.issuer(ctx, on, w.setup)
	return &contestant{s, w.args, w.env}, err
}

// measurePairs compares the settings.
func measurePairs(ctx context.Context, l *lab) (*findings, error) {
	f := &findings{title: "Other settings", notes: "pairs"}
	compared := figures.NewTable("Grantor", "Against", "Ratio of calls", "calls/s", "Other, calls/s", "Ratio of processor time", "CPU per call, µs", "Other's", "Peak memory", "Other's")
	for _, p := range l.pairs() {
		r, err := l.comparePair(ctx, p, l.infoRounds())
		if err != nil {
			return nil, err
		}
		compared.Add(p.path, p.against, r.ratio.Text("%.2f"), figures.Count(r.subject.perSecond.Median), figures.Count(r.floor.perSecond.Median),
			r.cpuRatio.Text("%.2f"), fmt.Sprintf("%.0f", r.subject.cpu.Median), fmt.Sprintf("%.0f", r.floor.cpu.Median), figures.Megabytes(r.peaks[0]), figures.Megabytes(r.peaks[1]))
	}
	f.add("", compared)
	return f, nil
}
