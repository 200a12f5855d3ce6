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

	"github.com/grantorhq/grantor/service/must"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/oauth"
)

var guessing = flag.Duration("guessing", 3*time.Second, "how long TestGuessing guesses")

// chosen is a secret that a person chose.
const chosen = "correct horse battery staple"

// from opens a connection to the replica from an address of its own on loopback.
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

// guesses counts what became of them.
type guesses struct{ sent, checked, limited, other atomic.Int64 }

func (g *guesses) note(err error) {
	switch status.Code(err) {
	case codes.Unauthenticated:
		g.checked.Add(1)
	case codes.ResourceExhausted:
		g.limited.Add(1)
	case codes.Canceled, codes.DeadlineExceeded: // at the end of the test
	default:
		g.other.Add(1)
	}
}

// TestGuessing guesses a thousand secrets per second, of every kind and for every kind of client, at two replicas at once.
// None gets in, who has the right secret is never refused, and what is kept of it all is bounded.
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
	must.Succeed(t, replicas[1].CatchUp(within(t, patience)))
	for _, r := range replicas {
		must.Succeed(t, issueWith(t.Context(), r.tokens, "person", chosen)) // it is known here from now on
	}
	var attackers []grantorv1.TokenServiceClient
	for i := range sources {
		for _, r := range replicas {
			attackers = append(attackers, r.from(t, fmt.Sprintf("127.0.1.%d", i+1)))
		}
	}
	neighbour := replicas[0].from(t, "127.0.1.1") // has the right secret, and the address of a guesser

	ctx, cancel := context.WithTimeout(t.Context(), *guessing)
	defer cancel()
	began := time.Now()
	var running sync.WaitGroup
	running.Go(func() { trueClients(ctx, t, replicas, neighbour) })
	var told guesses
	guess(ctx, &told, &running, attackers, perSecond)
	running.Wait()

	t.Logf("%d sent, %d checked, %d refused unchecked or after one too many", told.sent.Load(), told.checked.Load(), told.limited.Load())
	if n := told.other.Load(); n > 0 {
		t.Errorf("%d guesses got another answer than a refusal", n)
	}
	// The sum of all replicas is known 200 ms late, and a window slides with some unevenness.
	minutes := int64(time.Since(began)/time.Minute) + 2
	if most := minutes * int64(len(replicas)*sources) * perSource; told.checked.Load() > most {
		t.Errorf("%d guesses were checked, want %d at the most", told.checked.Load(), most)
	}
	if told.limited.Load() == 0 {
		t.Error("nobody met a limit")
	}
	expectBounded(t, c, sources)
}

// guess sends guesses from each of the attackers in turn until ctx ends, so many per second.
func guess(ctx context.Context, told *guesses, running *sync.WaitGroup, attackers []grantorv1.TokenServiceClient, perSecond int) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for told.sent.Load() < int64(time.Since(began).Seconds()*float64(perSecond)) {
			n := told.sent.Add(1)
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
			running.Go(func() { told.note(issueWith(ctx, attacker, id, guessed)) })
		}
	}
}

// trueClients ask with the right secrets until ctx ends. None may be refused.
func trueClients(ctx context.Context, t *testing.T, replicas []*replica, neighbour grantorv1.TokenServiceClient) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	asked := 0
	for ; ctx.Err() == nil; asked++ {
		at := replicas[asked%len(replicas)]
		for who, err := range map[string]error{
			"generated secret":                       issueWith(t.Context(), at.tokens, "svc", secret),
			"chosen secret":                          issueWith(t.Context(), at.tokens, "person", chosen),
			"generated secret, address of a guesser": issueWith(t.Context(), neighbour, "svc", secret),
			"chosen secret, known, and that address": issueWith(t.Context(), neighbour, "person", chosen),
		} {
			if err != nil {
				t.Errorf("%s: got %v", who, err)
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	if asked == 0 {
		t.Error("no true client asked")
	}
}

// expectBounded checks what is left in the Redis and in memory.
func expectBounded(t *testing.T, c *cluster, sources int) {
	t.Helper()
	client := c.redis.Client()
	windows, err := client.Keys(t.Context(), "grantor:{grantor}:limit:*").Result()
	must.Succeed(t, err)
	if most := 2 + int(*guessing/time.Minute); len(windows) == 0 || len(windows) > min(most, 4) {
		t.Errorf("there are the windows %q", windows)
	}
	for _, window := range windows {
		fields, err := client.HLen(t.Context(), window).Result()
		must.Succeed(t, err)
		// A failure counts for a source, and for a source and a client; a source fails a hundred times per replica.
		if most := int64(sources) * (1 + 2*100); fields > most {
			t.Errorf("%s has %d fields, want %d at the most", window, fields, most)
		}
		left, err := client.TTL(t.Context(), window).Result()
		if err != nil || left <= 0 || left > 2*time.Minute {
			t.Errorf("%s is kept for %s, %v", window, left, err)
		}
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	const most = 256 << 20 // slow hashes under way have 19 MiB each
	if memory.HeapAlloc > most {
		t.Errorf("the heap has %d bytes", memory.HeapAlloc)
	}
	t.Logf("heap %d KiB", memory.HeapAlloc>>10)
}
