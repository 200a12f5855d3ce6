package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/template"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// restarts is short by default, so that this test runs with all others; make faults runs a longer one.
var restarts = flag.Duration("restarts", 15*time.Second, "how long TestRollingRestart restarts replicas")

// stop stops the process as SIGTERM does, and expects it to succeed.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.command.Wait(); err != nil {
		t.Errorf("a replica that was stopped ended with %v", err)
	}
}

// station has the addresses of a replica, whenever it runs.
type station struct{ rest, grpc, ops string }

func newStation(t testing.TB) station {
	return station{freeport.Address(t), freeport.Address(t), freeport.Address(t)}
}

// Rest, GRPC and Ops are what haproxy.cfg names.
func (s station) Rest() string { return s.rest }

func (s station) GRPC() string { return s.grpc }

func (s station) Ops() string { _, port, _ := net.SplitHostPort(s.ops); return port }

// TestRollingRestart restarts two replicas in turn, every five seconds, while clients of every kind call and follow
// them, some through a load balancer and some directly. No call fails.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	binary := buildGrantor(t)
	redis := redistest.New(t)
	ours := servetest.NewAuthority(t)
	cert, key := ours.WriteLeaf(t, t.TempDir(), 2)
	stations := [2]station{newStation(t), newStation(t)}
	front := struct {
		Rest, GRPC, Web, CA string
		A, B                station
	}{freeport.Address(t), freeport.Address(t), freeport.Address(t), servetest.WriteFile(t, "ca.pem", string(ours.PEM)), stations[0], stations[1]}
	_, port, _ := net.SplitHostPort(front.Rest)
	_, grpcPort, _ := net.SplitHostPort(front.GRPC)
	issuer := "https://localhost:" + port
	args := append(servetest.Production(redis, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)), "--issuer="+issuer,
		"--grpc-endpoint=localhost:"+grpcPort, "--tls-cert-file="+cert, "--tls-key-file="+key, "--shutdown-delay=2s",
		"--connection-age=3s", "--log-level=warn")
	start := func(at station) *process {
		return startProcess(t, binary, at.ops, append([]string{"serve", "--http-listen=" + at.rest, "--grpc-listen=" + at.grpc}, args...)...)
	}
	replicas := [2]*process{start(stations[0]), start(stations[1])}
	haproxy(t, front)
	must.Eventually(t, "reached through haproxy", func() bool {
		answer, err := http.Get("http://" + front.Web + "/.well-known/jwks.json")
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})

	trust := &tls.Config{RootCAs: ours.Pool(), MinVersion: tls.VersionTLS12}
	// The addresses that DNS would return for the replicas.
	names := manual.NewBuilderWithScheme("replicas")
	names.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: stations[0].grpc}, {Addr: stations[1].grpc}}})
	conn, err := grpc.NewClient("replicas:///localhost", attach.IssuerDialOptions(
		grpc.WithResolvers(names), grpc.WithTransportCredentials(credentials.NewTLS(trust)))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client := &http.Client{Transport: servetest.Transport(t, trust, true)}
	apis := map[string]*guarded{
		"by default":    newGuarded(t, issuer, verify.HTTPClient(client), verify.RefuseWhenStale()),
		"with OverGRPC": newGuarded(t, issuer, verify.OverGRPC(conn), verify.RefuseWhenStale()),
	}
	admitted := func(token string) error {
		for name, api := range apis {
			if got := api.status(token); got != http.StatusOK {
				return fmt.Errorf("the API that verifies %s answered %d", name, got)
			}
		}
		return nil
	}

	l := &load{test: t, calls: make(map[string]*atomic.Int64)}
	attached := func(issuer string, options ...attach.Option) func(context.Context) error {
		return func(ctx context.Context) error {
			// A new source each time: its first token has no cached one to fall back on.
			token, err := attach.ClientCredentials(issuer, "background-service", "service-secret-here", options...).TokenContext(ctx)
			if err != nil {
				return err
			}
			return admitted(token.AccessToken)
		}
	}
	l.run("attach over gRPC", attached("", attach.OverGRPC(conn)))
	l.run("attach over HTTP", attached(issuer, attach.HTTPClient(client)))
	for name, to := range map[string]struct {
		base   string
		client *http.Client
	}{
		"HTTP/2, TLS passed on":   {issuer, client},
		"HTTP/1.1, TLS passed on": {issuer, &http.Client{Transport: servetest.Transport(t, trust, false)}},
		"HTTP/1.1, TLS ended":     {"http://" + front.Web, &http.Client{Transport: servetest.Transport(t, trust, false)}},
	} {
		l.run("x/oauth2 over "+name, func(ctx context.Context) error {
			config := &clientcredentials.Config{
				ClientID: "background-service", ClientSecret: "service-secret-here", TokenURL: to.base + "/connect/token",
			}
			token, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, to.client))
			if err != nil {
				return err
			}
			return admitted(token.AccessToken)
		})
		l.run("net/http over "+name, func(ctx context.Context) error { return issueAndRevokeByForm(ctx, to.client, to.base) })
	}
	tokens := grantorv1.NewTokenServiceClient(conn)
	l.run("gRPC", func(ctx context.Context) error {
		issued, err := tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{
			GrantType: "client_credentials", ClientId: "background-service", ClientSecret: "service-secret-here",
		})
		if err != nil {
			return err
		}
		answer, err := tokens.IntrospectToken(ctx, &grantorv1.IntrospectTokenRequest{
			ClientId: "orders-api", ClientSecret: "orders-api-secret", Token: issued.GetAccessToken(),
		})
		if err == nil && !answer.GetActive() {
			err = errors.New("a good token is not active")
		}
		return err
	})

	turns := 0
	again := time.NewTicker(5 * time.Second)
	defer again.Stop()
	for began := time.Now(); time.Since(began) < *restarts; turns++ {
		<-again.C
		replicas[turns%2].stop(t)
		replicas[turns%2] = start(stations[turns%2])
	}
	l.end()
	t.Logf("%d restarts", turns)

	// The services that followed throughout refuse what is revoked now.
	source := attach.ClientCredentials("", "background-service", "service-secret-here", attach.OverGRPC(conn))
	token, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.RevokeToken(t.Context(), &grantorv1.RevokeTokenRequest{
		ClientId: "background-service", ClientSecret: "service-secret-here", Token: token.AccessToken,
	}); err != nil {
		t.Fatal(err)
	}
	for name, api := range apis {
		must.Eventually(t, "refused by the API that verifies "+name, func() bool { return api.status(token.AccessToken) == http.StatusUnauthorized })
		if got := api.Feed().StaleCalls; got != 0 {
			t.Errorf("the API that verifies %s: %d calls met stale knowledge", name, got)
		}
	}
}

// haproxy runs a load balancer until the test ends.
func haproxy(t testing.TB, front any) {
	t.Helper()
	var config strings.Builder
	if err := template.Must(template.ParseFiles("testdata/haproxy.cfg")).Execute(&config, front); err != nil {
		t.Fatal(err)
	}
	runHAProxy(t, config.String())
}

// runHAProxy runs HAProxy with a configuration until the test ends.
func runHAProxy(t testing.TB, config string) {
	t.Helper()
	var log must.Buffer
	command := exec.Command("haproxy", "-db", "-f", servetest.WriteFile(t, "haproxy.cfg", config))
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatalf("%v: make test installs it", err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM) // SIGINT is ignored in the background of a shell
		_ = command.Wait()
		if t.Failed() {
			t.Logf("the log of haproxy:\n%s", log.String())
		}
	})
}

// issueAndRevokeByForm issues a token and revokes it, as a client without a library does.
func issueAndRevokeByForm(ctx context.Context, client *http.Client, base string) error {
	post := func(path string, form url.Values) ([]byte, error) {
		form.Set("client_id", "background-service")
		form.Set("client_secret", "service-secret-here")
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err == nil && answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s %s", path, answer.Status, body)
		}
		return body, err
	}
	body, err := post("/connect/token", url.Values{"grant_type": {"client_credentials"}})
	var issued struct {
		Token string `json:"access_token"`
	}
	if err == nil {
		err = json.Unmarshal(body, &issued)
	}
	if err == nil {
		_, err = post("/connect/revoke", url.Values{"token": {issued.Token}})
	}
	return err
}

// load makes calls of several kinds until it ends. A call that fails fails the test.
type load struct {
	test    *testing.T
	calls   map[string]*atomic.Int64
	running sync.WaitGroup
	ended   atomic.Bool
}

// run runs four clients of a kind.
func (l *load) run(kind string, call func(ctx context.Context) error) {
	count := new(atomic.Int64)
	l.calls[kind] = count
	for range 4 {
		l.running.Go(func() {
			again := time.NewTicker(50 * time.Millisecond)
			defer again.Stop()
			for ; !l.ended.Load(); <-again.C {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				err := call(ctx)
				cancel()
				if err != nil {
					l.test.Errorf("%s: %s: %v", time.Now().Format("05.000"), kind, err)
				}
				count.Add(1)
			}
		})
	}
	l.test.Cleanup(l.end)
}

// end waits for the calls in flight and logs how many there were.
func (l *load) end() {
	if l.ended.Swap(true) {
		return
	}
	l.running.Wait()
	for kind, count := range l.calls {
		l.test.Logf("%s: %d calls", kind, count.Load())
		if count.Load() == 0 {
			l.test.Errorf("%s: no call was made", kind)
		}
	}
}
