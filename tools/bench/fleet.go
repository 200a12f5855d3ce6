package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// fleet is two replicas of one issuer on one Redis, and many verifiers.
type fleet struct {
	*lab

	store     *store
	replicas  [2]*server
	verifiers *verifierProcess
}

const (
	fleetVerifiers = 100
	// fleetRate is the number of tokens requested of each replica per second.
	fleetRate = 2000
)

// usage is what the replicas and Redis used in a period: processor time by replica, and commands of Redis.
type usage struct {
	seconds  float64
	cpu      [2]time.Duration
	commands float64
}

// cpuShare returns the part of a processor that the second replica used.
func (u *usage) cpuShare() float64 { return u.cpu[1].Seconds() / u.seconds }

// commandsPerSecond returns the number of Redis commands per second and replica.
func (u *usage) commandsPerSecond() float64 { return u.commands / u.seconds / 2 }

// measureFleet measures what several replicas and their verifiers use.
func measureFleet(ctx context.Context, l *lab) (*findings, error) {
	store, err := l.redis(ctx)
	if err != nil {
		return nil, err
	}
	defer store.stop()
	fl := &fleet{lab: l, store: store}
	for i := range fl.replicas {
		shared := setup{}
		if i > 0 {
			shared.flags = []string{"--issuer", fl.replicas[0].url} // the last of several counts
		}
		if fl.replicas[i], err = l.issuer(ctx, store, shared); err != nil {
			return nil, err
		}
		defer fl.replicas[i].Stop()
	}
	m, err := fl.measure(ctx)
	if err != nil {
		return nil, err
	}
	f := &findings{title: "Several replicas, and an estimate", notes: "fleet"}
	m.report(f)
	if m.many, err = l.measureFollowers(ctx, f); err != nil {
		return nil, err
	}
	f.add(m.estimate(), nil)
	return f, nil
}

// fleetFigures are the figures of the fleet.
type fleetFigures struct {
	verifiers         int
	alone, idle, busy usage // without verifiers, with verifiers, and with load as well
	tokens            [2]*loadResult
	calm, loaded      *revocationResult
	calmRevocations   int
	calmUsage         usage
	revocations       int // in the burst
	burst             *revocationResult
	burstUsage        usage
	many              *followerFigures
}

// measure takes the figures in order: without verifiers, with verifiers, with load, and a burst of revocations.
func (fl *fleet) measure(ctx context.Context) (*fleetFigures, error) {
	m := &fleetFigures{verifiers: fleetVerifiers, revocations: 2000}
	m.calmRevocations = 200
	period := 10 * time.Second
	if fl.quick {
		period, m.calmRevocations, m.revocations = 300*time.Millisecond, 5, 20
	}
	idle := func() error { local.Sleep(ctx, period); return ctx.Err() }
	progressf("two replicas without load")
	var err error
	if m.alone, err = fl.measureUsage(ctx, idle); err != nil {
		return nil, err
	}
	progressf("%d verifiers", m.verifiers)
	fl.verifiers, err = fl.startVerifiers(ctx, m.verifiers, fl.replicas[0].url, fl.replicas[0].grpc, fl.replicas[1].grpc)
	if err != nil {
		return nil, err
	}
	defer fl.verifiers.stop()
	if m.idle, err = fl.measureUsage(ctx, idle); err != nil {
		return nil, err
	}
	progressf("%d revocations, one after another", m.calmRevocations)
	if m.calmUsage, err = fl.measureUsage(ctx, func() error { m.calm, err = fl.verifiers.revoke("one", m.calmRevocations); return err }); err != nil {
		return nil, err
	}
	progressf("%d tokens per second from each replica", fleetRate)
	if m.busy, err = fl.measureUsage(ctx, func() error { m.tokens, err = fl.loadReplicas(ctx, period); return err }); err != nil {
		return nil, err
	}
	if m.loaded, err = fl.revokeUnderLoad(ctx, period, m.calmRevocations/2); err != nil {
		return nil, err
	}
	local.Sleep(ctx, time.Second)
	progressf("%d revocations at once", m.revocations)
	m.burstUsage, err = fl.measureUsage(ctx, func() error { m.burst, err = fl.verifiers.revoke("burst", m.revocations); return err })
	return m, err
}

// measureUsage returns what is used while do runs.
func (fl *fleet) measureUsage(ctx context.Context, do func() error) (usage, error) {
	var u usage
	began := time.Now()
	before, err := fl.totalUsage(ctx)
	if err != nil {
		return u, err
	}
	if err := do(); err != nil {
		return u, err
	}
	after, err := fl.totalUsage(ctx)
	for i := range u.cpu {
		u.cpu[i] = after.cpu[i] - before.cpu[i]
	}
	u.commands, u.seconds = after.commands-before.commands, time.Since(began).Seconds()
	return u, err
}

// totalUsage returns what has been used since the start.
func (fl *fleet) totalUsage(ctx context.Context) (u usage, err error) {
	for i, r := range fl.replicas {
		if u.cpu[i], err = r.CPU(); err != nil {
			return u, err
		}
	}
	u.commands, err = fl.store.infoField(ctx, "stats", "total_commands_processed")
	return u, err
}

// loadReplicas requests tokens from both replicas at a fixed rate.
func (fl *fleet) loadReplicas(ctx context.Context, period time.Duration) ([2]*loadResult, error) {
	var results [2]*loadResult
	var errs [2]error
	var loading sync.WaitGroup
	for i, r := range fl.replicas {
		loading.Go(func() {
			target := &server{r.Process, fl.replicas[0].url, r.grpc, r.profiles} // both replicas have the issuer name of the first
			results[i], _, errs[i] = fl.load(ctx, contestant{target, issueArgs(ordersScope, ordersAPI, "--rate", strconv.Itoa(fleetRate),
				"--grpc-endpoint", r.grpc, "--duration", period.String(), "--warm-up", fl.warmUp.String()), nil})
		})
	}
	loading.Wait()
	return results, errors.Join(errs[:]...)
}

// revokeUnderLoad revokes one token after another while both replicas issue tokens.
func (fl *fleet) revokeUnderLoad(ctx context.Context, period time.Duration, revocations int) (*revocationResult, error) {
	progressf("%d revocations, one after another, under load", revocations)
	loaded := make(chan error, 1)
	go func() {
		_, err := fl.loadReplicas(ctx, period)
		loaded <- err
	}()
	local.Sleep(ctx, period/10)
	answer, err := fl.verifiers.revoke("one", revocations)
	return answer, errors.Join(err, <-loaded)
}

// report adds the tables to the findings.
func (m *fleetFigures) report(f *findings) {
	t := figures.NewTable("Two replicas", "Processor time of a replica, of one core", "Relative to no verifiers", "Redis commands per second and replica", "Tokens per second of each")
	base := m.alone.cpuShare()
	for _, row := range []struct {
		name   string
		u      usage
		tokens string
	}{
		{"no load, no verifiers", m.alone, "0"},
		{fmt.Sprintf("no load, %d verifiers", m.verifiers), m.idle, "0"},
		{
			fmt.Sprintf("%d verifiers, %s tokens per second requested from each", m.verifiers, figures.Count(fleetRate)), m.busy,
			fmt.Sprintf("%s and %s", figures.Count(math.Round(m.tokens[0].PerSecond)), figures.Count(math.Round(m.tokens[1].PerSecond))),
		},
	} {
		t.Add(row.name, fmt.Sprintf("%.2f %%", 100*row.u.cpuShare()), fmt.Sprintf("%+.2f %%", 100*(row.u.cpuShare()-base)), fmt.Sprintf("%.1f", row.u.commandsPerSecond()), row.tokens)
	}
	f.add("", t)
	reach := figures.NewTable("Revocations at the first replica", "Median, ms", "99 %, ms", "Longest, ms", "Longest relative to the median")
	for _, row := range []struct {
		name string
		took []float64
	}{{"one after another, no load", m.calm.Took}, {"one after another, under that load", m.loaded.Took}} {
		median, longest := figures.Percentile(row.took, 50), figures.Percentile(row.took, 100)
		reach.Add(row.name, fmt.Sprintf("%.1f", median), fmt.Sprintf("%.1f", figures.Percentile(row.took, 99)), fmt.Sprintf("%.1f", longest), fmt.Sprintf("%.1f times", longest/median))
	}
	f.add(fmt.Sprintf("From the request that revokes a token, through its response, until a verifier has received the revocation, for each of %d verifiers, half of which follow each replica:", m.verifiers), reach)
	f.add(fmt.Sprintf("A burst of %s revocations had reached all %d verifiers after %.2f s. A verifier received %.0f bytes per revocation, including heartbeats; "+
		"the replica that was sent none of the requests used %.1f µs of processor time per revocation and verifier that follows it. For revocations one after "+
		"another it used %.1f µs per verifier, %.1f times as much.",
		figures.Count(float64(m.revocations)), m.verifiers, m.burst.Seconds, m.bytesPerRevocation(), 1e6*m.pushCPU(), 1e6*m.singlePushCPU(), m.singlePushCPU()/m.pushCPU()), nil)
}

// bytesPerRevocation returns the number of bytes that a verifier receives per revocation.
func (m *fleetFigures) bytesPerRevocation() float64 {
	return float64(m.burst.Bytes) / float64(m.verifiers) / float64(m.revocations)
}

// pushCPU returns the processor time, in seconds, to push one revocation to one verifier in a burst. It is that of the second
// replica, which does nothing else.
func (m *fleetFigures) pushCPU() float64 {
	return m.burstUsage.cpu[1].Seconds() / float64(m.verifiers/2) / float64(m.revocations)
}

// singlePushCPU returns the same for revocations one after another, without the processor time of the heartbeats.
func (m *fleetFigures) singlePushCPU() float64 {
	took := m.calmUsage.cpu[1].Seconds() - m.idle.cpuShare()*m.calmUsage.seconds
	return max(took, 0) / float64(m.verifiers/2) / float64(m.calmRevocations)
}

// estimate computes from the figures what a large fleet needs.
func (m *fleetFigures) estimate() string {
	const (
		services, pods = 1000, 20_000
		lifetime       = 3600.0
		renewed        = 0.8 * lifetime
		restart        = 300.0
		replicas       = 3
		revocations    = 10.0 // per second
	)
	// The heartbeat interval is that of a verifier, in seconds.
	const interval = 2.0
	tokenCPU := max(m.busy.cpuShare()-m.idle.cpuShare(), 0) / m.tokens[1].PerSecond
	usual, peak := pods/renewed, pods/restart
	streams := float64(pods) / replicas
	lines := []string{
		fmt.Sprintf("**Estimate:** %s services with %s pods, each pod a verifier that follows the feed and a caller with a token of one hour, and %d replicas. "+
			"This is computed from the figures above, which are those of this machine, and not measured:", figures.Count(services), figures.Count(pods), replicas),
		"",
		fmt.Sprintf("- Tokens: a token is renewed at 80 %% of its lifetime, so %s / (0.8 × %.0f s) = **%.1f per second** for all replicas together. If all pods restart within "+
			"5 minutes: %s / %.0f s = **%.1f per second**. One replica issued %s per second above, with %.0f %% of a core.",
			figures.Count(pods), lifetime, usual, figures.Count(pods), restart, peak, figures.Count(math.Round(m.tokens[1].PerSecond)), 100*m.busy.cpuShare()),
		fmt.Sprintf("- Processor time for tokens: (%.2f %% − %.2f %%) / %s = %.0f µs each, so %.1f × %.0f µs = **%.2f %% of a core**, and during the restart %.1f × %.0f µs = **%.2f %%**, "+
			"for all replicas together.", 100*m.busy.cpuShare(), 100*m.idle.cpuShare(), figures.Count(math.Round(m.tokens[1].PerSecond)), 1e6*tokenCPU,
			usual, 1e6*tokenCPU, 100*usual*tokenCPU, peak, 1e6*tokenCPU, 100*peak*tokenCPU),
		fmt.Sprintf("- Streams: %s / %d = %s for each replica (`max-connections` must allow them). A stream has a heartbeat each %.0f s of %.1f µs (with %s followers), "+
			"so **%.0f %% of a core** for each replica, and %.0f kB of memory, so **%s**.", figures.Count(pods), replicas, figures.Count(math.Round(streams)),
			interval, m.many.heartbeat, figures.Count(float64(m.many.n)), 100*streams/interval*m.many.heartbeat/1e6, m.many.memory/1e3, figures.Megabytes(streams*m.many.memory)),
		fmt.Sprintf("- Revocations: pushing one to all pods uses %s × %.1f µs = **%.0f ms** of processor time of all replicas together and %s × %.0f bytes = **%s**. At %.0f per second, "+
			"a high rate, that is %.0f %% of a core for each replica.", figures.Count(pods), m.many.revocation, pods*m.many.revocation/1e3, figures.Count(pods), m.bytesPerRevocation(),
			figures.Megabytes(pods*m.bytesPerRevocation()), revocations, 100*revocations*streams*m.many.revocation/1e6),
		fmt.Sprintf("- Redis: %d replicas × %.1f = **%.0f commands per second** without tokens. Under the load above there were %.1f per second and replica, %.3f per token, "+
			"so the restart adds at most %.1f × %.3f = %.0f. Verifiers never call Redis.", replicas, m.idle.commandsPerSecond(), replicas*m.idle.commandsPerSecond(), m.busy.commandsPerSecond(),
			m.commandsPerToken(), peak, m.commandsPerToken(), peak*m.commandsPerToken()),
	}
	return strings.Join(lines, "\n")
}

// commandsPerToken returns the number of Redis commands that a token adds.
func (m *fleetFigures) commandsPerToken() float64 {
	return max(m.busy.commandsPerSecond()-m.idle.commandsPerSecond(), 0) / m.tokens[1].PerSecond
}
