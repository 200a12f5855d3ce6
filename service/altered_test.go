package service_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// TestAlteredRecords adds a scope to a record in the Redis. The record yields no token, the caller is asked to retry, and
// the log names the record.
func TestAlteredRecords(t *testing.T) {
	for key, alter := range map[string]func(data string) string{
		"client:svc": func(data string) string { return strings.Replace(data, `"scope":"api1"`, `"scope":"api1 admin"`, 1) },
		"resources":  func(data string) string { return strings.Replace(data, `"scope":"api1"`, `"scope":"api1 admin"`, 1) },
	} {
		t.Run(key, func(t *testing.T) {
			c := newCluster(t)
			r := c.start(t)
			r.apply(t, manifest())
			r.token(t)
			redis := c.redis.Client()
			name := "grantor:{grantor}:" + key
			data := must.Get(redis.HGet(t.Context(), name, "d").Result())
			if data == alter(data) {
				t.Fatalf("there is nothing to alter in %s", data)
			}
			must.Succeed(t, redis.HSet(t.Context(), name, "d", alter(data)).Err())
			r.token(t) // from memory
			fresh := c.start(t)
			for _, scope := range []string{"", "api1", "api1 admin"} {
				_, err := fresh.tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
					GrantType: oauth.GrantClientCredentials, ClientId: "svc", ClientSecret: secret, Scope: scope,
				})
				expectCode(t, err, codes.Unavailable)
				if err == nil || strings.Contains(err.Error(), name) {
					t.Errorf("got %v, want an error that does not name the record", err)
				}
			}
			if fresh.log.count(name) == 0 || fresh.log.count(registry.ErrAltered.Error()) == 0 {
				t.Error("the log does not name the record that was altered")
			}
			// Restored, it is accepted again.
			must.Succeed(t, redis.HSet(t.Context(), name, "d", data).Err())
			fresh.token(t)
		})
	}
}

// TestChangeOfKEK moves an issuer of two replicas from one key-encryption key to another, one replica after the other, as
// documented. Tokens issued before stay valid, and every replica issues throughout.
func TestChangeOfKEK(t *testing.T) {
	before, after := keys.NewKEK(), keys.NewKEK()
	c := newCluster(t)
	sealed := func(kek []byte, previous ...[]byte) *keys.Sealer { return must.Get(keys.NewSealer(kek, previous...)) }
	c.sealer = sealed(before)
	replicas := []*replica{c.start(t), c.start(t)}
	replicas[0].apply(t, manifest())
	first := replicas[0].token(t)
	kids := replicas[0].keyIDs(t)
	for step, sealer := range []*keys.Sealer{sealed(before, after), sealed(after, before), sealed(after)} {
		for i := range replicas {
			c.sealer = sealer
			replicas[i].stop()
			replicas[i] = c.start(t)
			for _, r := range replicas {
				must.Succeed(t, r.CatchUp(t.Context()))
				r.expectActive(t, first, true)
				r.expectActive(t, r.token(t), true)
			}
		}
		if got := replicas[0].keyIDs(t); strings.Join(got, " ") != strings.Join(kids, " ") {
			t.Errorf("step %d: got the keys %q, want %q", step+1, got, kids)
		}
	}
	for _, r := range replicas {
		if r.log.count("level=ERROR") > 0 {
			t.Error("the log has errors")
		}
	}
	// The old key alone opens nothing, and damages nothing.
	store := c.open(t)
	document, version, err := store.LoadRing(t.Context())
	must.Succeed(t, err)
	if _, _, err := keys.Peek(t.Context(), store, sealed(before)); err == nil {
		t.Error("the old key opens the ring")
	}
	now, again, err := store.LoadRing(t.Context())
	must.Succeed(t, err)
	if string(now) != string(document) || again != version {
		t.Error("the ring was changed")
	}
}

// TestCompromiseNotReplicated compromises a key while too few replicas of the Redis acknowledge it. The key is compromised,
// the change is reported as unsafe, and it can be repeated.
func TestCompromiseNotReplicated(t *testing.T) {
	c := newCluster(t)
	c.required = 1
	r := c.start(t)
	kid := r.keyIDs(t)[0]
	ring := c.ring(t, r.store)
	for range 2 {
		if err := ring.Compromise(t.Context(), kid); err == nil || !strings.Contains(err.Error(), revocation.ErrNotReplicated.Error()) {
			t.Errorf("got %v, want %v", err, revocation.ErrNotReplicated)
		}
	}
	must.Eventually(t, "another key signs", func() bool { return r.keyIDs(t)[0] != kid })
	w := r.watch(t, "")
	w.complete()
	if !w.known["key:"+kid] {
		t.Error("the key is not revoked")
	}
}
