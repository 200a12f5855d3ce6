package main

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

// process is a program that runs until it is stopped. log has the end of what it said on standard error, and on standard
// output where nobody else reads that; it is there when the process has ended.
type process struct {
	command *exec.Cmd
	log     *tail
	ended   chan struct{}
}

// tail keeps the last bytes that were written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	t.kept = bytes.Clone(t.kept[max(len(t.kept)-4<<10, 0):])
	return len(p), nil
}

// start runs a program. out takes its standard output; nil leaves that to the log.
func start(ctx context.Context, env []string, out *os.File, name string, args ...string) (*process, error) {
	c := exec.CommandContext(ctx, name, args...) //nolint:gosec // programs and arguments of ours
	c.Env = env
	if out != nil {
		c.Stdout = out
	}
	return begin(c)
}

// begin runs a command until it is stopped.
func begin(c *exec.Cmd) (*process, error) {
	p := &process{c, &tail{}, make(chan struct{})}
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
		_ = c.Wait() // it is stopped by a signal
		close(p.ended)
	}()
	return p, nil
}

// stop ends the program and waits for that.
func (p *process) stop() {
	_ = p.command.Process.Signal(os.Interrupt)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.command.Process.Kill()
		<-p.ended
	}
}

// of reads a file of the process in /proc.
func (p *process) of(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.command.Process.Pid), name))
}

// tick is the unit in which Linux tells processor time, on every platform that Go knows.
const tick = time.Second / 100

// cpu is the processor time that the process has taken (proc(5), stat).
func (p *process) cpu() (time.Duration, error) {
	content, err := p.of("stat")
	if err != nil {
		return 0, err
	}
	return parseCPU(string(content))
}

// parseCPU reads utime and stime, the 14th and 15th field. The name, the 2nd, can have blanks; it ends with the last ")".
func parseCPU(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat is too short")
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, errors.Join(err, err2)
}

// memory gives a field of /proc/PID/status in bytes: VmRSS, what is resident, or VmHWM, the most that was.
func (p *process) memory(field string) (float64, error) {
	content, err := p.of("status")
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

// output runs a command to its end and gives what it printed.
func output(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...) //nolint:gosec // programs and arguments of ours
	c.Env, c.Stderr = env, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return out, nil
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
