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
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/rest"
)

// replica is an issuer without listeners, whose store and log are the test's.
type replica struct {
	service *service.Service
	face    http.Handler
	redis   *miniredis.Miniredis
	log     *bytes.Buffer
}

func newReplica(t *testing.T, maxStaleness time.Duration) *replica {
	t.Helper()
	r := &replica{redis: miniredis.RunT(t), log: &bytes.Buffer{}}
	connection := redis.NewClient(&redis.Options{Addr: r.redis.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = connection.Close() })
	store, err := redisstore.New(connection, redisstore.DefaultPrefix, registry.MaxLifetime)
	check(t, err)
	sealer, err := keys.NewSealer(keys.NewKEK())
	check(t, err)
	name, err := oauth.ParseIssuer("https://issuer.test")
	check(t, err)
	r.service, err = service.New(t.Context(), service.Config{
		Issuer: name, Store: store, Sealer: sealer, Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Meter: noop.NewMeterProvider().Meter(""), Algorithms: []jwks.Algorithm{jwks.ES256}, AccessTokenLifetime: time.Hour,
		KeyRotation: 24 * time.Hour, JWKSMaxAge: time.Minute, MaxStaleness: maxStaleness, CachedClients: 10, CachedTokens: 10,
	})
	check(t, err)
	_, err = r.service.Applier().Apply(t.Context(), registry.Manifest{
		Resources: []registry.Resource{{ID: resource(t, res1), Scopes: scopes(t, "api1")}},
		Clients: []registry.Wanted{
			client(t, "svc", registry.Client{Scopes: scopes(t, "api1")}), client(t, "cold", registry.Client{Scopes: scopes(t, "api1")}),
		},
	})
	check(t, err)
	r.face, err = rest.New(t.Context(), name, r.service)
	check(t, err)
	return r
}

// run follows the feed until the test ends.
func (r *replica) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.service.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	check(t, r.service.CatchUp(t.Context()))
}

// post sends a form to the face.
func (r *replica) post(target, form string, headers http.Header) *answer {
	request := httptest.NewRequest(http.MethodPost, target, strings.NewReader(form))
	request.Header = headers
	request.Header.Set("Content-Type", formType)
	recorder := httptest.NewRecorder()
	r.face.ServeHTTP(recorder, request)
	return &answer{recorder.Code, recorder.Header(), recorder.Body.String()}
}

func (r *replica) wantUnavailable(t *testing.T, form string) {
	t.Helper()
	a := r.post("/connect/token", form, http.Header{})
	wantRefusal(t, a, http.StatusServiceUnavailable, "temporarily_unavailable")
	if got := a.header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After: got %q, want 1", got)
	}
}

// TestOutage has the ways in which an issuer can be out of touch with its store.
func TestOutage(t *testing.T) {
	t.Run("the feed was never read", func(t *testing.T) {
		newReplica(t, time.Hour).wantUnavailable(t, good().Encode())
	})
	t.Run("the feed was read too long ago", func(t *testing.T) {
		r := newReplica(t, time.Nanosecond) // which is past as soon as it was read
		r.run(t)
		r.wantUnavailable(t, good().Encode())
		r.wantUnavailable(t, good("client_secret", wrong).Encode())
	})
	t.Run("the store went away", func(t *testing.T) {
		r := newReplica(t, time.Hour)
		r.run(t)
		wantToken(t, r.post("/connect/token", good().Encode(), http.Header{}))
		r.redis.Close()
		wantToken(t, r.post("/connect/token", good().Encode(), http.Header{}))
		r.wantUnavailable(t, ask("cold", secret).Encode())
		r.wantUnavailable(t, ask("nobody", secret).Encode())
	})
}

// TestLog checks that what a caller sends where it does not count, and what is secret, is not logged.
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
			t.Errorf("the log has %q: %s", secret, log)
		}
	}
	if got := strings.Count(log, "peer=192.0.2.1:1234"); got != 3 { // httptest's
		t.Errorf("got %d events with the peer of the connection, want 3: %s", got, log)
	}
}
