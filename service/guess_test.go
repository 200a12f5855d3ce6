package service_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

var guessing = flag.Duration("guessing", 3*time.Second, "how long TestGuessing guesses")

// chosen is a secret that a person has chosen.
const chosen = "correct horse battery staple"

// from opens a connection to the replica from the loopback address source.
func (r *replica) from(t testing.TB, source string) grantorv1.TokenServiceClient {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := grpc.NewClient(r.conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", strings.TrimPrefix(address, "passthrough:///"))
		}))
	must.Succeed(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return grantorv1.NewTokenServiceClient(conn)
}

func issueWith(ctx context.Context, c grantorv1.TokenServiceClient, id, secret string) error {
	_, err := c.IssueToken(ctx, &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: id, ClientSecret: secret,
	})
	return err
}

// guesses counts guesses by their outcome.
type guesses struct {
	sent, checked, limited, other atomic.Int64

	last atomic.Pointer[error] // of other
}

func (g *guesses) count(err error) {
	switch status.Code(err) {
	case codes.Unauthenticated:
		g.checked.Add(1)
	case codes.ResourceExhausted:
		g.limited.Add(1)
	default:
		g.other.Add(1)
		g.last.Store(&err)
	}
}

// TestGuessing guesses a thousand secrets per second, of every kind and for every kind of client, at two replicas. No guess
// is accepted, a client with the right secret is never refused, and the memory that the guesses take is bounded.
func TestGuessing(t *testing.T) {
	for _, sources := range []int{1, 100} {
		t.Run(fmt.Sprint("from ", sources), func(t *testing.T) { testGuessing(t, sources) })
	}
}

func testGuessing(t *testing.T, sources int) {
	const perClient, perSource, perSecond = 10, 100, 1000
	c := newCluster(t)
	c.limits = limit.Limits{FailuresPerClient: perClient, FailuresPerSource: perSource}
	replicas := []*replica{c.start(t), c.start(t)}
	m := manifest()
	person := m.Clients[0]
	person.ID, person.Secret = must.Get(oauth.ParseClientID("person")), chosen
	m.Clients = append(m.Clients, person)
	replicas[0].apply(t, m)
	must.Succeed(t, replicas[1].CatchUp(withTimeout(t, timeout)))
	for _, r := range replicas {
		must.Succeed(t, issueWith(t.Context(), r.tokens, "person", chosen)) // remembered by this replica from now on
	}
	var attackers []grantorv1.TokenServiceClient
	for i := range sources {
		for _, r := range replicas {
			attackers = append(attackers, r.from(t, fmt.Sprintf("127.0.1.%d", i+1)))
		}
	}
	neighbour := replicas[0].from(t, "127.0.1.1") // has the right secret and the address of an attacker

	ctx, cancel := context.WithTimeout(t.Context(), *guessing)
	defer cancel()
	began := time.Now()
	var running sync.WaitGroup
	running.Go(func() { authenticate(ctx, t, replicas, neighbour) })
	var got guesses
	guess(t, ctx.Done(), &got, &running, attackers, perSecond)
	running.Wait()

	t.Logf("%d sent, %d checked, %d refused unchecked or after one too many", got.sent.Load(), got.checked.Load(), got.limited.Load())
	if n := got.other.Load(); n > 0 {
		t.Errorf("%d guesses were not refused, one of them with %v", n, *got.last.Load())
	}
	// A replica learns the counts of the others 200 ms late, and the window slides in steps.
	minutes := int64(time.Since(began)/time.Minute) + 2
	if limit := minutes * int64(len(replicas)*sources) * perSource; got.checked.Load() > limit {
		t.Errorf("%d guesses were checked, want at most %d", got.checked.Load(), limit)
	}
	if got.limited.Load() == 0 {
		t.Error("no guess reached a limit")
	}
	expectBounded(t, c, sources)
}

// guess sends perSecond guesses per second, from each attacker in turn, until done is closed.
func guess(
	t *testing.T, done <-chan struct{}, got *guesses, running *sync.WaitGroup, attackers []grantorv1.TokenServiceClient, perSecond int,
) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		for got.sent.Load() < int64(time.Since(began).Seconds()*float64(perSecond)) {
			n := got.sent.Add(1)
			id, guessed := "person", fmt.Sprint("guess ", n)
			switch n % 10 {
			case 0:
				id, guessed = "svc", clientsecret.New()
			case 1:
				id = fmt.Sprint("nobody ", n) // no client has such an id
			case 2:
				id = fmt.Sprint("nobody-", n)
			}
			attacker := attackers[int(n)%len(attackers)]
			running.Go(func() { got.count(issueWith(t.Context(), attacker, id, guessed)) })
		}
	}
}

// authenticate requests tokens with the right secrets until ctx ends. No request may be refused.
func authenticate(ctx context.Context, t *testing.T, replicas []*replica, neighbour grantorv1.TokenServiceClient) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	requests := 0
	for ; ctx.Err() == nil; requests++ {
		at := replicas[requests%len(replicas)]
		for name, err := range map[string]error{
			"generated secret": issueWith(t.Context(), at.tokens, "svc", secret),
			"chosen secret":    issueWith(t.Context(), at.tokens, "person", chosen),
			"generated secret, address of an attacker": issueWith(t.Context(), neighbour, "svc", secret),
			"chosen secret, remembered, that address":  issueWith(t.Context(), neighbour, "person", chosen),
		} {
			if err != nil {
				t.Errorf("%s: got %v", name, err)
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	if requests == 0 {
		t.Error("no request was sent")
	}
}

// expectBounded checks what the guesses have left in the Redis and in memory.
func expectBounded(t *testing.T, c *cluster, sources int) {
	t.Helper()
	client := c.redis.Client()
	windows, err := client.Keys(t.Context(), "grantor:{grantor}:limit:*").Result()
	must.Succeed(t, err)
	if limit := 2 + int(*guessing/time.Minute); len(windows) == 0 || len(windows) > min(limit, 4) {
		t.Errorf("got the windows %q", windows)
	}
	for _, window := range windows {
		fields, err := client.HLen(t.Context(), window).Result()
		must.Succeed(t, err)
		// A failure counts for a source, and for a source and a client; a source fails a hundred times per replica.
		if limit := int64(sources) * (1 + 2*100); fields > limit {
			t.Errorf("%s has %d fields, want at most %d", window, fields, limit)
		}
		left, err := client.TTL(t.Context(), window).Result()
		if err != nil || left <= 0 || left > 2*time.Minute {
			t.Errorf("%s is kept for %s, %v", window, left, err)
		}
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	const maxHeap = 256 << 20 // a slow hash takes 19 MiB
	if memory.HeapAlloc > maxHeap {
		t.Errorf("the heap has %d bytes, want at most %d", memory.HeapAlloc, maxHeap)
	}
	t.Logf("heap %d KiB", memory.HeapAlloc>>10)
}
