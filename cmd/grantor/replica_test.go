package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// TestReplicas starts two replicas at once on an empty Redis: they agree on one key ring and one set of clients, and
// the keys of each verify the other's tokens.
func TestReplicas(t *testing.T) {
	t.Parallel()
	redis := redistest.New(t)
	args := append(servetest.Production(redis, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)), "--issuer=http://localhost:1")
	var replicas [2]*servetest.Replica
	var errs [2]error
	var started sync.WaitGroup
	for i := range replicas {
		started.Go(func() { replicas[i], errs[i] = servetest.Try(t, args...) })
	}
	started.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	_, keys := servetest.Get(t, replicas[0].URL("/.well-known/jwks.json"))
	if _, others := servetest.Get(t, replicas[1].URL("/.well-known/jwks.json")); keys != others || strings.Count(keys, `"kid"`) != 2 {
		t.Fatalf("the replicas publish different keys, or not two:\n%s\n%s", keys, others)
	}
	for i, r := range replicas {
		token := r.Token(t)
		other := replicas[1-i]
		verifier, err := verify.New(t.Context(), "http://localhost:1", verify.Audience("https://orders.internal"),
			verify.OverGRPC(servetest.Dial(t, other.GRPCAddr())))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(verifier.Close)
		call := httptest.NewRequest(http.MethodGet, "/", nil)
		call.Header.Set("Authorization", "Bearer "+token)
		answer := httptest.NewRecorder()
		verify.HTTP(verifier, verify.Scopes("api1"))(http.NotFoundHandler()).ServeHTTP(answer, call)
		if answer.Code != http.StatusNotFound { // the handler's own answer
			t.Errorf("a token of replica %d under the keys of the other: got %d %s", i, answer.Code, answer.Body)
		}
	}
}

// TestChangeReachesReplicas changes a client by grantor apply while a replica has it in its cache.
func TestChangeReachesReplicas(t *testing.T) {
	t.Parallel()
	redis := redistest.New(t)
	kek, manifest := servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)
	r, err := servetest.Try(t, append(servetest.Production(redis, kek, manifest), "--issuer=http://localhost:1")...)
	if err != nil {
		t.Fatal(err)
	}
	r.Token(t)
	changed := strings.Replace(servetest.Manifest, "service-secret-here", "another-secret", 1)
	if out, err := applyTo(t, redis, kek, "-f", servetest.WriteFile(t, "clients.yaml", changed)); err != nil || !strings.Contains(out, "changed   client background-service (client_secret)") {
		t.Fatalf("apply: got %q and %v, want the secret changed", out, err)
	}
	if err := r.Service().CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	body := "grant_type=client_credentials&client_id=background-service&client_secret="
	for secret, want := range map[string]int{"service-secret-here": http.StatusUnauthorized, "another-secret": http.StatusOK} {
		answer, err := http.Post(r.URL("/connect/token"), "application/x-www-form-urlencoded", strings.NewReader(body+secret))
		if err != nil {
			t.Fatal(err)
		}
		if got := servetest.ReadBody(t, answer); answer.StatusCode != want {
			t.Errorf("%s: got %d %s, want %d", secret, answer.StatusCode, got, want)
		}
	}
}

// applyTo runs grantor apply against a Redis.
func applyTo(t *testing.T, redis *redistest.Server, kek string, args ...string) (string, error) {
	t.Helper()
	cmd := newCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs(append([]string{"apply", "--redis=" + redis.URL(), "--key-encryption-key-file=" + kek}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// TestApply applies a file in all its states: created, unchanged, dry run, changed, pruned, and refused as a whole.
func TestApply(t *testing.T) {
	redis := redistest.New(t)
	kek := servetest.KEKFile(t)
	path := servetest.WriteFile(t, "clients.yaml", servetest.Manifest)
	steps := []struct {
		name, old, new string // what is replaced in the file
		args           []string
		want           string
		fails          bool
	}{
		{name: "dry run", args: []string{"--dry-run"}, want: "created   resource https://orders.internal\ncreated   client background-service\ncreated   client orders-api\n"},
		{name: "created", want: "created   resource https://orders.internal\ncreated   client background-service\ncreated   client orders-api\n"},
		{name: "left", want: "unchanged resource https://orders.internal\nunchanged client background-service\nunchanged client orders-api\n"},
		{name: "nothing of a bad file", old: "scopes: [api1]\n  - client_id: orders-api", new: "scopes: [api1, unknown]\n  - client_id: renamed-api", fails: true, want: `clients.yaml:12: client background-service: scopes: "unknown" belongs to no resource`},
		{name: "changed", old: "client_name: Background Service", new: "client_name: Other", want: "unchanged resource https://orders.internal\nchanged   client background-service (client_name)\nunchanged client orders-api\n"},
		{name: "gone from the file", old: "orders-api\n", new: "renamed-api\n", want: "unchanged resource https://orders.internal\nchanged   client background-service (client_name)\ncreated   client renamed-api\n"},
		{name: "prune, dry", args: []string{"--prune", "--dry-run"}, want: "unchanged resource https://orders.internal\nunchanged client background-service\nunchanged client orders-api\nremoved   client renamed-api\n"},
		{name: "prune", args: []string{"--prune"}, want: "unchanged resource https://orders.internal\nunchanged client background-service\nunchanged client orders-api\nremoved   client renamed-api\n"},
		{name: "pruned", args: []string{"--prune"}, want: "unchanged resource https://orders.internal\nunchanged client background-service\nunchanged client orders-api\n"},
	}
	for _, step := range steps {
		content := servetest.Manifest
		if step.old != "" {
			content = strings.Replace(content, step.old, step.new, 1)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := applyTo(t, redis, kek, append([]string{"-f", path}, step.args...)...)
		if step.fails {
			if err == nil || !strings.Contains(err.Error(), step.want) || out != "" {
				t.Errorf("%s: got %q and %v, want %q", step.name, out, err, step.want)
			}
			continue
		}
		if err != nil || out != step.want {
			t.Errorf("%s: got %v and\n%swant\n%s", step.name, err, out, step.want)
		}
	}
	if _, err := servetest.Try(t, append(servetest.Production(redis, kek, path), "--issuer=http://localhost:1")...); err != nil {
		t.Fatal(err)
	}
	if _, err := applyTo(t, redis, servetest.KEKFile(t), "-f", path); err == nil || !strings.Contains(err.Error(), "key-encryption key") {
		t.Errorf("another key-encryption key: got %v, want a refusal", err)
	}
	if _, err := applyTo(t, redis, kek); err == nil || !strings.HasPrefix(err.Error(), "file: is required") {
		t.Errorf("no file: got %v, want an error that names it", err)
	}
}

// TestRedisAway stops the Redis of a replica: within max-staleness the replica issues from its caches, then it refuses,
// and when Redis is back it recovers by itself.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	redis := redistest.New(t, "--appendonly", "yes")
	args := append(servetest.Production(redis, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)), "--issuer=http://localhost:1", "--max-staleness=2s")
	r, err := servetest.Try(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	r.Token(t)
	redis.Stop()
	r.Token(t)
	ops := "http://" + r.OpsAddr() + "/readyz"
	must.Eventually(t, "not ready", func() bool { code, _ := servetest.Get(t, ops); return code == http.StatusServiceUnavailable })
	answer, err := http.Post(r.URL("/connect/token"), "application/x-www-form-urlencoded",
		strings.NewReader("grant_type=client_credentials&client_id=background-service&client_secret=service-secret-here"))
	if err != nil {
		t.Fatal(err)
	}
	if body := servetest.ReadBody(t, answer); answer.StatusCode != http.StatusServiceUnavailable ||
		!strings.Contains(body, "temporarily_unavailable") || answer.Header.Get("Retry-After") == "" {
		t.Errorf("past max-staleness: got %d %s with Retry-After %q", answer.StatusCode, body, answer.Header.Get("Retry-After"))
	}
	redis.Start()
	must.Eventually(t, "ready again", func() bool { code, _ := servetest.Get(t, ops); return code == http.StatusOK })
	r.Token(t)
}
