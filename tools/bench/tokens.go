package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// otherCommands lists the commands that write and those that concern the connection, scripts or the server. Every command that
// it does not list counts as a read, so that a new kind of read does too.
var otherCommands = []string{
	"set", "del", "unlink", "expire", "pexpire", "hset", "hdel", "hincrby", "zadd", "zrem", "xadd", "xtrim",
	"auth", "hello", "ping", "select", "client", "eval", "evalsha", "script", "multi", "exec", "publish", "subscribe", "time", "info", "config", "command",
}

// isRead reports whether a command reads stored data. Redis joins the two words of a command with a bar, as in
// client|setinfo.
func isRead(command string) bool {
	name, _, _ := strings.Cut(command, "|")
	return !slices.Contains(otherCommands, name)
}

// coldCache counts the reads of Redis when each of many clients requests one token from an issuer with an empty cache.
func (s *scale) coldCache(ctx context.Context, f *findings) error {
	s.many.Stop()
	var err error
	if s.many, err = s.issuer(ctx, s.manyStore, setup{}); err != nil {
		return err
	}
	clients := min(s.scaled(100_000), s.clients)
	file, err := s.file(clients)
	if err != nil {
		return err
	}
	progressf("%d clients, one token each", clients)
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
	local.Sleep(ctx, time.Second) // the audit events of the last tokens are written in batches
	after, err := s.manyStore.commands(ctx)
	if err != nil {
		return err
	}
	if m.Calls != int64(clients) {
		return fmt.Errorf("got %d tokens, want %d", m.Calls, clients)
	}
	var read, all float64
	var counted []string
	t := figures.NewTable("Command", "Times", "Per token")
	for _, name := range slices.Sorted(maps.Keys(after)) {
		times := after[name] - before[name]
		if times == 0 {
			continue
		}
		all += times
		if isRead(name) {
			read += times
			counted = append(counted, name)
		}
		t.Add(name, figures.Count(times), fmt.Sprintf("%.4f", times/float64(clients)))
	}
	perToken := read / float64(clients)
	bound := below(1.005, "reads")
	f.judge("reads of Redis for a token, cold", figures.Count(float64(clients))+" clients request one token each; 0.005 allow for what the replica reads anyway",
		bound, perToken, fmt.Sprintf("%.*f reads", bound.decimals(perToken, 4), perToken))
	f.add(fmt.Sprintf("A new issuer, from which %s of the clients request one token each. Redis received these commands or ran them in scripts, including those that "+
		"replicas send anyway (heartbeats, the feed): %.2f per token in all, of which %.4f read (%s). One read per token is intended; the target allows another 0.005 "+
		"for those that the replica sends anyway, which are not subtracted.",
		figures.Count(float64(clients)), all/float64(clients), perToken, strings.Join(counted, ", ")), t)
	return nil
}

// manyTokens measures whether Redis grows with the number of issued tokens.
func (s *scale) manyTokens(ctx context.Context, f *findings) error {
	s.few.Stop()
	// The audit log is full after the first tokens, so that it does not grow with the others.
	first, entries := s.tokens/10, s.tokens/20
	var err error
	if s.few, err = s.issuer(ctx, s.fewStore, setup{flags: []string{"--audit-entries", strconv.Itoa(entries)}}); err != nil {
		return err
	}
	issue := func(tokens int) error {
		progressf("%d tokens", tokens)
		_, _, err := s.load(ctx, contestant{s.few, issueArgs(edScope, edAPI,
			"--calls", strconv.Itoa(tokens), "--duration", "1h", "--warm-up", "0s"), nil})
		local.Sleep(ctx, 2*time.Second) // the audit events of the last tokens are written in batches
		return err
	}
	if err := issue(first); err != nil {
		return err
	}
	if !s.quick {
		if err := s.fewStore.awaitSecretUses(ctx, s.few); err != nil {
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
	tokens := figures.Count(float64(s.tokens)) + " tokens"
	grown, base := 100*(memoryAfter/memory-1), "after "+figures.Count(float64(first))
	f.judge("keys in Redis after "+tokens, base, atMost(0, "keys apart"), math.Abs(keysAfter-keys), fmt.Sprintf("%s, %s before", figures.Count(keysAfter), figures.Count(keys)))
	f.judge("memory of Redis after "+tokens, base, atMost(1, "% apart"), math.Abs(grown), fmt.Sprintf("%+.3f %%", grown))
	f.add(fmt.Sprintf("%s with EdDSA were issued and audited after the first %s. Redis had %s keys and %s before, %s keys and %s after, which is %.3f times as much memory.",
		tokens, figures.Count(float64(first)), figures.Count(keys), figures.Megabytes(memory), figures.Count(keysAfter), figures.Megabytes(memoryAfter), memoryAfter/memory), nil)
	return nil
}
