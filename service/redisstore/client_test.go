package redisstore_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/trust"
)

func (k *kit) expectClient(t *testing.T, want *registry.Client) {
	t.Helper()
	got, err := k.Client(t.Context(), want.ID)
	must.Succeed(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func (k *kit) expectNoClient(t *testing.T, id string) {
	t.Helper()
	if got, err := k.Client(t.Context(), clientID(id)); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%q: got %v, %v, want %v", id, got, err, registry.ErrNotFound)
	}
}

func expectConflict(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, registry.ErrConflict) {
		t.Errorf("got %v, want %v", err, registry.ErrConflict)
	}
}

func testClientLife(t *testing.T, k *kit) {
	k.expectNoClient(t, "a")
	first := k.save(t, newClient("a"))
	if first.Version == 0 {
		t.Error("a stored client has version 0, which means that it is not stored")
	}
	next := *first
	next.Name = "A"
	second := k.save(t, &next)
	if second.Name != "A" || second.Version == first.Version {
		t.Errorf("got %q in version %d, want A in a version other than %d", second.Name, second.Version, first.Version)
	}
	k.expectClient(t, second)
	k.expectNoClient(t, "A")
	must.Succeed(t, k.DeleteClient(t.Context(), second.ID, second.Version))
	k.expectNoClient(t, "a")
}

func testClientFields(t *testing.T, k *kit) {
	full := &registry.Client{
		ID: clientID("full"), Name: "Ünï \"quoted\" \n {name}",
		Secrets: []clientsecret.Secret{
			{ID: "1", Hash: "$hmac-sha256$abc", CreatedAt: start},
			{
				ID: "2", Hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$c3Vt", CreatedAt: start, ExpiresAt: start.Add(time.Hour), FromFile: true,
			},
		},
		AuthMethods: []string{oauth.ClientSecretPost, oauth.ClientSecretBasic},
		GrantTypes:  []string{oauth.GrantClientCredentials, "other"},
		Scopes:      scopes("b a orders.read"), DefaultScopes: scopes("a b"),
		Resources:           []oauth.Resource{resourceID("https://b.internal"), resourceID("urn:a")},
		AccessTokenLifetime: 90 * time.Second, Disabled: true, CreatedAt: start, ChangedAt: start.Add(time.Minute),
		AllowedNetworks: remoteaddr.Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
		Keys:            must.Get(jwks.ParseDocument(jwstest.Set(jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.RS256)))),

		KeysURI:                "https://orders.example.com/jwks.json",
		UntypedAssertionsUntil: start.Add(time.Hour), OlderAudiencesUntil: start.Add(2 * time.Hour), DPoPBoundTokens: true, Workload: true,
		SPIFFEID: "spiffe://prod.example.com/shop/*",
		Federation: []trust.Rule{
			{Issuer: "https://a.example", Subject: pattern("system:serviceaccount:{ns}:*"), Claims: map[string]trust.Pattern{"ref": pattern("refs/heads/main")}},
			{SPIFFEID: pattern("spiffe://prod.example.com/shop/orders")},
		},
		Certificate:            certificate.Subject{DN: "CN=full", DNS: "full.internal", URI: "spiffe://internal/full", IP: "192.0.2.1", Email: "full@example.com"},
		CertificateBoundTokens: true,
	}
	// The test must fail for a field that is added later and not stored.
	fields := reflect.ValueOf(*full)
	for i := range fields.NumField() {
		if name := fields.Type().Field(i).Name; fields.Field(i).IsZero() && name != "Version" && name != "Err" {
			t.Errorf("the test leaves %s empty", name)
		}
	}
	for _, want := range []*registry.Client{full, {ID: clientID("empty")}} {
		must.Succeed(t, k.SaveClient(t.Context(), want))
		got, err := k.Client(t.Context(), want.ID)
		must.Succeed(t, err)
		want.Version = got.Version
		k.expectClient(t, want)
		listed, err := k.Clients(t.Context(), oauth.ClientID{}, 1)
		must.Succeed(t, err)
		if want == full && !reflect.DeepEqual(listed, []*registry.Client{full}) {
			t.Errorf("listed as %+v, want %+v", listed, full)
		}
	}
}

func testClientConflicts(t *testing.T, k *kit) {
	first := k.save(t, newClient("a"))
	second := k.save(t, first)
	ctx := t.Context()
	for name, err := range map[string]error{
		"created twice":         k.SaveClient(ctx, newClient("a")),
		"changed when stale":    k.SaveClient(ctx, first),
		"removed when stale":    k.DeleteClient(ctx, first.ID, first.Version),
		"removed as not stored": k.DeleteClient(ctx, first.ID, 0),
		"version of another":    k.SaveClient(ctx, &registry.Client{ID: clientID("b"), Version: second.Version}),
		"removed, not stored":   k.DeleteClient(ctx, clientID("b"), second.Version),
	} {
		if !errors.Is(err, registry.ErrConflict) {
			t.Errorf("%s: got %v, want %v", name, err, registry.ErrConflict)
		}
	}
	k.expectClient(t, second)
	k.expectNoClient(t, "b")
}

func testClientRecreated(t *testing.T, k *kit) {
	first := k.save(t, newClient("a"))
	must.Succeed(t, k.DeleteClient(t.Context(), first.ID, first.Version))
	expectConflict(t, k.SaveClient(t.Context(), first))
	expectConflict(t, k.DeleteClient(t.Context(), first.ID, first.Version))
	again := k.save(t, newClient("a"))
	if again.Version == first.Version {
		t.Errorf("the new client has the old version %d", first.Version)
	}
	expectConflict(t, k.SaveClient(t.Context(), first))
	k.expectClient(t, again)
}

func testOneOfManyWins(t *testing.T, k *kit) {
	const many = 50
	errs := make([]error, many)
	var group sync.WaitGroup
	for i := range many {
		group.Go(func() {
			c := newClient("a")
			c.Name = fmt.Sprint(i)
			errs[i] = k.SaveClient(t.Context(), c)
		})
	}
	group.Wait()
	winner, err := k.Client(t.Context(), clientID("a"))
	must.Succeed(t, err)
	for i, err := range errs {
		if won := fmt.Sprint(i) == winner.Name; won && err != nil || !won && !errors.Is(err, registry.ErrConflict) {
			t.Errorf("%d, where %s won: got %v", i, winner.Name, err)
		}
	}
	k.expectFeed(t, clientChange("a"))
}

func testListed(t *testing.T, k *kit) {
	// Byte order, neither alphabetical nor numerical.
	want := []string{"!", "+", "-", "10", "9", "A", "B", "Z", "a", "a!", "aa", "b", "client:a", "zz", "~"}
	for _, i := range []int{5, 0, 13, 2, 9, 14, 1, 7, 3, 12, 4, 11, 6, 10, 8} {
		k.save(t, newClient(want[i]))
	}
	for _, page := range []int{1, 3, 14, 15, 16, 1000} {
		var got []string
		var after oauth.ClientID
		for {
			clients, err := k.Clients(t.Context(), after, page)
			must.Succeed(t, err)
			for _, c := range clients {
				got, after = append(got, c.ID.String()), c.ID
			}
			if len(clients) > page || len(got) > len(want) {
				t.Fatalf("in pages of %d: got %d clients, %q in total", page, len(clients), got)
			}
			if len(clients) < page {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: got %q, want %q", page, got, want)
		}
	}
	// The id to start after need not exist, and a deleted client is not listed.
	a, err := k.Client(t.Context(), clientID("a"))
	must.Succeed(t, err)
	must.Succeed(t, k.DeleteClient(t.Context(), a.ID, a.Version))
	clients, err := k.Clients(t.Context(), a.ID, 2)
	must.Succeed(t, err)
	if len(clients) != 2 || clients[0].ID.String() != "a!" || clients[1].ID.String() != "aa" {
		t.Errorf("after a: got %v, want a! and aa", clients)
	}
}

// testHostileIDs checks that an id is only data, even if it looks like part of a key.
func testHostileIDs(t *testing.T, k *kit) {
	ids := []string{
		"*", "?", "[a]", "{", "}", "{}", "{x}", "}:{", ":", "::", "clients", "x}:ring", "x}:feed", "../ring", "-", "+", "(a", "[a",
		"$", "0", "v", k.base + "ring", strings.Repeat("x", oauth.MaxID), `\u0000`, `"`, "';return{}--", "%7B", "%s",
	}
	announced := slices.Clone(ids)
	stored := make(map[string]*registry.Client)
	for _, id := range ids {
		c := newClient(id)
		c.Name = "name of " + id
		stored[id] = k.save(t, c)
	}
	for _, want := range stored {
		k.expectClient(t, want)
	}
	listed, err := k.Clients(t.Context(), oauth.ClientID{}, len(ids)+1)
	must.Succeed(t, err)
	slices.Sort(ids)
	if !slices.EqualFunc(listed, ids, func(c *registry.Client, id string) bool { return reflect.DeepEqual(c, stored[id]) }) {
		t.Errorf("listed %v", listed)
	}
	for i, change := range k.feed(t) {
		if change != clientChange(announced[i]) {
			t.Errorf("announced as %q, want %q", change, announced[i])
		}
	}
	if data, version, err := k.LoadRing(t.Context()); data != nil || version != 0 || err != nil {
		t.Errorf("an id made a ring: %q, %d, %v", data, version, err)
	}
	if table, err := k.Resources(t.Context()); err != nil || len(table.List()) > 0 {
		t.Errorf("an id made resources: %v, %v", table, err)
	}
	for _, id := range ids {
		must.Succeed(t, k.DeleteClient(t.Context(), clientID(id), stored[id].Version))
		k.expectNoClient(t, id)
	}
	keys, err := k.client.Keys(t.Context(), strings.ReplaceAll(k.base, "{", "\\{")+"*").Result()
	must.Succeed(t, err)
	if !slices.Equal(keys, []string{k.base + "feed"}) {
		t.Errorf("left behind: %q, want the feed alone", keys)
	}
	// What a key cannot contain is not an id.
	for _, id := range []string{"a\nb", "a\r", "a b", "a\x00", "", "é", strings.Repeat("x", oauth.MaxID+1)} {
		if got, err := oauth.ParseClientID(id); err == nil {
			t.Errorf("%q is an id: %q", id, got)
		}
	}
}

// testUnreadableClients checks that a malformed record is no client at all: half of one could have more rights than the
// whole.
func testUnreadableClients(t *testing.T, k *kit) {
	const whole = `{"format":1,"client_id":"a","scope":"a b","grant_types":["client_credentials"],"created_at":1,"changed_at":1}`
	for name, test := range map[string]struct{ version, data string }{
		"no JSON":            {"5", "x"},
		"empty":              {"5", ""},
		"null":               {"5", "null"},
		"cut off":            {"5", whole[:40]},
		"two records":        {"5", whole + whole},
		"no format":          {"5", strings.Replace(whole, `"format":1,`, "", 1)},
		"format below one":   {"5", strings.Replace(whole, `"format":1`, `"format":0`, 1)},
		"malformed network":  {"5", strings.Replace(whole, `"scope"`, `"allowed_networks":["10.0.0.1/8"],"scope"`, 1)},
		"of another client":  {"5", strings.Replace(whole, `"client_id":"a"`, `"client_id":"b"`, 1)},
		"of no client":       {"5", strings.Replace(whole, `"client_id":"a"`, `"client_id":""`, 1)},
		"malformed scope":    {"5", strings.Replace(whole, `"a b"`, `"a \"b\""`, 1)},
		"scope of a type":    {"5", strings.Replace(whole, `"a b"`, `["a"]`, 1)},
		"malformed default":  {"5", strings.Replace(whole, `"scope"`, `"default_scope":"é","scope"`, 1)},
		"malformed resource": {"5", strings.Replace(whole, `"scope"`, `"resources":["x"],"scope"`, 1)},
		"too many scopes":    {"5", strings.Replace(whole, `"a b"`, `"`+manyScopes(65)+`"`, 1)},
		"time as a text":     {"5", strings.Replace(whole, `"created_at":1`, `"created_at":"1"`, 1)},
		"version no number":  {"x", whole},
		"version negative":   {"-1", whole},
	} {
		t.Run(name, func(t *testing.T) {
			must.Succeed(t, k.client.ZAdd(t.Context(), k.base+"clients", redis.Z{Member: "a"}).Err())
			k.put(t, "client:a", "5", whole)
			if c, err := k.Client(t.Context(), clientID("a")); err != nil || c.Version != 5 || c.Scopes.String() != "a b" {
				t.Fatalf("before: got %v, %v", c, err)
			}
			k.put(t, "client:a", test.version, test.data)
			got, err := k.Client(t.Context(), clientID("a"))
			if err == nil || got != nil || errors.Is(err, registry.ErrAltered) {
				t.Errorf("got %+v, %v, want an error other than that of an altered record", got, err)
			}
			listed, err := k.Clients(t.Context(), oauth.ClientID{}, 10)
			must.Succeed(t, err)
			if len(listed) != 1 || listed[0].Err == nil || !reflect.DeepEqual(listed[0], &registry.Client{ID: clientID("a"), Err: listed[0].Err}) {
				t.Errorf("listed %+v, want its id and an error alone", listed)
			}
		})
	}
}

func manyScopes(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("s%d", i)
	}
	return strings.Join(all, " ")
}

// testFormats checks that a client restricted to networks is stored in a format that a release which would ignore the
// restriction cannot read; any other client is stored in the first format.
func testFormats(t *testing.T, k *kit) {
	c := newClient("a")
	for _, networks := range []remoteaddr.Networks{nil, {netip.MustParsePrefix("10.0.0.0/8")}, nil} {
		c.AllowedNetworks = networks
		c = k.save(t, c)
		data, err := k.client.HGet(t.Context(), k.base+"client:a", "d").Result()
		must.Succeed(t, err)
		if want := fmt.Sprintf(`{"format":%d,`, 1+len(networks)); !strings.HasPrefix(data, want) {
			t.Errorf("with the networks %v it is stored as %s, want %s", networks, data, want)
		}
	}
	for name, change := range map[string]func(*registry.Client){
		"the name of a certificate": func(c *registry.Client) { c.Certificate.DNS = "a.internal" },
		"bound tokens":              func(c *registry.Client) { c.CertificateBoundTokens = true },
	} {
		c.Certificate, c.CertificateBoundTokens = certificate.Subject{}, false
		change(c)
		c = k.save(t, c)
		data := must.Get(k.client.HGet(t.Context(), k.base+"client:a", "d").Result())
		if !strings.HasPrefix(data, `{"format":3,`) {
			t.Errorf("with %s it is stored as %s", name, data)
		}
		k.put(t, "client:a", "77", strings.Replace(data, `"format":3`, `"format":2`, 1))
		if got, err := k.Client(t.Context(), c.ID); err == nil {
			t.Errorf("with %s in format 2: got %+v", name, got)
		}
		k.put(t, "client:a", strconv.FormatUint(c.Version, 10), data)
	}
}

func testListedWithoutRecord(t *testing.T, k *kit) {
	k.save(t, newClient("a"))
	must.Succeed(t, k.client.Del(t.Context(), k.base+"client:a").Err())
	if got, err := k.Clients(t.Context(), oauth.ClientID{}, 10); err != nil || len(got) != 1 || got[0].Err == nil || !strings.Contains(got[0].Err.Error(), `"a"`) {
		t.Errorf("got %v, %v, want an entry with an error that names the client a", got, err)
	}
	// List reports it and does not hide the others.
	k.save(t, newClient("b"))
	k.save(t, newClient("c"))
	k.alter(t, "client:b", "d", "{}")
	entries, err := k.List(t.Context(), "", 10)
	must.Succeed(t, err)
	if len(entries) != 3 || entries[0].Err == nil || !errors.Is(entries[1].Err, registry.ErrAltered) || entries[2].Err != nil || entries[2].Client.ID != clientID("c") {
		t.Errorf("got %+v, want two errors and the third client", entries)
	}
	if entries, err = k.List(t.Context(), "a", 1); err != nil || len(entries) != 1 || entries[0].ID != "b" {
		t.Errorf("after a: got %+v, %v, want b", entries, err)
	}
}
