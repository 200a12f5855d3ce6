package service_test

import (
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/broadcast"
	"github.com/grantorhq/grantor/service/must"
)

// TestWatch follows the revocations: the live ones, and then each new one.
func TestWatch(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	raw := a.token(t)
	id := a.idOf(t, raw)
	old := publish(t, a.store, 4500) // over two answers
	must.Succeed(t, a.CatchUp(t.Context()))
	must.Succeed(t, b.CatchUp(t.Context()))

	w := a.watch(t, "")
	w.complete()
	if w.received != len(old) || !w.known["token:"+old[0]] || !w.known["token:"+old[len(old)-1]] {
		t.Errorf("got %d revocations, want %d", w.received, len(old))
	}
	began := time.Now()
	must.Succeed(t, b.revoke(t.Context(), raw))
	w.until(func() bool { return w.known[id] })
	t.Logf("a revocation at the other replica was received after %s", time.Since(began))
	if w.received != len(old)+1 {
		t.Errorf("got %d revocations, want one more than %d", w.received, len(old))
	}

	t.Run("heartbeat", func(t *testing.T) {
		began, received := time.Now(), w.received
		must.Succeed(t, w.next())
		must.Succeed(t, w.next())
		if took := time.Since(began); took < broadcast.DefaultInterval || took > 5*broadcast.DefaultInterval {
			t.Errorf("two heartbeats took %s", took)
		}
		if age := time.Duration(w.last.GetAgeMs()) * time.Millisecond; w.received != received || !w.last.GetComplete() || age > 5*broadcast.DefaultInterval {
			t.Errorf("got %v", w.last)
		}
	})
	for name, r := range map[string]*replica{"the same replica": a, "the other replica": b} {
		t.Run("resumed at "+name, func(t *testing.T) {
			cursor := w.cursor
			more := publish(t, a.store, 3)
			must.Succeed(t, r.CatchUp(t.Context()))
			w := r.watch(t, cursor)
			w.complete()
			if w.received != len(more) || !w.known["token:"+more[2]] {
				t.Errorf("got %d revocations, want the %d that were missed", w.received, len(more))
			}
			w.until(func() bool { return w.last.GetComplete() })
		})
		w = a.watch(t, "")
		w.complete()
	}
	for name, cursor := range map[string]string{"unknown": "1-1", "later": "9999999999999-0", "malformed": "x"} {
		t.Run("from the beginning: "+name, func(t *testing.T) {
			w := a.watch(t, cursor)
			w.complete()
			if want := len(old) + 1 + 6; w.received != want {
				t.Errorf("got %d revocations, want all %d", w.received, want)
			}
		})
	}
	t.Run("clients and keys", func(t *testing.T) {
		must.Succeed(t, b.revokeAll(t.Context()))
		w.until(func() bool { return w.known["client:svc"] })
		revoked := w.last.GetClients()[0]
		if now := time.Now().Unix(); revoked.GetUntil() < now-int64(timeout.Seconds()) || revoked.GetUntil() > now+1 {
			t.Errorf("got %v, want a moment of now", revoked)
		}
	})
}

// TestSlowWatcher has a follower that does not read. It is dropped, and resumes from its cursor without losing anything.
func TestSlowWatcher(t *testing.T) {
	c := newCluster(t)
	r := c.start(t, func(s *service.Service) { s.SetSendTimeout(time.Second) })
	r.apply(t, manifest())
	// Its own connection, whose window does not grow with what others read.
	const window = 64 << 10
	conn := must.Get(grpc.NewClient(r.conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window)))
	t.Cleanup(func() { _ = conn.Close() })
	slow := (&replica{revocations: grantorv1.NewRevocationServiceClient(conn)}).watch(t, "")
	must.Succeed(t, slow.next()) // it follows
	ids := publish(t, r.store, 20_000)
	must.Succeed(t, r.CatchUp(t.Context()))
	quick := r.watch(t, "")
	quick.complete()
	if quick.received != len(ids) {
		t.Fatalf("a watcher beside it got %d revocations, want %d", quick.received, len(ids))
	}
	// The heartbeats of another stream, one a second, show that the timeout has passed.
	for range 3 {
		must.Succeed(t, quick.next())
	}
	expectCode(t, slow.end(), codes.ResourceExhausted)
	if slow.received >= len(ids) {
		t.Fatal("it received everything, so it was not slow")
	}
	resumed := r.watch(t, slow.cursor)
	resumed.complete()
	if resumed.received != len(ids)-slow.received {
		t.Errorf("it got %d revocations and then %d, want %d", slow.received, resumed.received, len(ids))
	}
	for _, id := range ids {
		if !slow.known["token:"+id] && !resumed.known["token:"+id] {
			t.Fatalf("%s was lost", id)
		}
	}
}

// TestManyWatchers has many followers at once, each of which receives everything once.
func TestManyWatchers(t *testing.T) {
	c := newCluster(t)
	r := c.start(t)
	publish(t, r.store, 500)
	must.Succeed(t, r.CatchUp(t.Context()))
	var ready, group sync.WaitGroup
	for range 100 {
		w := r.watch(t, "")
		ready.Add(1)
		group.Go(func() {
			w.complete()
			ready.Done()
			w.until(func() bool { return w.received >= 1000 })
			if w.received != 1000 || len(w.known) != 1000 {
				t.Errorf("got %d revocations, want 1000", w.received)
			}
		})
	}
	ready.Wait()
	publish(t, r.store, 500)
	group.Wait()
}
