package doctor_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/doctor"
	"github.com/grantorhq/grantor/cmd/grantor/serve"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
)

// discard discards what net/http logs.
var discard = log.New(io.Discard, "", 0)

// TestDoctorFindings causes every possible finding.
func TestDoctorFindings(t *testing.T) {
	caused := make(map[string]bool)
	for _, c := range slices.Concat(redisCauses, ringCauses, fleetCauses, issuerCauses, recordCauses, trustCauses) {
		caused[c.check] = true
		t.Run(c.check, func(t *testing.T) {
			p, args := c.setUp(t)
			d := p.diagnose(args...)
			i := slices.IndexFunc(doctor.Checks, func(known doctor.Check) bool { return known.ID == c.check })
			if i < 0 {
				t.Fatal("there is no such check")
			}
			want, got := doctor.Checks[i], d.checks[c.check]
			if got.Severity != want.Severity || !strings.Contains(got.Found, c.found) || got.Do != want.Do {
				t.Errorf("got %+v, want %s with %q; all:\n%s", got, want.Severity, c.found, d.out)
			}
			if code := cli.ExitCode(d.err); want.Severity == doctor.IsError && code != cli.ExitOther {
				t.Errorf("got exit code %d and %v, want %d", code, d.err, cli.ExitOther)
			}
			if got := p.diagnose(append(args, "--skip="+c.check)...).checks[c.check]; got.Check != "" {
				t.Errorf("skipped: got %+v", got)
			}
		})
	}
	for _, c := range doctor.Checks {
		if !caused[c.ID] {
			t.Errorf("nothing causes %s", c.ID)
		}
	}
}

// The rights that grantor serve and grantor doctor need, as docs/doctor.md lists them.
const (
	defaultRights = "off resetpass ~* &* +@all"
	serveRights   = "resetkeys ~grantor:* resetchannels -@all +info +time +wait +eval +evalsha +set +hget +hmget +hgetall +hset +hdel +hlen +hexists +hincrby +pexpire +del +zadd +zrem +zrange +xadd +xread +xrange +xrevrange"
	doctorRights  = "resetkeys ~grantor:* resetchannels -@all +info +time +eval +evalsha +hmget +hgetall +zrange +xlen +xinfo|stream +xread +xrange +xrevrange +scan +config|get +slowlog|get +acl|whoami +acl|getuser +acl|dryrun"
)

// TestDoctorHealthy inspects a healthy deployment: every check is made, and no finding is worse than a note. The Redis
// users have the documented rights and no others.
func TestDoctorHealthy(t *testing.T) {
	server, raw := mutualRedis(t, "yes", "--appendonly", "yes")
	client := servetest.Trusted.WriteCertificate(t, 100*day)
	for name, value := range map[string]string{"GRANTOR_REDIS_TLS_CERT_FILE": client.Cert, "GRANTOR_REDIS_TLS_KEY_FILE": client.Key} {
		t.Setenv(name, value)
	}
	p := deploymentOn(t, server)
	p.do("acl setuser grantor on >sesame " + serveRights)
	p.do("acl setuser doctor on >sesame " + doctorRights)
	p.do("acl setuser admin on >sesame +@all ~*")
	p.do("acl setuser default " + defaultRights)
	as := func(user string) string {
		u := must.Get(url.Parse(raw))
		u.User = url.UserPassword(user, "sesame")
		return "--redis=" + u.String()
	}
	given := must.Get(tls.LoadX509KeyPair(client.Cert, client.Key))
	admin := must.Get(redisstore.ConnectTLS(strings.TrimPrefix(as("admin"), "--redis="), func(base *tls.Config) *tls.Config {
		base.Certificates = []tls.Certificate{given}
		return base
	}))
	t.Cleanup(func() { _ = admin.Close() })
	asked := func(command ...any) []any { return must.Get(admin.Do(t.Context(), command...).Slice()) }
	pair, kek, rest, rpc := servetest.Trusted.WriteCertificate(t, 100*day), "--key-encryption-key-file="+servetest.KEKFile(t), freeport.Address(t), freeport.Address(t)
	issuer := "--issuer=https://" + rest
	args := []string{
		as("grantor"), kek, issuer, "--grpc-endpoint=" + rpc, "--tls-cert-file=" + pair.Cert, "--tls-key-file=" + pair.Key,
		"--apply=" + servetest.WriteFile(t, "clients.yaml", servetest.Manifest),
	}
	first := servetest.Start(t, append(args, "--http-listen="+rest, "--grpc-listen="+rpc)...)
	second := servetest.Start(t, args...)
	// Cover what a replica and apply do after the start.
	clitest.Isolate(t)
	t.Setenv("GRANTOR_CLIENT_SECRET", "service-secret-here")
	runDoctor(t, "token", "revoke", "--all", issuer, "--client-id=background-service").Works(t)
	t.Setenv("GRANTOR_CLIENT_SECRET", "a-wrong-secret") // failures are counted for all replicas
	runDoctor(t, "token", "issue", issuer, "--client-id=background-service").Fails(t, "invalid_client")
	must.Eventually(t, "counted in the Redis", func() bool { return len(asked("keys", "grantor:{grantor}:limit:*")) > 0 })
	runDoctor(t, "audit", as("doctor")).Works(t)
	fewer, _, _ := strings.Cut(servetest.Manifest, "  - client_id: orders-api")
	if applied := runDoctor(t, "apply", as("grantor"), kek, "--prune", "-f", servetest.WriteFile(t, "fewer.yaml", fewer)); !strings.Contains(applied.Out, "removed   client orders-api") {
		t.Errorf("apply: got %v and %s", applied.Err, applied.Out)
	}
	all := []string{
		as("doctor"), "--redis-user=grantor", kek, issuer, "--replica=http://" + first.OpsAddr(), "--replica=http://" + second.OpsAddr(),
		"--skip=redis.version-vulnerable", // depends on the distribution
	}
	var d diagnosis
	must.Eventually(t, "both replicas report, and gRPC serves", func() bool {
		d = p.diagnose(all...)
		return d.checks["replica.none"].Severity == doctor.IsFine && d.checks["replica.alone"].Severity == doctor.IsFine && d.checks["grpc.health"].Severity == doctor.IsFine
	})
	allowed := map[string]doctor.Severity{"redis.alone": doctor.IsNote, "redis.slow": d.checks["redis.slow"].Severity} // the machine may be slow
	for _, c := range doctor.Checks {
		made, ok := d.checks[c.ID]
		unseen := c.ID == "redis.version-vulnerable"
		if want := allowed[c.ID]; ok == unseen || ok && made.Severity != doctor.IsFine && made.Severity != want {
			t.Errorf("%s: got %+v, want it made and fine", c.ID, made)
		}
	}
	for _, denied := range asked("acl", "log") {
		if text := fmt.Sprint(denied); strings.Contains(text, "username:grantor") {
			t.Errorf("the Redis denied %s", text)
		}
	}
	if d.err != nil || strings.Contains(d.out, "sesame") {
		t.Errorf("got %v and\n%s, want success and no password", d.err, d.out)
	}
}

// TestRestartWithUsers restarts a Redis whose users are those of docs/doctor.md, and expects the data of Grantor to be
// there.
func TestRestartWithUsers(t *testing.T) {
	users := servetest.WriteFile(t, "users.acl", "")
	server := redistest.New(t, "--appendonly", "yes", "--aclfile", users)
	var lines strings.Builder
	for line := range strings.Lines(string(must.Get(os.ReadFile("../../../docs/doctor.md")))) {
		if user, ok := strings.CutPrefix(line, "    user "); ok {
			lines.WriteString("user " + strings.ReplaceAll(user, "PASSWORD", "sesame"))
		}
	}
	before := server.Client()
	if err := os.WriteFile(users, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := before.Do(t.Context(), "acl", "load").Err(); err != nil {
		t.Fatal(err)
	}
	server.Login("grantor", "sesame")
	url := "redis://grantor:sesame@" + server.Addr()
	runDoctor(t, "apply", "--redis="+url, "--key-encryption-key-file="+servetest.KEKFile(t), "-f", servetest.WriteFile(t, "clients.yaml", servetest.Manifest)).Works(t)
	records := func() map[string]string {
		return must.Get(server.Client().HGetAll(t.Context(), "grantor:{grantor}:client:background-service").Result())
	}
	want := records()
	server.Stop()
	server.Start()
	if got := records(); len(want) == 0 || !maps.Equal(got, want) {
		t.Errorf("after the restart: got %v, want %v", got, want)
	}
}

// TestNeededCommands expects doctor to check exactly the commands that the documented rights allow.
func TestNeededCommands(t *testing.T) {
	var asked []string
	for _, command := range doctor.NeededCommands {
		name, _, _ := strings.Cut(command, " ")
		asked = append(asked, "+"+name)
	}
	if _, documented, _ := strings.Cut(serveRights, "-@all "); documented != strings.Join(asked, " ") {
		t.Errorf("asked for are %q, want %s", asked, documented)
	}
}

// TestDoctorFindsOwner inspects the primary behind Sentinels, and in a Cluster the server with the issuer's slot.
func TestDoctorFindsOwner(t *testing.T) {
	sentinel := redistest.NewSentinel(t, 1)
	cluster := redistest.NewShards(t)
	for name, c := range map[string]struct {
		url   string
		owner *redistest.Server
	}{
		"Sentinel": {sentinel.URL(), sentinel.Primary},
		"Cluster":  {cluster.URL(), cluster.Primary(t, "grantor:{grantor}:feed")},
	} {
		t.Run(name, func(t *testing.T) {
			p := deploymentOn(t, c.owner)
			p.do("config set maxmemory-policy allkeys-lru")
			p.do("set", "{grantor}", "x") // has the slot of the issuer's keys, and is not one of them
			d := p.diagnose("--redis=" + c.url)
			for check, want := range map[string]doctor.Severity{
				"redis.eviction": doctor.IsError, "redis.shared": doctor.IsWarning, "redis.alone": doctor.IsFine, "redis.lag": doctor.IsFine, "redis.role": doctor.IsFine,
				"redis.plaintext": doctor.IsFine, "redis.password": doctor.IsWarning,
			} {
				if got := d.checks[check]; got.Severity != want {
					t.Errorf("%s: got %+v, want %s; all:\n%s", check, got, want, d.out)
				}
			}
		})
	}
}

// TestDoctorOutput checks both forms of the output, and what determines the exit code.
func TestDoctorOutput(t *testing.T) {
	clitest.Isolate(t)
	p := newDeployment(t, "--appendonly", "yes")
	p.announce("a", nil)
	p.announce("evil\x1b[31m\u202e", func(r *heartbeat.Status) { r.Settings["issuer"] = "https://\x1b]0;x\x07" })
	p.ring(0)
	command := "doctor --redis=" + p.redis.URL() + " " + p.kekFlag() + " --skip=replica.keys,redis.version-vulnerable "
	text := runDoctor(t, strings.Fields(command+"-v")...)
	// The output ends with the totals; the error, which main prints below it, does not repeat them.
	strict := runDoctor(t, strings.Fields(command+"--strict --skip=replica.settings")...)
	for want, got := range map[string]error{"errors were found": text.Err, "warnings were found, and --strict is given": strict.Err} {
		if cli.ExitCode(got) != cli.ExitOther || got.Error() != want {
			t.Errorf("got exit code %d and %v, want %d and %s", cli.ExitCode(got), got, cli.ExitOther, want)
		}
	}
	for _, want := range []string{
		"error    replica.settings: issuer is ", "\n         give all replicas the same value\n", "warning  redis.password: a connection", "ok       redis.eviction\n", "1 error, 1 warning, 2 notes; ",
	} {
		if !strings.Contains(text.Out, want) {
			t.Errorf("the output has no %q:\n%s", want, text.Out)
		}
	}
	if strings.ContainsAny(text.Out, "\x1b\x07\u202e") {
		t.Errorf("the output acts on a terminal: %q", text.Out)
	}
	if quiet := runDoctor(t, strings.Fields(command)...); strings.Contains(quiet.Out, "ok  ") {
		t.Errorf("the checks that found nothing are listed:\n%s", quiet.Out)
	}
	document := runDoctor(t, strings.Fields(command+"-o json")...)
	var read struct {
		Checks   []map[string]string `json:"checks"`
		Errors   int                 `json:"errors"`
		Warnings int                 `json:"warnings"`
		Notes    int                 `json:"notes"`
	}
	if err := json.Unmarshal([]byte(document.Out), &read); err != nil || read.Errors != 1 || read.Warnings != 1 || read.Notes != 2 || len(read.Checks) < 40 {
		t.Errorf("got %v and\n%s", err, document.Out)
	}
	if strings.ContainsAny(document.Out, "\x1b\x07\u202e") {
		t.Errorf("the output acts on a terminal: %q", document.Out)
	}
	for _, c := range []struct {
		args string
		want int
	}{
		{"--skip=replica.settings", 0}, {"--skip=replica.settings --strict", cli.ExitOther}, {"--skip=replica.settings,redis.password --strict", 0},
		{"--skip=replica.setting", cli.ExitUsage}, {"--output=yaml", cli.ExitUsage}, {"--timeout=0s", cli.ExitUsage}, {"--replica=localhost:8082", cli.ExitUsage},
		{"--issuer=http://auth.example.com", cli.ExitUsage}, {"--profile=nobody", cli.ExitUsage}, {"--redis=localhost", cli.ExitUsage},
		{"--key-encryption-key-file=/nonexistent", cli.ExitUsage}, {"--redis-prefix=x", cli.ExitUsage},
	} {
		if got := cli.ExitCode(runDoctor(t, strings.Fields(command+c.args)...).Err); got != c.want {
			t.Errorf("%s: got exit code %d, want %d", c.args, got, c.want)
		}
	}
}

// TestDoctorSettings takes the deployment from a file of grantor serve, from the environment and from a profile.
func TestDoctorSettings(t *testing.T) {
	clitest.Isolate(t)
	p := newDeployment(t)
	p.ring(0)
	config := servetest.WriteFile(t, "grantor.yaml", "redis: "+p.redis.URL()+"\nissuer: http://"+freeport.Address(t)+"\nkey_encryption_key: "+
		strings.TrimPrefix(p.kekFlag(), "--key-encryption-key=")+"\nlog_format: text\nhttp_listen: localhost:8080\n")
	if out := runDoctor(t, "doctor", "--config", config, "-v").Out; !strings.Contains(out, "ok       key.seal") || !strings.Contains(out, "error    issuer.reach") {
		t.Errorf("by a file:\n%s", out)
	}
	t.Setenv("GRANTOR_REDIS", p.redis.URL())
	path := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "grantor", "profiles.yaml")
	p.check(os.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o700))
	p.check(os.WriteFile(path, []byte("prod:\n  issuer: http://127.0.0.1:1\n"), 0o600))
	if out := runDoctor(t, "doctor", "--profile", "prod").Out; !strings.Contains(out, "note     key.unchecked") || !strings.Contains(out, "127.0.0.1:1") {
		t.Errorf("by environment and profile:\n%s", out)
	}
}

// TestSharedSettings expects a setting that grantor serve has too to have the same default and usage there.
func TestSharedSettings(t *testing.T) {
	served := serve.NewCommand().Flags()
	doctor.SharedFlags().VisitAll(func(flag *pflag.Flag) {
		other := served.Lookup(flag.Name)
		if other == nil || other.DefValue != flag.DefValue || other.Usage != flag.Usage {
			t.Errorf("got %+v, want %+v", flag, other)
		}
	})
}

// TestDoctorPage expects docs/doctor.md to have all checks, and the sufficient rights.
func TestDoctorPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| check | | found when | what to do |\n|---|---|---|---|\n")
	for _, c := range doctor.Checks {
		table.WriteString("| `" + c.ID + "` | " + string(c.Severity) + " | " + c.Finds + " | " + c.Do + " |\n")
	}
	if !strings.Contains(string(page), table.String()) {
		t.Errorf("docs/doctor.md lacks this table of checks:\n%s", table.String())
	}
	words := strings.Join(strings.Fields(strings.ReplaceAll(string(page), "\\\n", " ")), " ")
	for _, rights := range []string{"user default " + defaultRights, serveRights, doctorRights} {
		if !strings.Contains(words, rights) {
			t.Errorf("docs/doctor.md lacks the rights %s", rights)
		}
		if script := string(must.Get(os.ReadFile("../../../deploy/secrets.sh"))); !strings.Contains(script, rights) {
			t.Errorf("deploy/secrets.sh lacks the rights %s", rights)
		}
	}
}

// TestDocsDoctor compares the example of docs/doctor.md with the output for such a deployment.
func TestDocsDoctor(t *testing.T) {
	_, example, found := strings.Cut(string(must.Get(os.ReadFile("../../../docs/doctor.md"))), "    $ bin/grantor doctor ")
	if !found {
		t.Fatal("docs/doctor.md has no example")
	}
	_, example, _ = strings.Cut(example, "\n")
	clitest.Isolate(t)
	p := newDeployment(t, "--save", "3600 1")
	p.ring(0)
	p.announce("a", nil)
	out := runDoctor(t, "doctor", "--redis="+p.redis.URL(), p.kekFlag()).Out
	lines := 0
	for line := range strings.Lines(example) {
		line, shown := strings.CutPrefix(line, "    ")
		if !shown || line == "...\n" {
			break
		}
		lines++
		if !strings.Contains(out, line) {
			t.Errorf("the output lacks the line %q:\n%s", line, out)
		}
	}
	if lines < 4 {
		t.Errorf("the example has %d lines; this test checks little of it", lines)
	}
}

// TestFlaws checks releases with and without the fixes, of a branch that was not fixed, and newer than all known ones.
func TestFlaws(t *testing.T) {
	for _, c := range []struct {
		name, version string
		known         []doctor.Flaw
		want          int
	}{
		{"long out of care", "7.0.15", doctor.RedisFlaws, 4},
		{"a branch's first", "7.2.0", doctor.RedisFlaws, 4},
		{"one fix", "7.2.6", doctor.RedisFlaws, 3},
		{"one fix missing", "7.2.15", doctor.RedisFlaws, 1},
		{"all fixes", "7.2.16", doctor.RedisFlaws, 0},
		{"a branch that got no fix", "8.0.9", doctor.RedisFlaws, 1},
		{"a branch after the fixes", "8.11.0", doctor.RedisFlaws, 0},
		{"a later one", "9.0.0", doctor.RedisFlaws, 0},
		{"Valkey", "8.1.3", doctor.ValkeyFlaws, 3},
		{"Valkey with all fixes", "8.1.9", doctor.ValkeyFlaws, 0},
		{"Valkey, later", "9.2.0", doctor.ValkeyFlaws, 0},
		{"no version", "unstable", doctor.RedisFlaws, 4},
	} {
		if got := doctor.Flaws(doctor.ParseVersion(c.version), c.known); len(got) != c.want {
			t.Errorf("%s: %s has %q, want %d", c.name, c.version, got, c.want)
		}
	}
	if name, v, _ := doctor.Software(map[string]string{"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.3"}); name != "Valkey" || v != (doctor.Release{8, 1, 3}) {
		t.Errorf("got %s %s, want Valkey 8.1.3", name, v)
	}
}
