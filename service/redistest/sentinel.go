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

// masterName is what the Sentinels call the primary.
const masterName = "mymaster"

// Sentinel is a primary and its replicas, watched by three Sentinels that put a replica in the place of a primary that
// fails.
type Sentinel struct {
	// Primary is the one at first.
	Primary   *Server
	Replicas  []*Server
	sentinels []*Server
}

// NewSentinel starts a primary, so many replicas and the Sentinels, and returns when every Sentinel knows all the others
// and would succeed in replacing the primary. A Sentinel looks for replicas every ten seconds, and tries again only after
// twice the failover-timeout; so one that lost its primary before it knew of a replica would be long about it.
func NewSentinel(t testing.TB, replicas int) *Sentinel {
	t.Helper()
	// The delay is for further replicas to come, and none will.
	d := &Sentinel{Primary: New(t, "--repl-diskless-sync-delay", "0")}
	for range replicas {
		replica := New(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(d.Primary.Port()), "--repl-diskless-sync-delay", "0")
		d.Replicas = append(d.Replicas, replica)
		client := replica.Client()
		await(t, "the replicas are in step", func() bool { return inStep(t, client) })
	}
	for i := range 3 {
		d.sentinels = append(d.sentinels, New(t, "--sentinel"))
		client := d.sentinels[i].sentinel(t)
		// Sentinels that find the primary dead at the same moment may split the vote and have to begin again. Here one of
		// them is the first, and needs nobody to agree that it is dead; electing it still takes two.
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
		await(t, "the Sentinels know all", func() bool {
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

// sentinel makes a client of a Sentinel; it is closed when the test ends.
func (s *Server) sentinel(t testing.TB) *redis.SentinelClient {
	t.Helper()
	client := redis.NewSentinelClient(&redis.Options{Addr: s.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// URL names the Sentinels, as a user writes it.
func (d *Sentinel) URL() string { return nameAll(d.sentinels, url.Values{"master_name": {masterName}}) }

// AwaitFailOver waits until every Sentinel names another primary. They tell each other every two seconds; who asks one
// that has not heard of it is sent to the dead one.
func (d *Sentinel) AwaitFailOver(t testing.TB) {
	t.Helper()
	for _, s := range d.sentinels {
		client := s.sentinel(t)
		await(t, "the Sentinels name another primary", func() bool {
			addr, err := client.GetMasterAddrByName(t.Context(), masterName).Result()
			return err == nil && net.JoinHostPort(addr[0], addr[1]) != d.Primary.Addr()
		})
	}
}

// CutOff keeps the replicas from what the primary writes from now on. They can still take its place.
func (d *Sentinel) CutOff(t testing.TB) {
	t.Helper()
	for _, replica := range d.Replicas {
		// Its next connection comes as a user whom the primary does not know.
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
	await(t, "the replicas are cut off", func() bool {
		return strings.Contains(primary.Info(t.Context(), "replication").Val(), "connected_slaves:0")
	})
}
