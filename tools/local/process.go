package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Process is a program that runs until it is stopped. log keeps the end of its standard error, and of its standard output
// unless that goes elsewhere; it may be read once ended is closed.
type Process struct {
	command *exec.Cmd
	log     *tail
	ended   chan struct{}
}

// tail is a writer that keeps the last 4 KiB.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	t.kept = bytes.Clone(t.kept[max(len(t.kept)-4<<10, 0):])
	return len(p), nil
}

// Start starts a program. Its standard output goes to out, or to the log if out is nil.
func Start(ctx context.Context, env []string, out *os.File, name string, args ...string) (*Process, error) {
	c := exec.CommandContext(ctx, name, args...) //nolint:gosec // fixed programs and arguments
	c.Env = env
	if out != nil {
		c.Stdout = out
	}
	return StartCommand(c)
}

// StartCommand starts a command that runs until it is stopped.
func StartCommand(c *exec.Cmd) (*Process, error) {
	p := &Process{command: c, log: &tail{}, ended: make(chan struct{})}
	c.Stderr = p.log
	if c.Stdout == nil {
		c.Stdout = p.log
	}
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	if err := c.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.Wait() // a signal stops it, which is an error
		close(p.ended)
	}()
	return p, nil
}

// Stop ends the process and waits until it has ended, killing it after 10 seconds.
func (p *Process) Stop() {
	_ = p.command.Process.Signal(os.Interrupt)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.command.Process.Kill()
		<-p.ended
	}
}

// procFile reads a file of a process in /proc.
func procFile(pid int, name string) ([]byte, error) {
	return os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
}

// tick is the unit of processor time in /proc: 1/100 s on every platform that Go supports.
const tick = time.Second / 100

// CPU returns the processor time that the process has used (proc(5), stat).
func (p *Process) CPU() (time.Duration, error) {
	return CPUOf(p.PID())
}

// PID returns the number of the process.
func (p *Process) PID() int { return p.command.Process.Pid }

// Child returns the number of the only child of the process, as of a script that waits for a program.
func (p *Process) Child() (int, error) {
	pid := strconv.Itoa(p.PID())
	content, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(content)))
}

// CPUOf returns the processor time that a process has used (proc(5), stat).
func CPUOf(pid int) (time.Duration, error) {
	content, err := procFile(pid, "stat")
	if err != nil {
		return 0, err
	}
	return ParseCPU(string(content))
}

// ParseCPU returns the sum of utime and stime, fields 14 and 15 of a stat file. Field 2, the name, may contain blanks and ends
// with the last ")".
func ParseCPU(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat is too short")
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, errors.Join(err, err2)
}

// Memory returns a field of /proc/PID/status in bytes: VmRSS, the resident memory, or VmHWM, its maximum so far.
func (p *Process) Memory(field string) (float64, error) {
	return MemoryOf(p.PID(), field)
}

// MemoryOf returns the same of any process.
func MemoryOf(pid int, field string) (float64, error) {
	content, err := procFile(pid, "status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(content) {
		if name, value, _ := strings.Cut(string(line), ":"); name == field {
			kilobytes, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kilobytes * 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/PID/status has no %s", field)
}

// Output runs a command and returns its standard output.
func Output(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...) //nolint:gosec // fixed programs and arguments
	c.Env, c.Stderr = env, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return out, nil
}

// Sleep pauses for d or until ctx is done.
func Sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Await calls try until it returns nil, for up to a minute. It fails early if the process ends.
func (p *Process) Await(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return errors.Join(fmt.Errorf("%s ended: %s", filepath.Base(p.command.Path), p.log.kept), err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
