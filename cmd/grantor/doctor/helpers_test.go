package doctor_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/apply"
	"github.com/grantorhq/grantor/cmd/grantor/audit"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/doctor"
	"github.com/grantorhq/grantor/cmd/grantor/serve"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/tokens"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
)

// patient is a Redis, and what there is to be found in it.
type patient struct {
	t     *testing.T
	redis *redistest.Server
	store *redisstore.Store
	kek   []byte
	// clock is the doctor's.
	clock func() time.Time
}

func newPatient(t *testing.T, args ...string) *patient {
	t.Helper()
	return patientOn(t, redistest.New(t, args...))
}

func patientOn(t *testing.T, redis *redistest.Server) *patient {
	t.Helper()
	return &patient{t, redis, servetest.Store(t, redis), keys.NewKEK(), time.Now}
}

func (p *patient) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// do sends a command to the Redis.
func (p *patient) do(command string, args ...any) {
	p.t.Helper()
	var all []any
	for word := range strings.FieldsSeq(command) {
		all = append(all, word)
	}
	p.check(p.redis.Client().Do(p.t.Context(), append(all, args...)...).Err())
}

func (p *patient) sealer(kek []byte) *keys.Sealer { return must.Get(keys.NewSealer(kek)) }

// ring makes the key ring, as a replica that started some time ago.
func (p *patient) ring(age time.Duration) *keys.Ring {
	p.t.Helper()
	ring, err := keys.Open(p.t.Context(), keys.Config{
		Store: p.store, Sealer: p.sealer(p.kek), Algorithms: []jwks.Algorithm{jwks.ES256, jwks.RS256}, Rotation: 30 * 24 * time.Hour,
		MaxAge: 5 * time.Minute, Retention: registry.MaxLifetime, Now: func() time.Time { return time.Now().Add(-age) },
	})
	p.check(err)
	p.store.Authenticate(keys.RecordKey(ring.Pepper()))
	return ring
}

// tell announces a replica in good order, but for what change does.
func (p *patient) tell(id string, change func(*heartbeat.Status)) {
	p.t.Helper()
	now, err := p.redis.Client().Time(p.t.Context()).Result()
	p.check(err)
	status := heartbeat.Status{
		ID: id, Host: id, HTTP: "10.0.0.1:8080", GRPC: "10.0.0.1:8081", Version: "v1.0.0", StartedAt: now.Add(-time.Hour),
		Settings: map[string]string{"issuer": "https://auth.example.com", "key-rotation": "720h0m0s", "signing-algorithms": "ES256,RS256", "max-staleness": "30s"},
	}
	if change != nil {
		change(&status)
	}
	_, err = p.store.Announce(p.t.Context(), status)
	p.check(err)
}

// silence has a replica have told nothing for a minute.
func (p *patient) silence(id string) {
	p.t.Helper()
	const all = "grantor:{grantor}:replicas"
	_, status, _ := strings.Cut(p.redis.Client().HGet(p.t.Context(), all, id).Val(), " ")
	p.do("hset", all, id, fmt.Sprintf("%d %s", time.Now().Add(-time.Minute).UnixMilli(), status))
}

// client registers a client with one secret that was made some time ago, but for what change does.
func (p *patient) client(id string, age time.Duration, change func(*registry.Client)) {
	p.t.Helper()
	made := time.Now().Add(-age).Truncate(time.Second)
	c := &registry.Client{
		ID: must.Get(oauth.ParseClientID(id)), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: must.Get(oauth.ParseScopes("api1")),
		CreatedAt: made, ChangedAt: made,
		Secrets: []clientsecret.Secret{{ID: "s1", Hash: must.Get(clientsecret.NewHasher(keys.NewKEK())).Hash(clientsecret.New()), CreatedAt: made}},
	}
	if change != nil {
		change(c)
	}
	p.check(p.store.SaveClient(p.t.Context(), c))
}

// kekFlag gives the key-encryption key to the doctor.
func (p *patient) kekFlag() string {
	p.t.Helper()
	return "--key-encryption-key=" + base64.StdEncoding.EncodeToString(p.kek)
}

// runDoctor runs a command of grantor with the arguments, the commands being those that these tests need.
func runDoctor(t *testing.T, args ...string) clitest.Result {
	t.Helper()
	shared := settings.NamesOf(serve.NewCommand().Flags())
	root := &cobra.Command{Use: "grantor", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(doctor.NewCommand(shared), apply.NewCommand(shared), audit.NewCommand(shared), tokens.NewCommand(shared))
	return clitest.Run(t, root, strings.NewReader(""), args...)
}

// diagnosis is what doctor says, by the checks' ids.
type diagnosis struct {
	checks map[string]doctor.Outcome
	out    string
	err    error
}

// diagnose runs `grantor doctor` with the arguments. The Redis is the patient's where they name none.
func (p *patient) diagnose(args ...string) diagnosis {
	p.t.Helper()
	cmd := doctor.NewCommandAt(p.clock)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs(append([]string{"--redis=" + p.redis.URL(), "-o=json"}, args...))
	err := cmd.ExecuteContext(p.t.Context())
	d := diagnosis{make(map[string]doctor.Outcome), out.String(), err}
	var document struct {
		Checks []doctor.Outcome `json:"checks"`
	}
	if jsonErr := json.Unmarshal(out.Bytes(), &document); jsonErr != nil {
		p.t.Fatalf("%v, and the output is not JSON: %v\n%s", err, jsonErr, out.String())
	}
	for _, made := range document.Checks {
		d.checks[made.Check] = made
	}
	return d
}

// proxy stands before an address and hands on what comes back as change makes it.
func proxy(t *testing.T, address string, change func([]byte) []byte) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	pipe := func(to, from net.Conn, change func([]byte) []byte) {
		defer func() { _, _ = to.Close(), from.Close() }()
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			if n > 0 {
				if _, err := to.Write(change(buffer[:n])); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", address)
			if err != nil {
				_ = near.Close()
				continue
			}
			context.AfterFunc(ctx, func() { _, _ = near.Close(), far.Close() })
			running.Go(func() { pipe(far, near, func(b []byte) []byte { return b }) })
			running.Go(func() { pipe(near, far, change) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		stop()
		running.Wait()
	})
	return listener.Addr().String()
}

// pretend stands before the Redis and says another version in its INFO, one of the same length.
func (p *patient) pretend(branch string) string {
	const name = "redis_version:"
	return "--redis=redis://" + proxy(p.t, p.redis.Addr(), func(b []byte) []byte {
		before, rest, found := bytes.Cut(b, []byte(name))
		if !found {
			return b
		}
		end := bytes.IndexByte(rest, '\r')
		told := branch + strings.Repeat("0", end-len(branch))
		return bytes.Join([][]byte{before, []byte(name + told), rest[end:]}, nil)
	})
}

// tlsRedis starts a Redis that also takes TLS, and gives its URL for that.
func tlsRedis(t *testing.T, pair servetest.KeyPair, args ...string) (*redistest.Server, string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(servetest.FreeAddress(t))
	server := redistest.New(t, append([]string{
		"--tls-port", port, "--tls-cert-file", pair.Cert, "--tls-key-file", pair.Key, "--tls-ca-cert-file", pair.Cert, "--tls-auth-clients", "no",
	}, args...)...)
	return server, (&url.URL{Scheme: "rediss", Host: "localhost:" + port}).String()
}
