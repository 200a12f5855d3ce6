package registry_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

func TestNewResources(t *testing.T) {
	a := registry.Resource{ID: resourceID("urn:a"), Scopes: scopes("a1 a2"), SigningAlg: jwks.RS256, AccessTokenLifetime: time.Hour}
	change := func(f func(*registry.Resource)) []registry.Resource {
		b := registry.Resource{ID: resourceID("urn:b"), Scopes: scopes("b1")}
		f(&b)
		return []registry.Resource{a, b}
	}
	for name, test := range map[string]struct {
		list []registry.Resource
		want string // the field of the error
	}{
		"none":                  {nil, ""},
		"two":                   {change(func(*registry.Resource) {}), ""},
		"without scopes":        {change(func(r *registry.Resource) { r.Scopes = nil }), ""},
		"one identifier twice":  {change(func(r *registry.Resource) { r.ID = a.ID }), "resource"},
		"a scope with two":      {change(func(r *registry.Resource) { r.Scopes = scopes("b1 a2") }), "scopes"},
		"letter case differs":   {change(func(r *registry.Resource) { r.Scopes = scopes("A1") }), ""},
		"openid":                {change(func(r *registry.Resource) { r.Scopes = scopes("openid") }), "scopes"},
		"offline_access":        {change(func(r *registry.Resource) { r.Scopes = scopes("b offline_access") }), "scopes"},
		"as many scopes":        {change(func(r *registry.Resource) { r.Scopes = many(oauth.MaxScopes) }), ""},
		"the issuer's own":      {change(func(r *registry.Resource) { r.ID = resourceID("urn:grantor:admin") }), "resource"},
		"like the issuer's":     {change(func(r *registry.Resource) { r.ID = resourceID("urn:grantor:admin2") }), ""},
		"the issuer's scope":    {change(func(r *registry.Resource) { r.Scopes = scopes("b1 grantor:clients.read") }), "scopes"},
		"one like the issuer's": {change(func(r *registry.Resource) { r.Scopes = scopes("grantor:x") }), "scopes"},
		"grantor, no colon":     {change(func(r *registry.Resource) { r.Scopes = scopes("grantor grantor.x Grantor:x") }), ""},
		"ES256":                 {change(func(r *registry.Resource) { r.SigningAlg = jwks.ES256 }), ""},
		"PS256":                 {change(func(r *registry.Resource) { r.SigningAlg = jwks.PS256 }), ""},
		"EdDSA":                 {change(func(r *registry.Resource) { r.SigningAlg = jwks.EdDSA }), ""},
		"none as algorithm":     {change(func(r *registry.Resource) { r.SigningAlg = "none" }), "signing_alg"},
		"HS256":                 {change(func(r *registry.Resource) { r.SigningAlg = "HS256" }), "signing_alg"},
		"a second":              {change(func(r *registry.Resource) { r.AccessTokenLifetime = time.Second }), ""},
		"the longest":           {change(func(r *registry.Resource) { r.AccessTokenLifetime = registry.MaxLifetime }), ""},
		"longer": {
			change(func(r *registry.Resource) { r.AccessTokenLifetime = registry.MaxLifetime + time.Second }), "access_token_lifetime",
		},
		"negative": {change(func(r *registry.Resource) { r.AccessTokenLifetime = -time.Second }), "access_token_lifetime"},
		"half":     {change(func(r *registry.Resource) { r.AccessTokenLifetime = 1500 * time.Millisecond }), "access_token_lifetime"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := registry.NewResources(1, test.list)
			expectField(t, err, test.want)
			if err != nil && !strings.HasPrefix(err.Error(), "resource "+test.list[1].ID.String()+": ") {
				t.Errorf("the error does not name the resource: %v", err)
			}
		})
	}
}

func TestResources(t *testing.T) {
	table := must.Get(registry.NewResources(7, []registry.Resource{
		{ID: resourceID("urn:b"), Scopes: scopes("z b")}, {ID: resourceID("urn:a"), Scopes: scopes("a")},
	}))
	if got := table.Scopes(); !slices.Equal(got, []string{"a", "b", "z"}) {
		t.Errorf("got %q, want all in byte order", got)
	}
	if list := table.List(); len(list) != 2 || list[0].ID.String() != "urn:b" || table.Version() != 7 {
		t.Errorf("got %v in version %d", list, table.Version())
	}
	if r, ok := table.Get(resourceID("urn:a")); !ok || r.ID.String() != "urn:a" {
		t.Errorf("got %v, %v, want urn:a", r, ok)
	}
	if r, ok := table.Get(resourceID("urn:c")); ok {
		t.Errorf("got %v, want none", r)
	}
	if r, ok := table.Owner(scopes("z")[0]); !ok || r.ID.String() != "urn:b" {
		t.Errorf("got %v, %v, want urn:b", r, ok)
	}
	if r, ok := table.Owner(scopes("Z")[0]); ok {
		t.Errorf("got %v, want none", r)
	}
}

// TestAdminResource checks that the built-in resource is in every table, and in no list.
func TestAdminResource(t *testing.T) {
	for name, list := range map[string][]registry.Resource{"empty": nil, "of one": {{ID: resourceID("urn:a"), Scopes: scopes("a")}}} {
		table := must.Get(registry.NewResources(0, list))
		admin, ok := table.Get(resourceID("urn:grantor:admin"))
		if !ok {
			t.Fatalf("%s: there is no resource %s", name, registry.AdminResource)
		}
		const want = "grantor:clients.read grantor:clients.write grantor:resources.read grantor:resources.write grantor:keys.read grantor:keys.write grantor:trust.read grantor:trust.write"
		if admin.ID.String() != registry.AdminResource || admin.Scopes.String() != want {
			t.Errorf("%s: got %+v, want the scopes %s", name, admin, want)
		}
		for _, scope := range scopes(want) {
			if owner, ok := table.Owner(scope); !ok || owner != admin {
				t.Errorf("%s: %s belongs to %v", name, scope, owner)
			}
		}
		if owner, ok := table.Owner(scopes("grantor:x")[0]); ok {
			t.Errorf("%s: grantor:x belongs to %v", name, owner)
		}
		if len(table.List()) != len(list) || len(table.Scopes()) != len(list) {
			t.Errorf("%s: listed with %v and %v", name, table.List(), table.Scopes())
		}
	}
}

// TestResourceETag checks that resources have the same etag only if they are equal.
func TestResourceETag(t *testing.T) {
	whole := func() registry.Resource {
		return registry.Resource{
			ID: resourceID("urn:a"), Name: "A", Scopes: scopes("a b"), SigningAlg: jwks.ES256, AccessTokenLifetime: time.Hour,
		}
	}
	seen := map[string]string{}
	for name, change := range map[string]func(*registry.Resource){
		"nothing":    func(*registry.Resource) {},
		"identifier": func(r *registry.Resource) { r.ID = resourceID("urn:b") },
		"name":       func(r *registry.Resource) { r.Name = "B" },
		"no name":    func(r *registry.Resource) { r.Name = "" },
		"one scope":  func(r *registry.Resource) { r.Scopes = scopes("a") },
		"no scopes":  func(r *registry.Resource) { r.Scopes = nil },
		"order":      func(r *registry.Resource) { r.Scopes = scopes("b a") },
		"alg":        func(r *registry.Resource) { r.SigningAlg = jwks.RS256 },
		"lifetime":   func(r *registry.Resource) { r.AccessTokenLifetime = time.Minute },
		"a blank":    func(r *registry.Resource) { r.Name, r.Scopes = "A a", scopes("b") },
		"a quote":    func(r *registry.Resource) { r.Name, r.Scopes = `A" "a`, scopes("b") },
	} {
		r := whole()
		change(&r)
		if other, twice := seen[r.ETag()]; twice || r.ETag() == "" {
			t.Errorf("%s has the etag %q of %s", name, r.ETag(), other)
		}
		seen[r.ETag()] = name
		again := r
		again.Scopes = slices.Clone(r.Scopes)
		if again.ETag() != r.ETag() {
			t.Errorf("%s: the etags of equals differ", name)
		}
	}
}

func TestClientETag(t *testing.T) {
	for version, want := range map[uint64]string{0: "", 1: "1", 35: "z", 36: "10", 1<<64 - 1: "3w5e11264sgsf"} {
		etag := (&registry.Client{Version: version}).ETag()
		if got, err := registry.ParseETag(etag); etag != want || got != version || err != nil {
			t.Errorf("%d: got %q, %d, %v, want %q", version, etag, got, err, want)
		}
	}
	for _, etag := range []string{"0", "00", "01", "+1", "-1", " 1", "1 ", "Z", "1_0", "0x1", `"1"`, "*", "é", "3w5e11264sgsg"} {
		if got, err := registry.ParseETag(etag); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("%q: got %d, %v, want %v", etag, got, err, registry.ErrConflict)
		}
	}
}

func TestClientCheck(t *testing.T) {
	table := must.Get(registry.NewResources(1, []registry.Resource{
		{ID: resourceID("urn:a"), Scopes: scopes("a b")}, {ID: resourceID("urn:many"), Scopes: many(oauth.MaxScopes + 1)},
	}))
	for name, test := range map[string]struct {
		client registry.Client
		want   string
	}{
		"nothing":            {registry.Client{}, ""},
		"everything":         {full(), ""},
		"another grant":      {registry.Client{GrantTypes: []string{oauth.GrantClientCredentials, "password"}}, "grant_types"},
		"another method":     {registry.Client{AuthMethods: []string{"none"}}, "auth_methods"},
		"an unowned scope":   {registry.Client{Scopes: scopes("a c")}, "scopes"},
		"default, not its":   {registry.Client{Scopes: scopes("a"), DefaultScopes: scopes("b")}, "default_scopes"},
		"an unowned default": {registry.Client{DefaultScopes: scopes("c")}, "default_scopes"},
		"serves what is not": {registry.Client{Resources: []oauth.Resource{resourceID("urn:b")}}, "resources"},
		"the issuer's scope": {registry.Client{Scopes: scopes("a grantor:keys.write")}, ""},
		"none of its scopes": {registry.Client{Scopes: scopes("grantor:keys")}, "scopes"},
		"serves the issuer":  {registry.Client{Resources: []oauth.Resource{resourceID("urn:grantor:admin")}}, "resources"},
		"too many scopes":    {registry.Client{Scopes: many(oauth.MaxScopes + 1)}, "scopes"},
		"as many scopes":     {registry.Client{Scopes: many(oauth.MaxScopes)}, ""},
		"a grant twice":      {registry.Client{GrantTypes: []string{oauth.GrantClientCredentials, oauth.GrantClientCredentials}}, "grant_types"},
		"a method twice":     {registry.Client{AuthMethods: []string{oauth.ClientSecretPost, oauth.ClientSecretPost}}, "auth_methods"},
		"a scope twice":      {registry.Client{Scopes: append(scopes("a b"), scopes("a")...)}, "scopes"},
		"a default twice":    {registry.Client{Scopes: scopes("a"), DefaultScopes: append(scopes("a"), scopes("a")...)}, "default_scopes"},
		"a resource twice":   {registry.Client{Resources: []oauth.Resource{resourceID("urn:a"), resourceID("urn:a")}}, "resources"},
		"a network twice":    {registry.Client{AllowedNetworks: networks(2, 0)}, "allowed_networks"},
		"most networks":      {registry.Client{AllowedNetworks: networks(64, 1)}, ""},
		"too many networks":  {registry.Client{AllowedNetworks: networks(65, 1)}, "allowed_networks"},
		"longest name":       {registry.Client{Name: strings.Repeat("é", 127) + "x"}, ""},
		"longer name":        {registry.Client{Name: strings.Repeat("é", 128)}, "client_name"},
		"line end in name":   {registry.Client{Name: "a\nb"}, "client_name"},
		"escape in name":     {registry.Client{Name: "a\x1b[2J"}, "client_name"},
		"C1 in name":         {registry.Client{Name: "a\u009b"}, "client_name"},
		"name not UTF-8":     {registry.Client{Name: "a\xff"}, "client_name"},
		"lifetime negative":  {registry.Client{AccessTokenLifetime: -1}, "access_token_lifetime"},
		"lifetime too long":  {registry.Client{AccessTokenLifetime: registry.MaxLifetime + time.Second}, "access_token_lifetime"},
		"lifetime of 1.5 s":  {registry.Client{AccessTokenLifetime: 1500 * time.Millisecond}, "access_token_lifetime"},
	} {
		t.Run(name, func(t *testing.T) { expectField(t, test.client.Check(table), test.want) })
	}
}

// networks returns n networks, step apart.
func networks(n, step int) (all remoteaddr.Networks) {
	for i := range n {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i * step), 0}), 24))
	}
	return all
}

// many returns n scopes.
func many(n int) oauth.Scopes {
	var all oauth.Scopes
	for i := range n {
		all = append(all, scopes(fmt.Sprint("many", i))...)
	}
	return all
}

func full() registry.Client {
	return registry.Client{
		ID: clientID("full"), Name: "Full", AuthMethods: []string{oauth.ClientSecretBasic, oauth.ClientSecretPost},
		GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes("a b"), DefaultScopes: scopes("b"),
		Resources: []oauth.Resource{resourceID("urn:a")}, AccessTokenLifetime: time.Hour,
		AllowedNetworks: networks(2, 1),
	}
}

func TestAllows(t *testing.T) {
	for name, test := range map[string]struct {
		methods []string
		method  string
		want    bool
	}{
		"any, basic":       {nil, oauth.ClientSecretBasic, true},
		"any, post":        {nil, oauth.ClientSecretPost, true},
		"any, none":        {nil, "none", false},
		"any, empty":       {nil, "", false},
		"any, assertion":   {nil, "private_key_jwt", true},
		"basic, basic":     {[]string{oauth.ClientSecretBasic}, oauth.ClientSecretBasic, true},
		"basic, post":      {[]string{oauth.ClientSecretBasic}, oauth.ClientSecretPost, false},
		"other, basic":     {[]string{"private_key_jwt"}, oauth.ClientSecretBasic, false},
		"other, the other": {[]string{"private_key_jwt"}, "private_key_jwt", true},
	} {
		if got := (&registry.Client{AuthMethods: test.methods}).Allows(test.method); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
