package service_test

import (
	"context"
	"flag"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// rotation is how long TestRotationUnderLoad rotates secrets and keys.
var rotation = flag.Duration("rotation", 5*time.Second, "how long TestRotationUnderLoad runs")

// fastClock returns a clock that runs 30 times as fast, so that keys become active while a test runs.
func fastClock() func() time.Time {
	start := time.Now()
	return func() time.Time { return start.Add(30 * time.Since(start)) }
}

// adminContext returns the context of calls by the client boss, which has every administrative scope.
func (r *replica) adminContext(t testing.TB) context.Context {
	t.Helper()
	answer, err := r.tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: "boss", ClientSecret: secret,
	})
	must.Succeed(t, err)
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+answer.GetAccessToken())
}

// withBoss adds the first administrator to a manifest.
func withBoss(m registry.Manifest) registry.Manifest {
	boss := registry.Client{
		ID: must.Get(oauth.ParseClientID("boss")), GrantTypes: []string{oauth.GrantClientCredentials},
		Scopes: must.Get(oauth.ParseScopes("grantor:clients.read grantor:clients.write grantor:resources.read grantor:resources.write " +
			"grantor:trust.read grantor:trust.write grantor:keys.read grantor:keys.write")),
	}
	m.Clients = append(slices.Clone(m.Clients), registry.ClientSpec{Client: boss, Secret: secret})
	return m
}

// TestRotationUnderLoad rotates secrets and keys repeatedly at two replicas, while callers request tokens from both, and
// verifiers that keep the keys for as long as they may verify the tokens. No call fails.
func TestRotationUnderLoad(t *testing.T) {
	c := newCluster(t)
	c.now = fastClock()
	replicas := []*replica{c.start(t), c.start(t)}
	replicas[0].apply(t, withBoss(manifest()))
	must.Succeed(t, replicas[1].CatchUp(withTimeout(t, timeout)))
	var services []*guarded
	for _, r := range replicas {
		services = append(services, r.guard(t, verify.Now(c.now)))
	}
	current := atomic.Pointer[string]{}
	current.Store(&secret)
	load, stop := context.WithCancel(t.Context())
	defer stop()
	var calls atomic.Int64
	var callers sync.WaitGroup
	for i := range 4 {
		callers.Go(func() {
			for n := i; load.Err() == nil; n++ {
				answer, err := replicas[n%2].tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
					GrantType: oauth.GrantClientCredentials, ClientId: "svc", ClientSecret: *current.Load(),
				})
				if err != nil {
					t.Errorf("requesting a token: %v", err)
					return
				}
				if got := services[(n/2)%2].status(answer.GetAccessToken()); got != http.StatusOK {
					t.Errorf("a valid token: got %d", got)
					return
				}
				calls.Add(1)
			}
		})
	}
	rotations, signed := rotate(t, replicas, &current)
	stop()
	callers.Wait()
	if rotations < 2 || len(signed) < 2 || calls.Load() < 100 {
		t.Errorf("got %d rotations, %d keys that signed and %d calls, want more", rotations, len(signed), calls.Load())
	}
	t.Logf("%d calls, %d rotations of the secret, %d keys signed", calls.Load(), rotations, len(signed))
}

// rotate rotates for the duration of the flag. It returns how often it did, and which keys were active.
func rotate(t *testing.T, replicas []*replica, current *atomic.Pointer[string]) (rotations int, signed map[string]bool) {
	t.Helper()
	signed = make(map[string]bool)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(*rotation); time.Now().Before(end) && !t.Failed(); <-tick.C {
		ctx := replicas[0].adminContext(t)
		rotated, err := grantorv1.NewClientServiceClient(replicas[rotations%2].conn).RotateClientSecret(ctx, &grantorv1.RotateClientSecretRequest{
			ClientId: "svc", GracePeriod: durationpb.New(time.Minute), // two seconds of real time
		})
		must.Succeed(t, err)
		next := rotated.GetClientSecret()
		must.Succeed(t, replicas[1-rotations%2].CatchUp(withTimeout(t, timeout))) // as an operator waits before distributing it
		current.Store(&next)
		rotations++
		var both sync.WaitGroup
		for _, r := range replicas {
			both.Go(func() {
				_, err := grantorv1.NewKeyServiceClient(r.conn).RotateKeys(ctx, &grantorv1.RotateKeysRequest{})
				if err != nil {
					t.Errorf("rotating the keys: %v", err)
				}
			})
		}
		both.Wait()
		list, err := grantorv1.NewKeyServiceClient(replicas[0].conn).ListKeys(ctx, &grantorv1.ListKeysRequest{})
		must.Succeed(t, err)
		upcoming := 0
		for _, k := range list.GetKeys() {
			switch k.GetState() {
			case grantorv1.SigningKey_STATE_UPCOMING:
				upcoming++
			case grantorv1.SigningKey_STATE_ACTIVE:
				signed[k.GetKid()] = true
			default:
			}
		}
		if upcoming > 1 {
			t.Errorf("there are %d upcoming keys, want one", upcoming)
		}
	}
	return rotations, signed
}
