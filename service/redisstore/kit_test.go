package redisstore_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const retention = 24 * time.Hour

// start is a time as it is stored: in whole seconds.
var start = time.Unix(1_800_000_000, 0)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func clientID(s string) oauth.ClientID   { return must(oauth.ParseClientID(s)) }
func resourceID(s string) oauth.Resource { return must(oauth.ParseResource(s)) }
func scopes(s string) oauth.Scopes       { return must(oauth.ParseScopes(s)) }

// kit is a store with nothing in it, and the means to look beneath it.
type kit struct {
	*redisstore.Store
	client redis.UniversalClient
	base   string
}

var prefixes int

func newKit(client redis.UniversalClient) *kit {
	prefixes++
	prefix := fmt.Sprintf("test%d:", prefixes)
	return &kit{
		must(redisstore.New(client, prefix, retention)), client,
		prefix + "{" + strings.TrimSuffix(prefix, ":") + "}:",
	}
}

// TestStore runs what the store promises against each Redis that it is made for, each test with a prefix of its own.
func TestStore(t *testing.T) {
	tests := map[string]func(*testing.T, *kit){
		"clients: life of one":            testClientLife,
		"clients: every field":            testClientFields,
		"clients: conflicts":              testClientConflicts,
		"clients: made again":             testClientMadeAgain,
		"clients: one of many wins":       testOneOfManyWins,
		"clients: listed":                 testListed,
		"clients: hostile ids":            testHostileIDs,
		"clients: altered by hand":        testAlteredClients,
		"clients: listed but not there":   testListedButGone,
		"resources":                       testResources,
		"resources: altered by hand":      testAlteredResources,
		"ring":                            testRing,
		"changes: one announcement each":  testAnnouncements,
		"changes: none when refused":      testNoAnnouncement,
		"feed: from a cursor":             testCursor,
		"feed: waiting":                   testWaiting,
		"feed: of many pages":             testMore,
		"feed: trimmed":                   testTrimmed,
		"feed: idle beyond the retention": testIdle,
		"feed: published":                 testPublished,
		"feed: gap":                       testGap,
		"feed: followed":                  testFollowed,
		"prefixes apart":                  testPrefixes,
		"key ring: opened by ten at once": testRingsAgree,
		"key ring: kept by two":           testRingsRotate,
		"applied by two at once":          testAppliersAgree,
	}
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) { test(t, newKit(client)) })
		}
		expectKeys(t, client)
	})
}

// expectKeys checks that everything which the tests left stands where the package comment says.
func expectKeys(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	keys, err := client.Keys(t.Context(), "*").Result()
	check(t, err)
	for _, key := range keys {
		prefix, rest, _ := strings.Cut(key, ":")
		tag, rest, _ := strings.Cut(rest, ":")
		name, _, _ := strings.Cut(rest, ":")
		if tag != "{"+prefix+"}" || !strings.Contains(" client clients resources ring feed ", " "+name+" ") {
			t.Errorf("there is a key %q", key)
		}
	}
	if len(keys) == 0 {
		t.Error("the tests left no key to look at")
	}
}

// newClient is a client with a little of everything.
func newClient(id string) *registry.Client {
	return &registry.Client{
		ID: clientID(id), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes("a b"),
		CreatedAt: start, ChangedAt: start,
	}
}

// save stores the client and gives it as stored.
func (k *kit) save(t *testing.T, c *registry.Client) *registry.Client {
	t.Helper()
	check(t, k.SaveClient(t.Context(), c))
	stored, err := k.Client(t.Context(), c.ID)
	check(t, err)
	return stored
}

// feed gives all changes announced so far.
func (k *kit) feed(t *testing.T) []revocation.Change {
	t.Helper()
	entries, _, err := k.Read(t.Context(), revocation.Cursor{}, 0)
	check(t, err)
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
	check(t, k.client.HSet(context.WithoutCancel(t.Context()), k.base+key, field, value).Err())
}
