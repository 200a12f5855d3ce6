package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
)

// scale is an issuer with few clients beside one with many, each on a Redis of its own.
type scale struct {
	*lab

	few, many           *server
	fewStore, manyStore *store
	// clients is how many the many are; secrets are theirs, in order, and the first ten are those of the few.
	clients int
	secrets []string
}

const someClients = 10

// thousandth gives n, or a thousandth of it in a quick run, but some at least.
func (l *lab) thousandth(n int) int {
	if l.quick {
		return max(n/1000, 2*someClients)
	}
	return n
}

// measureScale measures what a million clients, as many tokens and a start cost.
func measureScale(ctx context.Context, l *lab) (*findings, error) {
	s := &scale{lab: l, clients: l.thousandth(1_000_000)}
	for range s.clients {
		s.secrets = append(s.secrets, clientsecret.New())
	}
	f := &findings{title: "Many clients, many tokens, and the start", notes: "scale"}
	var err error
	if s.fewStore, err = l.redis(ctx); err != nil {
		return nil, err
	}
	defer s.fewStore.stop()
	if s.manyStore, err = l.redis(ctx); err != nil {
		return nil, err
	}
	defer s.manyStore.stop()
	defer func() {
		for _, issuer := range []*server{s.few, s.many} {
			if issuer != nil {
				issuer.stop()
			}
		}
	}()
	for _, step := range []func(context.Context, *findings) error{s.register, s.compareClients, s.coldCache, s.startUp, s.manyTokens} {
		if err := step(ctx, f); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func clientName(i int) string { return fmt.Sprintf("client-%07d", i) }

// register has both issuers started and their clients registered.
func (s *scale) register(ctx context.Context, f *findings) error {
	var err error
	if s.few, err = s.issuer(ctx, s.fewStore, setup{}); err != nil {
		return err
	}
	if err := s.apply(ctx, s.few, someClients); err != nil {
		return err
	}
	if s.many, err = s.issuer(ctx, s.manyStore, setup{}); err != nil {
		return err
	}
	before, err := s.manyStore.number(ctx, "memory", "used_memory")
	if err != nil {
		return err
	}
	progressf("registering %d clients", s.clients)
	began := time.Now()
	if err := s.apply(ctx, s.many, s.clients); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := s.manyStore.number(ctx, "memory", "used_memory")
	if err != nil {
		return err
	}
	record, err := s.manyStore.client.MemoryUsage(ctx, "grantor:{grantor}:client:"+clientName(0)).Result()
	if err != nil {
		return err
	}
	f.add(fmt.Sprintf("%s clients were registered over gRPC, 500 to a call, in %.0f s: %s a second. They take %s bytes each of the memory of Redis: %d for the "+
		"record, the rest for the index, for the feed, which tells replicas of each change for a day, and for audit events.",
		count(float64(s.clients)), took.Seconds(), count(math.Round(float64(s.clients)/took.Seconds())),
		count(math.Round((after-before)/float64(s.clients))), record), nil)
	return nil
}

// apply registers clients at an issuer, as an administrator.
func (s *scale) apply(ctx context.Context, at *server, clients int) error {
	conn, err := grpc.NewClient("passthrough:///"+at.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	issued, err := grantorv1.NewTokenServiceClient(conn).IssueToken(ctx, &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: bossClient, ClientSecret: s.secret,
	})
	if err != nil {
		return err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+issued.GetAccessToken())
	const batch = 500 // as many as a call may have
	starts := make(chan int)
	failed := make(chan error)
	const sending = 4
	for range sending {
		go func() {
			var err error
			for first := range starts {
				if err == nil {
					_, err = grantorv1.NewResourceServiceClient(conn).ApplyManifest(ctx, s.wanted(first, min(first+batch, clients)))
				}
			}
			failed <- err
		}()
	}
	for first := 0; first < clients; first += batch {
		starts <- first
	}
	close(starts)
	for range sending {
		if one := <-failed; one != nil {
			err = one
		}
	}
	return err
}

// wanted are the clients of a range.
func (s *scale) wanted(from, to int) *grantorv1.ApplyManifestRequest {
	m := &grantorv1.ApplyManifestRequest{}
	for i := from; i < to; i++ {
		m.Clients = append(m.Clients, &grantorv1.WantedClient{ClientSecret: s.secrets[i], Client: &grantorv1.Client{
			ClientId: clientName(i), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: []string{ordersScope},
		}})
	}
	return m
}

// file writes the first clients for `grantor bench --clients`.
func (s *scale) file(clients int) (string, error) {
	var text bytes.Buffer
	for i := range clients {
		fmt.Fprintf(&text, "%s %s\n", clientName(i), s.secrets[i])
	}
	name := "clients-" + strconv.Itoa(clients)
	return s.path(name), s.write(name, text.Bytes())
}

// compareClients puts the same loads on both issuers.
func (s *scale) compareClients(ctx context.Context, f *findings) error {
	some, err := s.file(someClients)
	if err != nil {
		return err
	}
	issue := func(file string, more ...string) []string {
		return append([]string{"issue", "--clients", file, "--scope", ordersScope, "--resource", ordersAPI}, more...)
	}
	judged, registered := atLeast(0.95), count(float64(s.clients))+" clients registered"
	loads := []struct {
		path      string
		args      []string
		of        int // how many clients ask the issuer that has many; 0 for the same as at the other
		important bool
	}{
		{"issue, gRPC", issue(some), 0, true},
		{"issue, REST", issue(some, overREST...), 0, true},
		{"introspect, gRPC, seen", introspecting(), 0, true},
		{"issue, gRPC", issue(some), s.thousandth(10_000), false},
		{"issue, gRPC", issue(some), s.clients, false},
	}
	t := newTable("Path", "Ratio", "Target", "Many registered, calls/s", "10 registered, calls/s", "CPU per call, µs", "With 10")
	for _, load := range loads {
		many, path, rounds, bound := load.args, load.path+", "+registered, s.fewer(), ""
		if load.of > 0 {
			file, err := s.file(load.of)
			if err != nil {
				return err
			}
			many, path = issue(file), path+", of which "+count(float64(load.of))+" ask in turn"
		}
		if load.important {
			rounds, bound = s.rounds, judged.text("%.2f")
		}
		progressf("%s", path)
		c, err := s.compare(ctx, rounds, contestant{s.many, many, nil}, contestant{s.few, load.args, nil})
		if err != nil {
			return err
		}
		if load.important {
			f.judgeSpread(path, "10 clients registered", judged, c.ratio, 3, "")
		}
		t.add(path, c.ratio.text("%.2f"), bound, count(c.subject.perSecond.median), count(c.floor.perSecond.median),
			fmt.Sprintf("%.0f", c.subject.cpu.median), fmt.Sprintf("%.0f", c.floor.cpu.median))
	}
	f.add("The same load, of ten clients that ask in turn where nothing else is said; one client asks for introspection:", t)
	return nil
}

// notReading are commands that write, and those that are about the connection, scripts or the server. Every other command
// counts as one that reads, so that a new kind of it does too.
var notReading = []string{
	"set", "del", "unlink", "expire", "pexpire", "hset", "hdel", "hincrby", "zadd", "zrem", "xadd", "xtrim",
	"auth", "hello", "ping", "select", "client", "eval", "evalsha", "script", "multi", "exec", "publish", "subscribe", "time", "info", "config", "command",
}

// reads reports whether a command reads what is stored. Redis names those that have a second word as client|setinfo.
func reads(command string) bool {
	name, _, _ := strings.Cut(command, "|")
	return !slices.Contains(notReading, name)
}

// coldCache has clients ask once each of an issuer that knows none of them yet.
func (s *scale) coldCache(ctx context.Context, f *findings) error {
	s.many.stop()
	var err error
	if s.many, err = s.issuer(ctx, s.manyStore, setup{}); err != nil {
		return err
	}
	clients := min(s.thousandth(100_000), s.clients)
	file, err := s.file(clients)
	if err != nil {
		return err
	}
	progressf("%d clients, each for the first time", clients)
	before, err := s.manyStore.commands(ctx)
	if err != nil {
		return err
	}
	m, _, err := s.load(ctx, contestant{s.many, []string{
		"issue", "--clients", file, "--scope", ordersScope, "--resource", ordersAPI,
		"--calls", strconv.Itoa(clients), "--duration", "10m", "--warm-up", "0s",
	}, nil})
	if err != nil {
		return err
	}
	pause(ctx, time.Second) // the audit events of the last tokens are written in batches
	after, err := s.manyStore.commands(ctx)
	if err != nil {
		return err
	}
	if m.Calls != int64(clients) {
		return fmt.Errorf("%d tokens were issued, of %d", m.Calls, clients)
	}
	var read, all float64
	var counted []string
	t := newTable("Command", "Times", "Per token")
	for _, name := range slices.Sorted(maps.Keys(after)) {
		times := after[name] - before[name]
		if times == 0 {
			continue
		}
		all += times
		if reads(name) {
			read += times
			counted = append(counted, name)
		}
		t.add(name, count(times), fmt.Sprintf("%.4f", times/float64(clients)))
	}
	perToken := read / float64(clients)
	bound := below(1.005, "reads")
	f.judge("reads of Redis for a token, cold", count(float64(clients))+" clients ask once each; 0.005 are for what the replica reads anyway",
		bound, perToken, fmt.Sprintf("%.*f reads", bound.digits(perToken, 4), perToken))
	f.add(fmt.Sprintf("A fresh issuer, and %s of the clients, each of which asks once. These commands Redis was sent or ran in scripts meanwhile, those included that "+
		"replicas send anyway (heartbeats, the feed): %.2f for a token in all, of which %.4f read (%s). One for a token is what is wanted; the target leaves half a "+
		"hundredth beside it for those that the replica sends anyway, which are not taken out.",
		count(float64(clients)), all/float64(clients), perToken, strings.Join(counted, ", ")), t)
	return nil
}

// starts is how often a start is measured.
const starts = 5

// startUp measures from the start of the process to the first token, with all the clients registered.
func (s *scale) startUp(ctx context.Context, f *findings) error {
	s.many.stop()
	took, fresh, used, err := s.timeStarts(ctx)
	if err != nil {
		return err
	}
	// A day after the clients were registered the feed tells of them no more.
	if err := s.manyStore.client.XTrimMaxLen(ctx, "grantor:{grantor}:feed", 1).Err(); err != nil {
		return err
	}
	later, freshLater, usedLater, err := s.timeStarts(ctx)
	if err != nil {
		return err
	}
	plain, stripped, err := s.sizes(ctx)
	if err != nil {
		return err
	}
	const path = "start of serve to the first token"
	clients := count(float64(s.clients))
	perChange := fmt.Sprintf("%.1f µs for each change", 1e6*(took.median-later.median)/float64(s.clients))
	f.judgeSpread(path, clients+" clients registered, none of them within the last day", below(0.5, "s"), later, 3, "s")
	f.judgeSpread(path, clients+" clients registered, all of them within the last day", target{}, took, 3, "s: "+perChange)
	f.add(fmt.Sprintf("From the start of the process to the first token over gRPC, %d times each. The target is for a Redis with %s clients whose registration is not among the "+
		"changes of the last day: %s s. The feed was trimmed for that, as it will be a day later. A fresh replica reads the feed of the last day, so right after %s registrations, "+
		"all of them within the last day, it takes longer, which has no target: %s s, so (%.3f s − %.3f s) / %s = %s.",
		starts, clients, later.text("%.3f"), clients, took.text("%.3f"), took.median, later.median, clients, perChange), nil)
	f.add(fmt.Sprintf("After its first token the process has %s resident, and after a load of %s it has %s, %.2f times that; right after the registrations %s and %s, %.2f times that. "+
		"The binary of `make build` has %s; without symbols (`-ldflags '-s -w' -trimpath`) it has %s, %.2f of that.",
		megabytes(freshLater), s.duration, megabytes(usedLater), usedLater/freshLater, megabytes(fresh), megabytes(used), used/fresh,
		megabytes(plain), megabytes(stripped), stripped/plain), nil)
	return nil
}

// timeStarts starts the issuer several times. It gives the seconds to the first token, and of the last one the memory then and
// after a load.
func (s *scale) timeStarts(ctx context.Context) (took spread, fresh, used float64, err error) {
	var seconds []float64
	for i := range starts {
		began := time.Now()
		issuer, _, err := s.beginIssuer(ctx, s.manyStore, setup{})
		if err != nil {
			return took, 0, 0, err
		}
		err = s.firstToken(ctx, issuer)
		seconds = append(seconds, time.Since(began).Seconds())
		if err == nil && i == starts-1 {
			fresh, used, err = s.weigh(ctx, issuer)
		}
		issuer.stop()
		if err != nil {
			return took, 0, 0, err
		}
	}
	took = spreadOf(seconds)
	progressf("start to first token: %s s", took.text("%.3f"))
	return took, fresh, used, nil
}

// firstToken asks for a token until there is one.
func (s *scale) firstToken(ctx context.Context, issuer *server) error {
	often := backoff.Config{BaseDelay: 2 * time.Millisecond, Multiplier: 1, MaxDelay: 2 * time.Millisecond}
	conn, err := grpc.NewClient(issuer.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: often, MinConnectTimeout: time.Second}))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return issuer.await(ctx, func(ctx context.Context) error {
		_, err := grantorv1.NewTokenServiceClient(conn).IssueToken(ctx, &grantorv1.IssueTokenRequest{
			GrantType: oauth.GrantClientCredentials, ClientId: clientName(0), ClientSecret: s.secrets[0], Scope: ordersScope,
		}, grpc.WaitForReady(true))
		return err
	})
}

// weigh gives what is resident now, and after a load.
func (s *scale) weigh(ctx context.Context, issuer *server) (fresh, used float64, err error) {
	if fresh, err = issuer.memory("VmRSS"); err != nil {
		return 0, 0, err
	}
	if _, err = s.usual(ctx, contestant{issuer, issuing(ordersScope, ordersAPI), nil}); err != nil {
		return 0, 0, err
	}
	used, err = issuer.memory("VmRSS")
	return fresh, used, err
}

// sizes gives the bytes of the binary, as it is built and without symbols.
func (s *scale) sizes(ctx context.Context) (plain, stripped float64, err error) {
	if err := s.build(ctx, "stripped", "./cmd/grantor", "-trimpath", "-ldflags", "-s -w"); err != nil {
		return 0, 0, err
	}
	for name, into := range map[string]*float64{"grantor": &plain, "stripped": &stripped} {
		found, err := os.Stat(s.path(name))
		if err != nil {
			return 0, 0, err
		}
		*into = float64(found.Size())
	}
	return plain, stripped, nil
}

// manyTokens looks whether Redis grows with the tokens that are issued.
func (s *scale) manyTokens(ctx context.Context, f *findings) error {
	s.few.stop()
	first, entries := s.tokens/50, 100_000
	if s.quick {
		entries = first / 4
	}
	var err error
	if s.few, err = s.issuer(ctx, s.fewStore, setup{flags: []string{"--audit-entries", strconv.Itoa(entries)}}); err != nil {
		return err
	}
	issue := func(tokens int) error {
		progressf("%d tokens", tokens)
		_, _, err := s.load(ctx, contestant{s.few, issuing(edScope, edAPI,
			"--calls", strconv.Itoa(tokens), "--duration", "1h", "--warm-up", "0s"), nil})
		pause(ctx, 2*time.Second) // the audit events of the last tokens are written in batches
		return err
	}
	if err := issue(first); err != nil {
		return err
	}
	if !s.quick {
		if err := s.fewStore.hasUses(ctx, s.few); err != nil {
			return err
		}
	}
	keys, memory, err := s.fewStore.size(ctx)
	if err != nil {
		return err
	}
	if err := issue(s.tokens); err != nil {
		return err
	}
	keysAfter, memoryAfter, err := s.fewStore.size(ctx)
	if err != nil {
		return err
	}
	tokens := count(float64(s.tokens)) + " tokens"
	grown, base := 100*(memoryAfter/memory-1), "after "+count(float64(first))
	f.judge("keys in Redis after "+tokens, base, atMost(0, "keys apart"), math.Abs(keysAfter-keys), fmt.Sprintf("%s, %s before", count(keysAfter), count(keys)))
	f.judge("memory of Redis after "+tokens, base, atMost(1, "% apart"), math.Abs(grown), fmt.Sprintf("%+.3f %%", grown))
	f.add(fmt.Sprintf("%s of EdDSA were issued and audited after the first %s. Redis had %s keys and %s before, %s keys and %s after, which is %.3f times as much memory.",
		tokens, count(float64(first)), count(keys), megabytes(memory), count(keysAfter), megabytes(memoryAfter), memoryAfter/memory), nil)
	return nil
}
