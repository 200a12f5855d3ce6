package main

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// TestInterrupt sends a signal to commands that wait for something that may never come: a FIFO without a writer, standard
// input, a Redis or an issuer that accepts connections and does not answer.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	output := filepath.Join(t.TempDir(), "clients.yaml")
	kek := "--key-encryption-key-file=" + servetest.KEKFile(t)
	secret := "--client-secret-file=" + servetest.WriteFile(t, "secret", "hush-hush-hush")
	for _, command := range []string{
		"import hydra FIFO --output " + output,
		"import openiddict FIFO --output " + output,
		"import openiddict " + servetest.WriteFile(t, "export.json", "[]") + " --scopes FIFO --output " + output,
		"apply -f FIFO --redis redis://NOWHERE",
		"apply -f " + servetest.WriteFile(t, "clients.yaml", servetest.Manifest) + " --redis redis://NOWHERE " + kek,
		"apply -f " + servetest.WriteFile(t, "clients.yaml", servetest.Manifest) + " --issuer http://NOWHERE --client-id a " + secret,
		"apply -f " + servetest.WriteFile(t, "clients.yaml", servetest.Manifest) + " --redis redis://NOWHERE --key-encryption-key-file FIFO",
		"audit --redis redis://NOWHERE",
		"audit --redis redis://NOWHERE --follow",
		"audit --config FIFO",
		"doctor --redis redis://NOWHERE",
		"token issue --issuer http://NOWHERE --client-id a " + secret,
		"token issue --client-id a --client-secret-file FIFO",
		"token issue --config FIFO",
		"token introspect STDIN",
		"token revoke STDIN",
		"token decode STDIN",
		"token decode --verify --issuer http://NOWHERE e30.e30.e30",
		"client list --issuer http://NOWHERE --client-id a " + secret,
		"client create a --secret-file - STDIN",
		"client secret create a --secret-file FIFO",
		"resource list --issuer http://NOWHERE --client-id a " + secret,
		"key list --issuer http://NOWHERE --client-id a " + secret,
		"key wrap --key-encryption-key-url base64key:// --plain-key-file FIFO",
		"bench --issuer http://NOWHERE --client-id a " + secret,
		"bench --clients FIFO",
		"serve --config FIFO",
		"serve --issuer http://localhost:1 --redis redis://NOWHERE " + kek + " --http-listen 127.0.0.1:0 --grpc-listen 127.0.0.1:0 --ops-listen 127.0.0.1:0",
		"serve --dev --apply FIFO --http-listen 127.0.0.1:0 --grpc-listen 127.0.0.1:0 --ops-listen 127.0.0.1:0",
		"config check FIFO",
	} {
		t.Run(strings.Join(strings.Fields(command)[:3], " "), func(t *testing.T) {
			t.Parallel()
			p, waits := startWaiting(t, command)
			select {
			case <-waits:
			case <-p.ended:
				t.Fatalf("it ended with %v and %q", p.command.ProcessState, p.errOut.String())
			}
			code := p.interrupt(t, syscall.SIGTERM)
			if code != 143 || !strings.Contains(p.errOut.String(), "grantor: interrupted") || p.out.String() != "" {
				t.Errorf("got exit code %d, %q and %q, want 143", code, p.out.String(), p.errOut.String())
			}
			if _, err := os.Stat(output); !os.IsNotExist(err) {
				t.Errorf("the output exists: %v", err)
			}
		})
	}
	p, waits := startWaiting(t, "import hydra FIFO")
	<-waits
	if code := p.interrupt(t, syscall.SIGINT); code != 130 {
		t.Errorf("SIGINT: got exit code %d", code)
	}
}

// TestInterruptBench interrupts a load, whose result is printed.
func TestInterruptBench(t *testing.T) {
	asDevClient(t)
	p := startCommand(t, nil, "bench", "--duration=10m", "--warm-up=0s", "--in-flight=2")
	must.Eventually(t, "progress", func() bool { return strings.Contains(p.errOut.String(), "failed") })
	if code := p.interrupt(t, syscall.SIGTERM); code != 0 || !strings.Contains(p.out.String(), "answered") {
		t.Errorf("got exit code %d, %q and %q", code, p.out.String(), p.errOut.String())
	}
}

// TestInterruptFollow interrupts a command that ends only by a signal, and so has done its work.
func TestInterruptFollow(t *testing.T) {
	p := startCommand(t, nil, "audit", "--redis="+redistest.New(t).URL(), "--follow")
	must.Eventually(t, "the list", func() bool { return strings.Contains(p.out.String(), "EVENT") })
	if code := p.interrupt(t, syscall.SIGINT); code != 0 {
		t.Errorf("got exit code %d and %q", code, p.errOut.String())
	}
}

// TestInterruptReload stops a server whose reload waits for a FIFO without a writer, of each kind of file that it reads.
func TestInterruptReload(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"config.yaml", "clients.yaml"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			config, clients := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "clients.yaml")
			must.Succeed(t, os.WriteFile(config, []byte("log_level: info\n"), 0o600))
			must.Succeed(t, os.WriteFile(clients, []byte(servetest.Manifest), 0o600))
			p := startCommand(t, nil, "serve", "--dev", "--config="+config, "--apply="+clients, "--http-listen=127.0.0.1:0",
				"--grpc-listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--shutdown-timeout=1s")
			must.Eventually(t, "serving", func() bool { return strings.Contains(p.errOut.String(), `"msg":"serving"`) })
			fifo := filepath.Join(dir, file)
			must.Succeed(t, os.Remove(fifo))
			must.Succeed(t, unix.Mkfifo(fifo, 0o600))
			must.Succeed(t, p.command.Process.Signal(syscall.SIGHUP))
			writer := must.Get(os.OpenFile(fifo, os.O_WRONLY, fs.ModeNamedPipe)) // waits for the reader
			defer func() { _ = writer.Close() }()
			if code := p.interrupt(t, syscall.SIGTERM); code != 0 || !strings.Contains(p.errOut.String(), `"msg":"stopped"`) {
				t.Errorf("got exit code %d and %q, want 0", code, p.errOut.String())
			}
		})
	}
}

// waitingCommand is a command that runs in another process, with the binary of this test.
type waitingCommand struct {
	command *exec.Cmd
	ended   chan struct{}
	out     must.Buffer
	errOut  must.Buffer
}

// startCommand starts a command. The process is killed when the test ends.
func startCommand(t *testing.T, stdin *os.File, args ...string) *waitingCommand {
	t.Helper()
	p := &waitingCommand{command: exec.Command(os.Args[0], args...), ended: make(chan struct{})}
	p.command.Env = append(os.Environ(), "COMMAND=1")
	p.command.Stdout, p.command.Stderr = &p.out, &p.errOut
	if stdin != nil {
		p.command.Stdin = stdin
	}
	must.Succeed(t, p.command.Start())
	go func() {
		defer close(p.ended)
		_ = p.command.Wait()
	}()
	t.Cleanup(func() {
		_ = p.command.Process.Kill()
		<-p.ended
	})
	return p
}

// startWaiting starts a command in which FIFO stands for a FIFO, NOWHERE for the address of a server that does not answer,
// and STDIN, which is left out, for a standard input that does not end. The channel is closed when the command waits for
// it.
func startWaiting(t *testing.T, command string) (p *waitingCommand, waits chan struct{}) {
	t.Helper()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must.Succeed(t, unix.Mkfifo(fifo, 0o600))
	waits = make(chan struct{})
	var stdin *os.File
	switch {
	case strings.Contains(command, "FIFO"):
		command = strings.ReplaceAll(command, "FIFO", fifo)
		go func() {
			defer close(waits)
			writer, err := os.OpenFile(fifo, os.O_WRONLY, fs.ModeNamedPipe) // waits for the reader
			if err == nil {
				t.Cleanup(func() { _ = writer.Close() })
			}
		}()
	case strings.Contains(command, "NOWHERE"):
		listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
		t.Cleanup(func() { _ = listener.Close() })
		command = strings.ReplaceAll(command, "NOWHERE", listener.Addr().String())
		go func() {
			defer close(waits)
			if conn, err := listener.Accept(); err == nil {
				t.Cleanup(func() { _ = conn.Close() })
			}
		}()
	default:
		command = strings.ReplaceAll(command, "STDIN", "")
		reader, writer, err := os.Pipe()
		must.Succeed(t, err)
		t.Cleanup(func() { _, _ = reader.Close(), writer.Close() })
		must.Get(writer.WriteString("a"))
		stdin = reader
		go func() {
			defer close(waits)
			for {
				if left, err := unix.IoctlGetInt(int(writer.Fd()), unix.TIOCINQ); err != nil || left == 0 {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
	}
	return startCommand(t, stdin, strings.Fields(command)...), waits
}

// interrupt sends a signal and returns the exit code. The process must end soon.
func (p *waitingCommand) interrupt(t *testing.T, signal syscall.Signal) int {
	t.Helper()
	must.Succeed(t, p.command.Process.Signal(signal))
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		t.Fatalf("it goes on after the signal; it says %q", p.errOut.String())
	}
	return p.command.ProcessState.ExitCode()
}
