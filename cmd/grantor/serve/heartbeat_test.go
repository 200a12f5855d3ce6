package serve_test

import (
	"maps"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// awaitReplicas waits until n replicas report that they have read the feed, and returns their reports.
func awaitReplicas(t *testing.T, store heartbeat.Store, n int) []heartbeat.Status {
	t.Helper()
	var found []heartbeat.Status
	must.Eventually(t, "known by all replicas", func() bool {
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

// TestReplicasAnnounce has two replicas announce themselves, one of them with TLS, and sign off when they stop.
func TestReplicasAnnounce(t *testing.T) {
	redis := redistest.New(t)
	cert, key := servetest.NewAuthority(t).WriteLeaf(t, t.TempDir(), 2)
	args := append(servetest.Production(redis, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)), "--issuer=https://localhost:1", "--grpc-endpoint=localhost:2")
	first, err := servetest.Try(t, append(args, "--tls-cert-file="+cert, "--tls-key-file="+key)...)
	if err != nil {
		t.Fatal(err)
	}
	second, err := servetest.Try(t, append(args, "--insecure-allow-plaintext-beyond-loopback")...)
	if err != nil {
		t.Fatal(err)
	}
	store := servetest.Store(t, redis)
	of := make(map[string]heartbeat.Status)
	for _, r := range awaitReplicas(t, store, 2) {
		of[r.HTTP] = r
	}
	secure, plain := of[first.HTTPAddr()], of[second.HTTPAddr()]
	if !maps.Equal(secure.Settings, plain.Settings) || secure.Settings["issuer"] != "https://localhost:1" ||
		secure.Settings["key-rotation"] != "720h0m0s" || secure.Settings["grpc-endpoint"] != "localhost:2" {
		t.Errorf("the settings are %q and %q", secure.Settings, plain.Settings)
	}
	if len(secure.Insecure) != 0 || len(plain.Insecure) != 1 || plain.Insecure[0] != heartbeat.InsecurePlaintext {
		t.Errorf("insecure: got %q and %q", secure.Insecure, plain.Insecure)
	}
	if left := time.Until(secure.CertificateEnds); left <= 0 || left > time.Hour || !plain.CertificateEnds.IsZero() {
		t.Errorf("the certificates end in %s and at %s, want within the hour, and none", left, plain.CertificateEnds)
	}
	if len(secure.Published) != 2 || len(secure.Active) != 2 || secure.Version == "" || secure.Host == "" || secure.GRPC != first.GRPCAddr() {
		t.Errorf("got %+v", secure)
	}
	second.Stop()
	<-second.Ended
	if left := awaitReplicas(t, store, 1); left[0].ID != secure.ID {
		t.Errorf("left is %s, want %s", left[0].ID, secure.ID)
	}
}
