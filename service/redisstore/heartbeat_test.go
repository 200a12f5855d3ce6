package redisstore_test

import (
	"fmt"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/must"
)

// sample returns a status with every field, in the precision that is stored.
func sample(id string) heartbeat.Status {
	return heartbeat.Status{
		ID: id, Version: "v1.2.3", Host: "host-1", HTTP: "10.0.0.1:8080", GRPC: "10.0.0.1:8081",
		StartedAt: start, Ahead: -1234 * time.Millisecond,
		FeedAge: 250 * time.Millisecond, CertificateEnds: start.Add(24 * time.Hour),
		Settings: map[string]string{"issuer": "https://auth.example.com"}, Insecure: []string{"dev"},
		Published: []string{"a", "b"}, Active: []string{"a"},
	}
}

func (k *kit) replicas(t *testing.T) []heartbeat.Status {
	t.Helper()
	found, now, err := k.Replicas(t.Context())
	must.Succeed(t, err)
	for i := range found {
		if age := now.Sub(found[i].StoredAt); age < -time.Second || age > time.Minute {
			t.Errorf("replica %s was stored %s ago by the clock of Redis", found[i].ID, age)
		}
		found[i].StoredAt = time.Time{}
	}
	return found
}

// announce announces the status, and checks the time that the store returns.
func (k *kit) announce(t *testing.T, status heartbeat.Status) {
	t.Helper()
	before := must.Get(k.client.Time(t.Context()).Result())
	now, err := k.Announce(t.Context(), status)
	must.Succeed(t, err)
	if after := must.Get(k.client.Time(t.Context()).Result()); now.Before(before) || now.After(after) {
		t.Errorf("got the time %s, want one between %s and %s", now, before, after)
	}
}

func testReplicas(t *testing.T, k *kit) {
	if got := k.replicas(t); len(got) != 0 {
		t.Errorf("an empty store has %+v", got)
	}
	first, second := sample("first"), heartbeat.Status{ID: "second", StartedAt: start, FeedAge: -1}
	k.announce(t, second)
	k.announce(t, first)
	first.FeedAge *= 2
	k.announce(t, first)
	second.FeedAge = -time.Millisecond // an unknown age stays unknown
	if got, want := k.replicas(t), []heartbeat.Status{first, second}; !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
	must.Succeed(t, k.Withdraw(t.Context(), "first"))
	must.Succeed(t, k.Withdraw(t.Context(), "unknown"))
	if got := k.replicas(t); len(got) != 1 || got[0].ID != "second" {
		t.Errorf("after one has left: got %+v, want the other", got)
	}
}

// testReplicasForgotten checks what becomes of records that no replica wrote recently, and of those that none wrote.
func testReplicasForgotten(t *testing.T, k *kit) {
	now := must.Get(k.client.Time(t.Context()).Result())
	put := func(id string, at time.Time, document string) {
		must.Succeed(t, k.client.HSet(t.Context(), k.base+"replicas", id, strconv.FormatInt(at.UnixMilli(), 10)+" "+document).Err())
	}
	put("old", now.Add(-heartbeat.Retention-time.Minute), `{"format":1,"id":"old"}`)
	put("from the future", now.Add(heartbeat.Retention+time.Minute), `{"format":1,"id":"from the future"}`)
	put("silent", now.Add(-heartbeat.Retention/2), `{"format":1,"id":"silent"}`)
	put("of another release", now, `{"format":2,"id":"of another release"}`)
	put("of another name", now, `{"format":1,"id":"other"}`)
	put("broken", now, `{`)
	must.Succeed(t, k.client.HSet(t.Context(), k.base+"replicas", "no time", "{}").Err())
	k.announce(t, sample("new"))
	found, _, err := k.Replicas(t.Context())
	must.Succeed(t, err)
	if len(found) != 2 || found[0].ID != "new" || found[1].ID != "silent" {
		t.Errorf("got %+v, want the new one and the silent one", found)
	}
	for id, want := range map[string]bool{"old": false, "from the future": false, "no time": false, "of another release": true} {
		if got := must.Get(k.client.HExists(t.Context(), k.base+"replicas", id).Result()); got != want {
			t.Errorf("%s: kept %v, want %v", id, got, want)
		}
	}
	if ttl := must.Get(k.client.PTTL(t.Context(), k.base+"replicas").Result()); ttl <= 0 || ttl > heartbeat.Retention {
		t.Errorf("the key ends in %s, want within %s", ttl, heartbeat.Retention)
	}
}

func testReplicasBounded(t *testing.T, k *kit) {
	now := must.Get(k.client.Time(t.Context()).Result()).UnixMilli()
	full := make([]any, 0, 2*heartbeat.MaxReplicas)
	for i := range heartbeat.MaxReplicas {
		full = append(full, fmt.Sprintf("replica-%d", i), fmt.Sprintf(`%d {"format":1,"id":"replica-%d"}`, now, i))
	}
	must.Succeed(t, k.client.HSet(t.Context(), k.base+"replicas", full...).Err())
	k.announce(t, sample("one too many"))
	known := sample("replica-0")
	k.announce(t, known)
	got := k.replicas(t)
	if len(got) != heartbeat.MaxReplicas || !reflect.DeepEqual(got[0], known) {
		t.Errorf("got %d replicas and %+v, want %d and the known one updated", len(got), got[0], heartbeat.MaxReplicas)
	}
}
