// Package redistest gives a test a redis-server of its own: a real process on a free port of 127.0.0.1 that the test can
// stop, kill, freeze and start again. Real servers are what the tests of the store run against; [Each] adds the embedded
// one that dev mode uses.
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
)

// patience is how long a server may take to answer or to stop.
const patience = 20 * time.Second

// Server is a redis-server process. It ends with its test. Its methods fail that test when they cannot do what they say,
// and are for one goroutine at a time.
type Server struct {
	t    testing.TB
	args []string
	dir  string
	port int
	// bus is the port on which the nodes of a Cluster speak to each other; zero where there is no Cluster.
	bus int
	// user and password are those of the test's connections; empty for the user default, without one.
	user, password string
	// process is nil while the server does not run.
	process *process
}

// process is one run of the server.
type process struct {
	command *exec.Cmd
	output  bytes.Buffer
	// ended is closed when the process has ended; output may be read from then on.
	ended chan struct{}
}

// New starts a server that keeps nothing on disk. Arguments are those of redis-server and come after ours, so that
// "--appendonly", "yes" makes one that does.
func New(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, false, args...)
}

// start makes a server, as a node of a Cluster or not.
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
	// Between asking for a free port and binding it, another program may take it.
	const attempts = 10
	var err error
	for range attempts {
		s.port = freePort(t)
		if clustered {
			s.bus = freePort(t)
		}
		if err = s.run(); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it listens on TCP
}

// run starts the process and waits until it answers.
func (s *Server) run() error {
	// Sentinels and CONFIG REWRITE want a file; it is as empty as none.
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
	return s.awaitAnswer()
}

// awaitAnswer waits until the process answers. That somebody answers on the port is not enough: it may be another server.
func (s *Server) awaitAnswer() error {
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), Username: s.user, Password: s.password, MaxRetries: -1})
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	own := fmt.Sprintf("process_id:%d\r\n", s.process.command.Process.Pid)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		// go-redis logs each refused connection, so nothing is asked before there is one.
		if conn, err := net.Dial("tcp", s.Addr()); err == nil {
			_ = conn.Close()
			info, _ := client.Info(ctx).Result()
			if strings.Contains(info, own) && !strings.Contains(info, "loading:1") {
				return nil
			}
		}
		select {
		case <-again.C:
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

// Addr is the server's address, the same for all its life.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// Port is the port of the address.
func (s *Server) Port() int { return s.port }

// URL is the server's address as redis://HOST:PORT.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Client makes a client of the server; it is closed when the test ends.
func (s *Server) Client() *redis.Client {
	o := options(s.Addr())
	o.Username, o.Password = s.user, s.password
	client := redis.NewClient(o)
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// Login has the server asked as a user from now on, one that may INFO, where nobody gets in without a password any more.
func (s *Server) Login(user, password string) { s.user, s.password = user, password }

// options are those that redisstore.Connect chooses too.
func options(addr string) *redis.Options {
	return &redis.Options{Addr: addr, ContextTimeoutEnabled: true, MaintNotificationsConfig: withoutNotices}
}

var withoutNotices = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}

// Start runs a stopped server again, on the same port and with what it kept on disk.
func (s *Server) Start() {
	s.t.Helper()
	if s.process != nil {
		s.t.Fatal("redis-server runs already")
	}
	if err := s.run(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop asks the server to end, as an operator does, and waits until it has.
func (s *Server) Stop() {
	s.t.Helper()
	s.end(syscall.SIGTERM)
}

// Kill ends the server at once.
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
	case <-time.After(patience):
		s.t.Fatalf("redis-server does not end on %s", signal)
	}
}

// Wipe removes what a stopped server kept on disk, so that it starts empty.
func (s *Server) Wipe() {
	s.t.Helper()
	if s.process != nil {
		s.t.Fatal("redis-server still runs")
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// Freeze makes the server fall silent while its connections stay open.
func (s *Server) Freeze() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
}

// Thaw makes a frozen server go on.
func (s *Server) Thaw() {
	s.t.Helper()
	s.signal(syscall.SIGCONT)
}

func (s *Server) signal(signal syscall.Signal) {
	s.t.Helper()
	if s.process == nil {
		s.t.Fatal("redis-server does not run")
	}
	if err := s.process.command.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// await asks until it is so.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(patience); !so(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// Embedded starts the Redis that dev mode uses, in this process, and gives a client of it. Its keys expire as time
// passes, which they do not by themselves.
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

// Each runs a test against a real server, against a real Cluster and against the embedded one, each of them empty. The
// Cluster takes two seconds to come up, so one call for many tests is better than many.
func Each(t *testing.T, test func(t *testing.T, client redis.UniversalClient)) {
	t.Helper()
	t.Run("real", func(t *testing.T) { test(t, New(t).Client()) })
	t.Run("cluster", func(t *testing.T) {
		_, client := Cluster(t)
		test(t, client)
	})
	t.Run("embedded", func(t *testing.T) { test(t, Embedded(t)) })
}
