package heartbeat_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grantorhq/grantor/service/heartbeat"
)

// memory is a store that takes time to answer, whose clock may be wrong, and which can be out of reach.
type memory struct {
	mu        sync.Mutex
	reports   []heartbeat.Status
	withdrawn []string
	takes     time.Duration
	clock     time.Duration
	err       error
}

// Announce reads its clock halfway through the time that it takes.
func (m *memory) Announce(ctx context.Context, s heartbeat.Status) (time.Time, error) {
	m.mu.Lock()
	takes, err := m.takes, m.err
	m.mu.Unlock()
	var now time.Time
	for range 2 {
		select {
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-time.After(takes / 2):
		}
		if now.IsZero() {
			now = time.Now().Add(m.clock).Round(0)
		}
	}
	if err != nil {
		return time.Time{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reports = append(m.reports, s)
	return now, nil
}

func (m *memory) Withdraw(_ context.Context, id string) error {
	m.withdrawn = append(m.withdrawn, id)
	return nil
}

func (m *memory) Replicas(context.Context) ([]heartbeat.Status, time.Time, error) {
	return m.reports, time.Now(), nil
}

// TestRun reports for a minute, and withdraws.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{takes: 20 * time.Millisecond}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		heartbeat.Run(ctx, store, func() heartbeat.Status { return heartbeat.Status{Version: "v1"} }, func(err error) { t.Error(err) })
		if len(store.reports) != 7 {
			t.Fatalf("got %d reports in a minute, want them at 0 s, 1 s, and then every 10 s", len(store.reports))
		}
		id := store.reports[0].ID
		for i, report := range store.reports {
			if report.ID != id || id == "" || report.Version != "v1" || !report.StartedAt.Equal(start) || report.Ahead != 0 {
				t.Errorf("report %d: got %+v", i, report)
			}
		}
		if len(store.withdrawn) != 1 || store.withdrawn[0] != id {
			t.Errorf("withdrawn: %q, want %q", store.withdrawn, id)
		}
	})
}

// TestRunClock has clocks that differ: a difference that the round trip could explain does not count.
func TestRunClock(t *testing.T) {
	for name, c := range map[string]struct{ store, takes, want time.Duration }{
		"alike, slow round trip": {0, 2 * time.Second, 0},
		"within the round trip":  {400 * time.Millisecond, time.Second, 0},
		"the replica is ahead":   {-10 * time.Second, time.Second, 9500 * time.Millisecond},
		"the replica is behind":  {10 * time.Second, time.Second, -9500 * time.Millisecond},
		"no round trip":          {10 * time.Second, 0, -10 * time.Second},
		"ahead by a little":      {-100 * time.Millisecond, 0, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &memory{clock: c.store, takes: c.takes}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				heartbeat.Run(ctx, store, func() heartbeat.Status { return heartbeat.Status{} }, func(err error) { t.Error(err) })
				if len(store.reports) != 2 || store.reports[0].Ahead != 0 || store.reports[1].Ahead != c.want {
					t.Errorf("got %+v, want the second to be %s ahead, and the first not to know yet", store.reports, c.want)
				}
			})
		})
	}
}

// TestRunOutage loses the store twice: each outage is reported once.
func TestRunOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{takes: time.Hour}
		var mu sync.Mutex
		failures := 0
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			heartbeat.Run(ctx, store, func() heartbeat.Status { return heartbeat.Status{} }, func(error) {
				mu.Lock()
				defer mu.Unlock()
				failures++
			})
		}()
		pass := func(name string, wantFailures int, change func()) {
			t.Helper()
			<-time.After(time.Minute) // of the bubble's time
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			store.mu.Lock()
			defer store.mu.Unlock()
			if failures != wantFailures {
				t.Errorf("%s: got %d failures, want %d", name, failures, wantFailures)
			}
			change()
		}
		pass("silent", 1, func() { store.takes = time.Millisecond })
		pass("back", 1, func() { store.err = errors.New("out of reach") })
		pass("out of reach", 2, func() {})
		if len(store.reports) == 0 {
			t.Error("the replica did not report again")
		}
		cancel()
		<-ended
	})
}
