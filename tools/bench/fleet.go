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
)

// fleet is two replicas of one issuer and many verifiers.
type fleet struct {
	*lab

	store    *store
	replicas [2]*server
	crowd    *audience
}

const (
	fleetVerifiers = 100
	// fleetRate is the tokens that are asked of each replica in a second.
	fleetRate = 2000
)

// usage is what replicas and Redis took in a time, for each replica.
type usage struct {
	seconds  float64
	cpu      [2]time.Duration
	commands float64
}

// share is the part of a processor that the second replica took.
func (u *usage) share() float64 { return u.cpu[1].Seconds() / u.seconds }

// perSecond is the number of commands that Redis had of one replica in a second.
func (u *usage) perSecond() float64 { return u.commands / u.seconds / 2 }

// measureFleet measures what several replicas and their verifiers need.
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
			shared.flags = []string{"--issuer", fl.replicas[0].url} // the last one counts
		}
		if fl.replicas[i], err = l.issuer(ctx, store, shared); err != nil {
			return nil, err
		}
		defer fl.replicas[i].stop()
	}
	m, err := fl.measure(ctx)
	if err != nil {
		return nil, err
	}
	f := &findings{title: "Several replicas, and on paper", notes: "fleet"}
	m.tell(f)
	f.add(m.paper(), nil)
	return f, nil
}

// fleetFigures are what was measured of the fleet.
type fleetFigures struct {
	verifiers         int
	alone, idle, busy usage // before the verifiers, with them, and with load too
	tokens            [2]*measured
	streamMemory      float64 // what a stream takes in a replica
	calm, loaded      *reached
	calmRevocations   int
	calmUsage         usage
	revocations       int // in the burst
	burst             *reached
	burstUsage        usage
}

func (fl *fleet) measure(ctx context.Context) (*fleetFigures, error) {
	m := &fleetFigures{verifiers: fleetVerifiers, revocations: 2000}
	m.calmRevocations = 200
	while := 10 * time.Second
	if fl.quick {
		while, m.calmRevocations, m.revocations = 300*time.Millisecond, 5, 20
	}
	rest := func() error { pause(ctx, while); return ctx.Err() }
	progressf("two replicas without load")
	var err error
	if m.alone, err = fl.watch(ctx, rest); err != nil {
		return nil, err
	}
	before, err := fl.replicas[1].memory("VmRSS")
	if err != nil {
		return nil, err
	}
	progressf("%d verifiers", m.verifiers)
	fl.crowd, err = fl.gather(ctx, m.verifiers, fl.replicas[0].url, fl.replicas[0].grpc, fl.replicas[1].grpc)
	if err != nil {
		return nil, err
	}
	defer fl.crowd.stop()
	if m.idle, err = fl.watch(ctx, rest); err != nil {
		return nil, err
	}
	after, err := fl.replicas[1].memory("VmRSS")
	if err != nil {
		return nil, err
	}
	m.streamMemory = (after - before) / float64(m.verifiers/2)
	progressf("%d revocations, one after another", m.calmRevocations)
	if m.calmUsage, err = fl.watch(ctx, func() error { m.calm, err = fl.crowd.revoke("one", m.calmRevocations); return err }); err != nil {
		return nil, err
	}
	progressf("%d tokens a second of each replica", fleetRate)
	if m.busy, err = fl.watch(ctx, func() error { m.tokens, err = fl.loads(ctx, while); return err }); err != nil {
		return nil, err
	}
	if m.loaded, err = fl.revokeUnderLoad(ctx, while, m.calmRevocations/2); err != nil {
		return nil, err
	}
	pause(ctx, time.Second)
	progressf("%d revocations at once", m.revocations)
	m.burstUsage, err = fl.watch(ctx, func() error { m.burst, err = fl.crowd.revoke("burst", m.revocations); return err })
	return m, err
}

// watch measures what is taken while something is done.
func (fl *fleet) watch(ctx context.Context, do func() error) (usage, error) {
	var u usage
	began := time.Now()
	before, err := fl.taken(ctx)
	if err != nil {
		return u, err
	}
	if err := do(); err != nil {
		return u, err
	}
	after, err := fl.taken(ctx)
	for i := range u.cpu {
		u.cpu[i] = after.cpu[i] - before.cpu[i]
	}
	u.commands, u.seconds = after.commands-before.commands, time.Since(began).Seconds()
	return u, err
}

// taken is what was taken since the start.
func (fl *fleet) taken(ctx context.Context) (u usage, err error) {
	for i, r := range fl.replicas {
		if u.cpu[i], err = r.cpu(); err != nil {
			return u, err
		}
	}
	u.commands, err = fl.store.number(ctx, "stats", "total_commands_processed")
	return u, err
}

// loads asks both replicas for tokens at a fixed rate.
func (fl *fleet) loads(ctx context.Context, while time.Duration) ([2]*measured, error) {
	var found [2]*measured
	var failed [2]error
	var loading sync.WaitGroup
	for i, r := range fl.replicas {
		loading.Go(func() {
			named := &server{r.process, fl.replicas[0].url, r.grpc} // both replicas are the one issuer
			found[i], _, failed[i] = fl.load(ctx, contestant{named, issuing(ordersScope, ordersAPI, "--rate", strconv.Itoa(fleetRate),
				"--grpc-endpoint", r.grpc, "--duration", while.String(), "--warm-up", fl.warmUp.String()), nil})
		})
	}
	loading.Wait()
	return found, errors.Join(failed[:]...)
}

// revokeUnderLoad revokes one token after another while both replicas issue tokens.
func (fl *fleet) revokeUnderLoad(ctx context.Context, while time.Duration, revocations int) (*reached, error) {
	progressf("%d revocations, one after another, under load", revocations)
	failed := make(chan error, 1)
	go func() {
		_, err := fl.loads(ctx, while)
		failed <- err
	}()
	pause(ctx, while/10)
	answer, err := fl.crowd.revoke("one", revocations)
	return answer, errors.Join(err, <-failed)
}

// tell makes the tables.
func (m *fleetFigures) tell(f *findings) {
	t := newTable("Two replicas", "Processor of a replica, of one core", "Beside without verifiers", "Redis commands a second for each replica", "Tokens a second of each")
	base := m.alone.share()
	for _, row := range []struct {
		name   string
		u      usage
		tokens string
	}{
		{"no load, no verifiers", m.alone, "0"},
		{fmt.Sprintf("no load, %d verifiers", m.verifiers), m.idle, "0"},
		{
			fmt.Sprintf("%d verifiers, %s tokens a second asked of each", m.verifiers, count(fleetRate)), m.busy,
			fmt.Sprintf("%s and %s", count(math.Round(m.tokens[0].PerSecond)), count(math.Round(m.tokens[1].PerSecond))),
		},
	} {
		t.add(row.name, fmt.Sprintf("%.2f %%", 100*row.u.share()), fmt.Sprintf("%+.2f %%", 100*(row.u.share()-base)), fmt.Sprintf("%.1f", row.u.perSecond()), row.tokens)
	}
	f.add("", t)
	reach := newTable("Revocations at the first replica", "Median, ms", "99 %, ms", "Longest, ms", "Longest beside the median")
	for _, row := range []struct {
		name string
		took []float64
	}{{"one after another, no load", m.calm.Took}, {"one after another, under that load", m.loaded.Took}} {
		median, longest := percentile(row.took, 50), percentile(row.took, 100)
		reach.add(row.name, fmt.Sprintf("%.1f", median), fmt.Sprintf("%.1f", percentile(row.took, 99)), fmt.Sprintf("%.1f", longest), fmt.Sprintf("%.1f times", longest/median))
	}
	f.add(fmt.Sprintf("From the request that revokes a token, through its answer, until a verifier knows it, for each of %d verifiers, half of which follow each replica:", m.verifiers), reach)
	f.add(fmt.Sprintf("A burst of %s revocations was known to all %d verifiers after %.2f s. A verifier received %.0f bytes for each, heartbeats among them; the "+
		"replica that took none of them had %.1f µs of processor time for each and each verifier that follows it. One after another a revocation took it %.1f µs for "+
		"each verifier, %.1f times that.",
		count(float64(m.revocations)), m.verifiers, m.burst.Seconds, m.bytes(), 1e6*m.pushed(), 1e6*m.pushedAlone(), m.pushedAlone()/m.pushed()), nil)
}

// bytes is what a verifier receives for a revocation.
func (m *fleetFigures) bytes() float64 {
	return float64(m.burst.Bytes) / float64(m.verifiers) / float64(m.revocations)
}

// pushed is the processor time, in seconds, for telling one verifier of one revocation. The second replica only does that.
func (m *fleetFigures) pushed() float64 {
	return m.burstUsage.cpu[1].Seconds() / float64(m.verifiers/2) / float64(m.revocations)
}

// pushedAlone is the same where one revocation comes after another, without what the heartbeats take.
func (m *fleetFigures) pushedAlone() float64 {
	took := m.calmUsage.cpu[1].Seconds() - m.idle.share()*m.calmUsage.seconds
	return max(took, 0) / float64(m.verifiers/2) / float64(m.calmRevocations)
}

// paper computes what a large fleet needs from what was measured.
func (m *fleetFigures) paper() string {
	const (
		services, pods = 1000, 20_000
		lifetime       = 3600.0
		renewed        = 0.8 * lifetime
		storm          = 300.0
		replicas       = 3
		revocations    = 10.0 // a second
	)
	streamShare := max(m.idle.share()-m.alone.share(), 0) / float64(m.verifiers/2)
	tokenCPU := max(m.busy.share()-m.idle.share(), 0) / m.tokens[1].PerSecond
	usual, peak := pods/renewed, pods/storm
	streams := float64(pods) / replicas
	lines := []string{
		fmt.Sprintf("**On paper:** %s services with %s pods, each pod a verifier that follows the feed and a caller with a token of an hour, and %d replicas. "+
			"This is computed from the figures above, which are of this machine, and not measured:", count(services), count(pods), replicas),
		"",
		fmt.Sprintf("- Tokens: a token is renewed at 80 %% of its life, so %s / (0.8 × %.0f s) = **%.1f a second** for all replicas together. If all pods start anew within "+
			"5 minutes: %s / %.0f s = **%.1f a second**. One replica gave %s a second above, with %.0f %% of a core.",
			count(pods), lifetime, usual, count(pods), storm, peak, count(math.Round(m.tokens[1].PerSecond)), 100*m.busy.share()),
		fmt.Sprintf("- Processor for tokens: (%.2f %% − %.2f %%) / %s = %.0f µs each, so %.1f × %.0f µs = **%.2f %% of a core**, and in the storm %.1f × %.0f µs = **%.2f %%**, "+
			"for all replicas together.", 100*m.busy.share(), 100*m.idle.share(), count(math.Round(m.tokens[1].PerSecond)), 1e6*tokenCPU,
			usual, 1e6*tokenCPU, 100*usual*tokenCPU, peak, 1e6*tokenCPU, 100*peak*tokenCPU),
		fmt.Sprintf("- Streams: %s / %d = %s for each replica (`max-connections` must let them in). A stream has a heartbeat a second, which takes (%.2f %% − %.2f %%) / %d = %.4f %% of a core, "+
			"so **%.0f %% of a core** for each replica, and %.0f kB of memory, so **%s**.", count(pods), replicas, count(math.Round(streams)),
			100*m.idle.share(), 100*m.alone.share(), m.verifiers/2, 100*streamShare, 100*streams*streamShare, m.streamMemory/1e3, megabytes(streams*m.streamMemory)),
		fmt.Sprintf("- Revocations: one is told to all pods by %s × %.1f µs = **%.0f ms** of processor time of all replicas together and %s × %.0f bytes = **%s**. At %.0f a second, "+
			"which is much, that is %.0f %% of a core for each replica.", count(pods), 1e6*m.pushedAlone(), 1e3*pods*m.pushedAlone(), count(pods), m.bytes(),
			megabytes(pods*m.bytes()), revocations, 100*revocations*streams*m.pushedAlone()),
		fmt.Sprintf("- Redis: %d replicas × %.1f = **%.0f commands a second** without tokens. Under the load above there were %.1f a second for each replica, %.3f for a token, "+
			"so the storm adds at most %.1f × %.3f = %.0f. Verifiers never ask Redis.", replicas, m.idle.perSecond(), replicas*m.idle.perSecond(), m.busy.perSecond(),
			m.perToken(), peak, m.perToken(), peak*m.perToken()),
	}
	return strings.Join(lines, "\n")
}

// perToken is how many commands a token adds.
func (m *fleetFigures) perToken() float64 {
	return max(m.busy.perSecond()-m.idle.perSecond(), 0) / m.tokens[1].PerSecond
}
