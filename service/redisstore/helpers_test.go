package redisstore_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const retention = 24 * time.Hour

// start is a time in the precision that is stored: whole seconds.
var start = time.Unix(1_800_000_000, 0)

func clientID(s string) oauth.ClientID   { return must.Get(oauth.ParseClientID(s)) }
func resourceID(s string) oauth.Resource { return must.Get(oauth.ParseResource(s)) }
func scopes(s string) oauth.Scopes       { return must.Get(oauth.ParseScopes(s)) }

// kit is an empty store, and the client and base of its keys.
type kit struct {
	*redisstore.Store
	client redis.UniversalClient
	base   string
	// secret authenticates the records; each kit has its own.
	secret []byte
}

var prefixes int

func newKit(client redis.UniversalClient) *kit {
	prefixes++
	prefix := fmt.Sprintf("test%d:", prefixes)
	k := &kit{
		must.Get(redisstore.New(client, prefix, retention)), client,
		prefix + "{" + strings.TrimSuffix(prefix, ":") + "}:", keys.NewKEK(),
	}
	k.Authenticate(k.secret)
	return k
}

// mac computes the MAC of a record independently of the store, because what it covers is part of the stored format.
func (k *kit) mac(key, version, data string) string {
	h := hmac.New(sha256.New, k.secret)
	for _, part := range []string{k.base + key, version, data} {
		_ = binary.Write(h, binary.BigEndian, uint64(len(part)))
		h.Write([]byte(part))
	}
	return string(h.Sum(nil))
}

// put stores a record with its MAC, for which one needs the key.
func (k *kit) put(t *testing.T, key, version, data string) {
	t.Helper()
	k.alter(t, key, "v", version)
	k.alter(t, key, "d", data)
	k.alter(t, key, "m", k.mac(key, version, data))
}

// TestStore tests the contract of the store against each supported Redis. Each test has its own prefix.
func TestStore(t *testing.T) {
	tests := map[string]func(*testing.T, *kit){
		"clients: life of one":            testClientLife,
		"clients: every field":            testClientFields,
		"clients: formats":                testFormats,
		"clients: conflicts":              testClientConflicts,
		"clients: recreated":              testClientRecreated,
		"clients: one of many wins":       testOneOfManyWins,
		"clients: listed":                 testListed,
		"clients: hostile ids":            testHostileIDs,
		"clients: unreadable":             testUnreadableClients,
		"clients: listed without record":  testListedWithoutRecord,
		"assertions: once":                testAssertions,
		"resources":                       testResources,
		"resources: unreadable":           testUnreadableResources,
		"trust":                           testTrust,
		"trust: unreadable":               testUnreadableTrust,
		"records: altered by hand":        testAltered,
		"records: newer client":           testNewerClient,
		"records: newer resources":        testNewerResources,
		"records: newer trust":            testNewerTrust,
		"records: unknown field":          testUnknownField,
		"records: of format 1":            testFormat1,
		"records: moved":                  testMoved,
		"records: without a key":          testNoKey,
		"records: reply lost":             testReplyLost,
		"ring":                            testRing,
		"changes: one announcement each":  testAnnouncements,
		"changes: none when refused":      testNoAnnouncement,
		"feed: from a cursor":             testCursor,
		"feed: newer kind":                testNewerKind,
		"feed: waiting":                   testWaiting,
		"unreadable: feed":                testUnreadableEntries,
		"unreadable: clients":             testUnreadableListed,
		"unreadable: uses":                testUnreadableUses,
		"unreadable: counts":              testUnreadableCounts,
		"unreadable: replicas":            testUnreadableReplicas,
		"unreadable: audit":               testUnreadableAudit,
		"unreadable: keys of other types": testWrongType,
		"writes: keys of other types":     testWrongKeys,
		"feed: of many pages":             testMore,
		"feed: trimmed":                   testTrimmed,
		"feed: idle beyond the retention": testIdle,
		"feed: published":                 testPublished,
		"feed: gap":                       testGap,
		"feed: followed":                  testFollowed,
		"checkpoints":                     testCheckpoints,
		"checkpoints: unusable":           testUnusableCheckpoints,
		"checkpoints: newer":              testNewerCheckpoint,
		"checkpoints: by many at once":    testCheckpointsAtOnce,
		"checkpoints: trimmed":            testCheckpointsTrimmed,
		"replicas":                        testReplicas,
		"replicas: forgotten":             testReplicasForgotten,
		"replicas: bounded":               testReplicasBounded,
		"uses: newest wins":               testUses,
		"uses: end with the secret":       testUsesEnd,
		"uses: altered by hand":           testAlteredUses,
		"uses: of replicas merge":         testUsesMerge,
		"counts: of replicas add up":      testCounts,
		"counts: keys are bounded":        testCountsBounded,
		"prefixes apart":                  testPrefixes,
		"key ring: opened by ten at once": testRingsAgree,
		"key ring: kept by two":           testRingsRotate,
		"key ring: rotated by many":       testRotatedByMany,
		"key ring: moved":                 testMovedRing,
		"applied by two at once":          testAppliedAtOnce,
		"registered one by one":           testRegistered,
		"registered by many at once":      testEditorsAtOnce,
		"disabled twice":                  testDisabledAgain,
		"audit: read back and followed":   testAudit,
		"audit: trimmed":                  testAuditTrimmed,
		"audit: unreadable":               testAuditUnreadable,
	}
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) { test(t, newKit(client)) })
		}
		expectKeys(t, client)
	})
}

// expectKeys checks that every key that the tests left is one that the package comment lists.
func expectKeys(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	keys, err := client.Keys(t.Context(), "*").Result()
	must.Succeed(t, err)
	for _, key := range keys {
		prefix, rest, _ := strings.Cut(key, ":")
		tag, rest, _ := strings.Cut(rest, ":")
		name, _, _ := strings.Cut(rest, ":")
		if tag != "{"+prefix+"}" || !strings.Contains(" client clients used assertion resources trust ring feed checkpoints audit limit replicas ", " "+name+" ") {
			t.Errorf("there is a key %q", key)
		}
	}
	if len(keys) == 0 {
		t.Error("the tests left no keys to check")
	}
}

// newClient returns a client with some of its fields set.
func newClient(id string) *registry.Client {
	return &registry.Client{
		ID: clientID(id), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes("a b"),
		CreatedAt: start, ChangedAt: start,
	}
}

// save stores the client and returns it as stored.
func (k *kit) save(t *testing.T, c *registry.Client) *registry.Client {
	t.Helper()
	must.Succeed(t, k.SaveClient(t.Context(), c))
	stored, err := k.Client(t.Context(), c.ID)
	must.Succeed(t, err)
	return stored
}

// feed returns all changes announced so far.
func (k *kit) feed(t *testing.T) []revocation.Change {
	t.Helper()
	entries, _, err := k.Read(t.Context(), revocation.Cursor{}, 0)
	must.Succeed(t, err)
	var changes []revocation.Change
	for _, e := range entries {
		changes = append(changes, e.Change)
	}
	return changes
}

func (k *kit) expectFeed(t *testing.T, want ...revocation.Change) {
	t.Helper()
	if got := k.feed(t); !reflect.DeepEqual(got, want) {
		t.Errorf("the feed has %v, want %v", got, want)
	}
}

func clientChange(id string) revocation.Change {
	return revocation.Change{Kind: revocation.ClientChanged, ID: id}
}

// alter writes a field of a stored record by hand.
func (k *kit) alter(t *testing.T, key, field, value string) {
	t.Helper()
	must.Succeed(t, k.client.HSet(context.WithoutCancel(t.Context()), k.base+key, field, value).Err())
}
