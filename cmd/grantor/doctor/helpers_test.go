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
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
)

// brokenDeployment is a Redis and the records that doctor finds in it.
type brokenDeployment struct {
	t     *testing.T
	redis *redistest.Server
	store *redisstore.Store
	kek   []byte
	// clock is the clock of doctor.
	clock func() time.Time
}

func newDeployment(t *testing.T, args ...string) *brokenDeployment {
	t.Helper()
	return deploymentOn(t, redistest.New(t, args...))
}

func deploymentOn(t *testing.T, redis *redistest.Server) *brokenDeployment {
	t.Helper()
	return &brokenDeployment{t, redis, servetest.Store(t, redis), keys.NewKEK(), time.Now}
}

func (p *brokenDeployment) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// do sends a command to the Redis.
func (p *brokenDeployment) do(command string, args ...any) {
	p.t.Helper()
	var all []any
	for word := range strings.FieldsSeq(command) {
		all = append(all, word)
	}
	p.check(p.redis.Client().Do(p.t.Context(), append(all, args...)...).Err())
}

func (p *brokenDeployment) sealer(kek []byte) *keys.Sealer { return must.Get(keys.NewSealer(kek)) }

// ring creates the key ring, as a replica does that started some time ago.
func (p *brokenDeployment) ring(age time.Duration) *keys.Ring {
	p.t.Helper()
	ring, err := keys.Open(p.t.Context(), keys.Config{
		Store: p.store, Sealer: p.sealer(p.kek), Algorithms: []jwks.Algorithm{jwks.ES256, jwks.RS256}, Rotation: 30 * 24 * time.Hour,
		MaxAge: 5 * time.Minute, Retention: registry.MaxLifetime, Now: func() time.Time { return time.Now().Add(-age) },
	})
	p.check(err)
	p.store.Authenticate(keys.RecordKey(ring.Pepper()))
	return ring
}

// announce announces a replica in good order, which change alters.
func (p *brokenDeployment) announce(id string, change func(*heartbeat.Status)) {
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

// silence makes the last announcement of a replica a minute old.
func (p *brokenDeployment) silence(id string) {
	p.t.Helper()
	const all = "grantor:{grantor}:replicas"
	_, status, _ := strings.Cut(p.redis.Client().HGet(p.t.Context(), all, id).Val(), " ")
	p.do("hset", all, id, fmt.Sprintf("%d %s", time.Now().Add(-time.Minute).UnixMilli(), status))
}

// client registers a client, which change alters, with one secret of the given age.
func (p *brokenDeployment) client(id string, age time.Duration, change func(*registry.Client)) {
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

// kekFlag returns the flag with the key-encryption key.
func (p *brokenDeployment) kekFlag() string {
	p.t.Helper()
	return "--key-encryption-key=" + base64.StdEncoding.EncodeToString(p.kek)
}

// runDoctor runs a command of grantor with the arguments; there are only the commands that these tests need.
func runDoctor(t *testing.T, args ...string) clitest.Result {
	t.Helper()
	shared := settings.NamesOf(serve.NewCommand().Flags())
	root := &cobra.Command{Use: "grantor", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(doctor.NewCommand(shared), apply.NewCommand(shared), audit.NewCommand(shared), tokens.NewCommand(shared))
	return clitest.Run(t, root, strings.NewReader(""), args...)
}

// diagnosis is the outcome of doctor, with its checks keyed by ID.
type diagnosis struct {
	checks map[string]doctor.Outcome
	out    string
	err    error
}

// diagnose runs grantor doctor with the arguments, by default on the Redis of the deployment.
func (p *brokenDeployment) diagnose(args ...string) diagnosis {
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

// proxy forwards to an address and alters the responses by change.
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

// pretend is a proxy of the Redis that replaces the version in its INFO by another of the same length.
func (p *brokenDeployment) pretend(branch string) string {
	const name = "redis_version:"
	return "--redis=redis://" + proxy(p.t, p.redis.Addr(), func(b []byte) []byte {
		before, rest, found := bytes.Cut(b, []byte(name))
		if !found {
			return b
		}
		end := bytes.IndexByte(rest, '\r')
		padded := branch + strings.Repeat("0", end-len(branch))
		return bytes.Join([][]byte{before, []byte(name + padded), rest[end:]}, nil)
	})
}

// mutualRedis starts a Redis that also accepts TLS, for whose clients auth is tls-auth-clients, and returns its rediss URL.
func mutualRedis(t *testing.T, auth string, args ...string) (*redistest.Server, string) {
	t.Helper()
	return tlsRedis(t, servetest.Trusted.WriteCertificate(t, 100*day),
		append([]string{"--tls-ca-cert-file", servetest.WriteFile(t, "ca.pem", string(servetest.Trusted.PEM)), "--tls-auth-clients", auth}, args...)...)
}

// presented returns the arguments that present a certificate to the Redis.
func presented(pair servetest.KeyPair) []string {
	return []string{"--redis-tls-cert-file=" + pair.Cert, "--redis-tls-key-file=" + pair.Key}
}

// withClientCertificate is a deployment on a Redis whose tls-auth-clients is auth, to which the certificate is presented, if
// there is one.
func withClientCertificate(auth string, certificate func(t *testing.T) servetest.KeyPair) func(t *testing.T) (*brokenDeployment, []string) {
	return func(t *testing.T) (*brokenDeployment, []string) {
		server, url := mutualRedis(t, auth)
		args := []string{"--redis=" + url}
		if certificate != nil {
			args = append(args, presented(certificate(t))...)
		}
		return deploymentOn(t, server), args
	}
}

// trustedFor returns a function that writes a certificate of the trusted authority that expires after a duration.
func trustedFor(ends time.Duration) func(t *testing.T) servetest.KeyPair {
	return func(t *testing.T) servetest.KeyPair { return servetest.Trusted.WriteCertificate(t, ends) }
}

// tlsRedis starts a Redis that also accepts TLS, and returns its rediss URL.
func tlsRedis(t *testing.T, pair servetest.KeyPair, args ...string) (*redistest.Server, string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(freeport.Address(t))
	server := redistest.New(t, append([]string{
		"--tls-port", port, "--tls-cert-file", pair.Cert, "--tls-key-file", pair.Key, "--tls-ca-cert-file", pair.Cert, "--tls-auth-clients", "no",
	}, args...)...)
	return server, (&url.URL{Scheme: "rediss", Host: "localhost:" + port}).String()
}
