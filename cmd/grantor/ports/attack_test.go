package ports_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/grantorhq/grantor/cmd/grantor/serve"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

var attacking = flag.Duration("attack", time.Second, "how long each attack of TestAttacks lasts")

// TestAttacks attacks each port in each way, from another process, while other clients request tokens: all get theirs,
// and memory is bounded. The effect on latency is logged; it is meaningful with -attack 10s on an idle machine.
func TestAttacks(t *testing.T) {
	ours := servetest.NewAuthority(t)
	cert, key := ours.WriteLeaf(t, t.TempDir(), 2)
	secure := &tls.Config{RootCAs: ours.Pool(), MinVersion: tls.VersionTLS12}
	t.Cleanup(serve.TuneGC(serve.DefaultGarbage)) // as grantor serve does
	for _, name := range slices.Sorted(maps.Keys(attacks)) {
		for _, wire := range slices.Sorted(maps.Keys(attacks[name])) {
			t.Run(name+"/"+wire, func(t *testing.T) {
				if name == "idle connections" { // over TLS they would be ten thousand handshakes
					testAttack(t, servetest.Dev(t, "--max-connections=20000"), nil, name, wire)
					return
				}
				testAttack(t, servetest.Dev(t, "--tls-cert-file="+cert, "--tls-key-file="+key), secure, name, wire)
			})
		}
	}
}

func testAttack(t *testing.T, r *servetest.Replica, secure *tls.Config, name, wire string) {
	target := r.HTTPAddr()
	if wire == onGRPC {
		target = r.GRPCAddr()
	}
	clients := newClients(t, r, secure)
	clients.measure(t, 100*time.Millisecond) // the first calls open connections
	runtime.GC()
	before, calm := memoryInUse(), clients.measure(t, *attacking)
	begin(t, name, wire, target)
	attacked, most := clients.measure(t, *attacking), memoryInUse()
	bound := uint64(192 << 20)
	if name == "idle connections" {
		bound = 10_000 * (64 << 10)
	}
	if most > before+bound {
		t.Errorf("memory grew from %d to %d MiB", before>>20, most>>20)
	}
	open, refused := r.Connections()
	t.Logf("99th percentile %s, attacked %s (%.1f times); median %s, %s; memory %d MiB, attacked %d MiB; connections %d, refused %d",
		percentile(calm, 99), percentile(attacked, 99), float64(percentile(attacked, 99))/float64(percentile(calm, 99)),
		percentile(calm, 50), percentile(attacked, 50), before>>20, most>>20,
		open, refused)
}

// begin runs an attack in another process until the test ends, and returns once it is under way.
func begin(t *testing.T, name, wire, target string) {
	t.Helper()
	hostile := exec.Command(os.Args[0])
	hostile.Env = append(os.Environ(), "ATTACK="+name, "ATTACK_WIRE="+wire, "ATTACK_TARGET="+target)
	hostile.Stderr = os.Stderr
	stdin, err := hostile.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := hostile.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := hostile.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = hostile.Process.Kill()
		_ = hostile.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the attack says %q, %v", line, err)
	}
}

// clients request tokens over both transports.
type clients struct {
	web    *http.Client
	url    string
	tokens grantorv1.TokenServiceClient
}

func newClients(t *testing.T, r *servetest.Replica, secure *tls.Config) *clients {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: secure, ForceAttemptHTTP2: true}
	c := &clients{web: &http.Client{Transport: transport}, url: r.URL("/connect/token")}
	proof := insecure.NewCredentials()
	if secure != nil {
		c.url, proof = strings.Replace(c.url, "http:", "https:", 1), credentials.NewTLS(secure)
	}
	conn, err := grpc.NewClient(r.GRPCAddr(), grpc.WithTransportCredentials(proof))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		transport.CloseIdleConnections()
	})
	c.tokens = grantorv1.NewTokenServiceClient(conn)
	return c
}

// measure requests tokens over both transports, a hundred times a second each, and returns the sorted latencies.
func (c *clients) measure(t *testing.T, d time.Duration) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var took []time.Duration
	for ctx.Err() == nil {
		for _, ask := range []func(context.Context) error{c.rest, c.grpc} {
			began := time.Now()
			if err := ask(t.Context()); err != nil {
				t.Fatalf("another caller: %v", err)
			}
			took = append(took, time.Since(began))
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	slices.Sort(took)
	return took
}

func (c *clients) rest(ctx context.Context) error {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"background-service"}, "client_secret": {"service-secret-here"}, "scope": {"api1"},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := c.web.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s", answer.Status, body)
	}
	return err
}

func (c *clients) grpc(ctx context.Context) error {
	_, err := c.tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{
		GrantType: "client_credentials", ClientId: "background-service", ClientSecret: "service-secret-here", Scope: "api1",
	})
	return err
}

func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[min(len(sorted)*p/100, len(sorted)-1)].Round(10 * time.Microsecond)
}

// memoryInUse returns the memory in use, in bytes.
func memoryInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
