package doctor_test

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/doctor"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// cause makes one check find something: it sets up a deployment and returns the arguments of doctor.
type cause struct {
	check string
	// found is a part of the finding.
	found string
	setUp func(t *testing.T) (*brokenDeployment, []string)
}

// commandsOnly is a deployment that consists of the results of commands.
func commandsOnly(commands ...string) func(t *testing.T) (*brokenDeployment, []string) {
	return func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		for _, command := range commands {
			p.do(command)
		}
		return p, nil
	}
}

var redisCauses = []cause{
	{"doctor.time", "not everything was checked within 100ms", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.redis.Freeze()
		t.Cleanup(p.redis.Thaw)
		return p, []string{"--timeout=100ms"}
	}},
	{"redis.reach", "connection refused", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.redis.Stop()
		return p, nil
	}},
	{"redis.reach", "WRONGPASS", func(t *testing.T) (*brokenDeployment, []string) {
		p, _ := commandsOnly("config set requirepass sesame")(t)
		return p, []string{"--redis=redis://default:wrong@" + p.redis.Addr()}
	}},
	{"redis.reach", "NOAUTH", commandsOnly("config set requirepass sesame")},
	{"redis.reach", "certificate signed by unknown authority", func(t *testing.T) (*brokenDeployment, []string) {
		server, url := tlsRedis(t, servetest.NewAuthority(t).WriteCertificate(t, 24*time.Hour))
		return deploymentOn(t, server), []string{"--redis=" + url}
	}},
	{"redis.reach", "certificate has expired", func(t *testing.T) (*brokenDeployment, []string) {
		server, url := tlsRedis(t, servetest.Trusted.WriteCertificate(t, -time.Hour))
		return deploymentOn(t, server), []string{"--redis=" + url}
	}},
	{"redis.allowed", "NOPERM", func(t *testing.T) (*brokenDeployment, []string) {
		return withRights(newDeployment(t), "-@all +time +info ~grantor:*")
	}},
	{"redis.allowed", "NOPERM", func(t *testing.T) (*brokenDeployment, []string) {
		return withRights(newDeployment(t), "-@all +info ~grantor:*")
	}},
	{"redis.allowed", "'zadd'", replicasUser("", serveRights+" -zadd")},
	{"redis.allowed", "'grantor:{grantor}:x' key", replicasUser("", serveRights+" resetkeys ~app:*")},
	{"redis.allowed", "the user replica: ERR User 'replica' not found", func(t *testing.T) (*brokenDeployment, []string) {
		p, args := withRights(newDeployment(t), doctorRights)
		return p, append(args, "--redis-user=replica")
	}},
	{"redis.rights", `the user replica: commands +@all, keys "~grantor:*"`, replicasUser("", "+@all ~grantor:*")},
	{"redis.hidden", "ACL DRYRUN", replicasUser("-acl|dryrun", serveRights)},
	{"redis.hidden", "appendfsync", func(t *testing.T) (*brokenDeployment, []string) {
		return withRights(newDeployment(t), "+@all -config ~grantor:*")
	}},
	{"redis.hidden", "ACL WHOAMI", func(t *testing.T) (*brokenDeployment, []string) {
		return withRights(newDeployment(t), "+@all -acl ~grantor:*")
	}},
	{"redis.hidden", "ACL GETUSER doctor", func(t *testing.T) (*brokenDeployment, []string) {
		return withRights(newDeployment(t), "+@all -acl|getuser ~grantor:*")
	}},
	{"redis.hidden", "SCAN", func(t *testing.T) (*brokenDeployment, []string) {
		return withRights(newDeployment(t), "+@all -scan ~grantor:*")
	}},
	{"redis.hidden", "SLOWLOG GET", func(t *testing.T) (*brokenDeployment, []string) {
		return withRights(newDeployment(t), "+@all -slowlog ~grantor:*")
	}},
	{"redis.version-old", "Redis 6.2.0", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		return p, []string{p.pretend("6.2.")}
	}},
	{"redis.version-vulnerable", "Redis 7.2.0 has CVE-2024-31449, CVE-2025-21605, CVE-2025-49844, CVE-2026-81934; the releases without it are 7.2.16, 7.4.11", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		return p, []string{p.pretend("7.2.")}
	}},
	{"redis.eviction", "allkeys-lru", commandsOnly("config set maxmemory-policy allkeys-lru")},
	{"redis.forgets", "save is empty", commandsOnly()},
	{"redis.persistence", "appendonly is no", func(t *testing.T) (*brokenDeployment, []string) { return newDeployment(t, "--save", "3600 1"), nil }},
	{"redis.replay", `the user default: commands +@all, keys "~app:*"`, commandsOnly("config set appendonly yes", "acl setuser default resetkeys ~app:*")},
	{"redis.replay", "the user default: commands -@all, keys", func(t *testing.T) (*brokenDeployment, []string) {
		p, args := withRights(newDeployment(t, "--appendonly", "yes"), doctorRights)
		p.do("acl setuser default reset") // as of `user default off` in an ACL file
		return p, args
	}},
	{"redis.fsync", "appendfsync is no", commandsOnly("config set appendonly yes", "config set appendfsync no")},
	{"redis.disk", "rdb_last_bgsave_status is err", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		dir := p.redis.Client().ConfigGet(t.Context(), "dir").Val()["dir"]
		p.check(os.RemoveAll(dir)) // as a volume that is gone
		p.do("bgsave")
		must.Eventually(t, "Redis reports that it cannot save", func() bool {
			return strings.Contains(p.redis.Client().Info(t.Context(), "persistence").Val(), "rdb_last_bgsave_status:err")
		})
		p.check(os.Mkdir(dir, 0o700))
		return p, nil
	}},
	{"redis.memory", "bytes are in use", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.do("set grantor:{grantor}:ballast", strings.Repeat("x", 8<<20))
		p.do("config set maxmemory", 10<<20)
		return p, nil
	}},
	{"redis.connections", " of 10", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.do("config set maxclients 10")
		for range 7 { // with those of the test and of doctor there are nine
			conn, err := net.Dial("tcp", p.redis.Addr())
			p.check(err)
			t.Cleanup(func() { _ = conn.Close() })
		}
		return p, nil
	}},
	{"redis.role", "its role is slave", func(t *testing.T) (*brokenDeployment, []string) {
		primary := redistest.New(t)
		p := deploymentOn(t, replicaOf(t, primary))
		return p, nil
	}},
	{"redis.writes", "0 of 1 are in sync", commandsOnly("config set min-replicas-to-write 1")},
	{"redis.replicas", "0 of 1 are connected", func(t *testing.T) (*brokenDeployment, []string) {
		return newDeployment(t), []string{"--revocation-replicas=1"}
	}},
	{"redis.replicas", "0 of 2 are connected", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.announce("a", func(r *heartbeat.Status) { r.Settings["revocation-replicas"] = "2" })
		return p, nil
	}},
	{"redis.lag", ": online, silent for ", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t, "--repl-diskless-sync-delay", "0")
		replica := replicaOf(t, p.redis)
		replica.Freeze()
		t.Cleanup(replica.Thaw)
		must.Eventually(t, "without word from its replica", func() bool { return p.diagnose().checks["redis.lag"].Severity == doctor.IsWarning })
		return p, nil
	}},
	{"redis.alone", "connected replicas: 0", commandsOnly()},
	{"redis.plaintext", "is not encrypted", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		// An address of this machine that is not recognizable as loopback.
		return p, []string{"--redis=redis://" + strings.Replace(p.redis.Addr(), "127.0.0.1", "0.0.0.0", 1)}
	}},
	{"redis.unverified", "skip_verify", func(t *testing.T) (*brokenDeployment, []string) {
		server, url := tlsRedis(t, servetest.NewAuthority(t).WriteCertificate(t, 24*time.Hour))
		return deploymentOn(t, server), []string{"--redis=" + url + "?skip_verify=true"}
	}},
	{"redis.certificate", "it expires at ", func(t *testing.T) (*brokenDeployment, []string) {
		server, url := tlsRedis(t, servetest.Trusted.WriteCertificate(t, 13*24*time.Hour))
		return deploymentOn(t, server), []string{"--redis=" + url}
	}},
	{"redis.client-certificate", "it asks for a certificate, and none is given: ", withClientCertificate("yes", nil)},
	{"redis.client-certificate", "it does not accept ", withClientCertificate("yes", func(t *testing.T) servetest.KeyPair {
		return servetest.NewAuthority(t).WriteCertificate(t, day)
	})},
	{"redis.client-certificate", "it does not accept ", withClientCertificate("optional", func(t *testing.T) servetest.KeyPair {
		return servetest.NewAuthority(t).WriteCertificate(t, day)
	})},
	{"redis.client-certificate-optional", "none is given", withClientCertificate("optional", nil)},
	{"redis.client-certificate-ends", " expires at 20", withClientCertificate("yes", trustedFor(13*day))},
	{"redis.client-certificate-ended", " expired at 20", withClientCertificate("yes", trustedFor(-time.Hour))},
	{"redis.password", "without a password", commandsOnly()},
	{"redis.password", "without a password", func(t *testing.T) (*brokenDeployment, []string) {
		return withRights(newDeployment(t), "+@all ~grantor:*")
	}},
	{"redis.rights", `the user default: commands +@all, keys "~*"`, commandsOnly()},
	{"redis.rights", `keys "~*"`, func(t *testing.T) (*brokenDeployment, []string) {
		return withRights(newDeployment(t), "-@all +@read +info +time +acl ~*")
	}},
	{"redis.shared", "1 or more keys do not begin with grantor:{grantor}:", commandsOnly("set session:1 x")},
	{"redis.clock", "10", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.clock = func() time.Time { return time.Now().Add(-10 * time.Minute) }
		return p, nil
	}},
	{"redis.slow", "round trips took", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		return p, []string{"--redis=redis://" + proxy(t, p.redis.Addr(), func(b []byte) []byte {
			<-time.After(30 * time.Millisecond)
			return b
		})}
	}},
	{"redis.slowlog", "the slowest ", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		turns := 1 << 20
		must.Eventually(t, "slow", func() bool {
			turns *= 2
			p.do("eval", "for i = 1, ARGV[1] do end return 1", 1, "grantor:{grantor}:client:a", turns)
			slow, err := p.redis.Client().SlowLogGet(t.Context(), 1).Result()
			p.check(err)
			return len(slow) > 0 && slow[0].Duration > 100*time.Millisecond
		})
		return p, nil
	}},
	{"feed.size", "1000001 entries", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		for range 100 { // a script that takes a second would make the Redis appear dead
			p.do("eval", "for i = 1, 10000 do redis.call('XADD', KEYS[1], '*', 'k', 'token') end return 1", 1, "grantor:{grantor}:feed")
		}
		p.do("xadd grantor:{grantor}:feed * k token")
		return p, nil
	}},
	{"feed.ahead", "its last ID is 18446744073709551615-18446744073709551615, and the time of the Redis is 1", commandsOnly(
		"xadd grantor:{grantor}:feed 18446744073709551615-18446744073709551615 k client i a t 1",
	)},
	{"feed.ahead", "its last ID is 18446744073709551615-18446744073709551615", commandsOnly(
		"xadd grantor:{grantor}:feed 18446744073709551615-18446744073709551615 k client i a t 1",
		"xdel grantor:{grantor}:feed 18446744073709551615-18446744073709551615",
	)},
	{"feed.ahead", "its last ID is 253402300800000-0", commandsOnly("xadd grantor:{grantor}:feed 253402300800000-0 k client i a t 1")},
	{"redis.hidden", "XINFO STREAM", func(t *testing.T) (*brokenDeployment, []string) {
		return withRights(newDeployment(t), strings.ReplaceAll(doctorRights, "+xinfo|stream ", ""))
	}},
}

// withRights adds a Redis user with the rights, and returns the arguments that make doctor use it.
func withRights(p *brokenDeployment, rights string) (*brokenDeployment, []string) {
	p.t.Helper()
	p.do("acl setuser doctor on >sesame " + rights)
	return p, []string{"--redis=redis://doctor:sesame@" + p.redis.Addr()}
}

// replicasUser returns a cause in which doctor has its documented rights and more, and the user of the replicas has rights.
func replicasUser(more, rights string) func(t *testing.T) (*brokenDeployment, []string) {
	return func(t *testing.T) (*brokenDeployment, []string) {
		p, args := withRights(newDeployment(t), doctorRights+" "+more)
		p.do("acl setuser replica on >sesame " + rights)
		return p, append(args, "--redis-user=replica")
	}
}

// replicaOf starts a replica of a Redis and waits until it is in sync.
func replicaOf(t *testing.T, primary *redistest.Server) *redistest.Server {
	t.Helper()
	_, port, _ := net.SplitHostPort(primary.Addr())
	replica := redistest.New(t, "--replicaof", "127.0.0.1 "+port)
	must.Eventually(t, "in sync", func() bool {
		return strings.Contains(replica.Client().Info(t.Context(), "replication").Val(), "master_link_status:up") &&
			strings.Contains(primary.Client().Info(t.Context(), "replication").Val(), "state=online")
	})
	return replica
}
