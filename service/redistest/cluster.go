package redistest

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// slots is how many slots a Cluster has.
const slots = 16384

// Cluster starts a Cluster of one server that has all slots, and gives a client of it. It refuses commands on keys of
// several slots as a large one does.
func Cluster(t testing.TB) (*Server, *redis.ClusterClient) {
	t.Helper()
	s := start(t, true)
	server := s.Client()
	if err := server.ClusterAddSlotsRange(t.Context(), 0, slots-1).Err(); err != nil {
		t.Fatal(err)
	}
	await(t, "the Cluster comes up", func() bool {
		return strings.Contains(server.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{s.Addr()}, ContextTimeoutEnabled: true, MaintNotificationsConfig: withoutNotices,
	})
	t.Cleanup(func() { _ = client.Close() })
	return s, client
}

// Shards is a Cluster that survives the loss of a server: three primaries, each with a replica.
type Shards struct {
	// Servers are the three primaries and then, in the same order, their replicas, as they begin.
	Servers []*Server
}

// NewShards starts such a Cluster and returns when every node knows that all are in order.
func NewShards(t testing.TB) *Shards {
	t.Helper()
	const shards = 3
	c := &Shards{}
	clients := make([]*redis.Client, 2*shards)
	for i := range clients {
		// A node that is starved for less than the timeout must not be taken for dead. A replica always stands for election:
		// how long it has been cut off is the machine's load, not the age of its data.
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
		// Nodes of one epoch would first have to settle whose slots count.
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
		await(t, "the Cluster comes up", func() bool {
			nodes := client.ClusterNodes(t.Context()).Val()
			return strings.Contains(client.ClusterInfo(t.Context()).Val(), "cluster_state:ok") &&
				strings.Count(nodes, "slave ") == shards && !strings.Contains(nodes, "disconnected")
		})
		if i >= shards {
			await(t, "the replicas are in step", func() bool { return inStep(t, client) })
		}
	}
	return c
}

// inStep reports whether a replica has what its primary has, and will get what comes.
func inStep(t testing.TB, replica *redis.Client) bool {
	t.Helper()
	return strings.Contains(replica.Info(t.Context(), "replication").Val(), "master_link_status:up")
}

// URL names all servers, as a user writes it.
func (c *Shards) URL() string { return nameAll(c.Servers, url.Values{}) }

// nameAll makes a URL of the first server whose parameter addr has the others.
func nameAll(servers []*Server, parameters url.Values) string {
	for _, s := range servers[1:] {
		parameters.Add("addr", s.Addr())
	}
	return servers[0].URL() + "?" + parameters.Encode()
}

// Primary gives the server that has the slot of the key at first.
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
	t.Fatalf("%s is none of the Cluster", owner.Options().Addr)
	return nil
}
