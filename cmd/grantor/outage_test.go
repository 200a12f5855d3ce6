package main

import (
	"context"
	"crypto/tls"
	"flag"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// outage is short by default, so that these tests run with all others; make faults runs longer ones.
var outage = flag.Duration("outage", 5*time.Second, "how long the outage lasts in the tests TestOutage...")

// revokeFor revokes one new token after the other for a duration, at least one, and calls look in between.
func revokeFor(t *testing.T, r *servetest.Replica, d time.Duration, look func(token string, since time.Duration)) []string {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var tokens []string
	for began := time.Now(); len(tokens) == 0 || time.Since(began) < d; <-tick.C {
		token := r.Token(t)
		revoke(t, r, token)
		tokens = append(tokens, token)
		look(token, time.Since(began))
	}
	return tokens
}

// expectCaughtUp waits until the services know exactly the revocations of the tokens.
func expectCaughtUp(t *testing.T, services map[string]*guarded, tokens []string, kept string) {
	t.Helper()
	began := time.Now()
	for name, service := range services {
		must.Eventually(t, name+" follows again", func() bool { return service.Feed().Live >= len(tokens) && service.Feed().Age < 3*time.Second })
		t.Logf("%s: knew all after %s", name, time.Since(began))
		if got := service.Feed().Live; got != len(tokens) {
			t.Errorf("%s: %d revocations in effect, want %d", name, got, len(tokens))
		}
		for i, token := range tokens {
			if got := service.status(token); got != http.StatusUnauthorized {
				t.Errorf("%s: revoked token %d: got %d, want 401", name, i, got)
			}
		}
		if got := service.status(kept); got != http.StatusOK {
			t.Errorf("%s: a good token: got %d, want 200", name, got)
		}
	}
}

// TestOutageOfNetwork cuts services off from the issuer that they follow, in both ways in which that happens, and
// revokes tokens during the outage. The services report their staleness, and after the outage they have missed nothing.
func TestOutageOfNetwork(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]state{"reset": torn, "black hole": silent} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(name+", "+scheme, func(t *testing.T) {
				t.Parallel()
				testOutageOfNetwork(t, cut, scheme)
			})
		}
	}
}

func testOutageOfNetwork(t *testing.T, cut state, scheme string) {
	redis := redistest.New(t)
	rest, rpc := newWire(t), newWire(t)
	issuer := scheme + "://" + rest.address
	args := append(servetest.Production(redis, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)), "--issuer="+issuer)
	near := servetest.Start(t, args...)
	args = append(args, "--grpc-endpoint="+rpc.address)
	transport, security := http.DefaultTransport.(*http.Transport).Clone(), insecure.NewCredentials()
	if scheme == "https" {
		ours := servetest.NewAuthority(t)
		cert, key := ours.WriteLeaf(t, t.TempDir(), 2)
		args = append(args, "--tls-cert-file="+cert, "--tls-key-file="+key)
		config := &tls.Config{RootCAs: ours.Pool(), MinVersion: tls.VersionTLS12}
		transport.TLSClientConfig, security = config, credentials.NewTLS(config)
	}
	far := servetest.Start(t, args...)
	rest.connect(t, far.HTTPAddr())
	rpc.connect(t, far.GRPCAddr())
	// A connection that the caller provides is not monitored by the verifier.
	conn, err := grpc.NewClient(rpc.address, grpc.WithTransportCredentials(security),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	limit := *outage / 2
	over := verify.HTTPClient(&http.Client{Transport: transport})
	lenient := newGuarded(t, issuer, over, verify.MaxStaleness(limit))
	strict := newGuarded(t, issuer, over, verify.MaxStaleness(limit), verify.RefuseWhenStale())
	given := newGuarded(t, issuer, verify.OverGRPC(conn), verify.MaxStaleness(limit))
	services := map[string]*guarded{"by default": lenient, "with RefuseWhenStale": strict, "with OverGRPC": given}

	caller := attach.ClientCredentials(issuer, "background-service", "service-secret-here",
		attach.HTTPClient(&http.Client{Transport: transport.Clone()}), attach.TokenURL(issuer+"/connect/token"))
	first, err := caller.Token()
	if err != nil {
		t.Fatal(err)
	}

	kept := near.Token(t)
	tokens := revokeFor(t, near, 0, func(string, time.Duration) {})
	expectCaughtUp(t, services, tokens, kept)
	tokens = append(tokens, revokeFor(t, near, 0, func(string, time.Duration) {})...) // too late for any service to receive
	rest.become(cut)
	rpc.become(cut)
	began := time.Now()
	caller.Drop(first.AccessToken)
	renew := func() (renewed bool) {
		// The request continues after its client has gone.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		token, err := caller.TokenContext(ctx)
		return err == nil && token.AccessToken != first.AccessToken
	}
	tokens = append(tokens, revokeFor(t, near, *outage, func(token string, since time.Duration) {
		if renew() {
			t.Errorf("%s into the outage: there is a new token", since)
		}
		for name, service := range services {
			// A message in flight may have arrived later, and was not always current when it arrived.
			if got := service.Feed(); !got.Followed || !got.Complete || got.Age < since-time.Second || got.Age > time.Since(began)+5*time.Second {
				t.Errorf("%s: %s into the outage: got %+v", name, since, got)
			}
			got := service.status(token)
			switch {
			case service == strict && since > limit+time.Second && got != http.StatusServiceUnavailable:
				t.Errorf("%s: %s into the outage: got %d, want 503", name, since, got)
			case service != strict && got != http.StatusOK:
				t.Errorf("%s: %s into the outage: got %d, want it to go on", name, since, got)
			}
		}
	})...)
	for name, service := range services {
		if service.Feed().StaleCalls == 0 {
			t.Errorf("%s: no call was counted as stale", name)
		}
	}
	rest.become(whole)
	rpc.become(whole)
	expectCaughtUp(t, services, tokens, kept)
	must.Eventually(t, "a new token for the caller", renew)
}

// watcher follows the revocations as a client without our packages does: it resumes at its last cursor.
type watcher struct {
	mu   sync.Mutex
	seen map[string]int
}

func watch(t testing.TB, conn *grpc.ClientConn) *watcher {
	w := &watcher{seen: make(map[string]int)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		again := time.NewTicker(50 * time.Millisecond)
		defer again.Stop()
		for cursor := ""; ctx.Err() == nil; <-again.C {
			conn.ResetConnectBackoff()
			stream, err := grantorv1.NewRevocationServiceClient(conn).WatchRevocations(ctx, &grantorv1.WatchRevocationsRequest{Cursor: cursor})
			for err == nil {
				var answer *grantorv1.WatchRevocationsResponse
				if answer, err = stream.Recv(); err == nil {
					w.take(answer)
					cursor = answer.GetCursor()
				}
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return w
}

func (w *watcher) take(answer *grantorv1.WatchRevocationsResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, token := range answer.GetTokens() {
		w.seen[token.GetJti()]++
	}
}

// count returns the number of revocations received.
func (w *watcher) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen)
}

// TestOutageOfReplica stops the replica that services follow and starts it again at the same address, at once and after
// the outage, while another one revokes. Nothing is missed.
func TestOutageOfReplica(t *testing.T) {
	t.Parallel()
	redis := redistest.New(t)
	rest, rpc := freeport.Address(t), freeport.Address(t)
	issuer := "http://" + rest
	args := append(servetest.Production(redis, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)), "--issuer="+issuer)
	other := servetest.Start(t, args...)
	args = append(args, "--http-listen="+rest, "--grpc-listen="+rpc)
	followed := servetest.Start(t, args...)
	services := map[string]*guarded{
		"by default":    newGuarded(t, issuer, verify.MaxStaleness(*outage/2)),
		"with OverGRPC": newGuarded(t, issuer, verify.MaxStaleness(*outage/2), verify.OverGRPC(servetest.Dial(t, rpc))),
	}
	plain := watch(t, servetest.Dial(t, rpc))
	kept := other.Token(t)
	var tokens []string
	for _, away := range []time.Duration{0, *outage} {
		tokens = append(tokens, revokeFor(t, other, 0, func(string, time.Duration) {})...)
		followed.Stop()
		<-followed.Ended
		tokens = append(tokens, revokeFor(t, other, away, func(token string, since time.Duration) {
			for name, service := range services {
				if got := service.Feed(); !got.Complete || got.Age < since-time.Second {
					t.Errorf("%s: %s into the outage: got %+v", name, since, got)
				}
				if got := service.status(token); got != http.StatusOK {
					t.Errorf("%s: %s into the outage: got %d, want it to go on", name, since, got)
				}
			}
		})...)
		followed = servetest.Start(t, args...)
		expectCaughtUp(t, services, tokens, kept)
		must.Eventually(t, "telling the watcher everything", func() bool { return plain.count() >= len(tokens) })
		if got := plain.count(); got != len(tokens) {
			t.Errorf("the watcher received %d revocations, want %d", got, len(tokens))
		}
	}
}

// process is a replica that runs the real binary.
type process struct {
	command *exec.Cmd
	log     must.Buffer
}

// startProcess runs the binary and returns once it is ready.
func startProcess(t testing.TB, binary, ops string, args ...string) *process {
	t.Helper()
	p := &process{command: exec.Command(binary, append(args, "--ops-listen="+ops)...)}
	p.command.Stderr = &p.log
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of a killed replica:\n%s", p.log.String())
		}
	})
	must.Eventually(t, "ready", func() bool {
		answer, err := http.Get("http://" + ops + "/readyz")
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	return p
}

// kill ends the process at once, as kill -9 does.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

// issueAndRevoke issues tokens at one replica and revokes them at another, concurrently, until the latter is gone. It
// returns the tokens whose revocation was acknowledged, and calls each for every one of them.
func issueAndRevoke(t *testing.T, issuer, revoker grantorv1.TokenServiceClient, each func()) []string {
	var mu sync.Mutex
	var acknowledged []string
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for {
				issued, err := issuer.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
					GrantType: "client_credentials", ClientId: "background-service", ClientSecret: "service-secret-here",
				})
				if err != nil {
					t.Errorf("issuing: %v", err)
					return
				}
				if _, err := revoker.RevokeToken(t.Context(), &grantorv1.RevokeTokenRequest{
					ClientId: "background-service", ClientSecret: "service-secret-here", Token: issued.GetAccessToken(),
				}); err != nil {
					if status.Code(err) != codes.Unavailable {
						t.Errorf("revoking at a killed replica: %v", err)
					}
					return
				}
				mu.Lock()
				acknowledged = append(acknowledged, issued.GetAccessToken())
				mu.Unlock()
				each()
			}
		})
	}
	workers.Wait()
	return acknowledged
}

// TestOutageByKill repeatedly kills a replica while it revokes, for the duration of the outage. What it acknowledged is
// revoked at the other replica, and at a service that follows the killed one.
func TestOutageByKill(t *testing.T) {
	t.Parallel()
	binary := buildGrantor(t)
	redis := redistest.New(t)
	args := append(servetest.Production(redis, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)), "--issuer=http://localhost:1")
	survivor := servetest.Start(t, args...)
	rpc, ops := freeport.Address(t), freeport.Address(t)
	start := func() *process {
		return startProcess(t, binary, ops, append([]string{"serve", "--http-listen=127.0.0.1:0", "--grpc-listen=" + rpc}, args...)...)
	}
	victim := start()
	api := newGuarded(t, "http://localhost:1", verify.OverGRPC(servetest.Dial(t, rpc)))
	issuer := grantorv1.NewTokenServiceClient(servetest.Dial(t, survivor.GRPCAddr()))
	kept := survivor.Token(t)
	var tokens []string
	kills := 0
	for began := time.Now(); kills == 0 || time.Since(began) < *outage; kills++ {
		if kills > 0 {
			victim = start()
		}
		var done atomic.Int32
		enough := int32(20 + rand.N(100))
		acknowledged := issueAndRevoke(t, issuer, grantorv1.NewTokenServiceClient(servetest.Dial(t, rpc)), func() {
			if done.Add(1) == enough {
				victim.kill()
			}
		})
		if err := survivor.Service().CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, token := range acknowledged {
			answer, err := issuer.IntrospectToken(t.Context(), &grantorv1.IntrospectTokenRequest{
				ClientId: "orders-api", ClientSecret: "orders-api-secret", Token: token,
			})
			if err != nil || answer.GetActive() {
				t.Errorf("a revocation that was acknowledged is lost: got %v, %v", answer, err)
			}
		}
		tokens = append(tokens, acknowledged...)
	}
	t.Logf("%d revocations were acknowledged by a replica that was killed %d times", len(tokens), kills)
	start()
	for _, token := range tokens {
		must.Eventually(t, "refusing a revoked token in the service that follows", func() bool { return api.status(token) == http.StatusUnauthorized })
	}
	if got := api.status(kept); got != http.StatusOK {
		t.Errorf("a good token: got %d, want 200", got)
	}
}
