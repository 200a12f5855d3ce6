package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/redistest"
)

// production gives the arguments of a replica on a Redis, with a file of clients to apply.
func production(redis *redistest.Server, kek, manifest string) []string {
	return []string{"--redis=" + redis.URL(), "--key-encryption-key-file=" + kek, "--apply=" + manifest}
}

// TestReplicas starts two replicas at once on an empty Redis: they agree on one key ring and one set of clients, and
// each one's keys verify the other's tokens.
func TestReplicas(t *testing.T) {
	redis := redistest.New(t)
	args := append(production(redis, kekFile(t), file(t, "clients.yaml", goodManifest)), "--issuer=http://localhost:1")
	var replicas [2]*replica
	var errs [2]error
	var started sync.WaitGroup
	for i := range replicas {
		started.Go(func() { replicas[i], errs[i] = tryServe(t, args...) })
	}
	started.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	_, keys := get(t, replicas[0].url("/.well-known/jwks.json"))
	if _, others := get(t, replicas[1].url("/.well-known/jwks.json")); keys != others || strings.Count(keys, `"kid"`) != 2 {
		t.Fatalf("the replicas publish different keys, or not two:\n%s\n%s", keys, others)
	}
	for i, r := range replicas {
		token := r.token(t)
		other := replicas[1-i]
		verifier, err := verify.New(t.Context(), "http://localhost:1", verify.Audience("https://orders.internal"),
			verify.OverGRPC(dial(t, other.ports.grpc.Addr().String())))
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

// TestChangeReachesReplicas changes a client through apply while a replica has it in memory.
func TestChangeReachesReplicas(t *testing.T) {
	redis := redistest.New(t)
	kek, manifest := kekFile(t), file(t, "clients.yaml", goodManifest)
	r, err := tryServe(t, append(production(redis, kek, manifest), "--issuer=http://localhost:1")...)
	if err != nil {
		t.Fatal(err)
	}
	r.token(t)
	changed := strings.Replace(goodManifest, "service-secret-here", "another-secret", 1)
	if out, err := apply(t, redis, kek, "-f", file(t, "clients.yaml", changed)); err != nil || !strings.Contains(out, "changed   client background-service (client_secret)") {
		t.Fatalf("apply: got %q and %v, want the secret changed", out, err)
	}
	if err := r.service.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	body := "grant_type=client_credentials&client_id=background-service&client_secret="
	for secret, want := range map[string]int{"service-secret-here": http.StatusUnauthorized, "another-secret": http.StatusOK} {
		answer, err := http.Post(r.url("/connect/token"), "application/x-www-form-urlencoded", strings.NewReader(body+secret))
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, answer); answer.StatusCode != want {
			t.Errorf("%s: got %d %s, want %d", secret, answer.StatusCode, got, want)
		}
	}
}

// apply runs `grantor apply` against a Redis.
func apply(t *testing.T, redis *redistest.Server, kek string, args ...string) (string, error) {
	t.Helper()
	cmd := newCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs(append([]string{"apply", "--redis=" + redis.URL(), "--key-encryption-key-file=" + kek}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// TestApply goes through the life of a file: created, left, dry run, changed, pruned, and refused as a whole.
func TestApply(t *testing.T) {
	redis := redistest.New(t)
	kek := kekFile(t)
	path := file(t, "clients.yaml", goodManifest)
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
		content := goodManifest
		if step.old != "" {
			content = strings.Replace(content, step.old, step.new, 1)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := apply(t, redis, kek, append([]string{"-f", path}, step.args...)...)
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
	if _, err := tryServe(t, append(production(redis, kek, path), "--issuer=http://localhost:1")...); err != nil {
		t.Fatal(err)
	}
	if _, err := apply(t, redis, kekFile(t), "-f", path); err == nil || !strings.Contains(err.Error(), "key-encryption key") {
		t.Errorf("another key-encryption key: got %v, want a refusal", err)
	}
	if _, err := apply(t, redis, kek); err == nil || !strings.HasPrefix(err.Error(), "file: is required") {
		t.Errorf("no file: got %v, want an error that names it", err)
	}
}

// TestRedisAway takes the Redis away from under a replica: within max-staleness it issues from memory, after that it says
// that it cannot, and when the Redis is back it recovers by itself.
func TestRedisAway(t *testing.T) {
	redis := redistest.New(t, "--appendonly", "yes")
	args := append(production(redis, kekFile(t), file(t, "clients.yaml", goodManifest)), "--issuer=http://localhost:1", "--max-staleness=2s")
	r, err := tryServe(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	r.token(t)
	redis.Stop()
	r.token(t)
	ops := "http://" + r.ports.ops.Addr().String() + "/readyz"
	await(t, "not ready", func() bool { code, _ := get(t, ops); return code == http.StatusServiceUnavailable })
	answer, err := http.Post(r.url("/connect/token"), "application/x-www-form-urlencoded",
		strings.NewReader("grant_type=client_credentials&client_id=background-service&client_secret=service-secret-here"))
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, answer); answer.StatusCode != http.StatusServiceUnavailable ||
		!strings.Contains(body, "temporarily_unavailable") || answer.Header.Get("Retry-After") == "" {
		t.Errorf("past max-staleness: got %d %s with Retry-After %q", answer.StatusCode, body, answer.Header.Get("Retry-After"))
	}
	redis.Start()
	await(t, "ready again", func() bool { code, _ := get(t, ops); return code == http.StatusOK })
	r.token(t)
}

// await asks until the answer is yes.
func await(t testing.TB, what string, yes func() bool) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(time.Minute); !yes(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatalf("a minute passed and the server is not %s", what)
		}
	}
}
