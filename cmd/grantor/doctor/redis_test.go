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

// cause makes one check find something: it sets a patient up and gives the doctor's arguments.
type cause struct {
	check string
	// found is a part of what is told.
	found string
	setUp func(t *testing.T) (*patient, []string)
}

// alone is a patient of which a command is all that there is to say.
func alone(commands ...string) func(t *testing.T) (*patient, []string) {
	return func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		for _, command := range commands {
			p.do(command)
		}
		return p, nil
	}
}

var redisCauses = []cause{
	{"doctor.time", "within 100ms", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		p.redis.Freeze()
		t.Cleanup(p.redis.Thaw)
		return p, []string{"--timeout=100ms"}
	}},
	{"redis.reach", "connection refused", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		p.redis.Stop()
		return p, nil
	}},
	{"redis.reach", "WRONGPASS", func(t *testing.T) (*patient, []string) {
		p, _ := alone("config set requirepass sesame")(t)
		return p, []string{"--redis=redis://default:wrong@" + p.redis.Addr()}
	}},
	{"redis.reach", "NOAUTH", alone("config set requirepass sesame")},
	{"redis.reach", "certificate signed by unknown authority", func(t *testing.T) (*patient, []string) {
		server, url := tlsRedis(t, servetest.NewAuthority(t).WriteCertificate(t, 24*time.Hour))
		return patientOn(t, server), []string{"--redis=" + url}
	}},
	{"redis.reach", "certificate has expired", func(t *testing.T) (*patient, []string) {
		server, url := tlsRedis(t, servetest.Trusted.WriteCertificate(t, -time.Hour))
		return patientOn(t, server), []string{"--redis=" + url}
	}},
	{"redis.allowed", "NOPERM", func(t *testing.T) (*patient, []string) {
		return withRights(newPatient(t), "-@all +time +info ~grantor:*")
	}},
	{"redis.allowed", "NOPERM", func(t *testing.T) (*patient, []string) { return withRights(newPatient(t), "-@all +info ~grantor:*") }},
	{"redis.allowed", "'zadd'", replicasUser("", serveRights+" -zadd")},
	{"redis.allowed", "'grantor:{grantor}:x' key", replicasUser("", serveRights+" resetkeys ~app:*")},
	{"redis.allowed", "the user replica: ERR User 'replica' not found", func(t *testing.T) (*patient, []string) {
		p, args := withRights(newPatient(t), doctorRights)
		return p, append(args, "--redis-user=replica")
	}},
	{"redis.rights", `the user replica: commands +@all, keys "~grantor:*"`, replicasUser("", "+@all ~grantor:*")},
	{"redis.hidden", "ACL DRYRUN", replicasUser("-acl|dryrun", serveRights)},
	{"redis.hidden", "appendfsync", func(t *testing.T) (*patient, []string) { return withRights(newPatient(t), "+@all -config ~grantor:*") }},
	{"redis.hidden", "ACL WHOAMI", func(t *testing.T) (*patient, []string) { return withRights(newPatient(t), "+@all -acl ~grantor:*") }},
	{"redis.hidden", "ACL GETUSER doctor", func(t *testing.T) (*patient, []string) {
		return withRights(newPatient(t), "+@all -acl|getuser ~grantor:*")
	}},
	{"redis.hidden", "SCAN", func(t *testing.T) (*patient, []string) { return withRights(newPatient(t), "+@all -scan ~grantor:*") }},
	{"redis.hidden", "SLOWLOG GET", func(t *testing.T) (*patient, []string) { return withRights(newPatient(t), "+@all -slowlog ~grantor:*") }},
	{"redis.version-old", "Redis 6.2.0", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		return p, []string{p.pretend("6.2.")}
	}},
	{"redis.version-vulnerable", "Redis 7.2.0 has CVE-2024-31449, CVE-2025-21605, CVE-2025-49844, CVE-2026-81934; the releases without it are 7.2.16, 7.4.11", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		return p, []string{p.pretend("7.2.")}
	}},
	{"redis.eviction", "allkeys-lru", alone("config set maxmemory-policy allkeys-lru")},
	{"redis.forgets", "save is empty", alone()},
	{"redis.persistence", "appendonly is no", func(t *testing.T) (*patient, []string) { return newPatient(t, "--save", "3600 1"), nil }},
	{"redis.replay", `the user default: commands +@all, keys "~app:*"`, alone("config set appendonly yes", "acl setuser default resetkeys ~app:*")},
	{"redis.replay", "the user default: commands -@all, keys", func(t *testing.T) (*patient, []string) {
		p, args := withRights(newPatient(t, "--appendonly", "yes"), doctorRights)
		p.do("acl setuser default reset") // as of `user default off` in an ACL file
		return p, args
	}},
	{"redis.fsync", "appendfsync is no", alone("config set appendonly yes", "config set appendfsync no")},
	{"redis.disk", "rdb_last_bgsave_status is err", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		dir := p.redis.Client().ConfigGet(t.Context(), "dir").Val()["dir"]
		p.check(os.RemoveAll(dir)) // as a volume that is gone
		p.do("bgsave")
		must.Eventually(t, "told that it cannot be saved", func() bool {
			return strings.Contains(p.redis.Client().Info(t.Context(), "persistence").Val(), "rdb_last_bgsave_status:err")
		})
		p.check(os.Mkdir(dir, 0o700))
		return p, nil
	}},
	{"redis.memory", "bytes are in use", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		p.do("set grantor:{grantor}:ballast", strings.Repeat("x", 8<<20))
		p.do("config set maxmemory", 10<<20)
		return p, nil
	}},
	{"redis.connections", " of 10", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		p.do("config set maxclients 10")
		for range 7 { // with the test's own and the doctor's there are nine
			conn, err := net.Dial("tcp", p.redis.Addr())
			p.check(err)
			t.Cleanup(func() { _ = conn.Close() })
		}
		return p, nil
	}},
	{"redis.role", "its role is slave", func(t *testing.T) (*patient, []string) {
		primary := redistest.New(t)
		p := patientOn(t, replicaOf(t, primary))
		return p, nil
	}},
	{"redis.writes", "0 of 1 are in step", alone("config set min-replicas-to-write 1")},
	{"redis.replicas", "0 of 1 are connected", func(t *testing.T) (*patient, []string) { return newPatient(t), []string{"--revocation-replicas=1"} }},
	{"redis.replicas", "0 of 2 are connected", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		p.tell("a", func(r *heartbeat.Status) { r.Settings["revocation-replicas"] = "2" })
		return p, nil
	}},
	{"redis.lag", ": online, silent for ", func(t *testing.T) (*patient, []string) {
		p := newPatient(t, "--repl-diskless-sync-delay", "0")
		replica := replicaOf(t, p.redis)
		replica.Freeze()
		t.Cleanup(replica.Thaw)
		must.Eventually(t, "without word from its replica", func() bool { return p.diagnose().checks["redis.lag"].Severity == doctor.IsWarning })
		return p, nil
	}},
	{"redis.alone", "connected replicas: 0", alone()},
	{"redis.plaintext", "in the clear", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		// An address that leads to this machine, and does not say so.
		return p, []string{"--redis=redis://" + strings.Replace(p.redis.Addr(), "127.0.0.1", "0.0.0.0", 1)}
	}},
	{"redis.unverified", "skip_verify", func(t *testing.T) (*patient, []string) {
		server, url := tlsRedis(t, servetest.NewAuthority(t).WriteCertificate(t, 24*time.Hour))
		return patientOn(t, server), []string{"--redis=" + url + "?skip_verify=true"}
	}},
	{"redis.certificate", "it ends at ", func(t *testing.T) (*patient, []string) {
		server, url := tlsRedis(t, servetest.Trusted.WriteCertificate(t, 13*24*time.Hour))
		return patientOn(t, server), []string{"--redis=" + url}
	}},
	{"redis.password", "without a password", alone()},
	{"redis.password", "without a password", func(t *testing.T) (*patient, []string) { return withRights(newPatient(t), "+@all ~grantor:*") }},
	{"redis.rights", `the user default: commands +@all, keys "~*"`, alone()},
	{"redis.rights", `keys "~*"`, func(t *testing.T) (*patient, []string) {
		return withRights(newPatient(t), "-@all +@read +info +time +acl ~*")
	}},
	{"redis.shared", "1 or more keys do not begin with grantor:{grantor}:", alone("set session:1 x")},
	{"redis.clock", "10", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		p.clock = func() time.Time { return time.Now().Add(-10 * time.Minute) }
		return p, nil
	}},
	{"redis.slow", "round trips took", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		return p, []string{"--redis=redis://" + proxy(t, p.redis.Addr(), func(b []byte) []byte {
			<-time.After(30 * time.Millisecond)
			return b
		})}
	}},
	{"redis.slowlog", "the slowest ", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
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
	{"feed.size", "1000001 entries", func(t *testing.T) (*patient, []string) {
		p := newPatient(t)
		for range 100 { // a script of a second would have the Redis look dead
			p.do("eval", "for i = 1, 10000 do redis.call('XADD', KEYS[1], '*', 'k', 'token') end return 1", 1, "grantor:{grantor}:feed")
		}
		p.do("xadd grantor:{grantor}:feed * k token")
		return p, nil
	}},
}

// withRights gives the doctor a user of the Redis with the rights.
func withRights(p *patient, rights string) (*patient, []string) {
	p.t.Helper()
	p.do("acl setuser doctor on >sesame " + rights)
	return p, []string{"--redis=redis://doctor:sesame@" + p.redis.Addr()}
}

// replicasUser gives the doctor its documented rights and some more, and the replicas' user those rights.
func replicasUser(more, rights string) func(t *testing.T) (*patient, []string) {
	return func(t *testing.T) (*patient, []string) {
		p, args := withRights(newPatient(t), doctorRights+" "+more)
		p.do("acl setuser replica on >sesame " + rights)
		return p, append(args, "--redis-user=replica")
	}
}

// replicaOf starts a replica of a Redis and waits until it is in step.
func replicaOf(t *testing.T, primary *redistest.Server) *redistest.Server {
	t.Helper()
	_, port, _ := net.SplitHostPort(primary.Addr())
	replica := redistest.New(t, "--replicaof", "127.0.0.1 "+port)
	must.Eventually(t, "in step", func() bool {
		return strings.Contains(replica.Client().Info(t.Context(), "replication").Val(), "master_link_status:up") &&
			strings.Contains(primary.Client().Info(t.Context(), "replication").Val(), "state=online")
	})
	return replica
}
