package main

import (
	"maps"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
)

// fleetOf gives a reader of what the replicas on a Redis tell about themselves.
func fleetOf(t *testing.T, redis *redistest.Server) *redisstore.Store {
	t.Helper()
	store, err := redisstore.New(redis.Client(), redisstore.DefaultPrefix, registry.MaxLifetime)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// awaitReplicas waits until so many replicas tell that they have read the feed, and gives what they tell.
func awaitReplicas(t *testing.T, store heartbeat.Store, n int) []heartbeat.Status {
	t.Helper()
	var found []heartbeat.Status
	await(t, "known by all replicas", func() bool {
		var err error
		if found, _, err = store.Replicas(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range found {
			if r.FeedAge < 0 {
				return false
			}
		}
		return len(found) == n
	})
	return found
}

// TestReplicasTell has two replicas tell about themselves, one of them over TLS, and take leave when they stop.
func TestReplicasTell(t *testing.T) {
	redis := redistest.New(t)
	cert, key := newAuthority(t).leaf(t, t.TempDir(), 2)
	args := append(production(redis, kekFile(t), file(t, "clients.yaml", goodManifest)), "--issuer=https://localhost:1", "--grpc-endpoint=localhost:2")
	first, err := tryServe(t, append(args, "--tls-cert-file="+cert, "--tls-key-file="+key)...)
	if err != nil {
		t.Fatal(err)
	}
	second, err := tryServe(t, append(args, "--insecure-allow-plaintext-beyond-loopback")...)
	if err != nil {
		t.Fatal(err)
	}
	store := fleetOf(t, redis)
	of := make(map[string]heartbeat.Status)
	for _, r := range awaitReplicas(t, store, 2) {
		of[r.HTTP] = r
	}
	secure, plain := of[first.ports.http.Addr().String()], of[second.ports.http.Addr().String()]
	if !maps.Equal(secure.Settings, plain.Settings) || secure.Settings["issuer"] != "https://localhost:1" ||
		secure.Settings["key-rotation"] != "720h0m0s" || secure.Settings["grpc-endpoint"] != "localhost:2" {
		t.Errorf("the settings are %q and %q", secure.Settings, plain.Settings)
	}
	if len(secure.Insecure) != 0 || len(plain.Insecure) != 1 || plain.Insecure[0] != insecurePlaintext {
		t.Errorf("insecure: got %q and %q", secure.Insecure, plain.Insecure)
	}
	if left := time.Until(secure.CertificateEnds); left <= 0 || left > time.Hour || !plain.CertificateEnds.IsZero() {
		t.Errorf("the certificates end in %s and at %s, want within the hour, and none", left, plain.CertificateEnds)
	}
	if len(secure.Published) != 2 || len(secure.Active) != 2 || secure.Version == "" || secure.Host == "" || secure.GRPC != first.ports.grpc.Addr().String() {
		t.Errorf("got %+v", secure)
	}
	second.stop()
	<-second.ended
	if left := awaitReplicas(t, store, 1); left[0].ID != secure.ID {
		t.Errorf("left is %s, want %s", left[0].ID, secure.ID)
	}
}
