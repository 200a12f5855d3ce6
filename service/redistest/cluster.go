package redistest

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// slots is the number of slots of a Cluster.
const slots = 16384

// Cluster starts a Cluster of one server that has all slots, and returns the server and a client. Like a large Cluster it
// rejects commands on keys of several slots.
func Cluster(t testing.TB) (*Server, *redis.ClusterClient) {
	t.Helper()
	s := start(t, true)
	server := s.Client()
	if err := server.ClusterAddSlotsRange(t.Context(), 0, slots-1).Err(); err != nil {
		t.Fatal(err)
	}
	await(t, "the Cluster is up", func() bool {
		return strings.Contains(server.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{s.Addr()}, ContextTimeoutEnabled: true, MaintNotificationsConfig: noMaintNotifications,
	})
	t.Cleanup(func() { _ = client.Close() })
	return s, client
}

// Shards is a Cluster that survives the loss of a server: three primaries, each with a replica.
type Shards struct {
	// Servers are the three initial primaries, followed by their replicas in the same order.
	Servers []*Server
}

// NewShards starts such a Cluster and returns when every node sees all others connected.
func NewShards(t testing.TB) *Shards {
	t.Helper()
	const shards = 3
	c := &Shards{}
	clients := make([]*redis.Client, 2*shards)
	for i := range clients {
		// A node that is starved of CPU for less than the timeout must not be considered dead. A replica is always eligible
		// for election: how long it was disconnected reflects the load of the machine, not the age of its data.
		s := start(t, true, "--cluster-node-timeout", "2000", "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
		c.Servers, clients[i] = append(c.Servers, s), s.Client()
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, client := range clients {
		// Nodes with the same epoch would first have to resolve whose slots are valid.
		check(client.Do(t.Context(), "cluster", "set-config-epoch", i+1).Err())
		if i < shards {
			check(client.ClusterAddSlotsRange(t.Context(), i*slots/shards, (i+1)*slots/shards-1).Err())
		}
		if i > 0 {
			check(clients[0].Do(t.Context(), "cluster", "meet", "127.0.0.1", c.Servers[i].port, c.Servers[i].bus).Err())
		}
	}
	for i, client := range clients {
		await(t, "the nodes meet", func() bool {
			return strings.Contains(client.ClusterInfo(t.Context()).Val(), "cluster_known_nodes:"+strconv.Itoa(len(clients)))
		})
		if i >= shards {
			check(client.ClusterReplicate(t.Context(), clients[i-shards].ClusterMyID(t.Context()).Val()).Err())
		}
	}
	for i, client := range clients {
		await(t, "the Cluster is up", func() bool {
			nodes := client.ClusterNodes(t.Context()).Val()
			return strings.Contains(client.ClusterInfo(t.Context()).Val(), "cluster_state:ok") &&
				strings.Count(nodes, "slave ") == shards && !strings.Contains(nodes, "disconnected")
		})
		if i >= shards {
			await(t, "the replicas are in sync", func() bool { return inSync(t, client) })
		}
	}
	return c
}

// inSync reports whether a replica has what its primary has, and is connected to receive more.
func inSync(t testing.TB, replica *redis.Client) bool {
	t.Helper()
	return strings.Contains(replica.Info(t.Context(), "replication").Val(), "master_link_status:up")
}

// URL returns a URL of all servers, as an operator writes it.
func (c *Shards) URL() string { return urlOf(c.Servers, url.Values{}) }

// urlOf returns a URL of the first server, with the others in the parameter addr.
func urlOf(servers []*Server, parameters url.Values) string {
	for _, s := range servers[1:] {
		parameters.Add("addr", s.Addr())
	}
	return servers[0].URL() + "?" + parameters.Encode()
}

// Primary returns the initial primary of the slot of the key.
func (c *Shards) Primary(t testing.TB, key string) *Server {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{c.Servers[0].Addr()}})
	defer func() { _ = client.Close() }()
	owner, err := client.MasterForKey(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Servers {
		if s.Addr() == owner.Options().Addr {
			return s
		}
	}
	t.Fatalf("%s is not a server of the Cluster", owner.Options().Addr)
	return nil
}
