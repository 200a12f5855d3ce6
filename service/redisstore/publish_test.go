package redisstore_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// revoked returns the change that revoking a token makes.
func revoked(at time.Time) revocation.Change {
	return revocation.Change{Kind: revocation.TokenRevoked, ID: token.NewID().String(), At: at}
}

func testPublished(t *testing.T, k *kit) {
	at := time.Unix(time.Now().Unix()+100, 0)
	want := []revocation.Change{
		revoked(at), {Kind: revocation.ClientRevoked, ID: "a", At: at}, {Kind: revocation.KeyRevoked, ID: "kid", At: at}, revoked(at),
	}
	must.Succeed(t, k.Publish(t.Context(), want[0]))
	must.Succeed(t, k.Publish(t.Context(), want[1:]...))
	must.Succeed(t, k.Confirm(t.Context(), want...)) // no replicas are required, so nothing is left to record
	k.expectFeed(t, want...)
}

// testIdle checks that there is no gap if the entry at a tail's cursor was trimmed because nothing followed it for longer
// than the retention. An empty feed is a gap, however old the last entry was.
func testIdle(t *testing.T, k *kit) {
	cursor := revocation.Cursor{Time: uint64(time.Now().Add(-retention - time.Minute).UnixMilli())}
	must.Succeed(t, k.Publish(t.Context(), revoked(time.Now())))
	entries, _, err := k.Read(t.Context(), cursor, 0)
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v, want the one entry", entries, err)
	}
	must.Succeed(t, k.client.Del(t.Context(), k.base+"feed").Err())
	if _, _, err := k.Read(t.Context(), cursor, 0); err != revocation.ErrGap { //nolint:errorlint // the store must not wrap it
		t.Errorf("an empty feed: got %v, want %v", err, revocation.ErrGap)
	}
}

// TestRequireReplicas publishes with and without the required replica.
func TestRequireReplicas(t *testing.T) {
	master := redistest.New(t, "--repl-diskless-sync-delay", "0")
	k := newKit(master.Client())
	k.RequireReplicas(1)
	a, b := k.save(t, newClient("a")), k.save(t, newClient("b")) // these revoke nothing, so they do not wait
	must.Succeed(t, k.SaveRing(t.Context(), []byte("x"), 0))
	a.Disabled = true
	for what, revoke := range map[string]func() error{
		"publish":    func() error { return k.Publish(t.Context(), revoked(time.Now())) },
		"disable":    func() error { return k.SaveClient(t.Context(), a) },
		"delete":     func() error { return k.DeleteClient(t.Context(), b.ID, b.Version) },
		"compromise": func() error { return k.SaveRing(t.Context(), []byte("y"), k.ringVersion(t), "kid") },
	} {
		if err := revoke(); !errors.Is(err, revocation.ErrNotReplicated) || !strings.Contains(err.Error(), "0 of 1 replicas") {
			t.Errorf("%s without a replica: got %v", what, err)
		}
	}
	// The change is made all the same, and can be retried.
	k.expectNoClient(t, "b")
	a, err := k.Client(t.Context(), a.ID)
	must.Succeed(t, err)
	if !a.Disabled {
		t.Error("the client is not disabled")
	}
	if err := k.SaveClient(t.Context(), a); !errors.Is(err, revocation.ErrNotReplicated) {
		t.Errorf("again: got %v, want %v", err, revocation.ErrNotReplicated)
	}
	replica := redistest.New(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.Port()))
	for k.Publish(within(t, timeout), revoked(time.Now())) != nil { // until the replica is in sync; each attempt waits for it
		if t.Context().Err() != nil {
			return
		}
	}
	// When Publish returns, the replica has the entry.
	last := revoked(time.Now())
	must.Succeed(t, k.Publish(t.Context(), last))
	copied := *k
	copied.client = replica.Client()
	entries, err := copied.client.XRevRangeN(t.Context(), k.base+"feed", "+", "-", 1).Result()
	must.Succeed(t, err)
	if len(entries) != 1 || entries[0].Values["i"] != last.ID {
		t.Errorf("the replica has %v at the end, want %v", entries, last)
	}
	// The same holds for a change of a record.
	a, err = k.Client(t.Context(), a.ID)
	must.Succeed(t, err)
	must.Succeed(t, k.SaveClient(t.Context(), a))
	version, err := copied.client.HGet(t.Context(), k.base+"client:a", "v").Uint64()
	must.Succeed(t, err)
	if version == a.Version {
		t.Error("the replica has the previous record")
	}
	expectConflict(t, k.SaveClient(t.Context(), a))
	replica.Freeze()
	if err := k.Publish(within(t, timeout), revoked(time.Now())); err == nil {
		t.Error("with a frozen replica: success")
	}
	replica.Thaw()
	must.Succeed(t, k.Publish(within(t, timeout), revoked(time.Now())))
	replica.Kill()
	if err := k.Publish(within(t, timeout), revoked(time.Now())); err == nil {
		t.Error("with a dead replica: success")
	}
}

// TestRequireReplicasInCluster checks that WAIT goes to the server that has the slot.
func TestRequireReplicasInCluster(t *testing.T) {
	_, client := redistest.Cluster(t)
	k := newKit(client)
	k.RequireReplicas(1)
	a := k.save(t, newClient("a"))
	if err := k.DeleteClient(t.Context(), a.ID, a.Version); !errors.Is(err, revocation.ErrNotReplicated) {
		t.Errorf("got %v, want %v", err, revocation.ErrNotReplicated)
	}
	k.expectNoClient(t, "a")
	expectConflict(t, k.DeleteClient(t.Context(), a.ID, a.Version))
}

func (k *kit) ringVersion(t *testing.T) uint64 {
	t.Helper()
	_, version, err := k.LoadRing(t.Context())
	must.Succeed(t, err)
	return version
}

// BenchmarkPublish compares publishing revocations with bare XADD commands of the same entries.
func BenchmarkPublish(b *testing.B) {
	server := redistest.New(b)
	k := newKit(server.Client())
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("Publish/%d callers a core", callers), func(b *testing.B) {
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := k.Publish(b.Context(), revoked(time.Now())); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "revocations/s")
		})
		b.Run(fmt.Sprintf("XADD/%d callers a core", callers), func(b *testing.B) {
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c := revoked(time.Now())
					if err := k.client.XAdd(b.Context(), &redis.XAddArgs{
						Stream: "bare", Values: []any{"k", string(c.Kind), "i", c.ID, "t", c.At.Unix()},
					}).Err(); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "revocations/s")
		})
	}
}
