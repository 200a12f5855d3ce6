package redistest

import (
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// masterName is the name of the primary in the configuration of the Sentinels.
const masterName = "mymaster"

// Sentinel is a primary and its replicas, monitored by three Sentinels that promote a replica if the primary fails.
type Sentinel struct {
	// Primary is the initial primary.
	Primary   *Server
	Replicas  []*Server
	sentinels []*Server
}

// NewSentinel starts a primary, its replicas and the Sentinels, and returns when every Sentinel knows all others and would
// succeed in replacing the primary. A Sentinel discovers replicas every ten seconds, and retries only after twice the
// failover-timeout, so a fail-over that begins before it knows a replica would take long.
func NewSentinel(t testing.TB, replicas int) *Sentinel {
	t.Helper()
	// The delay waits for further replicas, of which there are none.
	d := &Sentinel{Primary: New(t, "--repl-diskless-sync-delay", "0")}
	for range replicas {
		replica := New(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(d.Primary.Port()), "--repl-diskless-sync-delay", "0")
		d.Replicas = append(d.Replicas, replica)
		client := replica.Client()
		await(t, "the replicas are in sync", func() bool { return inSync(t, client) })
	}
	for i := range 3 {
		d.sentinels = append(d.sentinels, New(t, "--sentinel"))
		client := d.sentinels[i].sentinel(t)
		// Sentinels that detect the failure at the same moment may split the vote and have to start over. Here one of them is
		// the first, and needs no agreement that the primary is down; electing it still takes two.
		if err := client.Monitor(t.Context(), masterName, "127.0.0.1", strconv.Itoa(d.Primary.Port()), "1").Err(); err != nil {
			t.Fatal(err)
		}
		down := 2 * time.Second * time.Duration(1+2*i)
		for option, value := range map[string]time.Duration{"down-after-milliseconds": down, "failover-timeout": 5 * time.Second} {
			if err := client.Set(t.Context(), masterName, option, strconv.FormatInt(value.Milliseconds(), 10)).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range d.sentinels {
		client := s.sentinel(t)
		await(t, "the Sentinels know each other and the replicas", func() bool {
			others, err := client.Sentinels(t.Context(), masterName).Result()
			if err != nil || len(others) != len(d.sentinels)-1 || client.CkQuorum(t.Context(), masterName).Err() != nil {
				return false
			}
			known, err := client.Replicas(t.Context(), masterName).Result()
			ready := 0
			for _, replica := range known {
				if replica["flags"] == "slave" && replica["master-link-status"] == "ok" {
					ready++
				}
			}
			return err == nil && ready == replicas
		})
	}
	return d
}

// sentinel returns a client of a Sentinel, which is closed when the test ends.
func (s *Server) sentinel(t testing.TB) *redis.SentinelClient {
	t.Helper()
	client := redis.NewSentinelClient(&redis.Options{Addr: s.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// URL returns a URL of the Sentinels, as an operator writes it.
func (d *Sentinel) URL() string { return urlOf(d.sentinels, url.Values{"master_name": {masterName}}) }

// AwaitFailOver waits until every Sentinel reports another primary. They inform each other every two seconds; until then, a
// Sentinel that does not know the new primary directs clients to the dead one.
func (d *Sentinel) AwaitFailOver(t testing.TB) {
	t.Helper()
	for _, s := range d.sentinels {
		client := s.sentinel(t)
		await(t, "the Sentinels report another primary", func() bool {
			addr, err := client.GetMasterAddrByName(t.Context(), masterName).Result()
			return err == nil && net.JoinHostPort(addr[0], addr[1]) != d.Primary.Addr()
		})
	}
}

// CutOff disconnects the replicas from what the primary writes from now on. They can still be promoted.
func (d *Sentinel) CutOff(t testing.TB) {
	t.Helper()
	for _, replica := range d.Replicas {
		// Its next connection authenticates as a user that does not exist.
		if err := replica.Client().ConfigSet(t.Context(), "masterauth", "wrong").Err(); err != nil {
			t.Fatal(err)
		}
		if err := replica.Client().ConfigSet(t.Context(), "masteruser", "nobody").Err(); err != nil {
			t.Fatal(err)
		}
	}
	primary := d.Primary.Client()
	if err := primary.ClientKillByFilter(t.Context(), "TYPE", "replica").Err(); err != nil {
		t.Fatal(err)
	}
	await(t, "the replicas are disconnected", func() bool {
		return strings.Contains(primary.Info(t.Context(), "replication").Val(), "connected_slaves:0")
	})
}
