package service_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// timeout is how long a test waits for what should come soon.
const timeout = 30 * time.Second

const resource = "https://res1.internal"

// secret is the secret of every client: a generated one, which costs no slow hash.
var secret = clientsecret.New()

// withTimeout returns the test's context with a timeout.
func withTimeout(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// buffer is the log of a replica.
type buffer struct{ must.Buffer }

// count returns how often the log contains a text.
func (b *buffer) count(text string) int { return strings.Count(b.String(), text) }

// cluster is what the replicas of one issuer share.
type cluster struct {
	// redis is the server, and url the replicas' URL of it.
	redis  *redistest.Server
	url    string
	sealer *keys.Sealer
	// staleness is MaxStaleness, and required the number of replicas of the Redis that must have a revocation.
	staleness time.Duration
	required  int
	// now is the clock; nil means time.Now.
	now func() time.Time
	// limits and proxies are the replicas' settings of those names.
	limits  limit.Limits
	proxies remoteaddr.Networks
	// log is where the replicas log; nil if each has its own buffer.
	log io.Writer
	// audited reports whether the replicas keep their audit events in the Redis.
	audited bool
	// meter and tracer are those of the replicas; a nil meter measures nothing.
	meter  metric.Meter
	tracer trace.Tracer
}

func newCluster(t testing.TB, args ...string) *cluster {
	t.Helper()
	server := redistest.New(t, args...)
	return newClusterOn(server, server.URL()+"?read_timeout=300ms&write_timeout=300ms&dial_timeout=300ms&max_retries=1")
}

func newClusterOn(server *redistest.Server, url string) *cluster {
	return &cluster{redis: server, url: url, sealer: must.Get(keys.NewSealer(keys.NewKEK())), staleness: time.Minute}
}

// replica is one issuer process, as far as stores and callers can observe.
type replica struct {
	*service.Service
	store       *redisstore.Store
	log         *buffer
	conn        *grpc.ClientConn
	tokens      grantorv1.TokenServiceClient
	revocations grantorv1.RevocationServiceClient
	// stop ends the replica as abruptly as a killed process.
	stop func()
}

// open connects a store to the cluster's Redis.
func (c *cluster) open(t testing.TB) *redisstore.Store {
	t.Helper()
	client := must.Get(redisstore.Connect(c.url))
	t.Cleanup(func() { _ = client.Close() })
	store := must.Get(redisstore.New(client, redisstore.DefaultPrefix, registry.MaxLifetime+time.Hour))
	store.RequireReplicas(c.required)
	return store
}

// start runs a replica on its own port until it or the test ends, and returns when it has read the feed.
func (c *cluster) start(t testing.TB, changes ...func(*service.Service)) *replica {
	t.Helper()
	r := &replica{store: c.open(t), log: &buffer{}}
	log := c.log
	if log == nil {
		log = r.log
	}
	var trail telemetry.AuditSink
	if c.audited {
		trail = r.store.AuditTrail(10_000)
	}
	meter := c.meter
	if meter == nil {
		meter = noop.NewMeterProvider().Meter("")
	}
	var err error
	r.Service, err = service.New(t.Context(), service.Config{
		AuditSink: trail,
		Issuer:    must.Get(oauth.ParseIssuer("https://issuer.test")), Store: r.store, Sealer: c.sealer,
		Log: slog.New(slog.NewTextHandler(log, nil)), Meter: meter, Tracer: c.tracer,
		Algorithms: []jwks.Algorithm{jwks.ES256}, AccessTokenLifetime: time.Hour, KeyRotation: 30 * 24 * time.Hour,
		JWKSMaxAge: time.Minute, MaxStaleness: c.staleness, CachedClients: 100, CachedTokens: 100, Now: c.now,
		Limits: c.limits, Proxies: c.proxies,
	})
	must.Succeed(t, err)
	for _, change := range changes {
		change(r.Service)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	server := grpc.NewServer(r.ServerOptions()...)
	r.Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	running.Go(func() { _ = server.Serve(listener) })
	r.conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must.Succeed(t, err)
	r.stop = sync.OnceFunc(func() {
		cancel()
		server.Stop()
		_ = r.conn.Close()
		running.Wait()
	})
	t.Cleanup(r.stop)
	r.tokens, r.revocations = grantorv1.NewTokenServiceClient(r.conn), grantorv1.NewRevocationServiceClient(r.conn)
	must.Succeed(t, r.CatchUp(withTimeout(t, timeout)))
	return r
}

// manifest returns one with the clients svc, which gets tokens, and res1, which serves them. It applies changes to svc.
func manifest(changes ...func(*registry.Client)) registry.Manifest {
	api := must.Get(oauth.ParseScopes("api1"))
	id := must.Get(oauth.ParseResource(resource))
	svc := registry.Client{ID: must.Get(oauth.ParseClientID("svc")), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: api}
	for _, change := range changes {
		change(&svc)
	}
	res1 := registry.Client{ID: must.Get(oauth.ParseClientID("res1")), Resources: []oauth.Resource{id}}
	return registry.Manifest{
		Resources: []registry.Resource{{ID: id, Scopes: api}},
		Clients:   []registry.ClientSpec{{Client: svc, Secret: secret}, {Client: res1, Secret: secret}},
	}
}

// apply applies the manifest, and returns when it is in effect at this replica.
func (r *replica) apply(t testing.TB, m registry.Manifest) {
	t.Helper()
	_, err := r.Editor().Apply(t.Context(), m, registry.ApplyOptions{})
	must.Succeed(t, err)
	must.Succeed(t, r.CatchUp(withTimeout(t, timeout)))
}

func (r *replica) issue(ctx context.Context) (string, error) {
	answer, err := r.tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{GrantType: oauth.GrantClientCredentials, ClientId: "svc", ClientSecret: secret})
	return answer.GetAccessToken(), err
}

func (r *replica) token(t testing.TB) string {
	t.Helper()
	raw, err := r.issue(t.Context())
	must.Succeed(t, err)
	return raw
}

// ask introspects for res1.
func (r *replica) ask(ctx context.Context, raw string) (*grantorv1.IntrospectTokenResponse, error) {
	return r.tokens.IntrospectToken(ctx, &grantorv1.IntrospectTokenRequest{ClientId: "res1", ClientSecret: secret, Token: raw})
}

func (r *replica) expectActive(t testing.TB, raw string, want bool) {
	t.Helper()
	answer, err := r.ask(t.Context(), raw)
	must.Succeed(t, err)
	if got := answer.GetActive(); got != want {
		t.Errorf("active: got %t, want %t", got, want)
	}
}

func (r *replica) revoke(ctx context.Context, raw string) error {
	_, err := r.tokens.RevokeToken(ctx, &grantorv1.RevokeTokenRequest{ClientId: "svc", ClientSecret: secret, Token: raw})
	return err
}

func (r *replica) revokeAll(ctx context.Context) error {
	_, err := r.tokens.RevokeClientTokens(ctx, &grantorv1.RevokeClientTokensRequest{ClientId: "svc", ClientSecret: secret})
	return err
}

// publish revokes n tokens that were never issued, and returns their IDs.
func publish(t testing.TB, store *redisstore.Store, n int) []string {
	t.Helper()
	ids := make([]string, 0, n)
	var changes []revocation.Change
	for i := range n {
		ids = append(ids, token.NewID().String())
		changes = append(changes, revocation.Change{Kind: revocation.TokenRevoked, ID: ids[i], At: time.Now().Add(time.Hour)})
		if len(changes) == 1000 || i == n-1 {
			must.Succeed(t, store.Publish(t.Context(), changes...))
			changes = nil
		}
	}
	return ids
}

// watcher is a follower of the revocations.
type watcher struct {
	t      testing.TB
	stream grpc.ServerStreamingClient[grantorv1.WatchRevocationsResponse]
	// known has the revocations that were received, as "kind:id"; received counts them.
	known    map[string]bool
	received int
	cursor   string
	last     *grantorv1.WatchRevocationsResponse
}

func (r *replica) watch(t testing.TB, cursor string) *watcher {
	t.Helper()
	stream, err := r.revocations.WatchRevocations(withTimeout(t, 2*timeout), &grantorv1.WatchRevocationsRequest{Cursor: cursor})
	must.Succeed(t, err)
	return &watcher{t: t, stream: stream, known: make(map[string]bool)}
}

// next receives the next answer.
func (w *watcher) next() error {
	answer, err := w.stream.Recv()
	if err != nil {
		return err
	}
	for _, token := range answer.GetTokens() {
		w.known["token:"+token.GetJti()] = true
	}
	for _, client := range answer.GetClients() {
		w.known["client:"+client.GetClientId()] = true
	}
	for _, key := range answer.GetKeys() {
		w.known["key:"+key.GetKid()] = true
	}
	w.received += len(answer.GetTokens()) + len(answer.GetClients()) + len(answer.GetKeys())
	w.cursor, w.last = answer.GetCursor(), answer
	return nil
}

// until receives answers, at least one, until cond returns true.
func (w *watcher) until(cond func() bool) {
	w.t.Helper()
	for first := true; first || !cond(); first = false {
		must.Succeed(w.t, w.next())
	}
}

// complete receives answers until they are complete.
func (w *watcher) complete() {
	w.t.Helper()
	w.until(func() bool { return w.last.GetComplete() })
}

// end receives answers until the stream ends, and returns its error.
func (w *watcher) end() error {
	for {
		if err := w.next(); err != nil {
			if err == io.EOF { //nolint:errorlint // Recv returns it unwrapped
				return nil
			}
			return err
		}
	}
}

func expectCode(t testing.TB, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// idOf returns the "jti" of a token, in the form of a watcher's known.
func (r *replica) idOf(t testing.TB, raw string) string {
	t.Helper()
	answer, err := r.ask(t.Context(), raw)
	must.Succeed(t, err)
	return "token:" + answer.GetJti()
}
