package guard_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// orders are the rules of most tests.
const orders = `rules:
  - path: /orders/{id}
    methods: [GET]
    scopes: [api1]
  - path: /admin
    scopes: [orders.read]
  - path: /health
    public: true
`

// revoke revokes a token as its client.
func revoke(t testing.TB, issuer *servetest.Replica, token string) {
	t.Helper()
	answer := must.Get(http.PostForm(issuer.URL("/connect/revoke"), url.Values{
		"client_id": {"background-service"}, "client_secret": {"service-secret-here"}, "token": {token},
	}))
	if servetest.ReadBody(t, answer); answer.StatusCode != http.StatusOK {
		t.Fatalf("revoking: got %s", answer.Status)
	}
}

// TestGuard asks about requests on both wires, with a token of a real issuer.
func TestGuard(t *testing.T) {
	issuer := servetest.Dev(t)
	name := must.Get(issuer.Issuer()).String()
	r := start(t, name, orders).ready(t)
	conn, token := servetest.Dial(t, r.GRPCAddr()), issuer.Token(t)
	for _, c := range []struct {
		name, method, path, token string
		want                      int
	}{
		{"a scope that the token has", "GET", "/orders/7", token, http.StatusOK},
		{"no token", "GET", "/orders/7", "", http.StatusUnauthorized},
		{"a malformed token", "GET", "/orders/7", token[:len(token)-4] + "AAAA", http.StatusUnauthorized},
		{"a scope that the token lacks", "GET", "/admin", token, http.StatusForbidden},
		{"no rule", "DELETE", "/orders/7", token, http.StatusForbidden},
		{"an ambiguous path", "GET", "/orders/..%2fadmin", token, http.StatusForbidden},
		{"public", "GET", "/health", "", http.StatusOK},
		{"a token in the query", "GET", "/orders/7?access_token=" + token, "", http.StatusUnauthorized},
	} {
		if got := status(ask(t, conn, c.method, c.path, c.token)); got != c.want {
			t.Errorf("%s: Envoy: got %d, want %d", c.name, got, c.want)
		}
		if got := r.authorize(t, c.method, c.path, c.token).StatusCode; got != c.want {
			t.Errorf("%s: nginx: got %d, want %d", c.name, got, c.want)
		}
	}
	admitted := ask(t, conn, "GET", "/orders/7", token).GetOkResponse().GetHeaders()
	passed := r.authorize(t, "GET", "/orders/7", token).Header
	for header, want := range map[string]string{"x-grantor-client-id": "background-service", "x-grantor-scopes": "api1"} {
		if got := value(admitted, header); got != want {
			t.Errorf("Envoy: %s: got %q, want %q", header, got, want)
		}
		if got := passed.Get(header); got != want {
			t.Errorf("nginx: %s: got %q, want %q", header, got, want)
		}
	}
	// The health service learns of readiness once a second.
	must.Eventually(t, "health", func() bool { return health(t, conn) == healthpb.HealthCheckResponse_SERVING })
	if got, _ := servetest.Get(t, "http://"+r.HTTPAddr()+"/"); got != http.StatusNotFound {
		t.Errorf("another path: got %d, want 404", got)
	}
	_, metrics := servetest.Get(t, r.ops("/metrics"))
	for _, want := range []string{
		`grantor_guard_checks_total{result="allowed",wire="ext_authz"}`, `grantor_guard_checks_total{reason="no_rule",result="refused",wire="forward_auth"}`,
		"grantor_verify_feed_age_seconds", "grantor_connections_open", "grantor_build_info",
		`rpc_server_call_duration_seconds_count{rpc_method="envoy.service.auth.v3.Authorization/Check"`, `http_route="/authorize"`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(r.log.String(), token) || !strings.Contains(r.log.String(), `"reason":"no_rule"`) {
		t.Errorf("the log has the token, or lacks the refusals:\n%s", r.log.String())
	}
}

// maxRevocation is how long a revoked token may still be accepted.
const maxRevocation = 100 * time.Millisecond

// TestRevocation revokes a token that the guard has in its cache, and expects the next request to be refused.
func TestRevocation(t *testing.T) {
	issuer := servetest.Dev(t)
	r := start(t, must.Get(issuer.Issuer()).String(), orders).ready(t)
	conn := servetest.Dial(t, r.GRPCAddr())
	for wire, check := range map[string]func(token string) int{
		"Envoy": func(token string) int { return status(ask(t, conn, "GET", "/orders/7", token)) },
		"nginx": func(token string) int { return r.authorize(t, "GET", "/orders/7", token).StatusCode },
	} {
		kept, revoked := issuer.Token(t), issuer.Token(t)
		if check(kept) != http.StatusOK || check(revoked) != http.StatusOK {
			t.Fatalf("%s: a valid token is refused", wire)
		}
		revoke(t, issuer, revoked)
		began := time.Now()
		for check(revoked) != http.StatusUnauthorized {
			if time.Since(began) > 10*maxRevocation {
				break
			}
		}
		if took := time.Since(began); took > maxRevocation {
			t.Errorf("%s: a revoked token was accepted for %s, want at most %s", wire, took, maxRevocation)
		}
		if check(kept) != http.StatusOK {
			t.Errorf("%s: another token is refused", wire)
		}
	}
}

// TestReload changes the rules while the guard runs.
func TestReload(t *testing.T) {
	issuer := servetest.Dev(t)
	rules := servetest.WriteFile(t, "rules.yaml", orders)
	r := start(t, must.Get(issuer.Issuer()).String(), orders, "--rules="+rules).ready(t)
	conn, token := servetest.Dial(t, r.GRPCAddr()), issuer.Token(t)
	reload := func(content, want string) {
		t.Helper()
		must.Succeed(t, os.WriteFile(rules, []byte(content), 0o600))
		before := len(r.log.String())
		r.hangup <- syscall.SIGHUP
		must.Eventually(t, want, func() bool { return strings.Contains(r.log.String()[before:], want) })
	}
	for _, c := range []struct {
		name, rules, logged string
		orders, invoices    int
	}{
		{"a mistake", "rules:\n  - path: /orders/{id}\n    public: yes please\n", "rules.yaml:3: public is true or absent", 200, 403},
		{"no YAML", "rules: [", "rules.yaml:", 200, 403},
		{"a contradiction", orders + "  - path: /{page}\n    authenticated: true\n", "rules.yaml:", 200, 403},
		{"other rules", "rules:\n  - path: /invoices/{id}\n    authenticated: true\n", `"msg":"reloaded"`, 403, 200},
	} {
		reload(c.rules, c.logged)
		for path, want := range map[string]int{"/orders/7": c.orders, "/invoices/7": c.invoices} {
			if got := status(ask(t, conn, "GET", path, token)); got != want {
				t.Errorf("%s: %s: got %d, want %d", c.name, path, got, want)
			}
		}
	}
}

// TestIssuerDown starts a guard before its issuer: requests are refused with 503, and the guard is not ready, until the issuer
// is there. The same holds for a guard that is restarted while the issuer is down, whereas one that runs knows the keys.
func TestIssuerDown(t *testing.T) {
	address, redis := freeport.Address(t), redistest.New(t)
	name := "http://" + address
	expect := func(who string, r *running, token string, want int) {
		t.Helper()
		conn := servetest.Dial(t, r.GRPCAddr())
		serving := healthpb.HealthCheckResponse_SERVING
		if want != http.StatusOK {
			serving = healthpb.HealthCheckResponse_NOT_SERVING
		}
		must.Eventually(t, who+": health", func() bool { return health(t, conn) == serving })
		if got := status(ask(t, conn, "GET", "/orders/7", token)); got != want {
			t.Errorf("%s: Envoy: got %d, want %d", who, got, want)
		}
		if got := r.authorize(t, "GET", "/orders/7", token).StatusCode; got != want {
			t.Errorf("%s: nginx: got %d, want %d", who, got, want)
		}
		if got, _ := servetest.Get(t, r.ops("/readyz")); got != want {
			t.Errorf("%s: readyz: got %d, want %d", who, got, want)
		}
	}
	args := append(servetest.Production(redis, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)),
		"--issuer="+name, "--http-listen="+address)
	other := servetest.Start(t, append(args, "--http-listen=127.0.0.1:0")...) // the same issuer, from which the token is
	token := other.Token(t)
	first := start(t, name, orders)
	expect("before the issuer", first, token, http.StatusServiceUnavailable)
	if got := status(ask(t, servetest.Dial(t, first.GRPCAddr()), "GET", "/health", "")); got != http.StatusOK {
		t.Errorf("a public path: got %d, want 200", got)
	}
	issuer := servetest.Start(t, args...)
	first.ready(t)
	expect("with the issuer", first, token, http.StatusOK)
	issuer.Stop()
	<-issuer.Ended
	expect("after the issuer", first, token, http.StatusOK)
	expect("restarted", start(t, name, orders), token, http.StatusServiceUnavailable)
}

// TestTLS asks over TLS, with and without the client certificate that the guard requires.
func TestTLS(t *testing.T) {
	issuer, authority, stranger := servetest.Dev(t), servetest.NewAuthority(t), servetest.NewAuthority(t)
	cert, key := authority.WriteLeaf(t, t.TempDir(), 2)
	r := start(t, must.Get(issuer.Issuer()).String(), orders, "--tls-cert-file="+cert, "--tls-key-file="+key,
		"--tls-client-ca-file="+servetest.WriteFile(t, "ca.pem", string(authority.PEM))).ready(t)
	for name, c := range map[string]struct {
		authority *servetest.Authority
		want      bool
	}{"trusted": {authority, true}, "a stranger's": {stranger, false}, "none": {nil, false}} {
		config := &tls.Config{RootCAs: authority.Pool(), MinVersion: tls.VersionTLS12}
		if c.authority != nil {
			config.Certificates = []tls.Certificate{must.Get(tls.LoadX509KeyPair(c.authority.WriteLeaf(t, t.TempDir(), 3)))}
		}
		_, err := healthpb.NewHealthClient(servetest.DialTLS(t, r.GRPCAddr(), config)).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if (err == nil) != c.want {
			t.Errorf("%s: gRPC: got %v, want success=%t", name, err, c.want)
		}
		transport := &http.Transport{TLSClientConfig: config}
		answer, err := (&http.Client{Transport: transport}).Get("https://" + r.HTTPAddr() + "/authorize")
		if (err == nil) != c.want {
			t.Errorf("%s: HTTP: got %v, want success=%t", name, err, c.want)
		}
		if err == nil {
			_ = answer.Body.Close()
		}
		transport.CloseIdleConnections()
	}
}

// TestOverload asks about more requests than the guard decides at once.
func TestOverload(t *testing.T) {
	r := start(t, must.Get(servetest.Dev(t).Issuer()).String(), orders, "--max-checks=1").ready(t)
	conn := servetest.Dial(t, r.GRPCAddr())
	token := servetest.Dev(t).Token(t) // of a key that the issuer does not have
	var envoy, nginx, enough atomic.Bool
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for !enough.Load() {
				answer := ask(t, conn, "GET", "/orders/7", token)
				switch status(answer) {
				case http.StatusServiceUnavailable:
					envoy.Store(strings.Contains(answer.GetDeniedResponse().GetBody(), "Too many requests"))
				case http.StatusUnauthorized:
				default:
					t.Errorf("Envoy: got %v, want 401 or 503", answer)
				}
				switch answer := r.authorize(t, "GET", "/orders/7", token); answer.StatusCode {
				case http.StatusServiceUnavailable:
					nginx.Store(answer.Header.Get("Retry-After") != "")
				case http.StatusUnauthorized:
				default:
					t.Errorf("nginx: got %s, want 401 or 503", answer.Status)
				}
			}
		})
	}
	defer asking.Wait()
	defer enough.Store(true)
	must.Eventually(t, "a refusal on each wire", func() bool { return envoy.Load() && nginx.Load() })
	enough.Store(true)
	asking.Wait()
	if _, metrics := servetest.Get(t, r.ops("/metrics")); !strings.Contains(metrics, `reason="overloaded"`) {
		t.Error("the refusals are not counted")
	}
	if got := status(ask(t, conn, "GET", "/health", "")); got != http.StatusOK {
		t.Errorf("afterwards: got %d, want 200", got)
	}
}

// TestConnections opens more connections than permitted, and expects the last one to be closed at once.
func TestConnections(t *testing.T) {
	r := start(t, must.Get(servetest.Dev(t).Issuer()).String(), orders, "--max-connections=1")
	first := must.Get(net.Dial("tcp", r.GRPCAddr()))
	defer func() { _ = first.Close() }()
	must.Get(first.Read(make([]byte, 1))) // the SETTINGS of the server
	second := must.Get(net.Dial("tcp", r.GRPCAddr()))
	defer func() { _ = second.Close() }()
	must.Succeed(t, second.SetDeadline(time.Now().Add(10*time.Second)))
	if n, err := second.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
		t.Errorf("got %d bytes and %v, want the end of the connection", n, err)
	}
}

// TestDrain stops a guard: it is not ready first, answers still, and then ends.
func TestDrain(t *testing.T) {
	issuer := servetest.Dev(t)
	r := start(t, must.Get(issuer.Issuer()).String(), orders, "--shutdown-delay=500ms").ready(t)
	conn, token := servetest.Dial(t, r.GRPCAddr()), issuer.Token(t)
	if got := status(ask(t, conn, "GET", "/orders/7", token)); got != http.StatusOK {
		t.Fatalf("got %d, want 200", got)
	}
	r.stop()
	must.Eventually(t, "not ready", func() bool {
		code, _ := servetest.Get(t, r.ops("/readyz"))
		return code == http.StatusServiceUnavailable
	})
	if got := status(ask(t, conn, "GET", "/orders/7", token)); got != http.StatusOK {
		t.Errorf("while it stops: got %d, want 200", got)
	}
	if got := health(t, conn); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health: got %v, want NOT_SERVING", got)
	}
	<-r.ended
}

// TestBody announces a body that never comes. The answer does not wait for it.
func TestBody(t *testing.T) {
	r := start(t, must.Get(servetest.Dev(t).Issuer()).String(), orders).ready(t)
	conn := must.Get(net.Dial("tcp", r.HTTPAddr()))
	defer func() { _ = conn.Close() }()
	must.Succeed(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
	must.Get(conn.Write([]byte("POST /authorize HTTP/1.1\r\nHost: guard\r\nContent-Length: 1000\r\nX-Original-Method: GET\r\n" +
		"X-Original-Uri: /health\r\nX-Original-Host: orders.example.com\r\nX-Original-Proto: https\r\n\r\n")))
	line := make([]byte, len("HTTP/1.1 200"))
	if _, err := conn.Read(line); err != nil || string(line) != "HTTP/1.1 200" {
		t.Errorf("got %q and %v, want HTTP/1.1 200", line, err)
	}
}
