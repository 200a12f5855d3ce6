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

// memory is a store that takes a time to answer, whose clock may be wrong, and which can be away.
type memory struct {
	mu        sync.Mutex
	told      []heartbeat.Status
	withdrawn []string
	takes     time.Duration
	clock     time.Duration
	away      error
}

// Announce looks at its clock in the midst of the time that it takes.
func (m *memory) Announce(ctx context.Context, s heartbeat.Status) (time.Time, error) {
	m.mu.Lock()
	takes, away := m.takes, m.away
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
	if away != nil {
		return time.Time{}, away
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = append(m.told, s)
	return now, nil
}

func (m *memory) Withdraw(_ context.Context, id string) error {
	m.withdrawn = append(m.withdrawn, id)
	return nil
}

func (m *memory) Replicas(context.Context) ([]heartbeat.Status, time.Time, error) {
	return m.told, time.Now(), nil
}

// TestRun tells a store for a minute, and takes leave.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{takes: 20 * time.Millisecond}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		heartbeat.Run(ctx, store, func() heartbeat.Status { return heartbeat.Status{Version: "v1"} }, func(err error) { t.Error(err) })
		if len(store.told) != 7 {
			t.Fatalf("told %d times in a minute, want at 0 s, 1 s, and then every 10 s", len(store.told))
		}
		id := store.told[0].ID
		for i, told := range store.told {
			if told.ID != id || id == "" || told.Version != "v1" || !told.StartedAt.Equal(start) || told.Ahead != 0 {
				t.Errorf("announcement %d: got %+v", i, told)
			}
		}
		if len(store.withdrawn) != 1 || store.withdrawn[0] != id {
			t.Errorf("withdrawn: %q, want %q", store.withdrawn, id)
		}
	})
}

// TestRunClock has clocks that differ: what the way to the store may explain is not counted.
func TestRunClock(t *testing.T) {
	for name, c := range map[string]struct{ store, takes, want time.Duration }{
		"alike, on a slow way":       {0, 2 * time.Second, 0},
		"less apart than the way":    {400 * time.Millisecond, time.Second, 0},
		"the replica is ahead":       {-10 * time.Second, time.Second, 9500 * time.Millisecond},
		"the replica is behind":      {10 * time.Second, time.Second, -9500 * time.Millisecond},
		"and the way takes no time":  {10 * time.Second, 0, -10 * time.Second},
		"ahead by a little, as said": {-100 * time.Millisecond, 0, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &memory{clock: c.store, takes: c.takes}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				heartbeat.Run(ctx, store, func() heartbeat.Status { return heartbeat.Status{} }, func(err error) { t.Error(err) })
				if len(store.told) != 2 || store.told[0].Ahead != 0 || store.told[1].Ahead != c.want {
					t.Errorf("got %+v, want the second to be %s ahead, and the first not to know", store.told, c.want)
				}
			})
		})
	}
}

// TestRunOutage loses the store twice: each outage is told once.
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
				t.Errorf("%s: %d failures told, want %d", name, failures, wantFailures)
			}
			change()
		}
		pass("silent", 1, func() { store.takes = time.Millisecond })
		pass("back", 1, func() { store.away = errors.New("away") })
		pass("away", 2, func() {})
		if len(store.told) == 0 {
			t.Error("the replica did not come back")
		}
		cancel()
		<-ended
	})
}
