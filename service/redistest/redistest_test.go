package redistest_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/redistest"
)

func TestMain(m *testing.M) {
	// This goroutine of a client that encountered a dead server ends up to a second after the client is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// get returns the value of the key "a", or the error.
func get(t *testing.T, client redis.UniversalClient, within time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	value, err := client.Get(ctx, "a").Result()
	if err != nil {
		return err.Error()
	}
	return value
}

func set(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	if err := client.Set(t.Context(), "a", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
}

// TestStartAgain checks that a restarted server has the data that its arguments make it persist.
func TestStartAgain(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		end  func(*redistest.Server)
		want string
	}{
		"nothing on disk":    {nil, (*redistest.Server).Stop, redis.Nil.Error()},
		"append-only file":   {[]string{"--appendonly", "yes", "--appendfsync", "always"}, (*redistest.Server).Kill, "1"},
		"wiped in between":   {[]string{"--appendonly", "yes"}, func(s *redistest.Server) { s.Stop(); s.Wipe() }, redis.Nil.Error()},
		"stopped in between": {[]string{"--appendonly", "yes"}, (*redistest.Server).Stop, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.New(t, test.args...)
			client, addr := server.Client(), server.Addr()
			set(t, client)
			test.end(server)
			if conn, err := net.Dial("tcp", addr); err == nil {
				_ = conn.Close()
				t.Error("the server still listens after it has ended")
			}
			server.Start()
			if got := get(t, client, 10*time.Second); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if server.Addr() != addr || server.URL() != "redis://"+addr {
				t.Errorf("the address moved from %s to %s", addr, server.URL())
			}
		})
	}
}

func TestFreeze(t *testing.T) {
	server := redistest.New(t)
	client := server.Client()
	set(t, client)
	server.Freeze()
	if got := get(t, client, 50*time.Millisecond); got == "1" {
		t.Error("a frozen server answers")
	}
	server.Thaw()
	if got := get(t, client, 10*time.Second); got != "1" {
		t.Errorf("thawed: got %q, want 1", got)
	}
}

func TestEach(t *testing.T) {
	var ran []string
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		ran = append(ran, t.Name())
		if got := get(t, client, 10*time.Second); got != redis.Nil.Error() {
			t.Errorf("got %q, want an empty Redis", got)
		}
		set(t, client)
		if err := client.PExpire(t.Context(), "a", 20*time.Millisecond).Err(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for get(t, client, 10*time.Second) == "1" {
			if time.Now().After(deadline) {
				t.Fatal("the key does not expire")
			}
		}
	})
	if len(ran) != 3 {
		t.Errorf("ran %q, want three", ran)
	}
}

// TestCluster checks that the Cluster rejects commands on keys of two slots; otherwise it would prove nothing about the store.
func TestCluster(t *testing.T) {
	server, _ := redistest.Cluster(t)
	err := server.Client().MSet(t.Context(), "a", 1, "b", 2).Err()
	if err == nil || !redis.HasErrorPrefix(err, "CROSSSLOT") {
		t.Errorf("got %v, want CROSSSLOT", err)
	}
}

// TestFailOver kills a primary: a replica replaces it, with its data, and accepts writes.
func TestFailOver(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T) (primary *redistest.Server, client redis.UniversalClient){
		"Sentinel": func(t *testing.T) (*redistest.Server, redis.UniversalClient) {
			d := redistest.NewSentinel(t, 2)
			options, err := redis.ParseFailoverURL(d.URL())
			if err != nil {
				t.Fatal(err)
			}
			return d.Primary, redis.NewFailoverClient(options)
		},
		"Cluster": func(t *testing.T) (*redistest.Server, redis.UniversalClient) {
			c := redistest.NewShards(t)
			options, err := redis.ParseClusterURL(c.URL())
			if err != nil {
				t.Fatal(err)
			}
			options.ClusterStateReloadInterval = time.Second
			return c.Primary(t, "a"), redis.NewClusterClient(options)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			primary, client := begin(t)
			t.Cleanup(func() { _ = client.Close() })
			t.Logf("up after %s", time.Since(began))
			set(t, client)
			if n, err := primary.Client().Wait(t.Context(), 1, 10*time.Second).Result(); err != nil || n == 0 {
				t.Fatalf("got %d, %v, want a replica that has all data", n, err)
			}
			primary.Kill()
			killed := time.Now()
			ticker := time.NewTicker(10 * time.Millisecond)
			defer ticker.Stop()
			for client.Set(t.Context(), "b{a}", "1", 0).Err() != nil {
				if <-ticker.C; time.Since(killed) > 30*time.Second {
					t.Fatal("no replica replaces it")
				}
			}
			t.Logf("failed over after %s", time.Since(killed))
			if got := get(t, client, 10*time.Second); got != "1" {
				t.Errorf("got %q, want 1", got)
			}
		})
	}
}
