package redisstore_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/trust"
)

func pattern(text string) trust.Pattern { return must.Get(trust.ParsePattern(text)) }

// workload returns a workload of the issuer https://a.example.
func workload(scopes oauth.Scopes) trust.Workload {
	return trust.Workload{
		ClientID: pattern("k8s:{namespace}:{name}"), Scopes: scopes,
		Rule: trust.Rule{Issuer: "https://a.example", Subject: pattern("system:serviceaccount:{namespace}:{name}")},
	}
}

// table returns a table that trusts https://a.example.
func table(version uint64, workloads ...trust.Workload) *trust.Table {
	return must.Get(trust.NewTable(version, []trust.Issuer{{Issuer: "https://a.example"}}, workloads))
}

// testTrust stores every field, and replaces the table only where it is as it was read.
func testTrust(t *testing.T, k *kit) {
	ctx := t.Context()
	empty, err := k.Trust(ctx)
	must.Succeed(t, err)
	if len(empty.Issuers())+len(empty.Workloads()) != 0 || empty.Version() != 0 {
		t.Errorf("before the first save: got %v, version %d", empty.Issuers(), empty.Version())
	}
	full := workload(scopes("b a"))
	full.Rule.Claims = map[string]trust.Pattern{"aud": pattern("x"), "kubernetes.io": pattern("*")}
	full.Where, full.DefaultScopes, full.AccessTokenLifetime = trust.Captures{"namespace": "shop"}, scopes("a"), 90*time.Second
	issuers := []trust.Issuer{
		{Issuer: "https://a.example", KeysURI: "https://a.example/keys", CAFile: "/run/ca.crt", BearerTokenFile: "/run/token", Audience: []string{"x", "y"}, SingleUse: true},
		{Issuer: "https://b.example", Keys: must.Get(jwks.ParseDocument(jwstest.Set(jwstest.NewSigner(jwks.ES256))))},
		{TrustDomain: "prod.example.com", BundleEndpoint: "https://spire.example.com/bundle"},
		{TrustDomain: "b.example.com", BundleFile: "/run/bundle.json"},
		{TrustDomain: "c.example.com", WorkloadAPI: "unix:///run/spire/agent.sock"},
	}
	workloads := []trust.Workload{full, {ClientID: pattern("spiffe:{name}"), Rule: trust.Rule{SPIFFEID: pattern("spiffe://prod.example.com/{name}")}}}
	expectAllSet(t, []any{issuers[0], issuers[1], issuers[2], issuers[3], issuers[4]}, workloads[0])
	must.Succeed(t, k.SaveTrust(ctx, must.Get(trust.NewTable(0, issuers, workloads))))
	first, err := k.Trust(ctx)
	must.Succeed(t, err)
	if !reflect.DeepEqual(first.Issuers(), issuers) || !reflect.DeepEqual(first.Workloads(), workloads) || first.Version() == 0 {
		t.Errorf("got %+v and %+v in version %d, want %+v and %+v", first.Issuers(), first.Workloads(), first.Version(), issuers, workloads)
	}
	k.expectFeed(t, revocation.Change{Kind: revocation.TrustChanged})
	if err := k.SaveTrust(ctx, table(0)); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("created twice: got %v, want %v", err, registry.ErrConflict)
	}
	must.Succeed(t, k.SaveTrust(ctx, table(first.Version())))
	if err := k.SaveTrust(ctx, first); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("stale: got %v, want %v", err, registry.ErrConflict)
	}
}

// expectAllSet checks that each field is set in one of the values: a field that is added later must be stored too. The rule of
// the workload has one kind of pattern or the other.
func expectAllSet(t *testing.T, issuers []any, w trust.Workload) {
	t.Helper()
	for _, all := range [][]any{issuers, {w}} {
		for i := range reflect.TypeOf(all[0]).NumField() {
			set := false
			for _, one := range all {
				set = set || !reflect.ValueOf(one).Field(i).IsZero()
			}
			if !set {
				t.Errorf("the test leaves %s empty", reflect.TypeOf(all[0]).Field(i).Name)
			}
		}
	}
}

// testUnreadableTrust checks that a table with an entry that cannot be is not used at all.
func testUnreadableTrust(t *testing.T, k *kit) {
	const whole = `{"format":1,"trusted_issuers":[{"issuer":"https://a.example"},{"issuer":"https://b.example"}],"workloads":[` +
		`{"client_id":"a:{x}","rule":{"issuer":"https://a.example","subject":"s:{x}"},"scope":"a"},` +
		`{"client_id":"b:{x}","rule":{"issuer":"https://b.example","subject":"s:{x}"}}]}`
	for name, value := range map[string]string{
		"no JSON":                 "x",
		"cut off":                 whole[:80],
		"no format":               strings.Replace(whole, `"format":1,`, "", 1),
		"one issuer twice":        strings.Replace(whole, `{"issuer":"https://b.example"}`, `{"issuer":"https://a.example"}`, 1),
		"issuer without TLS":      strings.Replace(whole, `{"issuer":"https://b.example"}`, `{"issuer":"http://b.example"}`, 1),
		"a private key":           strings.Replace(whole, `{"issuer":"https://b.example"}`, `{"issuer":"https://b.example","jwks":"{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}"}`, 1),
		"workload of no issuer":   strings.Replace(whole, `"rule":{"issuer":"https://b.example"`, `"rule":{"issuer":"https://c.example"`, 1),
		"two for one identity":    strings.Replace(whole, `"rule":{"issuer":"https://b.example"`, `"rule":{"issuer":"https://a.example"`, 1),
		"two for one client":      strings.Replace(whole, `"b:{x}"`, `"a:{x}"`, 1),
		"a pattern that is none":  strings.Replace(whole, `"s:{x}"`, `"s:{x}y"`, 1),
		"an empty pattern":        strings.Replace(whole, `"s:{x}"`, `""`, 1),
		"a capture of nothing":    strings.Replace(whole, `"a:{x}"`, `"a:{y}"`, 1),
		"malformed scope":         strings.Replace(whole, `"scope":"a"`, `"scope":"é"`, 1),
		"a field of a rule twice": strings.Replace(whole, `"subject":"s:{x}"}`, `"subject":"s:{x}","spiffe_id":"spiffe://a/b"}`, 1),
		"unknown field of a rule": strings.Replace(whole, `"subject":"s:{x}"}`, `"subject":"s:{x}","later":1}`, 1),
	} {
		k.put(t, "trust", "1", whole)
		if _, err := k.Trust(t.Context()); err != nil {
			t.Fatalf("the record that is altered: %v", err)
		}
		k.put(t, "trust", "1", value)
		if got, err := k.Trust(t.Context()); err == nil || errors.Is(err, registry.ErrNewer) {
			t.Errorf("%s: got %v, %v, want an error", name, got, err)
		}
	}
}
