package redisstore_test

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// withSecrets stores a client with secrets of these ids.
func (k *kit) withSecrets(t *testing.T, id string, secrets ...string) *registry.Client {
	t.Helper()
	c := newClient(id)
	for _, secret := range secrets {
		c.Secrets = append(c.Secrets, clientsecret.Secret{ID: secret, Hash: "h", CreatedAt: start})
	}
	return k.save(t, c)
}

func used(client, secret string, seconds int) registry.Use {
	return registry.Use{Client: clientID(client), SecretID: secret, At: start.Add(time.Duration(seconds) * time.Second)}
}

// expectUses checks the stored uses of the client, in seconds after start, keyed by secret.
func (k *kit) expectUses(t *testing.T, id string, want map[string]int) {
	t.Helper()
	found, err := k.LastUses(t.Context(), []oauth.ClientID{clientID(id)})
	must.Succeed(t, err)
	got := make(map[string]int)
	for secret, at := range found[clientID(id)] {
		got[secret] = int(at.Sub(start) / time.Second)
	}
	if !maps.Equal(got, want) {
		t.Errorf("%q: got %v, want %v", id, got, want)
	}
}

func testUses(t *testing.T, k *kit) {
	ctx := t.Context()
	if found, err := k.LastUses(ctx, nil); len(found) > 0 || err != nil {
		t.Errorf("of no client: got %v, %v", found, err)
	}
	must.Succeed(t, k.RecordUses(ctx, nil))
	a := k.withSecrets(t, "a", "1", `"odd" {id}`, "10")
	k.withSecrets(t, "b", "1")
	k.expectUses(t, "a", nil)
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "1", 5), used("a", `"odd" {id}`, 7), used("b", "1", 9)}))
	k.expectUses(t, "a", map[string]int{"1": 5, `"odd" {id}`: 7})
	k.expectUses(t, "b", map[string]int{"1": 9})
	// The newest use wins, in whatever order they are written.
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "1", 4), used("a", "10", 1), used("b", "1", 10)}))
	k.expectUses(t, "a", map[string]int{"1": 5, `"odd" {id}`: 7, "10": 1})
	k.expectUses(t, "b", map[string]int{"1": 10})
	found, err := k.LastUses(ctx, []oauth.ClientID{clientID("b"), clientID("nobody"), clientID("a")})
	if err != nil || len(found) != 2 || len(found[clientID("a")]) != 3 {
		t.Errorf("of several: got %v, %v", found, err)
	}
	// A use creates neither a new version of a client nor an entry in the feed.
	k.expectClient(t, a)
	k.expectFeed(t, clientChange("a"), clientChange("b"))
}

// testUsesEnd checks that uses are deleted with their secret and client, even if a replica writes late.
func testUsesEnd(t *testing.T, k *kit) {
	ctx := t.Context()
	a := k.withSecrets(t, "a", "1", "2")
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "1", 5), used("a", "2", 6), used("a", "3", 7), used("nobody", "1", 8)}))
	k.expectUses(t, "a", map[string]int{"1": 5, "2": 6})
	k.expectUses(t, "nobody", nil)
	a.Secrets = a.Secrets[1:]
	a = k.save(t, a)
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "1", 9)}))
	k.expectUses(t, "a", map[string]int{"2": 6})
	a.Secrets = nil
	a = k.save(t, a)
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "2", 10)}))
	k.expectUses(t, "a", nil)
	a.Secrets = []clientsecret.Secret{{ID: "2", Hash: "h", CreatedAt: start}}
	a = k.save(t, a)
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "2", 11)}))
	expectConflict(t, k.DeleteClient(ctx, a.ID, a.Version+1))
	k.expectUses(t, "a", map[string]int{"2": 11})
	must.Succeed(t, k.DeleteClient(ctx, a.ID, a.Version))
	k.expectUses(t, "a", nil)
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "2", 12)}))
	k.withSecrets(t, "a", "2")
	k.expectUses(t, "a", nil)
}

// testAlteredUses checks that an altered record does not hold up others, and is repaired by the next use.
func testAlteredUses(t *testing.T, k *kit) {
	ctx := t.Context()
	k.withSecrets(t, "a", "1")
	for i, value := range []string{"x", "", "null", `["1"]`, "5", `{"1":"x"}`, `{"1":[]}`, `{"1":-5}`} {
		k.alter(t, "used", "a", value)
		// The first use may only delete what cannot be decoded.
		for range 2 {
			must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "1", i)}))
		}
		k.expectUses(t, "a", map[string]int{"1": i})
	}
	k.alter(t, "used", "a", "x")
	k.expectUses(t, "a", nil)
	for i, record := range []string{
		"x", "", "null", "5", "{}", `{"secrets":"x"}`, `{"secrets":[1]}`, `{"secrets":null}`, `{"secrets":[{}]}`, `{"secrets":[{"id":2}]}`,
	} {
		k.alter(t, "client:altered", "d", record)
		if err := k.RecordUses(ctx, []registry.Use{used("altered", "1", 1), used("a", "1", i), used("a", "1", i)}); err != nil {
			t.Errorf("%s: %v", record, err)
		}
		k.expectUses(t, "altered", nil)
		k.expectUses(t, "a", map[string]int{"1": i})
	}
}

// testUsesMerge checks that concurrent writes of replicas lose nothing.
func testUsesMerge(t *testing.T, k *kit) {
	const replicas, clients, rounds = 4, 5, 3
	secrets := []string{"0", "1", "2"}
	want := make(map[string]map[string]int)
	written := make([][]registry.Use, replicas)
	for i := range clients {
		id := fmt.Sprintf("c%d", i)
		k.withSecrets(t, id, secrets...)
		want[id] = make(map[string]int)
		for replica := range replicas {
			for n, secret := range secrets {
				at := (replica*7 + i*3 + n*5) % 11
				want[id][secret] = max(want[id][secret], at)
				written[replica] = append(written[replica], used(id, secret, at))
			}
		}
	}
	var running sync.WaitGroup
	for _, uses := range written {
		running.Go(func() {
			for range rounds {
				if err := k.RecordUses(t.Context(), uses); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	for id, uses := range want {
		k.expectUses(t, id, uses)
	}
}
