package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// followerCounts are the numbers of followers of a replica. The processes need as many file descriptors.
var followerCounts = []int{1000, 5000}

// followerFigures are the figures of one replica with n followers, each at its own connection.
type followerFigures struct {
	n int
	// heartbeat and revocation are the microseconds of processor time of the replica per follower and heartbeat, and per
	// follower and revocation at 10 revocations a second. pacedWrite and write are what write(2) of as many bytes to as many
	// connections takes: 50 each 20 ms, as for heartbeats, and to all at once.
	heartbeat, pacedWrite, revocation, write float64
	// memory is the resident memory of the replica per follower, in bytes.
	memory float64
	// p99 and longest are the milliseconds until the last follower had a revocation.
	p99, longest float64
	// joined is the number of seconds until all had joined.
	joined float64
}

// measureFollowers measures a replica with thousands of followers, and returns the figures for the most.
func (l *lab) measureFollowers(ctx context.Context, f *findings) (most *followerFigures, err error) {
	t := figures.NewTable("Followers", "CPU per heartbeat, µs", "write(2) alone, paced alike", "CPU per revocation, µs", "write(2) alone, all at once",
		"Memory per follower, kB", "Revocation at the last follower, 99 %, ms", "Longest, ms", "All joined after, s")
	for _, n := range followerCounts {
		if l.quick {
			n /= 100
		}
		progressf("%d followers of one replica", n)
		m, err := l.followers(ctx, n)
		if err != nil {
			return nil, err
		}
		most = m
		t.Add(figures.Count(float64(n)), fmt.Sprintf("%.1f", m.heartbeat), fmt.Sprintf("%.1f", m.pacedWrite), fmt.Sprintf("%.1f", m.revocation),
			fmt.Sprintf("%.1f", m.write), fmt.Sprintf("%.1f", m.memory/1e3), fmt.Sprintf("%.0f", m.p99), fmt.Sprintf("%.0f", m.longest), fmt.Sprintf("%.1f", m.joined))
		m.judge(f)
	}
	f.add("One replica and followers in another process, each with a gRPC connection of its own, heartbeats each 2 s, then 10 revocations per "+
		"second. Processor time is that of the replica less what it uses without followers; on one machine, it includes the work of the kernel for "+
		"the receiver. Beside it is the processor time of a program that does nothing but write as many bytes to as many connections:", t)
	return most, nil
}

// judge compares the figures with their targets.
func (m *followerFigures) judge(f *findings) {
	followers := figures.Count(float64(m.n)) + " followers"
	reach := atMost(250, "ms")
	if m.n <= 1000 {
		reach = below(100, "ms")
	} else {
		f.judge("a heartbeat, "+followers, "write(2) paced alike", atMost(5, "µs"), m.heartbeat, fmt.Sprintf("%.1f µs", m.heartbeat))
		f.judge("a revocation, "+followers, "write(2) to all", atMost(3, "µs"), m.revocation, fmt.Sprintf("%.1f µs", m.revocation))
		f.judge("memory of a follower, "+followers, "none", atMost(30, "kB"), m.memory/1e3, fmt.Sprintf("%.1f kB", m.memory/1e3))
	}
	f.judge("99 % of revocations at the last of "+followers, "none", reach, m.p99, fmt.Sprintf("%.0f ms", m.p99))
}

// followers measures a replica with n followers.
func (l *lab) followers(ctx context.Context, n int) (*followerFigures, error) {
	m := &followerFigures{n: n}
	var err error
	if m.pacedWrite, m.write, err = l.measureWrites(ctx, n); err != nil {
		return nil, err
	}
	store, err := l.redis(ctx)
	if err != nil {
		return nil, err
	}
	defer store.stop()
	replica, err := l.issuer(ctx, store, setup{flags: []string{"--max-connections", "0", "--connections-per-source", "0", "--streams-per-source", "0"}})
	if err != nil {
		return nil, err
	}
	defer replica.Stop()
	period := 10 * time.Second
	if l.quick {
		period = time.Second
	}
	local.Sleep(ctx, time.Second)
	alone, err := used(replica.Process, func() error { local.Sleep(ctx, period); return nil })
	if err != nil {
		return nil, err
	}
	base := alone.Seconds() / period.Seconds()
	before, err := replica.Memory("VmRSS")
	if err != nil {
		return nil, err
	}
	p, err := l.startVerifiers(ctx, n, replica.grpc)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	m.joined = p.joined
	local.Sleep(ctx, period/2)
	after, err := replica.Memory("VmRSS")
	if err != nil {
		return nil, err
	}
	m.memory = (after - before) / float64(n)
	return m, m.measureSends(replica, p, base, int(period.Seconds()))
}

// measureSends measures heartbeats and then revocations, each for a number of seconds. base is the part of a processor that the
// replica uses without followers.
func (m *followerFigures) measureSends(replica *server, p *verifierProcess, base float64, seconds int) error {
	measure := func(command string, arg int) (*followResult, float64, error) {
		var r *followResult
		used, err := used(replica.Process, func() (err error) { r, err = p.follow(command, arg); return err })
		if err != nil {
			return nil, 0, err
		}
		return r, 1e6 * (used.Seconds() - base*r.Seconds), nil
	}
	idle, used, err := measure("idle", seconds)
	if err != nil {
		return err
	}
	m.heartbeat = used / float64(idle.Responses)
	const rate = 10
	revocations := rate * seconds
	revoked, used, err := measure("revoke", revocations)
	if err != nil {
		return err
	}
	m.revocation = used / float64(m.n) / float64(revocations)
	m.p99, m.longest = revoked.slowest()
	return nil
}

// used returns the processor time that a process uses while do runs.
func used(p *local.Process, do func() error) (time.Duration, error) {
	before, err := p.CPU()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := p.CPU()
	return after - before, err
}

// follow has the process of the followers answer a command.
func (a *verifierProcess) follow(command string, arg int) (*followResult, error) {
	if _, err := fmt.Fprintln(a.in, command, arg); err != nil {
		return nil, err
	}
	line, err := a.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("reading from the followers: %w", err)
	}
	var result followResult
	return &result, json.Unmarshal(line, &result)
}

// measureWrites returns the processor time in microseconds that write(2) takes to connections of another process: paced as
// heartbeats are, and to all at once.
func (l *lab) measureWrites(ctx context.Context, n int) (paced, atOnce float64, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = listener.Close() }()
	conns := make(chan net.Conn, n)
	go func() {
		defer close(conns)
		for range n {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	p, err := l.startVerifiers(ctx, n, readersPrefix+listener.Addr().String())
	if err != nil {
		return 0, 0, err
	}
	defer p.stop()
	var all []net.Conn
	defer func() {
		for _, conn := range all {
			_ = conn.Close()
		}
	}()
	for conn := range conns {
		all = append(all, conn)
	}
	const bytes, perPause, writes = 60, 50, 10_000
	if paced, err = timeWrites(all, make([]byte, bytes), writes, perPause, 20*time.Millisecond); err != nil {
		return 0, 0, err
	}
	atOnce, err = timeWrites(all, make([]byte, bytes), 10*n, n, 100*time.Millisecond)
	return paced, atOnce, err
}

// timeWrites writes to the connections in turn, with a pause after a number of writes, and returns the processor time of one
// write in microseconds.
func timeWrites(conns []net.Conn, message []byte, writes, perPause int, pause time.Duration) (float64, error) {
	before, err := ownCPU()
	if err != nil {
		return 0, err
	}
	for i := range writes {
		if _, err := conns[i%len(conns)].Write(message); err != nil {
			return 0, err
		}
		if (i+1)%perPause == 0 {
			time.Sleep(pause)
		}
	}
	after, err := ownCPU()
	return 1e6 * (after - before).Seconds() / float64(writes), err
}

// ownCPU returns the processor time that this process has used.
func ownCPU() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// readersPrefix marks the address that processes of the followers only read from.
const readersPrefix = "tcp:"

// runReaders opens n connections and reads from them until standard input ends.
func runReaders(ctx context.Context, n int, address string) error {
	for range n {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = conn.Close() }()
			buffer := make([]byte, 512)
			for {
				if _, err := conn.Read(buffer); err != nil {
					return
				}
			}
		}()
	}
	if err := json.NewEncoder(os.Stdout).Encode(followResult{}); err != nil {
		return err
	}
	_, err := os.Stdin.Read(make([]byte, 1))
	return err
}
