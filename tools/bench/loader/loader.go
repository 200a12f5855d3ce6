// Package loader puts a load on a server and takes little processor time for it, because the client shares the
// processors of the server that is measured. Requests are encoded once and sent over raw connections; of a response, only the
// status and the size are read.
package loader

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Load is a closed loop of calls: Connections × InFlight calls are in flight at all times.
type Load struct {
	Address     string
	Connections int
	// InFlight is the number of calls in flight on each connection.
	InFlight int
	// Next returns the request of the next call, or nil if there are no more. It is called by several goroutines concurrently.
	Next func() []byte

	// exchange makes calls over a connection until the load ends.
	exchange func(net.Conn, *progress) error
}

// Timing is how long a load takes.
type Timing struct {
	// Window is the period whose rate is compared with that of the one before. The measurement begins once two successive
	// windows differ by less than a twentieth, and at the latest after WarmUp.
	Window, WarmUp time.Duration
	// Duration is the time that is measured.
	Duration time.Duration
}

// Result is what was measured.
type Result struct {
	Calls   int64
	Seconds float64
	// CPU is the processor time that the server used for these calls, and Client the one of this process.
	CPU, Client time.Duration
	// Latencies lists the milliseconds that each call took.
	Latencies []float64
	// Steady reports whether the rate was steady when the measurement began.
	Steady bool
}

// minAnswer is the minimum size of a response in bytes. A denial that has the status of success is shorter.
const minAnswer = 32

// errRefused is returned if the server answers a call otherwise than with a token, or the like.
var errRefused = errors.New("the server refused a call")

// progress is the state of a load that its connections share.
type progress struct {
	*Load

	answered atomic.Int64
	// measuring is set while latencies are recorded, and stopping once no more calls are made.
	measuring, stopping atomic.Bool
	// exhausted is closed when there are no more requests.
	exhausted chan struct{}
	once      sync.Once

	mu        sync.Mutex
	latencies [][]float64
}

// next returns the next request, or nil if the load ends.
func (p *progress) next() []byte {
	if p.stopping.Load() {
		return nil
	}
	request := p.Next()
	if request == nil {
		p.once.Do(func() { close(p.exhausted) })
	}
	return request
}

// record counts a call that was sent at a time, and records its latency in took.
func (p *progress) record(took *[]float64, sent time.Time) {
	p.answered.Add(1)
	if p.measuring.Load() {
		*took = append(*took, float64(time.Since(sent).Microseconds())/1000)
	}
}

// keep adds the latencies of a connection that has ended.
func (p *progress) keep(took []float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latencies = append(p.latencies, took)
}

// Run puts the load on the server. cpu returns the processor time that the server has used so far. A call that is not
// answered with success is an error.
func (l *Load) Run(ctx context.Context, t Timing, cpu func() (time.Duration, error)) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &progress{Load: l, exhausted: make(chan struct{})}
	var calling sync.WaitGroup
	for range l.Connections {
		calling.Go(func() {
			if err := l.connect(ctx, p, time.Now().Add(t.WarmUp+t.Duration+grace)); err != nil {
				cancel(err)
			}
		})
	}
	r, err := p.measure(ctx, t, cpu)
	p.stopping.Store(true)
	if err != nil {
		cancel(err)
	}
	calling.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	r.Latencies = slices.Concat(p.latencies...)
	return r, nil
}

// grace is how long a load may take longer than its timing says, before the calls in flight count as lost.
const grace = 30 * time.Second

// connect opens a connection and makes calls over it. The end of ctx closes it.
func (l *Load) connect(ctx context.Context, p *progress, deadline time.Time) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", l.Address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	return l.exchange(conn, p)
}

// measure waits until the rate is steady, and counts the calls of the time after it.
func (p *progress) measure(ctx context.Context, t Timing, cpu func() (time.Duration, error)) (*Result, error) {
	r := &Result{}
	for previous, left := math.NaN(), t.WarmUp; left > 0 && !r.Steady; left -= t.Window {
		before := p.answered.Load()
		if err := p.pause(ctx, t.Window); err != nil {
			return nil, err
		}
		rate := float64(p.answered.Load() - before)
		r.Steady = math.Abs(rate-previous) < rate/20
		previous = rate
	}
	p.measuring.Store(true)
	began, calls := time.Now(), p.answered.Load()
	used, err := cpu()
	own, err2 := ownCPU()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if err := p.pause(ctx, t.Duration); err != nil {
		return nil, err
	}
	after, err := cpu()
	ownAfter, err2 := ownCPU()
	r.Calls, r.Seconds, r.CPU, r.Client = p.answered.Load()-calls, time.Since(began).Seconds(), after-used, ownAfter-own
	p.measuring.Store(false)
	if err = errors.Join(err, err2); err == nil && r.Calls == 0 {
		err = fmt.Errorf("no call was answered within %s", t.Duration)
	}
	return r, err
}

// ownCPU returns the processor time that this process has used.
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// pause waits for d, or until there are no more requests.
func (p *progress) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.exhausted:
	case <-timer.C:
	}
	return nil
}
