//go:build conformance

package conformance_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// The resource, the client and the rules of the tests of the guard.
const (
	ordersResource = "https://orders.internal"
	ordersClient   = "shop"
	guardRules     = `rules:
  - host: orders.example.com
    path: /orders/{id}
    methods: [GET]
    scopes: [orders.read]
  - host: orders.example.com
    path: /public/{rest...}
    public: true
  - host: orders.example.com
    path: /admin/{rest...}
    scopes: [admin]
  - host: other.example.com
    path: /admin/{rest...}
    public: true
`
)

// buildGrantor builds the binary once.
var buildGrantor = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaries, "grantor")
	build := exec.Command("go", "build", "-o", path, "./cmd/grantor")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// guarded is a service behind a proxy that asks a guard, with an issuer.
type guarded struct {
	*front

	issuer  *tokentest.Issuer
	service *wire
	proxy   proxy
	behind  behind
	guard   *program
	args    []string
}

// newGuarded starts an issuer, a guard, a proxy and a service. serviceGRPC is the address of a service over gRPC, or empty; more
// are further arguments of the guard.
func newGuarded(t *testing.T, p proxy, serviceGRPC string, more ...string) *guarded {
	t.Helper()
	g := &guarded{issuer: tokentest.New(t), service: newWire(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), proxy: p}
	g.issuer.AddClient(t, ordersClient, ordersResource, "orders.read", "api1")
	g.behind = behind{freeport.Address(t), freeport.Address(t), g.service.address, serviceGRPC}
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	must.Succeed(t, os.WriteFile(rules, []byte(guardRules), 0o600))
	g.args = []string{
		"guard", "--issuer", g.issuer.URL, "--audience", ordersResource, "--rules", rules,
		"--grpc-listen", g.behind.guardGRPC, "--http-listen", g.behind.guardHTTP, "--ops-listen", freeport.Address(t), "--shutdown-delay", "0s",
	}
	if p.forwardAuth != "" {
		g.args = append(g.args, "--forward-auth", p.forwardAuth, "--trusted-proxies", "127.0.0.1/32")
	}
	g.args = append(g.args, more...)
	g.startGuard(t)
	g.front = p.start(t, g.behind)
	g.eventually(t, g.token(t, "orders.read"), http.StatusOK)
	g.service.take()
	return g
}

func (g *guarded) startGuard(t *testing.T) {
	t.Helper()
	g.guard = startProgram(t, t.TempDir(), must.Get(buildGrantor()), g.args...)
}

// token returns a token for the scopes.
func (g *guarded) token(t *testing.T, scopes ...string) string {
	t.Helper()
	return g.issuer.Token(t, ordersClient, ordersResource, scopes...)
}

// get requests a path with a token, or without one if it is empty.
func (g *guarded) get(t *testing.T, path, token string) response {
	t.Helper()
	var headers []string
	if token != "" {
		headers = []string{"Authorization: Bearer " + token}
	}
	return g.send(t, request("", "GET", path, headers...).raw, 5*time.Second)
}

// eventually waits until an order is answered with the status.
func (g *guarded) eventually(t *testing.T, token string, status int) {
	t.Helper()
	must.Eventually(t, fmt.Sprintf("an order gets %d", status), func() bool { return g.get(t, "/orders/1", token).status == status })
}

// TestConformanceProxies guards a service by each proxy.
func TestConformanceProxies(t *testing.T) {
	forEachProxy(t, func(t *testing.T, p proxy) {
		g := newGuarded(t, p, "")
		t.Run("decisions", g.expectDecisions)
		t.Run("attacks", g.expectNoPassage)
		t.Run("attacks over HTTP 2", g.expectNoPassageHTTP2)
		t.Run("a revoked token", g.expectRevocation)
		t.Run("without the guard", g.expectClosed)
	})
}

func (g *guarded) expectDecisions(t *testing.T) {
	for _, c := range []struct {
		name, path, token string
		status            int
		challenge         string
		headers           []string
	}{
		{"a token", "/orders/1", g.token(t, "orders.read"), http.StatusOK, "", []string{"x-grantor-client-id: shop", "x-grantor-scopes: orders.read"}},
		{"no token", "/orders/1", "", http.StatusUnauthorized, `^Bearer`, nil},
		{"an expired token", "/orders/1", g.issuer.Expired(t, ordersClient, ordersResource, "orders.read"), http.StatusUnauthorized, `^Bearer .*error="invalid_token"`, nil},
		{"a forged token", "/orders/1", g.issuer.Forge(t, map[string]any{"aud": ordersResource, "scope": "orders.read"}), http.StatusUnauthorized, `^Bearer .*error="invalid_token"`, nil},
		{"another scope", "/orders/1", g.token(t, "orders.write"), http.StatusForbidden, `^Bearer .*error="insufficient_scope"`, nil},
		{"no rule", "/unknown", g.token(t, "orders.read"), http.StatusForbidden, "", nil},
		{"a public path", "/public/1", "", http.StatusOK, "", []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.service.take()
			got := g.get(t, c.path, c.token)
			if got.status != c.status {
				t.Errorf("got %d %s, want %d", got.status, got.body, c.status)
			}
			if challenge := got.header.Get("WWW-Authenticate"); c.challenge == "" && challenge != "" || !regexp.MustCompile(c.challenge).MatchString(challenge) {
				t.Errorf("got the challenge %q, want %q", challenge, c.challenge)
			}
			arrived := g.service.take()
			if c.headers == nil {
				if len(arrived) > 0 {
					t.Errorf("the service got %q", arrived)
				}
				return
			}
			if len(arrived) != 1 {
				t.Fatalf("the service got %q", arrived)
			}
			if headers := ours(arrived[0]); !slices.Equal(headers, c.headers) {
				t.Errorf("the service got %q, want %q", headers, c.headers)
			}
		})
	}
}

// expectNoPassage sends every hostile request. What arrives at the service is an order, something public, or something of the
// other host, however a service reads it, and has no headers of the guard but the guard's.
func (g *guarded) expectNoPassage(t *testing.T) {
	token := g.token(t, "orders.read")
	for _, h := range hostileRequests() {
		t.Run(h.name, func(t *testing.T) {
			g.service.take()
			got := g.send(t, strings.ReplaceAll(h.raw, "TOKEN", token), time.Second)
			arrived := g.service.take()
			t.Logf("%d, arrived %d", got.status, len(arrived))
			if got.status >= 500 {
				t.Errorf("got %d", got.status)
			}
			if honest[h.name] && got.status != http.StatusOK {
				t.Errorf("got %d %s, want 200", got.status, got.body)
			}
			for _, head := range arrived {
				expectHarmless(t, head)
			}
			if g.guard.ended() {
				t.Fatal("the guard ended")
			}
		})
	}
}

// honest names the requests of the table that must pass.
var honest = map[string]bool{"an order": true, "HEAD": true, "a token in the query": true}

func expectHarmless(t *testing.T, head string) {
	t.Helper()
	first, rest, _ := strings.Cut(head, "\r\n")
	fields := strings.Fields(first)
	if len(fields) != 3 {
		t.Errorf("got the line %q", first)
		return
	}
	if method := fields[0]; method != "GET" && method != "HEAD" && !strings.HasPrefix(fields[1], "/public/") {
		t.Errorf("got the method %s of %s", method, fields[1])
	}
	hosts := values(head, "host")
	if len(hosts) != 1 {
		t.Errorf("got the hosts %q", hosts)
	}
	if !strings.HasPrefix(fields[1], "/") {
		t.Errorf("got the target %s, whose host a service may prefer", fields[1])
	}
	other := strings.EqualFold(hosts[0], "other.example.com")
	for _, meaning := range meanings(fields[1]) {
		if strings.HasPrefix(meaning, "/admin") && !other {
			t.Errorf("%s arrived for %s, which a service may read as %s", fields[1], hosts[0], meaning)
		}
	}
	for _, name := range []string{"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url", "script_name", "x-script-name"} {
		if got := values(head, name); len(got) > 0 {
			t.Errorf("got %s: %q", name, got)
		}
	}
	for _, got := range values(head, "upgrade") {
		if !strings.EqualFold(got, "websocket") {
			t.Errorf("got an upgrade to %q: what follows it reaches the service without a check", got)
		}
	}
	for _, header := range ours(head) {
		if header != "x-grantor-client-id: shop" && header != "x-grantor-scopes: orders.read" {
			t.Errorf("got %q in %q", header, rest)
		}
	}
	if n := len(ours(head)); n != 0 && n != 2 {
		t.Errorf("got %q", ours(head))
	}
	if strings.HasPrefix(fields[1], "/orders/") && len(ours(head)) != 2 {
		t.Errorf("an order arrived with %q", ours(head))
	}
}

// meanings returns the paths that services may take a request target for: with its escapes decoded once or twice, matrix
// parameters cut off, backslashes as slashes, and dot segments and empty segments removed.
func meanings(target string) []string {
	if u, err := url.Parse(target); err == nil && u.IsAbs() {
		target = u.EscapedPath()
	}
	target, _, _ = strings.Cut(target, "?")
	var all []string
	for range 3 {
		slashed := strings.ReplaceAll(target, `\`, "/")
		for _, p := range []string{slashed, parameters.ReplaceAllString(slashed, ""), strings.ReplaceAll(slashed, "\x00", ""), strings.ReplaceAll(slashed, "./", "/")} {
			all = append(all, strings.ToLower(path.Clean("/"+p)))
		}
		target = escape.ReplaceAllStringFunc(target, func(e string) string {
			decoded, err := url.PathUnescape(e)
			if err != nil {
				return e
			}
			return decoded
		})
	}
	return all
}

var (
	parameters = regexp.MustCompile(`;[^/]*`)
	escape     = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
)

// values returns the values of a header, for a service to which an underscore is a hyphen.
func values(head, name string) []string {
	var found []string
	for line := range strings.SplitSeq(head, "\r\n") {
		key, value, _ := strings.Cut(line, ":")
		if strings.ReplaceAll(strings.ToLower(strings.TrimSpace(key)), "_", "-") == name {
			found = append(found, strings.TrimSpace(value))
		}
	}
	return found
}

// ours returns the headers of a request that a service may take for those of the guard.
func ours(head string) []string {
	found := []string{}
	for line := range strings.SplitSeq(head, "\r\n") {
		key, value, _ := strings.Cut(line, ":")
		if key = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(key)), "_", "-"); strings.HasPrefix(key, "x-grantor") {
			found = append(found, key+": "+strings.TrimSpace(value))
		}
	}
	slices.Sort(found)
	return found
}

// expectRevocation revokes tokens, which are refused from then on: as a rule within 100 ms, and on a busy machine within a second.
func (g *guarded) expectRevocation(t *testing.T) {
	var delays []time.Duration
	for range 5 {
		token := g.issue(t)
		if got := g.get(t, "/orders/1", token); got.status != http.StatusOK {
			t.Fatalf("got %d %s", got.status, got.body)
		}
		g.revoke(t, token)
		revoked := time.Now()
		for g.get(t, "/orders/1", token).status != http.StatusUnauthorized {
			if time.Since(revoked) > time.Second {
				t.Fatal("a second after its revocation, a token is accepted")
			}
		}
		delays = append(delays, time.Since(revoked).Round(time.Millisecond))
	}
	slices.Sort(delays)
	t.Logf("revoked tokens were refused %v after the response to the revocation", delays)
	if median := delays[len(delays)/2]; median > 100*time.Millisecond {
		t.Errorf("revoked tokens were refused after %s, want at most 100ms", median)
	}
}

// issue requests a token of the issuer, which is revoked by [guarded.revoke].
func (g *guarded) issue(t *testing.T) string {
	t.Helper()
	token, err := config(g.issuer, ordersClient, tokentest.Secret, "orders.read", 0).Token(t.Context())
	must.Succeed(t, err)
	return token.AccessToken
}

func (g *guarded) revoke(t *testing.T, token string) {
	t.Helper()
	answer, err := http.PostForm(g.issuer.URL+"/connect/revoke", url.Values{"token": {token}, "client_id": {ordersClient}, "client_secret": {tokentest.Secret}})
	must.Succeed(t, err)
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("revoking a token: got %s", answer.Status)
	}
}

// expectClosed kills the guard: every request gets the proxy's status for that, and after it is started again, everything passes.
func (g *guarded) expectClosed(t *testing.T) {
	token := g.token(t, "orders.read")
	must.Succeed(t, g.guard.command.Process.Kill())
	<-g.guard.done
	g.service.take()
	for _, path := range []string{"/orders/1", "/public/1", "/orders/1"} {
		got := g.get(t, path, token)
		if got.status != g.proxy.closed {
			t.Errorf("%s without the guard: got %d, want %d", path, got.status, g.proxy.closed)
		}
	}
	if arrived := g.service.take(); len(arrived) > 0 {
		t.Errorf("without the guard, the service got %q", arrived)
	}
	g.startGuard(t)
	g.eventually(t, token, http.StatusOK)
}
