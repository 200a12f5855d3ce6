package doctor_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/grantorhq/grantor/cmd/grantor/doctor"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
)

// withBadReplica is a deployment with one replica in good order and one that change alters.
func withBadReplica(change func(*heartbeat.Status)) func(t *testing.T) (*brokenDeployment, []string) {
	return func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.announce("good", nil)
		p.announce("bad", change)
		return p, nil
	}
}

var ringCauses = []cause{
	{"key.unchecked", "no key-encryption key", commandsOnly()},
	{"key.ring", "there is none under grantor:{grantor}:", commandsOnly()},
	{"key.seal", "does not open the key ring", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.ring(0)
		p.kek = keys.NewKEK()
		return p, []string{p.kekFlag()}
	}},
	{"key.previous", "only the previous key", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.ring(0)
		previous := "--previous-" + strings.TrimPrefix(p.kekFlag(), "--")
		p.kek = keys.NewKEK()
		return p, []string{p.kekFlag(), previous}
	}},
	{"key.overdue", " of ES256 signs since ", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.ring(31 * 24 * time.Hour)
		return p, []string{p.kekFlag()}
	}},
	{"key.overdue", " of RS256 signs since ", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.ring(25 * time.Hour)
		p.announce("a", func(r *heartbeat.Status) { r.Settings["key-rotation"] = "24h0m0s" })
		return p, []string{p.kekFlag()}
	}},
	{"key.missing", `"EdDSA"`, func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.ring(0)
		p.announce("a", func(r *heartbeat.Status) { r.Settings["signing-algorithms"] = "ES256,RS256,EdDSA" })
		return p, []string{p.kekFlag()}
	}},
	{"record.unreadable", "its format is 9", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.ring(0)
		p.do("hset grantor:{grantor}:ring d", `{"format":9}`)
		return p, []string{p.kekFlag()}
	}},
}

var fleetCauses = []cause{
	{"replica.none", "none has reported", commandsOnly()},
	{"replica.alone", "a:8080", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.announce("a", nil)
		return p, nil
	}},
	{"replica.silent", "bad:8080: 1m", func(t *testing.T) (*brokenDeployment, []string) {
		p, _ := withBadReplica(nil)(t)
		p.silence("bad")
		return p, nil
	}},
	{"replica.clock", "bad:8080: 4s ahead", withBadReplica(func(r *heartbeat.Status) { r.Ahead = 4 * time.Second })},
	{"replica.clock-far", "bad:8080: 1m0s ahead", withBadReplica(func(r *heartbeat.Status) { r.Ahead = time.Minute })},
	{"replica.clock-far", "bad:8080: 6s behind", withBadReplica(func(r *heartbeat.Status) { r.Ahead = -6 * time.Second })},
	{"replica.behind", "bad:8080: 6s", withBadReplica(func(r *heartbeat.Status) { r.FeedAge = 6 * time.Second })},
	{"replica.stopped", "bad:8080: 31s", withBadReplica(func(r *heartbeat.Status) { r.FeedAge = 31 * time.Second })},
	{"replica.stopped", "bad:8080: it has not read", withBadReplica(func(r *heartbeat.Status) { r.FeedAge = -1 })},
	{"replica.versions", `version is "v1.0.0" on good:8080 and "v1.1.0" on bad:8080`, withBadReplica(func(r *heartbeat.Status) { r.Version = "v1.1.0" })},
	{"replica.settings", `max-staleness is "10s" on bad:8080 and "30s" on good:8080`, withBadReplica(func(r *heartbeat.Status) { r.Settings["max-staleness"] = "10s" })},
	{"replica.settings", `key-rotation is "" on bad:8080`, withBadReplica(func(r *heartbeat.Status) { delete(r.Settings, "key-rotation") })},
	{"replica.keys", `bad:8080: it lacks `, func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.ring(time.Hour)
		p.announce("bad", nil)
		return p, []string{p.kekFlag()}
	}},
	{"replica.keys", `it has "another", which the ring does not have`, func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.ring(0)
		p.announce("bad", func(r *heartbeat.Status) { r.Published = []string{"another"} })
		return p, []string{p.kekFlag()}
	}},
	{"replica.development", "bad:8080: dev", withBadReplica(func(r *heartbeat.Status) { r.Insecure = []string{heartbeat.InsecureDevelopment} })},
	{"replica.plaintext", "bad:8080: insecure-", withBadReplica(func(r *heartbeat.Status) { r.Insecure = []string{heartbeat.InsecurePlaintext} })},
	{"replica.certificate", "bad:8080: 20", withBadReplica(func(r *heartbeat.Status) { r.CertificateEnds = time.Now().Add(13 * 24 * time.Hour) })},
	{"replica.certificate-ended", "bad:8080: 20", withBadReplica(func(r *heartbeat.Status) { r.CertificateEnds = time.Now().Add(-time.Hour) })},
	{"ops.reach", "connection refused", func(t *testing.T) (*brokenDeployment, []string) {
		return newDeployment(t), []string{"--replica=http://" + freeport.Address(t)}
	}},
	{"ops.ready", "the feed was last read to its end", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		other := redistest.New(t)
		r := servetest.Start(t, append(servetest.Production(other, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)), "--issuer=http://localhost:1", "--max-staleness=2s")...)
		other.Stop()
		ops := "http://" + r.OpsAddr()
		must.Eventually(t, "not ready", func() bool { code, _ := servetest.Get(t, ops+"/readyz"); return code == http.StatusServiceUnavailable })
		return p, []string{"--replica=" + ops + "/"}
	}},
}

// facade stands in for an issuer.
type facade struct {
	metadata oauth.Metadata
	keys     *keys.Ring
	date     time.Duration
	// missing is a path at which there is nothing.
	missing string
	// endpoint is the status of the endpoints for GET.
	endpoint int
}

// start starts the facade and returns its URL.
func (f *facade) start(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.date != 0 {
			w.Header().Set("Date", time.Now().Add(f.date).UTC().Format(http.TimeFormat))
		}
		switch r.URL.Path {
		case f.missing:
			http.NotFound(w, r)
			return
		case "/endpoint":
			w.WriteHeader(f.endpoint)
			return
		case "/keys":
		default:
			_ = json.NewEncoder(w).Encode(f.metadata)
			return
		}
		var list []jwks.JWK
		for _, key := range f.keys.Published() {
			list = append(list, must.Get(key.JWK()))
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": list})
	}))
	t.Cleanup(server.Close)
	f.metadata.JWKSURI = server.URL + "/keys"
	for _, endpoint := range []*string{&f.metadata.TokenEndpoint, &f.metadata.IntrospectionEndpoint, &f.metadata.RevocationEndpoint} {
		*endpoint = server.URL + "/endpoint"
	}
	if f.metadata.Issuer == "" {
		f.metadata.Issuer = server.URL
	}
	return server.URL
}

// withFacade returns a cause with a facade that has the ring of the deployment, which change alters.
func withFacade(change func(t *testing.T, f *facade)) func(t *testing.T) (*brokenDeployment, []string) {
	return func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		f := &facade{keys: p.ring(time.Hour), endpoint: http.StatusMethodNotAllowed}
		change(t, f)
		return p, []string{p.kekFlag(), "--issuer=" + f.start(t)}
	}
}

// overTLS returns a cause with an issuer whose certificate expires after a duration.
func overTLS(ends time.Duration, oldest uint16) func(t *testing.T) (*brokenDeployment, []string) {
	return withCertificate(oldest, func(t *testing.T) servetest.KeyPair { return servetest.Trusted.WriteCertificate(t, ends) })
}

func withCertificate(oldest uint16, certificate func(t *testing.T) servetest.KeyPair) func(t *testing.T) (*brokenDeployment, []string) {
	return func(t *testing.T) (*brokenDeployment, []string) {
		pair := certificate(t)
		config := &tls.Config{MinVersion: oldest}
		config.Certificates = []tls.Certificate{must.Get(tls.LoadX509KeyPair(pair.Cert, pair.Key))}
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ErrorLog = discard
		server.TLS = config
		server.StartTLS()
		t.Cleanup(server.Close)
		return newDeployment(t), []string{"--issuer=" + server.URL}
	}
}

var issuerCauses = []cause{
	{"issuer.reach", "connection refused", func(t *testing.T) (*brokenDeployment, []string) {
		return newDeployment(t), []string{"--issuer=http://" + freeport.Address(t)}
	}},
	{"issuer.reach", "connection refused", func(t *testing.T) (*brokenDeployment, []string) {
		return newDeployment(t), []string{"--issuer=https://" + freeport.Address(t)}
	}},
	{"issuer.reach", "404 Not Found", overTLS(100*day, tls.VersionTLS12)},
	{"issuer.other", "good:8080 serves https://auth.example.com", func(t *testing.T) (*brokenDeployment, []string) {
		p, _ := withBadReplica(nil)(t)
		return p, []string{"--issuer=http://" + freeport.Address(t)}
	}},
	{"issuer.metadata", `it calls itself "https://other.example.com"`, withFacade(func(_ *testing.T, f *facade) {
		f.metadata.Issuer = "https://other.example.com"
	})},
	{"issuer.places", "/.well-known/oauth-authorization-server answered 404", withFacade(func(_ *testing.T, f *facade) { f.missing = "/.well-known/oauth-authorization-server" })},
	{"issuer.places", "/.well-known/openid-configuration answered 404", withFacade(func(_ *testing.T, f *facade) { f.missing = "/.well-known/openid-configuration" })},
	{"issuer.endpoints", "/endpoint answered 404 to GET", withFacade(func(_ *testing.T, f *facade) { f.endpoint = http.StatusNotFound })},
	{"issuer.endpoints", "/endpoint answered 308 to GET", withFacade(func(_ *testing.T, f *facade) { f.endpoint = http.StatusPermanentRedirect })},
	{"issuer.keys", "it lacks ", withFacade(func(t *testing.T, f *facade) { f.keys = newDeployment(t).ring(0) })},
	{"issuer.keys", ", which the ring does not have", withFacade(func(t *testing.T, f *facade) { f.keys = newDeployment(t).ring(0) })},
	{"issuer.clock", "1h0m0s from this machine's", withFacade(func(_ *testing.T, f *facade) { f.date = time.Hour + time.Second/2 })},
	{"grpc.reach", "has no grantor_grpc_endpoint", withFacade(func(*testing.T, *facade) {})},
	{"grpc.reach", "connection refused", withFacade(func(t *testing.T, f *facade) { f.metadata.GRPCEndpoint = freeport.Address(t) })},
	{"grpc.health", "NOT_SERVING", withFacade(func(t *testing.T, f *facade) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server, state := grpc.NewServer(), health.NewServer()
		state.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		healthpb.RegisterHealthServer(server, state)
		ended := make(chan error)
		go func() { ended <- server.Serve(listener) }()
		t.Cleanup(func() {
			server.Stop()
			<-ended
		})
		f.metadata.GRPCEndpoint = listener.Addr().String()
	})},
	{"tls.trust", "unknown authority", withCertificate(tls.VersionTLS12, func(t *testing.T) servetest.KeyPair { return servetest.NewAuthority(t).WriteCertificate(t, time.Hour) })},
	{"tls.trust", "127.0.0.1", withCertificate(tls.VersionTLS12, func(t *testing.T) servetest.KeyPair {
		return servetest.Trusted.WriteCertificateFor(t, time.Hour, "auth.example.com")
	})},
	{"tls.ended", "expired", overTLS(-time.Hour, tls.VersionTLS12)},
	{"tls.ends", "20", overTLS(13*day, tls.VersionTLS12)},
	{"tls.version", "TLS 1.1", overTLS(100*day, tls.VersionTLS10)},
}

// registered is a deployment with a client.
func registered(age time.Duration, change func(c *registry.Client)) func(t *testing.T) (*brokenDeployment, []string) {
	return func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.ring(0)
		p.client("worker", age, change)
		return p, []string{p.kekFlag()}
	}
}

const day = 24 * time.Hour

var recordCauses = []cause{
	{"record.altered", "client worker", func(t *testing.T) (*brokenDeployment, []string) {
		p, args := registered(0, nil)(t)
		p.do("hset grantor:{grantor}:client:worker d", `{"format":1,"client_id":"worker"}`)
		p.client("yonder", 0, func(c *registry.Client) { c.Disabled = true })
		if got := p.diagnose(args...).checks["client.disabled"]; got.Found != "1 client" {
			t.Errorf("got %+v, want the clients behind the altered one checked", got)
		}
		return p, args
	}},
	{"record.altered", "the resources", func(t *testing.T) (*brokenDeployment, []string) {
		p, args := registered(0, nil)(t)
		p.do("hset grantor:{grantor}:resources d {} v 1 m x")
		return p, args
	}},
	{"record.unreadable", `client ghost: the client "ghost" is listed, but has no record`, func(t *testing.T) (*brokenDeployment, []string) {
		p, args := registered(0, nil)(t)
		p.do("zadd grantor:{grantor}:clients 0 ghost")
		return p, args
	}},
	{"record.altered", "the resources", func(t *testing.T) (*brokenDeployment, []string) {
		p, args := registered(0, nil)(t)
		p.do("set grantor:{grantor}:resources x")
		return p, args
	}},
	{"record.unreadable", "a key is of another type", func(t *testing.T) (*brokenDeployment, []string) {
		p, args := registered(0, nil)(t)
		p.do("del grantor:{grantor}:clients")
		p.do("set grantor:{grantor}:clients x")
		return p, args
	}},
	{"key.unreadable", "grantor:{grantor}:ring: unreadable: its version is not a number", func(t *testing.T) (*brokenDeployment, []string) {
		p, args := registered(0, nil)(t)
		p.do("hset grantor:{grantor}:ring v x")
		return p, args
	}},
	{"key.unreadable", "grantor:{grantor}:ring: unreadable: it is not a hash", commandsOnly("set grantor:{grantor}:ring x")},
	{"feed.unreadable", `grantor:{grantor}:feed "7-0": its time is "soon", want seconds since 1970`, func(t *testing.T) (*brokenDeployment, []string) {
		return commandsOnly("xadd grantor:{grantor}:feed 5-0 k ring", "xadd grantor:{grantor}:feed 7-0 k client_tokens i a t soon", "xadd grantor:{grantor}:feed 8-0 k ring")(t)
	}},
	{"feed.unreadable", " and 2 more", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		for range 12 {
			p.do("xadd grantor:{grantor}:feed * k token")
		}
		return p, nil
	}},
	{"feed.unreadable", `grantor:{grantor}:feed "": the key is of another type`, commandsOnly("set grantor:{grantor}:feed x")},
	{"uses.unreadable", `grantor:{grantor}:used "worker": the uses of the client's secrets cannot be decoded`, commandsOnly(`hset grantor:{grantor}:used worker {"1":-1} other {"1":1}`)},
	{"uses.unreadable", `grantor:{grantor}:used "worker"`, commandsOnly("hset grantor:{grantor}:used worker x")},
	{"counts.unreadable", `grantor:{grantor}:limit:failures:60:9 "a": its count is "x"`, commandsOnly("hset grantor:{grantor}:limit:failures:60:9 a x b 1", "set app:limit:x 1")},
	{"counts.unreadable", "the key is of another type", commandsOnly("set grantor:{grantor}:limit:failures:60:9 x")},
	{"replica.unreadable", `grantor:{grantor}:replicas "a": its time is "x"`, commandsOnly("hset grantor:{grantor}:replicas a x")},
	{"replica.unreadable", "it is of format 2", func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.do("hset grantor:{grantor}:replicas a", fmt.Sprint(time.Now().UnixMilli(), ` {"format":2,"id":"a"}`))
		return p, nil
	}},
	{"audit.unreadable", `grantor:{grantor}:audit:refusals "7-0": its attributes are no JSON object`, commandsOnly("xadd grantor:{grantor}:audit:refusals 7-0 t 1 e e a x")},
	{"audit.unreadable", `grantor:{grantor}:audit:changes "7-0": its time is "soon"`, commandsOnly("xadd grantor:{grantor}:audit:changes 7-0 t soon e e a {}")},
	{"client.expiring", "worker at 20", registered(0, func(c *registry.Client) { c.Secrets[0].ExpiresAt = time.Now().Add(13 * day) })},
	{"client.locked-out", "worker", registered(2*day, func(c *registry.Client) { c.Secrets[0].ExpiresAt = time.Now().Add(-day) })},
	{"client.secretless", "worker", registered(0, func(c *registry.Client) { c.Secrets = nil })},
	{"client.never-used", "worker (secret s1, created 20", registered(31*day, nil)},
	{"client.unused", "worker (secret s1, last used 20", func(t *testing.T) (*brokenDeployment, []string) {
		p, args := registered(200*day, nil)(t)
		p.check(p.store.RecordUses(t.Context(), []registry.Use{{Client: must.Get(oauth.ParseClientID("worker")), SecretID: "s1", At: time.Now().Add(-91 * day)}}))
		return p, args
	}},
	{"client.chosen", "worker (secret s1, created 20", registered(91*day, func(c *registry.Client) {
		c.Secrets[0].Hash = must.Get(clientsecret.NewHasher(keys.NewKEK())).Hash("a secret that somebody chose")
	})},
	{"client.disabled", "1 client", registered(0, func(c *registry.Client) { c.Disabled = true })},
	{"client.administrators", "worker", registered(0, func(c *registry.Client) { c.Scopes = must.Get(oauth.ParseScopes(registry.ScopeKeysRead)) })},
	{"client.many", "the first 2 clients", func(t *testing.T) (*brokenDeployment, []string) {
		p, args := registered(0, nil)(t)
		p.client("b", 0, nil)
		p.client("c", 0, nil)
		return p, append(args, "--clients=2")
	}},
}

// TestDoctorRestartedReplica expects a replica that crashed to count as silent until another runs in its place.
func TestDoctorRestartedReplica(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*heartbeat.Status)
		want   doctor.Severity
	}{
		"in its place":       {func(*heartbeat.Status) {}, doctor.IsFine},
		"on another machine": {func(r *heartbeat.Status) { r.Host = "other" }, doctor.IsWarning},
		"on another port":    {func(r *heartbeat.Status) { r.HTTP = "10.0.0.1:9080" }, doctor.IsWarning},
		"before it":          {func(r *heartbeat.Status) { r.StartedAt = r.StartedAt.Add(-2 * time.Hour) }, doctor.IsWarning},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDeployment(t)
			p.announce("old", nil)
			p.silence("old")
			p.announce("new", func(r *heartbeat.Status) {
				r.Host, r.StartedAt = "old", r.StartedAt.Add(time.Hour)
				c.change(r)
			})
			if got := p.diagnose().checks["replica.silent"]; got.Severity != c.want {
				t.Errorf("got %+v, want %s", got, c.want)
			}
		})
	}
}
