package rest_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/rest"
)

// replica is an issuer without listeners whose store and log a test controls.
type replica struct {
	service *service.Service
	handler http.Handler
	redis   *miniredis.Miniredis // nil if the store is another one
	log     *bytes.Buffer
}

func newReplica(t *testing.T, maxStaleness time.Duration) *replica {
	t.Helper()
	embedded := miniredis.RunT(t)
	r := newReplicaOn(t, embedded.Addr(), maxStaleness)
	r.redis = embedded
	return r
}

// newReplicaOn is like newReplica, with the Redis at address.
func newReplicaOn(t *testing.T, address string, maxStaleness time.Duration) *replica {
	t.Helper()
	r := &replica{log: &bytes.Buffer{}}
	connection := redis.NewClient(&redis.Options{
		Addr: address, MaxRetries: -1, ContextTimeoutEnabled: true, ReadTimeout: 300 * time.Millisecond, DialTimeout: 300 * time.Millisecond,
	})
	t.Cleanup(func() { _ = connection.Close() })
	store, err := redisstore.New(connection, redisstore.DefaultPrefix, registry.MaxLifetime)
	must.Succeed(t, err)
	sealer, err := keys.NewSealer(keys.NewKEK())
	must.Succeed(t, err)
	name, err := oauth.ParseIssuer("https://issuer.test")
	must.Succeed(t, err)
	r.service, err = service.New(t.Context(), service.Config{
		Issuer: name, Store: store, Sealer: sealer, Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Meter: noop.NewMeterProvider().Meter(""), Algorithms: []jwks.Algorithm{jwks.ES256}, AccessTokenLifetime: time.Hour,
		KeyRotation: 24 * time.Hour, JWKSMaxAge: time.Minute, MaxStaleness: maxStaleness, CachedClients: 10, CachedTokens: 10,
	})
	must.Succeed(t, err)
	_, err = r.service.Editor().Apply(t.Context(), registry.Manifest{
		Resources: []registry.Resource{{ID: resource(t, res1), Scopes: scopes(t, "api1")}},
		Clients: []registry.ClientSpec{
			client(t, "svc", registry.Client{Scopes: scopes(t, "api1")}), client(t, "cold", registry.Client{Scopes: scopes(t, "api1")}),
		},
	}, registry.ApplyOptions{})
	must.Succeed(t, err)
	r.handler, err = rest.New(t.Context(), name, r.service)
	must.Succeed(t, err)
	return r
}

// run runs the service until the test ends.
func (r *replica) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.service.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	must.Succeed(t, r.service.CatchUp(t.Context()))
}

// post posts a form to the handler.
func (r *replica) post(target, form string, headers http.Header) *answer {
	request := httptest.NewRequest(http.MethodPost, target, strings.NewReader(form))
	request.Header = headers
	request.Header.Set("Content-Type", formType)
	recorder := httptest.NewRecorder()
	r.handler.ServeHTTP(recorder, request)
	return &answer{recorder.Code, recorder.Header(), recorder.Body.String()}
}

func (r *replica) wantUnavailable(t *testing.T, target, form string) {
	t.Helper()
	a := r.post(target, form, http.Header{})
	wantRefusal(t, a, http.StatusServiceUnavailable, "temporarily_unavailable")
	if got := a.header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After: got %q, want 1", got)
	}
}

// TestOutage covers the ways in which an issuer can lose its store.
func TestOutage(t *testing.T) {
	t.Run("the feed was never read", func(t *testing.T) {
		newReplica(t, time.Hour).wantUnavailable(t, "/connect/token", good().Encode())
	})
	t.Run("the feed was read too long ago", func(t *testing.T) {
		r := newReplica(t, time.Nanosecond) // over as soon as the feed is read
		r.run(t)
		r.wantUnavailable(t, "/connect/token", good().Encode())
		r.wantUnavailable(t, "/connect/token", good("client_secret", wrong).Encode())
	})
	t.Run("the store went away", func(t *testing.T) {
		r := newReplica(t, time.Hour)
		r.run(t)
		wantToken(t, r.post("/connect/token", good().Encode(), http.Header{}))
		r.redis.Close()
		wantToken(t, r.post("/connect/token", good().Encode(), http.Header{}))
		r.wantUnavailable(t, "/connect/token", ask("cold", secret).Encode())
		r.wantUnavailable(t, "/connect/token", ask("nobody", secret).Encode())
	})
}

// TestOutageOfTokens introspects and revokes a token while the store is unreachable. Introspection works until the feed
// is older than maxStaleness and then fails. A revocation that may not have been recorded fails at once.
func TestOutageOfTokens(t *testing.T) {
	for name, outage := range map[string]struct{ begin, end func(*redistest.Server) }{
		"the store fell silent": {(*redistest.Server).Freeze, (*redistest.Server).Thaw},
		"the store is gone":     {(*redistest.Server).Kill, (*redistest.Server).Start},
	} {
		t.Run(name, func(t *testing.T) {
			const maxStaleness = 3 * time.Second
			store := redistest.New(t, "--appendonly", "yes", "--appendfsync", "always")
			r := newReplicaOn(t, store.Addr(), maxStaleness)
			r.run(t)
			form := about("svc", secret, wantToken(t, r.post("/connect/token", good().Encode(), http.Header{})).AccessToken).Encode()
			introspect := func() *answer { return r.post("/connect/introspect", form, http.Header{}) }
			active := func(a *answer) bool { return a.status == http.StatusOK && strings.Contains(a.body, `"active":true`) }
			if a := introspect(); !active(a) {
				t.Fatalf("got %d %s, want a token that is active", a.status, a.body)
			}
			outage.begin(store)
			began := time.Now()
			if a := introspect(); !active(a) {
				t.Errorf("at once: got %d %s, want an answer from memory", a.status, a.body)
			}
			r.wantUnavailable(t, "/connect/revoke", form)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for since := time.Duration(0); active(introspect()); <-tick.C {
				if since > maxStaleness+time.Second {
					t.Fatalf("%s into the outage: got an active token, want a refusal", since)
				}
				since = time.Since(began)
			}
			r.wantUnavailable(t, "/connect/introspect", form)
			r.wantUnavailable(t, "/connect/revoke", form)
			outage.end(store)
			for began := time.Now(); ; <-tick.C {
				a := r.post("/connect/revoke", form, http.Header{})
				if a.status == http.StatusOK {
					break
				}
				wantRefusal(t, a, http.StatusServiceUnavailable, "temporarily_unavailable")
				if time.Since(began) > 30*time.Second {
					t.Fatal("no revocation succeeds within 30 seconds of the end of the outage")
				}
			}
			wantBody(t, introspect(), inactive)
		})
	}
}

// TestLog checks that neither secrets nor ignored headers and parameters are logged.
func TestLog(t *testing.T) {
	r := newReplica(t, time.Hour)
	r.run(t)
	headers := func() http.Header {
		return http.Header{"X-Forwarded-For": {"203.0.113.9"}, "Grpc-Metadata-X": {"hidden"}, "Authorization": {"Bearer hidden"}}
	}
	granted := wantToken(t, r.post("/connect/token?client_secret=hidden", good().Encode(), headers()))
	wantRefusal(t, r.post("/connect/token?hidden", good("client_secret", "hidden", "x", "hidden").Encode(), headers()), http.StatusUnauthorized, "invalid_client")
	wantRefusal(t, r.post("/connect/token", good("client_id", "hid den\n", "scope", "hidden").Encode(), headers()), http.StatusUnauthorized, "invalid_client")
	log := r.log.String()
	for _, secret := range []string{"hidden", "203.0.113.9", secret, granted.AccessToken, granted.AccessToken[len(granted.AccessToken)-40:]} {
		if strings.Contains(log, secret) {
			t.Errorf("the log contains %q: %s", secret, log)
		}
	}
	if got := strings.Count(log, "peer=192.0.2.1:1234"); got != 3 { // httptest's
		t.Errorf("got %d events with the peer of the connection, want 3: %s", got, log)
	}
}
