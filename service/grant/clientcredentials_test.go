package grant_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/grant"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

const (
	orders  = "https://orders.internal"
	billing = "https://billing.internal"
	audit   = "https://audit.internal"
	empty   = "https://empty.internal"
)

func table() *registry.Resources {
	resource := func(id, scopes string, lifetime time.Duration, alg jwks.Algorithm) registry.Resource {
		return registry.Resource{
			ID: must.Get(oauth.ParseResource(id)), Scopes: must.Get(oauth.ParseScopes(scopes)), AccessTokenLifetime: lifetime, SigningAlg: alg,
		}
	}
	return must.Get(registry.NewResources(1, []registry.Resource{
		resource(orders, "orders.read orders.write", 0, ""),
		resource(billing, "billing.read", 10*time.Minute, jwks.RS256),
		resource(audit, "audit.read", 5*time.Minute, jwks.EdDSA),
		resource("https://ledger.internal", "ledger.read", 2*time.Hour, jwks.RS256),
		resource(empty, "", 0, ""),
	}))
}

// all lists a scope of every resource that has one, and one that no resource owns any more.
const all = "orders.read billing.read audit.read ledger.read removed"

func client(scopes, defaults string) *registry.Client {
	return &registry.Client{
		GrantTypes: []string{oauth.GrantClientCredentials},
		Scopes:     must.Get(oauth.ParseScopes(scopes)), DefaultScopes: must.Get(oauth.ParseScopes(defaults)),
	}
}

func TestDecide(t *testing.T) {
	many := make([]string, oauth.MaxResources+1)
	for i := range many {
		many[i] = orders
	}
	lifetime := func(d time.Duration) *registry.Client {
		c := client(all, "")
		c.AccessTokenLifetime = d
		return c
	}
	for name, test := range map[string]struct {
		client    *registry.Client
		scope     string
		resources []string
		// want is the scopes, the audience, the lifetime and the algorithm, or the error code.
		want string
	}{
		"one scope": {client(all, ""), "orders.read", nil, "[orders.read] [orders] 1h0m0s ES256"},
		"the order of the request": {
			client("orders.read orders.write", ""), "orders.write orders.read", nil, "[orders.write orders.read] [orders] 1h0m0s ES256",
		},
		"a scope twice":           {client(all, ""), "orders.read orders.read", nil, "[orders.read] [orders] 1h0m0s ES256"},
		"all of the client":       {client("orders.read orders.write", ""), "", nil, "[orders.read orders.write] [orders] 1h0m0s ES256"},
		"blanks for none":         {client("orders.read", ""), "  ", nil, "[orders.read] [orders] 1h0m0s ES256"},
		"the default ones":        {client(all, "orders.read"), "", nil, "[orders.read] [orders] 1h0m0s ES256"},
		"others than the default": {client(all, "orders.read"), "billing.read", nil, "[billing.read] [billing] 10m0s RS256"},
		"not the client's":        {client("orders.read", ""), "orders.write", nil, "invalid_scope"},
		"one not the client's":    {client("orders.read", ""), "orders.read orders.write", nil, "invalid_scope"},
		"unknown":                 {client(all, ""), "unknown", nil, "invalid_scope"},
		"letter case":             {client(all, ""), "Orders.read", nil, "invalid_scope"},
		"malformed":               {client(all, ""), `"`, nil, "invalid_scope"},
		"too many":                {client(all, ""), strings.Repeat("a ", 64*129), nil, "invalid_request"},
		"its owner was removed":   {client(all, ""), "removed", nil, "invalid_scope"},
		"no scope at all":         {client("", ""), "", nil, "invalid_target"},
		"asked, but has none":     {client("", ""), "orders.read", nil, "invalid_scope"},
		"one default was removed": {client(all, "removed orders.read"), "", nil, "[orders.read] [orders] 1h0m0s ES256"},
		"the default was removed": {client(all, "removed"), "", nil, "invalid_target"},
		"no grant type":           {&registry.Client{Scopes: must.Get(oauth.ParseScopes(all))}, "orders.read", nil, "unauthorized_client"},
		"another grant type": {
			&registry.Client{Scopes: must.Get(oauth.ParseScopes(all)), GrantTypes: []string{"password"}}, "orders.read", nil, "unauthorized_client",
		},
		"grant before scope": {&registry.Client{}, "unknown", []string{"x"}, "unauthorized_client"},

		"the owner as resource":      {client(all, ""), "orders.read", []string{orders}, "[orders.read] [orders] 1h0m0s ES256"},
		"a resource twice":           {client(all, ""), "orders.read", []string{orders, orders}, "[orders.read] [orders] 1h0m0s ES256"},
		"an empty resource":          {client(all, ""), "orders.read", []string{""}, "[orders.read] [orders] 1h0m0s ES256"},
		"narrowed to a resource":     {client(all, ""), "orders.read billing.read", []string{orders}, "[orders.read] [orders] 1h0m0s ES256"},
		"defaults narrowed":          {client(all, ""), "", []string{billing}, "[billing.read] [billing] 10m0s RS256"},
		"two resources":              {client(all, ""), "", []string{billing, orders}, "[orders.read billing.read] [orders billing] 10m0s RS256"},
		"resource without the scope": {client(all, ""), "orders.read", []string{billing}, "invalid_target"},
		"one of two without":         {client(all, ""), "orders.read", []string{orders, billing}, "invalid_target"},
		"resource without any scope": {client(all, ""), "", []string{empty}, "invalid_target"},
		"unknown resource":           {client(all, ""), "orders.read", []string{"https://unknown.internal"}, "invalid_target"},
		"resource that is no URI":    {client(all, ""), "orders.read", []string{"orders"}, "invalid_target"},
		"resource with a fragment":   {client(all, ""), "orders.read", []string{orders + "#a"}, "invalid_target"},
		"resource too long":          {client(all, ""), "orders.read", []string{orders + "/" + strings.Repeat("a", 512)}, "invalid_request"},
		"too many resources":         {client(all, ""), "orders.read", many, "invalid_request"},
		"as many as may be":          {client(all, ""), "orders.read", many[1:], "[orders.read] [orders] 1h0m0s ES256"},

		"lifetime of the resource":  {lifetime(0), "billing.read", nil, "[billing.read] [billing] 10m0s RS256"},
		"longer than the default":   {lifetime(0), "ledger.read", nil, "[ledger.read] [ledger] 2h0m0s RS256"},
		"shortest of two resources": {lifetime(0), "ledger.read billing.read", nil, "[ledger.read billing.read] [ledger billing] 10m0s RS256"},
		"lifetime of the client":    {lifetime(time.Minute), "orders.read", nil, "[orders.read] [orders] 1m0s ES256"},
		"client longer":             {lifetime(3 * time.Hour), "orders.read", nil, "[orders.read] [orders] 3h0m0s ES256"},
		"client shorter":            {lifetime(time.Minute), "billing.read", nil, "[billing.read] [billing] 1m0s RS256"},
		"resource shorter":          {lifetime(time.Hour), "billing.read", nil, "[billing.read] [billing] 10m0s RS256"},

		"algorithm of one of two":  {client(all, ""), "orders.read audit.read", nil, "[orders.read audit.read] [orders audit] 5m0s EdDSA"},
		"two that agree":           {client(all, ""), "billing.read ledger.read", nil, "[billing.read ledger.read] [billing ledger] 10m0s RS256"},
		"two that differ":          {client(all, ""), "billing.read audit.read", nil, "invalid_target"},
		"two that differ narrowed": {client(all, ""), "billing.read audit.read", []string{audit}, "[audit.read] [audit] 5m0s EdDSA"},
	} {
		t.Run(name, func(t *testing.T) {
			before := fmt.Sprint(*test.client)
			decider := &grant.ClientCredentials{Lifetime: time.Hour, Algorithm: jwks.ES256}
			d, err := decider.Decide(test.client, table(), grant.Request{Scope: test.scope, Resources: test.resources})
			if got := describe(t, d, err); got != test.want {
				t.Errorf("got %s, %v, want %s", got, err, test.want)
			}
			// Clients are shared between requests, so that Decide must not change them.
			if after := fmt.Sprint(*test.client); after != before {
				t.Errorf("the client changed from %s to %s", before, after)
			}
		})
	}
}

// describe formats the decision, or the code of the error.
func describe(t *testing.T, d *grant.Decision, err error) string {
	t.Helper()
	if err != nil {
		var refusal *oauth.Error
		if !errors.As(err, &refusal) || d != nil {
			t.Errorf("got %v with %v, want a refusal alone", d, err)
			return ""
		}
		return string(refusal.Code)
	}
	var names []string
	for _, aud := range d.Audience {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(aud, "https://"), ".internal"))
	}
	return fmt.Sprintf("%s %v %s %s", d.Scopes.Strings(), names, d.Lifetime, d.Algorithm)
}

// No request is granted a scope that the client does not have, and the audience holds the owner of each scope.
func TestNeverWider(t *testing.T) {
	resources := table()
	decider := &grant.ClientCredentials{Lifetime: time.Hour, Algorithm: jwks.ES256}
	names := strings.Fields(all + " orders.write unknown")
	targets := []string{"", orders, billing, empty, "urn:x"}
	for has := range 1 << len(names) {
		c := client(subset(names, has), "")
		for asks := range 1 << len(names) {
			for _, target := range targets {
				r := grant.Request{Scope: subset(names, asks), Resources: []string{target}}
				d, err := decider.Decide(c, resources, r)
				if err != nil {
					continue
				}
				var audience []string
				for _, scope := range d.Scopes {
					owner, ok := resources.Owner(scope)
					if !ok || !c.Scopes.Has(scope) {
						t.Fatalf("%v asks %+v: got %q", c.Scopes, r, scope)
					}
					if !slices.Contains(audience, owner.ID.String()) {
						audience = append(audience, owner.ID.String())
					}
				}
				if target != "" && !slices.Equal(d.Audience, []string{target}) {
					t.Fatalf("%v asks %+v: audience %q", c.Scopes, r, d.Audience)
				}
				if !slices.Equal(audience, d.Audience) || len(audience) == 0 {
					t.Fatalf("%v asks %+v: audience %q, want %q", c.Scopes, r, d.Audience, audience)
				}
			}
		}
	}
}

// subset returns the names whose bits are set.
func subset(names []string, bits int) string {
	var picked []string
	for i, name := range names {
		if bits&(1<<i) != 0 {
			picked = append(picked, name)
		}
	}
	return strings.Join(picked, " ")
}

// TestScopeIsNamed expects invalid_scope to name the first scope that is refused, in the characters of RFC 6749 §5.2 and
// bounded in length.
func TestScopeIsNamed(t *testing.T) {
	g := &grant.ClientCredentials{Lifetime: time.Hour, Algorithm: jwks.ES256}
	const outside = " has a character outside RFC 6749 section 3.3; scopes are separated by spaces."
	const unknown = " does not exist or is not granted to the client."
	for requested, want := range map[string]string{
		"orders.read unknown other":                "The scope unknown" + unknown,
		"orders.write":                             "The scope orders.write" + unknown,
		"orders.read,orders.write":                 "The scope orders.read,orders.write" + unknown,
		"grantor:clients.write":                    "The scope grantor:clients.write" + unknown,
		strings.Repeat("x", 128):                   "The scope " + strings.Repeat("x", 128) + unknown,
		"orders.read\torders.write":                "The scope orders.read?orders.write" + outside,
		"orders.read a\"b\\c\x00\u00e9\x7f":        "The scope a?b?c????" + outside,
		strings.Repeat("x", 127) + "\r\nX: y \x01": "The scope " + strings.Repeat("x", 127) + "?" + outside,
	} {
		_, err := g.Decide(client("orders.read", ""), table(), grant.Request{Scope: requested})
		refusal := oauth.From(err)
		if refusal.Code != oauth.InvalidScope && len(requested) < 128 || string(refusal.Text) != want && refusal.Code == oauth.InvalidScope {
			t.Errorf("%q: got %s %q, want %q", requested, refusal.Code, refusal.Text, want)
		}
		for _, c := range refusal.Text {
			if c < ' ' || c > '~' || c == '"' || c == '\\' {
				t.Errorf("%q: the text %q has %q", requested, refusal.Text, c)
			}
		}
		if cause := fmt.Sprint(refusal.Cause); strings.ContainsAny(cause, "\r\n\t\x00") || len(cause) > 700 {
			t.Errorf("%q: got the cause %q", requested, cause)
		}
	}
}
