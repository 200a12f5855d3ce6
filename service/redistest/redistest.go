// Package redistest starts Redis servers for tests: real redis-server processes on free ports of 127.0.0.1, which a test can
// stop, kill, freeze and restart. The tests of the store run against real servers; [Each] adds the embedded server that
// development mode uses.
package redistest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/grantorhq/grantor/service/freeport"
)

// timeout bounds how long a server may take to answer or to stop.
const timeout = 20 * time.Second

// Server is a redis-server process that ends with its test. Its methods fail the test if they do not succeed. They are not
// safe for concurrent use.
type Server struct {
	t    testing.TB
	args []string
	dir  string
	port int
	// bus is the port of the cluster bus; zero if the server is not a node of a Cluster.
	bus int
	// user and password authenticate the connections of the test; empty means the default user without a password.
	user, password string
	// process is nil while the server is not running.
	process *process
}

// process is one run of the server.
type process struct {
	command *exec.Cmd
	output  bytes.Buffer
	// ended is closed when the process has ended. Only then may output be read.
	ended chan struct{}
}

// New starts a server without persistence. The arguments of redis-server follow the default ones, so that "--appendonly",
// "yes" turns persistence on.
func New(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, false, args...)
}

// start starts a server, as a node of a Cluster if clustered is set.
func start(t testing.TB, clustered bool, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is not installed; make test installs it")
	}
	s := &Server{t: t, args: args, dir: t.TempDir()}
	t.Cleanup(func() {
		if s.process != nil {
			s.Kill()
		}
	})
	// Where a port cannot be reserved, another program may take it before redis-server binds it.
	const maxAttempts = 10
	var err error
	for range maxAttempts {
		s.port = freeport.New(t)
		if clustered {
			s.bus = freeport.New(t)
		}
		if err = s.run(); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

// run starts the process and waits until it accepts commands.
func (s *Server) run() error {
	// Sentinels and CONFIG REWRITE require a configuration file; it is empty.
	file := filepath.Join(s.dir, "redis.conf")
	config, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_ = config.Close()
	args := []string{
		file, "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no",
	}
	if s.bus != 0 {
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(s.bus))
	}
	p := &process{command: exec.Command("redis-server", append(args, s.args...)...), ended: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = &p.output, &p.output
	if err := p.command.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.command.Wait()
		close(p.ended)
	}()
	s.process = p
	return s.awaitReady()
}

// awaitReady waits until the process accepts commands. It is not enough that the port does: it may belong to another server.
func (s *Server) awaitReady() error {
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), Username: s.user, Password: s.password, MaxRetries: -1})
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	processID := fmt.Sprintf("process_id:%d\r\n", s.process.command.Process.Pid)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		// go-redis logs each refused connection, so it is not used before a connection succeeds.
		if conn, err := net.Dial("tcp", s.Addr()); err == nil {
			_ = conn.Close()
			info, _ := client.Info(ctx).Result()
			if strings.Contains(info, processID) && !strings.Contains(info, "loading:1") {
				return nil
			}
		}
		select {
		case <-ticker.C:
		case <-s.process.ended:
			output := s.process.output.String()
			s.process = nil
			return fmt.Errorf("redis-server ended:\n%s", output)
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("redis-server does not answer on %s", s.Addr())
		}
	}
}

// Addr returns the server's address, which survives restarts.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// Port returns the port of the address.
func (s *Server) Port() int { return s.port }

// URL returns the server's address as redis://HOST:PORT.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Client returns a client of the server, which is closed when the test ends.
func (s *Server) Client() *redis.Client {
	o := options(s.Addr())
	o.Username, o.Password = s.user, s.password
	client := redis.NewClient(o)
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// Login sets the user and password of connections from now on, for a server that requires a password. The user must be
// permitted to run INFO.
func (s *Server) Login(user, password string) { s.user, s.password = user, password }

// options returns the options that redisstore.Connect sets, too.
func options(addr string) *redis.Options {
	return &redis.Options{Addr: addr, ContextTimeoutEnabled: true, MaintNotificationsConfig: noMaintNotifications}
}

var noMaintNotifications = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}

// Start restarts a stopped server, on the same port and with what it stored on disk.
func (s *Server) Start() {
	s.t.Helper()
	if s.process != nil {
		s.t.Fatal("redis-server is already running")
	}
	if err := s.run(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop shuts the server down with SIGTERM, and waits until it has ended.
func (s *Server) Stop() {
	s.t.Helper()
	s.end(syscall.SIGTERM)
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill() {
	s.t.Helper()
	s.end(syscall.SIGKILL)
}

func (s *Server) end(signal syscall.Signal) {
	s.t.Helper()
	s.signal(signal)
	select {
	case <-s.process.ended:
		s.process = nil
	case <-time.After(timeout):
		s.t.Fatalf("redis-server does not end on %s", signal)
	}
}

// Wipe deletes what a stopped server stored on disk, so that it starts empty.
func (s *Server) Wipe() {
	s.t.Helper()
	if s.process != nil {
		s.t.Fatal("redis-server is still running")
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// Freeze suspends the server. Its connections stay open.
func (s *Server) Freeze() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
}

// Thaw resumes a frozen server.
func (s *Server) Thaw() {
	s.t.Helper()
	s.signal(syscall.SIGCONT)
}

func (s *Server) signal(signal syscall.Signal) {
	s.t.Helper()
	if s.process == nil {
		s.t.Fatal("redis-server is not running")
	}
	if err := s.process.command.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// await waits until cond returns true.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(timeout); !cond(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, timeout)
		}
	}
}

// Embedded starts the Redis of development mode in this process, and returns a client. Embedded advances its clock, without
// which its keys would not expire.
func Embedded(t testing.TB) *redis.Client {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(options(server.Addr()))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		const step = 10 * time.Millisecond
		ticker := time.NewTicker(step)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				server.FastForward(step)
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		_ = client.Close()
	})
	return client
}

// Each runs a test against a real server, a real Cluster and the embedded server, each of them empty. The Cluster takes two
// seconds to start, so one call for many tests is better than many calls.
func Each(t *testing.T, test func(t *testing.T, client redis.UniversalClient)) {
	t.Helper()
	t.Run("real", func(t *testing.T) { test(t, New(t).Client()) })
	t.Run("cluster", func(t *testing.T) {
		_, client := Cluster(t)
		test(t, client)
	})
	t.Run("embedded", func(t *testing.T) { test(t, Embedded(t)) })
}
