package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/tools/figures"
)

// scale is an issuer with few clients and one with many, each with its own Redis.
type scale struct {
	*lab

	few, many           *server
	fewStore, manyStore *store
	// clients is the number of clients of the second issuer, and secrets lists their secrets. The first fewClients of them are
	// the clients of the first issuer.
	clients int
	secrets []string
}

// fewClients is the number of clients of the first issuer.
const fewClients = 10

// scaled returns n, or a thousandth of it in a quick run, but at least 2×fewClients.
func (l *lab) scaled(n int) int {
	if l.quick {
		return max(n/1000, 2*fewClients)
	}
	return n
}

// measureScale measures what a million clients, ten million tokens and a start cost.
func measureScale(ctx context.Context, l *lab) (*findings, error) {
	s := &scale{lab: l, clients: l.scaled(1_000_000)}
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
				issuer.Stop()
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

// clientName returns the name of the client i.
func clientName(i int) string { return fmt.Sprintf("client-%07d", i) }

// register starts both issuers and registers their clients.
func (s *scale) register(ctx context.Context, f *findings) error {
	var err error
	if s.few, err = s.issuer(ctx, s.fewStore, setup{}); err != nil {
		return err
	}
	if err := s.apply(ctx, s.few, fewClients); err != nil {
		return err
	}
	if s.many, err = s.issuer(ctx, s.manyStore, setup{}); err != nil {
		return err
	}
	before, err := s.manyStore.infoField(ctx, "memory", "used_memory")
	if err != nil {
		return err
	}
	progressf("registering %d clients", s.clients)
	began := time.Now()
	if err := s.apply(ctx, s.many, s.clients); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := s.manyStore.infoField(ctx, "memory", "used_memory")
	if err != nil {
		return err
	}
	record, err := s.manyStore.client.MemoryUsage(ctx, "grantor:{grantor}:client:"+clientName(0)).Result()
	if err != nil {
		return err
	}
	f.add(fmt.Sprintf("%s clients were registered over gRPC, 500 per call, in %.0f s: %s per second. Each uses %s bytes of the memory of Redis: %d for the "+
		"record, the rest for the index, for the feed, which keeps each change for a day, and for audit events.",
		figures.Count(float64(s.clients)), took.Seconds(), figures.Count(math.Round(float64(s.clients)/took.Seconds())),
		figures.Count(math.Round((after-before)/float64(s.clients))), record), nil)
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
		GrantType: oauth.GrantClientCredentials, ClientId: adminClient, ClientSecret: s.secret,
	})
	if err != nil {
		return err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+issued.GetAccessToken())
	const batch = 500 // the maximum of a call
	batches := make(chan int)
	failed := make(chan error)
	const senders = 4
	for range senders {
		go func() {
			var err error
			for first := range batches {
				if err == nil {
					_, err = grantorv1.NewResourceServiceClient(conn).ApplyManifest(ctx, s.manifest(first, min(first+batch, clients)))
				}
			}
			failed <- err
		}()
	}
	for first := 0; first < clients; first += batch {
		batches <- first
	}
	close(batches)
	for range senders {
		if one := <-failed; one != nil {
			err = one
		}
	}
	return err
}

// manifest returns a manifest of the clients of a range.
func (s *scale) manifest(from, to int) *grantorv1.ApplyManifestRequest {
	m := &grantorv1.ApplyManifestRequest{}
	for i := from; i < to; i++ {
		m.Clients = append(m.Clients, &grantorv1.WantedClient{ClientSecret: s.secrets[i], Client: &grantorv1.Client{
			ClientId: clientName(i), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: []string{ordersScope},
		}})
	}
	return m
}

// file writes the first clients to a file for `grantor bench --clients`.
func (s *scale) file(clients int) (string, error) {
	var text bytes.Buffer
	for i := range clients {
		fmt.Fprintf(&text, "%s %s\n", clientName(i), s.secrets[i])
	}
	name := "clients-" + strconv.Itoa(clients)
	return s.path(name), s.write(name, text.Bytes())
}

// compareClients compares the issuers under the same loads.
func (s *scale) compareClients(ctx context.Context, f *findings) error {
	some, err := s.file(fewClients)
	if err != nil {
		return err
	}
	issue := func(file string, more ...string) []string {
		return append([]string{"issue", "--clients", file, "--scope", ordersScope, "--resource", ordersAPI}, more...)
	}
	judged, registered := atLeast(0.95), figures.Count(float64(s.clients))+" clients registered"
	loads := []struct {
		path      string
		args      []string
		rotating  int // the clients that send requests to the second issuer; 0 for the same as for the first
		hasTarget bool
	}{
		{"issue, gRPC", issue(some), 0, true},
		{"issue, REST", issue(some, overREST...), 0, true},
		{"introspect, gRPC, seen", introspectArgs(), 0, true},
		{"issue, gRPC", issue(some), s.scaled(10_000), false},
		{"issue, gRPC", issue(some), s.clients, false},
	}
	t := figures.NewTable("Path", "Ratio", "Target", "Many registered, calls/s", "10 registered, calls/s", "CPU per call, µs", "With 10")
	for _, load := range loads {
		many, path, rounds, bound := load.args, load.path+", "+registered, s.infoRounds(), ""
		if load.rotating > 0 {
			file, err := s.file(load.rotating)
			if err != nil {
				return err
			}
			many, path = issue(file), path+", "+figures.Count(float64(load.rotating))+" of which request tokens in turn"
		}
		if load.hasTarget {
			rounds, bound = s.rounds, judged.text("%.2f")
		}
		progressf("%s", path)
		c, err := s.compare(ctx, rounds, contestant{s.many, many, nil}, contestant{s.few, load.args, nil})
		if err != nil {
			return err
		}
		if load.hasTarget {
			f.judgeSpread(path, "10 clients registered", judged, c.ratio, 3, "")
		}
		t.Add(path, c.ratio.Text("%.2f"), bound, figures.Count(c.subject.perSecond.Median), figures.Count(c.floor.perSecond.Median),
			fmt.Sprintf("%.0f", c.subject.cpu.Median), fmt.Sprintf("%.0f", c.floor.cpu.Median))
	}
	f.add("The same load on both. Ten clients request tokens in turn unless stated otherwise; one client introspects:", t)
	return nil
}
