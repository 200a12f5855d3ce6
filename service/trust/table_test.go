package trust_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

const cluster, github = "https://cluster.example", "https://token.actions.githubusercontent.com"

func pattern(text string) trust.Pattern { return must.Get(trust.ParsePattern(text)) }

// identity returns the identity of a token. claims are names and values in turn.
func identity(issuer, subject string, claims ...string) trust.Identity {
	return trust.Identity{Issuer: issuer, Subject: subject, Claim: func(name string) (string, bool) {
		for i := 0; i < len(claims); i += 2 {
			if claims[i] == name {
				return claims[i+1], true
			}
		}
		return "", false
	}}
}

func TestParsePattern(t *testing.T) {
	for text, ok := range map[string]bool{
		"a": true, "*": true, "{x}": true, "a/*:{y_1}": true, "/": true, "a//b": true, "Ünï": true,
		"": false, "a*": false, "**": false, "{}": false, "{x": false, "x}": false, "a{x}": false, "{x}b": false, "{X}": false, "{x-y}": false,
		"{x}{y}": false, "a\x00": false, "a\n": false, "a\xff": false, strings.Repeat("a", 513): false, "{" + strings.Repeat("x", 33) + "}": false,
		strings.Repeat("{x}/", 17): false,
	} {
		got, err := trust.ParsePattern(text)
		if (err == nil) != ok || ok && got.String() != text {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}

func TestRules(t *testing.T) {
	main := map[string]trust.Pattern{"repository": pattern("acme/*"), "ref": pattern("refs/heads/{branch}")}
	for name, test := range map[string]struct {
		rule trust.Rule
		id   trust.Identity
		why  string
	}{
		"subject":           {trust.Rule{Issuer: cluster, Subject: pattern("a:{x}")}, identity(cluster, "a:b"), ""},
		"another subject":   {trust.Rule{Issuer: cluster, Subject: pattern("a:{x}")}, identity(cluster, "a:b:c"), "subject"},
		"another issuer":    {trust.Rule{Issuer: cluster, Subject: pattern("a:{x}")}, identity(github, "a:b"), "issuer"},
		"claims":            {trust.Rule{Issuer: github, Claims: main}, identity(github, "x", "repository", "acme/orders", "ref", "refs/heads/main"), ""},
		"another claim":     {trust.Rule{Issuer: github, Claims: main}, identity(github, "x", "repository", "acme/orders", "ref", "refs/tags/v1"), "claim ref"},
		"no claim":          {trust.Rule{Issuer: github, Claims: main}, identity(github, "x", "repository", "acme/orders"), "no claim ref"},
		"SPIFFE":            {trust.Rule{SPIFFEID: pattern("spiffe://a/{x}")}, trust.Identity{SPIFFEID: "spiffe://a/b"}, ""},
		"another domain":    {trust.Rule{SPIFFEID: pattern("spiffe://a/{x}")}, trust.Identity{SPIFFEID: "spiffe://b/b"}, "SPIFFE ID"},
		"SPIFFE by subject": {trust.Rule{SPIFFEID: pattern("spiffe://a/{x}")}, identity("", "spiffe://a/b"), "SPIFFE ID"},
		"subject by SPIFFE": {trust.Rule{Issuer: cluster, Subject: pattern("*")}, trust.Identity{Issuer: cluster, Subject: "b", SPIFFEID: "spiffe://a/b"}, "SPIFFE ID"},
		"the zero rule":     {trust.Rule{}, trust.Identity{SPIFFEID: "spiffe://a/b"}, "SPIFFE ID"},
		"one capture twice": {trust.Rule{Issuer: github, Subject: pattern("{x}"), Claims: map[string]trust.Pattern{"y": pattern("{x}")}}, identity(github, "a", "y", "b"), "claim y"},
	} {
		captures, why := test.rule.Match(test.id)
		if (test.why == "") != (why == "") || !strings.Contains(why, test.why) || (why == "") != (captures != nil) {
			t.Errorf("%s: got %v, %q", name, captures, why)
		}
	}
}

func TestIssuerCheck(t *testing.T) {
	keys := must.Get(jwks.ParseDocument(jwstest.Set(jwstest.NewSigner(jwks.ES256))))
	for name, test := range map[string]struct {
		issuer trust.Issuer
		field  string
	}{
		"by discovery":      {trust.Issuer{Issuer: cluster}, ""},
		"all":               {trust.Issuer{Issuer: cluster, KeysURI: "https://a.example/k", CAFile: "/run/ca", BearerTokenFile: "/run/t", Audience: []string{"x"}, SingleUse: true}, ""},
		"inline":            {trust.Issuer{Issuer: cluster, Keys: keys}, ""},
		"a domain":          {trust.Issuer{TrustDomain: "prod.example.com", WorkloadAPI: "unix:///run/agent.sock"}, ""},
		"nothing":           {trust.Issuer{}, "issuer"},
		"both":              {trust.Issuer{Issuer: cluster, TrustDomain: "a", BundleFile: "/run/b"}, "issuer"},
		"no TLS":            {trust.Issuer{Issuer: "http://a.example"}, "issuer"},
		"too long":          {trust.Issuer{Issuer: "https://a.example/" + strings.Repeat("a", 512)}, "issuer"},
		"two keys":          {trust.Issuer{Issuer: cluster, Keys: keys, KeysURI: "https://a.example/k"}, "jwks_uri"},
		"a user":            {trust.Issuer{Issuer: cluster, KeysURI: "https://u:p@a.example/k"}, "jwks_uri"},
		"a relative path":   {trust.Issuer{Issuer: cluster, CAFile: "ca.crt"}, "ca_file"},
		"a path with ..":    {trust.Issuer{Issuer: cluster, BearerTokenFile: "/run/../etc/shadow"}, "bearer_token_file"},
		"bundle of issuer":  {trust.Issuer{Issuer: cluster, BundleFile: "/run/b"}, "bundle_file"},
		"keys of domain":    {trust.Issuer{TrustDomain: "a", BundleFile: "/run/b", KeysURI: "https://a.example"}, "jwks_uri"},
		"two bundles":       {trust.Issuer{TrustDomain: "a", BundleFile: "/run/b", WorkloadAPI: "unix:///x"}, "bundle_endpoint"},
		"no bundle":         {trust.Issuer{TrustDomain: "a"}, "bundle_endpoint"},
		"no domain":         {trust.Issuer{TrustDomain: "A B", BundleFile: "/run/b"}, "trust_domain"},
		"ID of a domain":    {trust.Issuer{TrustDomain: "spiffe://prod.example.com", BundleFile: "/run/b"}, "trust_domain"},
		"domain's audience": {trust.Issuer{TrustDomain: "a", BundleFile: "/run/b", Audience: make([]string, 9)}, "audience"},
		"empty audience":    {trust.Issuer{Issuer: cluster, Audience: []string{""}}, "audience"},
	} {
		expectField(t, name, test.issuer.Check(), test.field)
	}
}

func expectField(t *testing.T, what string, err error, want string) {
	t.Helper()
	got := ""
	if field, ok := errors.AsType[*trust.FieldError](err); ok {
		got = field.Field
	} else if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("%s: got %q, %v, want %q", what, got, err, want)
	}
}

func TestTable(t *testing.T) {
	shop := trust.Workload{
		ClientID: pattern("k8s:{ns}:{name}"), Where: trust.Captures{"ns": "shop"}, Rule: trust.Rule{Issuer: cluster, Subject: pattern("sa:{ns}:{name}")},
	}
	ops, jobs, spiffe := shop, shop, shop
	ops.Where = trust.Captures{"ns": "ops"}
	jobs.ClientID, jobs.Where, jobs.Rule = pattern("gh:{repo}"), nil, trust.Rule{Issuer: github, Claims: map[string]trust.Pattern{"repository": pattern("acme/{repo}"), "ref": pattern("refs/heads/main")}}
	spiffe.ClientID, spiffe.Where, spiffe.Rule = pattern("spiffe:{name}"), nil, trust.Rule{SPIFFEID: pattern("spiffe://prod.example.com/shop/{name}")}
	issuers := []trust.Issuer{{Issuer: cluster}, {Issuer: github}, {TrustDomain: "prod.example.com", BundleFile: "/run/b"}}
	table := must.Get(trust.NewTable(1, issuers, []trust.Workload{shop, ops, jobs, spiffe}))
	for want, id := range map[string]trust.Identity{
		"k8s:shop:orders": identity(cluster, "sa:shop:orders"), "k8s:ops:x": identity(cluster, "sa:ops:x"),
		"gh:orders":     identity(github, "repo:acme/orders", "repository", "acme/orders", "ref", "refs/heads/main"),
		"spiffe:orders": {SPIFFEID: "spiffe://prod.example.com/shop/orders"},
	} {
		w, client, ok := table.Match(id)
		if !ok || client.String() != want || !w.Selection().Includes(client) {
			t.Errorf("got %q, %t, want %q", client, ok, want)
		}
		if of, ok := table.Workload(client); !ok || of != w {
			t.Errorf("%s: got the workload %v, %t", want, of, ok)
		}
	}
	for _, id := range []trust.Identity{
		identity(cluster, "sa:other:x"), identity(github, "sa:shop:orders"), identity("https://c.example", "sa:shop:orders"), identity(cluster, "sa:shop:ö"),
		identity(cluster, "sa:shop:"+strings.Repeat("x", 255)), identity(cluster, "sa:shop:a b"), {SPIFFEID: "spiffe://other.example.com/shop/orders"},
	} {
		if w, client, ok := table.Match(id); ok {
			t.Errorf("%+v is %q of %v", id, client, w)
		}
	}
	for _, id := range []string{"k8s:other:x", "k8s:shop", "k8s:shop:a:b", "gh:acme/orders", "x"} {
		if w, ok := table.Workload(must.Get(oauth.ParseClientID(id))); ok {
			t.Errorf("%q is of %v", id, w)
		}
	}
}

func TestConflicts(t *testing.T) {
	base := trust.Workload{ClientID: pattern("a:{x}"), Rule: trust.Rule{Issuer: cluster, Subject: pattern("s:{x}")}}
	rival := func(id string, rule trust.Rule, where trust.Captures) trust.Workload {
		return trust.Workload{ClientID: pattern(id), Rule: rule, Where: where}
	}
	subject := func(text string) trust.Rule { return trust.Rule{Issuer: cluster, Subject: pattern(text)} }
	claims := func(name, text string) trust.Rule {
		return trust.Rule{Issuer: cluster, Claims: map[string]trust.Pattern{name: pattern(text)}}
	}
	for name, test := range map[string]struct {
		base, rival trust.Workload
		field       string
	}{
		"other subjects":                 {base, rival("b:{y}", subject("t:{y}"), nil), ""},
		"more segments":                  {base, rival("b:{y}", subject("s:{y}:z"), nil), ""},
		"another separator":              {base, rival("b:{y}", subject("s/{y}"), nil), ""},
		"one of the subjects":            {base, rival("b", subject("s:one"), nil), "subject"},
		"by any claim":                   {base, rival("b:{y}", claims("c", "{y}"), nil), "claims"},
		"of another issuer":              {base, rival("b:{y}", trust.Rule{Issuer: github, Subject: pattern("s:{y}")}, nil), ""},
		"the same clients":               {base, rival("{z}:{y}", subject("t:{z}:{y}"), nil), "client_id"},
		"the same clients but one":       {base, rival("{z}:{y}", subject("t:{z}:{y}"), trust.Captures{"z": "b"}), ""},
		"claims that exclude each other": {rival("a:{x}", claims("ref", "main/{x}"), nil), rival("b:{x}", claims("ref", "fix/{x}"), nil), ""},
		"claims of other names":          {rival("a:{x}", claims("ref", "main/{x}"), nil), rival("b:{x}", claims("env", "prod/{x}"), nil), "claims"},
		"restricted apart":               {rival("a:{x}", subject("{n}:{x}"), trust.Captures{"n": "one"}), rival("b:{x}", subject("{n}:{x}"), trust.Captures{"n": "two"}), ""},
	} {
		_, err := trust.NewTable(0, []trust.Issuer{{Issuer: cluster}, {Issuer: github}}, []trust.Workload{test.base, test.rival})
		expectField(t, name, err, test.field)
		if entry, ok := errors.AsType[*trust.EntryError](err); test.field != "" && (!ok || entry.Kind != trust.KindWorkload || entry.ID != test.rival.ClientID.String()) {
			t.Errorf("%s: %v does not name the later one", name, err)
		}
	}
}

func TestBounds(t *testing.T) {
	issuers := make([]trust.Issuer, 101)
	for i := range issuers {
		issuers[i].Issuer = fmt.Sprintf("https://i%d.example", i)
	}
	workloads := make([]trust.Workload, 1001)
	for i := range workloads {
		workloads[i] = trust.Workload{ClientID: pattern(fmt.Sprintf("c%d", i)), Rule: trust.Rule{Issuer: issuers[0].Issuer, Subject: pattern(fmt.Sprintf("s%d", i))}}
	}
	if _, err := trust.NewTable(0, issuers[:100], workloads[:1000]); err != nil {
		t.Error(err)
	}
	for name, table := range map[string]func() (*trust.Table, error){
		"issuers":   func() (*trust.Table, error) { return trust.NewTable(0, issuers, nil) },
		"workloads": func() (*trust.Table, error) { return trust.NewTable(0, issuers[:100], workloads) },
	} {
		if _, err := table(); err == nil || !strings.Contains(err.Error(), "more than") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// FuzzOverlaps checks that patterns which match one text overlap, in both orders, and that binding captures matches what was
// captured.
func FuzzOverlaps(f *testing.F) {
	for _, seed := range [][3]string{
		{"a/{x}", "*/b", "a/b"}, {"a:{x}:{x}", "{y}:*:b", "a:b:b"}, {"{x}/", "a/", "a/"}, {"*", "{x}", "a"}, {"a//b", "a/*/b", "a//b"},
		{"/", "/", "/"}, {"{x}", "a:b", "a:b"}, {"*:/", "a:/", "a:/"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, left, right, text string) {
		a, err := trust.ParsePattern(left)
		b, other := trust.ParsePattern(right)
		if err != nil || other != nil {
			return
		}
		if a.Overlaps(b) != b.Overlaps(a) {
			t.Errorf("%q and %q overlap in one order", left, right)
		}
		captures := make(trust.Captures)
		matches := a.Match(text, captures)
		if matches && b.Match(text, make(trust.Captures)) && !a.Overlaps(b) {
			t.Errorf("%q and %q both match %q, and do not overlap", left, right, text)
		}
		if matches && !a.Any() && a.Bind(captures).String() != text {
			t.Errorf("%q with %v is %q, want %q", left, captures, a.Bind(captures), text)
		}
		if bound := a.Bind(captures); matches && !bound.Match(text, make(trust.Captures)) {
			t.Errorf("%q, bound from %q, does not match %q", bound, left, text)
		}
	})
}

// The rules of a table are bound once, not for each pair of workloads: each replica makes it while a request waits, after each change.
func TestRulesAreBoundOnce(t *testing.T) {
	workloads := make([]trust.Workload, 300)
	for i := range workloads {
		claims := map[string]trust.Pattern{"number": pattern(fmt.Sprint(i))}
		for k := range 15 {
			claims[fmt.Sprint("claim", k)] = pattern(fmt.Sprintf("{a%d}:x:*:{b}:foo", k))
		}
		workloads[i] = trust.Workload{ClientID: pattern(fmt.Sprintf("w%d:{b}", i)), Rule: trust.Rule{Issuer: cluster, Claims: claims}}
	}
	allocated := testing.AllocsPerRun(1, func() { must.Get(trust.NewTable(1, []trust.Issuer{{Issuer: cluster}}, workloads)) })
	if limit := 300.0 * 200; allocated > limit {
		t.Errorf("got %.0f allocations, want at most %.0f: more than a few for each workload, but not for each pair", allocated, limit)
	}
}
