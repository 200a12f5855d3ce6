package redisstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/trust"
)

// newest returns the newest format of a record that this release reads.
func newest(t *testing.T, record string) int {
	t.Helper()
	for _, f := range redisstore.Formats() {
		if f.Record == record {
			return f.Newest
		}
	}
	t.Fatalf("there is no record %q", record)
	return 0
}

// newer returns a record as the next release could write it: of the next format, with a field that this release does not
// know.
func newer(t *testing.T, record, data string) string {
	t.Helper()
	_, rest, ok := strings.Cut(data, `"format":`)
	if !ok || rest[1] != ',' {
		t.Fatalf("the record does not begin with its format: %s", data)
	}
	return fmt.Sprintf(`{"format":%d,"later":["x"]%s`, newest(t, record)+1, rest[1:])
}

// upgrade rewrites a record as the next release would, and returns its fields.
func (k *kit) upgrade(t *testing.T, record, key string) map[string]string {
	t.Helper()
	data, err := k.client.HGet(t.Context(), k.base+key, "d").Result()
	must.Succeed(t, err)
	k.put(t, key, "77", newer(t, record, data))
	return k.whole(t, key)
}

func (k *kit) whole(t *testing.T, key string) map[string]string {
	t.Helper()
	fields, err := k.client.HGetAll(t.Context(), k.base+key).Result()
	must.Succeed(t, err)
	return fields
}

// testNewerClient checks that a client which a newer release wrote is neither used, changed nor lost, and does not hide other
// clients.
func testNewerClient(t *testing.T, k *kit) {
	ctx := t.Context()
	for _, id := range []string{"a", "b", "c"} {
		k.withSecrets(t, id, "1")
	}
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("b", "1", 5)}))
	upgraded := k.upgrade(t, "client", "client:b")
	e := k.editor()
	target := registry.Target{ID: clientID("b")}
	for name, try := range map[string]func() error{
		"reading":         func() error { _, err := k.Client(ctx, target.ID); return err },
		"adding a secret": func() error { _, err := e.AddSecret(ctx, target, "", time.Time{}); return err },
		"deleting":        func() error { return e.DeleteClient(ctx, target) },
		"applying": func() error {
			_, err := e.Apply(ctx, registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: target.ID}}}}, registry.ApplyOptions{})
			return err
		},
		"replacing a hash": func() error { return k.SaveClient(ctx, newClient("b")) },
	} {
		err := try()
		if want := registry.ErrNewer; !errors.Is(err, want) && (name != "replacing a hash" || !errors.Is(err, registry.ErrConflict)) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
	must.Succeed(t, k.RecordUses(ctx, []registry.Use{used("a", "1", 7), used("b", "1", 9)}))
	k.expectUses(t, "a", map[string]int{"1": 7})
	k.expectUses(t, "b", map[string]int{"1": 5}) // as the newer release left it
	if got := k.whole(t, "client:b"); !reflect.DeepEqual(got, upgraded) {
		t.Errorf("the record was overwritten: got %q, want %q", got, upgraded)
	}
	listed, err := k.Clients(ctx, oauth.ClientID{}, 10)
	must.Succeed(t, err)
	if len(listed) != 3 || listed[0].Err != nil || listed[2].Err != nil || len(listed[2].Secrets) != 1 ||
		!errors.Is(listed[1].Err, registry.ErrNewer) || !reflect.DeepEqual(listed[1], &registry.Client{ID: target.ID, Err: listed[1].Err}) {
		t.Errorf("listed %+v, want b with its id alone, and the others complete", listed)
	}
	// The others can be used and changed.
	if _, err := e.AddSecret(ctx, registry.Target{ID: clientID("a")}, "", time.Time{}); err != nil {
		t.Error(err)
	}
	if _, err := e.Apply(ctx, registry.Manifest{}, registry.ApplyOptions{Prune: true}); !errors.Is(err, registry.ErrNewer) || !reflect.DeepEqual(k.whole(t, "client:b"), upgraded) {
		t.Errorf("pruning: got %v, want %v and the client unchanged", err, registry.ErrNewer)
	}
}

// testNewerResources checks that a table of resources which a newer release wrote is neither used nor overwritten.
func testNewerResources(t *testing.T, k *kit) {
	ctx := t.Context()
	e := k.editor()
	must.Succeed(t, e.CreateResource(ctx, registry.Resource{ID: resourceID("urn:a"), Scopes: scopes("a")}))
	upgraded := k.upgrade(t, "resources", "resources")
	for name, try := range map[string]func() error{
		"reading": func() error { _, err := k.Resources(ctx); return err },
		"creating": func() error {
			return e.CreateResource(ctx, registry.Resource{ID: resourceID("urn:b"), Scopes: scopes("b")})
		},
		"applying": func() error { _, err := e.Apply(ctx, registry.Manifest{}, registry.ApplyOptions{}); return err },
	} {
		if err := try(); !errors.Is(err, registry.ErrNewer) {
			t.Errorf("%s: got %v, want %v", name, err, registry.ErrNewer)
		}
	}
	if got := k.whole(t, "resources"); !reflect.DeepEqual(got, upgraded) {
		t.Errorf("the record was overwritten: got %q, want %q", got, upgraded)
	}
}

// testNewerTrust checks that a table of trusted issuers which a newer release wrote is neither used nor overwritten.
func testNewerTrust(t *testing.T, k *kit) {
	ctx := t.Context()
	must.Succeed(t, k.SaveTrust(ctx, table(0, workload(scopes("a")))))
	upgraded := k.upgrade(t, "trust", "trust")
	e := k.editor()
	for name, try := range map[string]func() error{
		"reading":  func() error { _, err := k.Trust(ctx); return err },
		"creating": func() error { return e.CreateIssuer(ctx, trust.Issuer{Issuer: "https://b.example"}) },
		"deleting": func() error { return e.DeleteIssuer(ctx, "https://a.example", "") },
		"applying": func() error {
			_, err := e.Apply(ctx, registry.Manifest{Issuers: []trust.Issuer{{Issuer: "https://b.example"}}}, registry.ApplyOptions{})
			return err
		},
	} {
		if err := try(); !errors.Is(err, registry.ErrNewer) {
			t.Errorf("%s: got %v, want %v", name, err, registry.ErrNewer)
		}
	}
	if got := k.whole(t, "trust"); !reflect.DeepEqual(got, upgraded) {
		t.Errorf("the record was overwritten: got %q, want %q", got, upgraded)
	}
	// A manifest without the sections does not depend on the table.
	if _, err := e.Apply(ctx, registry.Manifest{}, registry.ApplyOptions{}); err != nil {
		t.Error(err)
	}
}

// testUnknownField checks that a record with a field which its format does not have is an error: this release must not drop
// the field of a release that failed to increment its format.
func testUnknownField(t *testing.T, k *kit) {
	k.save(t, newClient("a"))
	must.Succeed(t, k.SaveResources(t.Context(), must.Get(registry.NewResources(0, nil))))
	must.Succeed(t, k.SaveTrust(t.Context(), table(0)))
	for _, key := range []string{"client:a", "resources", "trust"} {
		data := k.whole(t, key)["d"]
		k.put(t, key, "77", strings.TrimSuffix(data, "}")+`,"later":1}`)
	}
	if _, err := k.Client(t.Context(), clientID("a")); err == nil || errors.Is(err, registry.ErrNewer) {
		t.Errorf("the client: got %v, want an error", err)
	}
	if _, err := k.Resources(t.Context()); err == nil || errors.Is(err, registry.ErrNewer) {
		t.Errorf("the resources: got %v, want an error", err)
	}
	if _, err := k.Trust(t.Context()); err == nil || errors.Is(err, registry.ErrNewer) {
		t.Errorf("the trusted issuers: got %v, want an error", err)
	}
}

// testFormat1 reads records as the first release wrote them. They must stay readable.
func testFormat1(t *testing.T, k *kit) {
	golden := func(name string) string {
		return strings.TrimSpace(string(must.Get(os.ReadFile(filepath.Join("testdata", name)))))
	}
	k.put(t, "client:full", "5", golden("client.1.json"))
	k.put(t, "resources", "6", golden("resources.1.json"))
	got, err := k.Client(t.Context(), clientID("full"))
	must.Succeed(t, err)
	want := &registry.Client{
		ID: clientID("full"), Name: "Everything",
		Secrets: []clientsecret.Secret{
			{ID: "1", Hash: "$hmac-sha256$abc", CreatedAt: start},
			{ID: "2", Hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$c3Vt", CreatedAt: start, ExpiresAt: start.Add(time.Hour), FromFile: true},
		},
		AuthMethods: []string{oauth.ClientSecretPost}, GrantTypes: []string{oauth.GrantClientCredentials},
		Scopes: scopes("a b"), DefaultScopes: scopes("a"), Resources: []oauth.Resource{resourceID("urn:a")},
		AccessTokenLifetime: 90 * time.Second, Disabled: true, CreatedAt: start, ChangedAt: start.Add(time.Minute), Version: 5,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	table, err := k.Resources(t.Context())
	must.Succeed(t, err)
	resource := registry.Resource{
		ID: resourceID("urn:a"), Name: "A", Scopes: scopes("a b"), AccessTokenLifetime: time.Minute, SigningAlg: jwks.RS256,
	}
	if got := table.List(); len(got) != 1 || !reflect.DeepEqual(got[0], resource) {
		t.Errorf("got %+v, want %+v", got, resource)
	}
}

// testNewerKind reads a change of a kind that only a newer release knows, with a time that this one cannot parse.
func testNewerKind(t *testing.T, k *kit) {
	must.Succeed(t, k.client.XAdd(t.Context(), &redis.XAddArgs{
		Stream: k.base + "feed", Values: []string{"k", "later", "i", "x", "t", "next week"},
	}).Err())
	k.save(t, newClient("a"))
	k.expectFeed(t, revocation.Change{Kind: "later", ID: "x"}, clientChange("a"))
}
