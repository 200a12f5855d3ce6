package registry_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
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
		want string // the field that is wrong
	}{
		"none":                 {nil, ""},
		"two":                  {change(func(*registry.Resource) {}), ""},
		"without scopes":       {change(func(r *registry.Resource) { r.Scopes = nil }), ""},
		"one identifier twice": {change(func(r *registry.Resource) { r.ID = a.ID }), "resource"},
		"a scope with two":     {change(func(r *registry.Resource) { r.Scopes = scopes("b1 a2") }), "scopes"},
		"letter case differs":  {change(func(r *registry.Resource) { r.Scopes = scopes("A1") }), ""},
		"openid":               {change(func(r *registry.Resource) { r.Scopes = scopes("openid") }), "scopes"},
		"offline_access":       {change(func(r *registry.Resource) { r.Scopes = scopes("b offline_access") }), "scopes"},
		"ES256":                {change(func(r *registry.Resource) { r.SigningAlg = jwks.ES256 }), ""},
		"PS256":                {change(func(r *registry.Resource) { r.SigningAlg = jwks.PS256 }), ""},
		"EdDSA":                {change(func(r *registry.Resource) { r.SigningAlg = jwks.EdDSA }), ""},
		"none as algorithm":    {change(func(r *registry.Resource) { r.SigningAlg = "none" }), "signing_alg"},
		"HS256":                {change(func(r *registry.Resource) { r.SigningAlg = "HS256" }), "signing_alg"},
		"a second":             {change(func(r *registry.Resource) { r.AccessTokenLifetime = time.Second }), ""},
		"the longest":          {change(func(r *registry.Resource) { r.AccessTokenLifetime = registry.MaxLifetime }), ""},
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
	table := must(registry.NewResources(7, []registry.Resource{
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

func TestClientCheck(t *testing.T) {
	table := must(registry.NewResources(1, []registry.Resource{{ID: resourceID("urn:a"), Scopes: scopes("a b")}}))
	for name, test := range map[string]struct {
		client registry.Client
		want   string
	}{
		"nothing":            {registry.Client{}, ""},
		"everything":         {full(), ""},
		"another grant":      {registry.Client{GrantTypes: []string{oauth.GrantClientCredentials, "password"}}, "grant_types"},
		"another method":     {registry.Client{AuthMethods: []string{"none"}}, "auth_methods"},
		"a scope of nobody":  {registry.Client{Scopes: scopes("a c")}, "scopes"},
		"default, not its":   {registry.Client{Scopes: scopes("a"), DefaultScopes: scopes("b")}, "default_scopes"},
		"default of nobody":  {registry.Client{DefaultScopes: scopes("c")}, "default_scopes"},
		"serves what is not": {registry.Client{Resources: []oauth.Resource{resourceID("urn:b")}}, "resources"},
		"lifetime negative":  {registry.Client{AccessTokenLifetime: -1}, "access_token_lifetime"},
		"lifetime too long":  {registry.Client{AccessTokenLifetime: registry.MaxLifetime + time.Second}, "access_token_lifetime"},
		"lifetime of 1.5 s":  {registry.Client{AccessTokenLifetime: 1500 * time.Millisecond}, "access_token_lifetime"},
	} {
		t.Run(name, func(t *testing.T) { expectField(t, test.client.Check(table), test.want) })
	}
}

func full() registry.Client {
	return registry.Client{
		ID: clientID("full"), Name: "Full", AuthMethods: []string{oauth.ClientSecretBasic, oauth.ClientSecretPost},
		GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes("a b"), DefaultScopes: scopes("b"),
		Resources: []oauth.Resource{resourceID("urn:a")}, AccessTokenLifetime: time.Hour,
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
		"any, assertion":   {nil, "private_key_jwt", false},
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

func TestExpired(t *testing.T) {
	for name, test := range map[string]struct {
		expires time.Time
		want    bool
	}{
		"never":         {time.Time{}, false},
		"in a second":   {start.Add(time.Second), false},
		"now":           {start, true},
		"a second past": {start.Add(-time.Second), true},
	} {
		if got := (&registry.Secret{ExpiresAt: test.expires}).Expired(start); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
