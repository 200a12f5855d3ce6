package manifest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/service/must"
)

// trusted is a manifest with each form of a trusted issuer, a rule and a workload.
const trusted = `resources:
  - {resource: "https://invoices.internal", scopes: [invoices.read]}
trusted_issuers:
  - issuer: https://kubernetes.default.svc.cluster.local
    jwks_uri: https://kubernetes.default.svc/openid/v1/jwks
    ca_file: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    bearer_token_file: /var/run/secrets/kubernetes.io/serviceaccount/token
  - issuer: https://token.actions.githubusercontent.com
    audience: [https://auth.example.com]
    single_use: true
    jwks: {keys: [{kty: OKP, crv: Ed25519, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo}]}
  - trust_domain: prod.example.com
    bundle_endpoint: https://spire.example.com/bundle
clients:
  - client_id: orders
    scopes: [invoices.read]
    federation:
      - issuer: https://kubernetes.default.svc.cluster.local
        subject: system:serviceaccount:shop:orders
      - spiffe_id: spiffe://prod.example.com/shop/orders
      - issuer: https://token.actions.githubusercontent.com
        claims: {repository: acme/orders, ref: refs/heads/main, run_attempt: 1}
  - client_id: k8s:billing:api
    workload: true
    disabled: true
workloads:
  - issuer: https://kubernetes.default.svc.cluster.local
    subject: "system:serviceaccount:{namespace}:{name}"
    client_id: "k8s:{namespace}:{name}"
    where: {namespace: billing}
    scopes: [invoices.read]
    access_token_lifetime: 10m
`

func TestTrust(t *testing.T) {
	m := must.Get(manifest.Parse("clients.yaml", []byte(trusted)))
	must.Succeed(t, m.Check())
	if len(m.Issuers) != 3 || len(m.Workloads) != 1 || len(m.Clients[0].Federation) != 3 {
		t.Fatalf("got %d issuers, %d workloads and %d rules", len(m.Issuers), len(m.Workloads), len(m.Clients[0].Federation))
	}
	k8s, actions, domain, workload, rules := m.Issuers[0], m.Issuers[1], m.Issuers[2], m.Workloads[0], m.Clients[0].Federation
	for _, field := range []struct{ name, got, want string }{
		{"issuer", k8s.Issuer, "https://kubernetes.default.svc.cluster.local"},
		{"jwks_uri", k8s.KeysURI, "https://kubernetes.default.svc/openid/v1/jwks"},
		{"ca_file", k8s.CAFile, "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"},
		{"bearer_token_file", k8s.BearerTokenFile, "/var/run/secrets/kubernetes.io/serviceaccount/token"},
		{"audience", strings.Join(actions.Audience, " "), "https://auth.example.com"},
		{"single_use", fmt.Sprint(actions.SingleUse), "true"},
		{"jwks", actions.Keys.String()[:8], `{"keys":`},
		{"trust_domain", domain.TrustDomain, "prod.example.com"},
		{"bundle_endpoint", domain.BundleEndpoint, "https://spire.example.com/bundle"},
		{"a rule's issuer", rules[0].Issuer, "https://kubernetes.default.svc.cluster.local"},
		{"a rule's subject", rules[0].Subject.String(), "system:serviceaccount:shop:orders"},
		{"a rule's spiffe_id", rules[1].SPIFFEID.String(), "spiffe://prod.example.com/shop/orders"},
		{"a rule's claims", fmt.Sprint(rules[2].Claims), "map[ref:refs/heads/main repository:acme/orders run_attempt:1]"},
		{"a workload's subject", workload.Rule.Subject.String(), "system:serviceaccount:{namespace}:{name}"},
		{"client_id", workload.ClientID.String(), "k8s:{namespace}:{name}"},
		{"where", fmt.Sprint(workload.Where), "map[namespace:billing]"},
		{"scopes", workload.Scopes.String(), "invoices.read"},
		{"access_token_lifetime", workload.AccessTokenLifetime.String(), "10m0s"},
		{"workload", fmt.Sprint(m.Clients[1].Workload), "true"},
		{"the place of a rule", m.Position("client orders", "federation[2]"), "clients.yaml:21"},
		{"the place of a workload", m.Position("workload k8s:{namespace}:{name}", ""), "clients.yaml:27"},
	} {
		if field.got != field.want {
			t.Errorf("%s: got %q, want %q", field.name, field.got, field.want)
		}
	}
}

// TestTrustErrors expects each error to have file and line.
func TestTrustErrors(t *testing.T) {
	const (
		head  = "trusted_issuers:\n  - issuer: https://i.example\n  - trust_domain: a.example\n    bundle_file: /b\n"
		pods  = "workloads:\n  - client_id: 'k8s:{ns}:{n}'\n    issuer: https://i.example\n    subject: 's:{ns}:{n}'\n"
		rules = "clients:\n  - client_id: a\n    federation:\n      - issuer: https://i.example\n        "
	)
	claims, workloads := make([]string, 10_000), make([]string, 1001)
	for i := range claims {
		claims[i] = fmt.Sprintf("c%d: x", i)
	}
	for i := range workloads {
		workloads[i] = fmt.Sprintf("  - {client_id: w%d, issuer: https://i.example, subject: s%d}\n", i, i)
	}
	for _, c := range []struct{ name, yaml, want string }{
		{"a misspelt field of an issuer", "trusted_issuers:\n  - issuer: https://a\n    jwks_url: x\n", `clients.yaml:3: a trusted issuer has no field "jwks_url"`},
		{"a misspelt field of a workload", head + "workloads:\n  - client: x\n", `clients.yaml:6: a workload has no field "client"`},
		{"a misspelt field of a rule", head + rules + "sub: x\n", `clients.yaml:9: a rule has no field "sub"`},
		{"a field of a workload in a rule", head + rules + "scopes: [x]\n", `clients.yaml:9: a rule has no field "scopes"`},
		{"an issuer without a name", "trusted_issuers:\n  - jwks_uri: https://a\n", "clients.yaml:2: issuer: set one of issuer and trust_domain"},
		{"an issuer twice", "trusted_issuers:\n  - issuer: https://a\n  - issuer: https://a\n", "clients.yaml:3: duplicate trusted_issuer https://a, first at line 2"},
		{"an issuer of http", "trusted_issuers:\n  - audience: [x]\n    issuer: http://a.example\n", "clients.yaml:3: issuer: is not an https URL"},
		{"an issuer with a line break", "trusted_issuers:\n  - issuer: \"https://a.example/\\\"\\nb\"\n", "clients.yaml:2: issuer: is not an https URL"},
		{"keys of http", "trusted_issuers:\n  - issuer: https://a\n    jwks_uri: http://a.example\n", "clients.yaml:3: jwks_uri: "},
		{"no JWK Set", "trusted_issuers:\n  - issuer: https://a\n    jwks: {keys: []}\n", "clients.yaml:3: has 0 keys"},
		{"a relative file", "trusted_issuers:\n  - issuer: https://a\n    ca_file: ca.crt\n", "clients.yaml:3: ca_file: "},
		{"no bundle", "trusted_issuers:\n  - trust_domain: a.example\n", "clients.yaml:2: bundle_endpoint: "},
		{"no rule", head + "workloads:\n  - client_id: x\n", "clients.yaml:6: issuer: is missing"},
		{"an untrusted issuer", "workloads:\n  - client_id: x\n    issuer: https://b\n    subject: y\n", "clients.yaml:4: workload x: subject: https://b is not a trusted issuer"},
		{"a part of a segment", head + "workloads:\n  - client_id: x\n    issuer: https://i.example\n    subject: y*\n", `clients.yaml:8: the segment "y*" has one of *`},
		{"a claim's part of a segment", head + rules + "claims:\n          a: b\n          c: d*\n", `clients.yaml:11: claims: "c": the segment "d*"`},
		{"a claim of no text", head + rules + "claims:\n          a: [b]\n", "clients.yaml:10: expected a value"},
		{"claims that are none", head + rules + "claims: x\n", "clients.yaml:9: expected names and values"},
		{"10,000 claims", head + rules + "claims: {" + strings.Join(claims, ", ") + "}\n", "clients.yaml:9: claims has more than 1000 entries"},
		{"17 claims", head + rules + "claims: {" + strings.Join(claims[:17], ", ") + "}\n", "clients.yaml:9: claims: has more than 16 claims"},
		{"1,001 workloads", head + "workloads:\n" + strings.Join(workloads, ""), "clients.yaml:6: the list has more than 1000 entries"},
		{"17 rules", head + "clients:\n  - client_id: a\n    federation:\n" + strings.Repeat("      - {issuer: https://i.example, subject: x}\n", 17), "federation: there are more than 16"},
		{"a capture that there is not", head + pods + "    where: {name: x}\n", `clients.yaml:9: where: the rule captures no "name"`},
		{"two workloads of one identity", head + pods + "  - {client_id: x, issuer: https://i.example, subject: 's:shop:*'}\n", "clients.yaml:9: workload x: subject: an identity may match the workload k8s:{ns}:{n} too"},
		{"two workloads of one client", head + pods + "  - {client_id: 'k8s:a:b', issuer: https://i.example, subject: x}\n", "clients.yaml:9: workload k8s:a:b: client_id: a client ID may be of the workload k8s:{ns}:{n} too"},
		{"a workload twice", head + pods + "  - {client_id: 'k8s:{ns}:{n}', issuer: https://i.example, subject: 'x:{ns}:{n}'}\n", "clients.yaml:9: duplicate workload k8s:{ns}:{n}, first at line 6"},
		{"two clients of one identity", head + rules + "subject: 'x:{a}'\n  - client_id: b\n    federation:\n      - spiffe_id: spiffe://a.example/b\n      - issuer: https://i.example\n        subject: x:y\n", "clients.yaml:13: client b: federation[1]: an identity may match the client a too"},
		{"two clients of one SPIFFE ID", head + "clients:\n  - client_id: a\n    federation: [{spiffe_id: spiffe://a.example/b}]\n  - client_id: b\n    federation:\n      - spiffe_id: spiffe://a.example/*\n", "clients.yaml:10: client b: federation[0]: an identity may match the client a too"},
		{"two clients of one claim", head + rules + "claims: {repository: acme/a}\n  - client_id: b\n    federation:\n      - issuer: https://i.example\n        claims: {ref: main}\n", "clients.yaml:12: client b: federation[0]: an identity may match the client a too"},
		{"a client and a workload of one identity", head + pods + rules + "subject: s:shop:orders\n", "clients.yaml:12: client a: federation[0]: an identity may match the workload k8s:{ns}:{n} too"},
		{"a client of a workload", head + pods + "clients:\n  - client_name: x\n    client_id: k8s:a:b\n", "clients.yaml:11: client k8s:a:b: client_id: is that of a client of the workload k8s:{ns}:{n} too"},
		{"scopes of a client of a workload", head + pods + "clients:\n  - client_id: k8s:a:b\n    workload: true\n    resources: [https://a.example]\n", "clients.yaml:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := manifest.Parse("clients.yaml", []byte(c.yaml))
			if err == nil {
				err = m.Check()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want one line with %q", err, c.want)
			}
		})
	}
}

// TestTrustApart checks that rules which no identity can match both are no error.
func TestTrustApart(t *testing.T) {
	for name, rules := range map[string][2]string{
		"another issuer":     {"issuer: https://a, subject: x", "issuer: https://b, subject: x"},
		"another subject":    {"issuer: https://a, subject: 'x:*'", "issuer: https://a, subject: y:x"},
		"another length":     {"issuer: https://a, subject: 'x:*'", "issuer: https://a, subject: x:y:z"},
		"another claim":      {"issuer: https://a, claims: {r: a, s: b}", "issuer: https://a, claims: {r: c, s: b}"},
		"a claim within":     {"issuer: https://a, subject: x, claims: {r: a}", "issuer: https://a, subject: x, claims: {r: b}"},
		"another SPIFFE ID":  {"spiffe_id: spiffe://a/x", "spiffe_id: spiffe://a/y"},
		"another separation": {"spiffe_id: 'spiffe://a/{n}'", "spiffe_id: 'spiffe://a/x/{n}'"},
	} {
		m, err := manifest.Parse("clients.yaml", fmt.Appendf(nil, "clients:\n  - {client_id: a, federation: [{%s}]}\n  - {client_id: b, federation: [{%s}]}\n", rules[0], rules[1]))
		if err == nil {
			err = m.Check()
		}
		if err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestTrustMany checks many clients of one issuer, which differ in their subjects or in a claim.
func TestTrustMany(t *testing.T) {
	for _, rule := range []string{"{issuer: https://a, subject: 'system:serviceaccount:shop:s%d'}", "{issuer: https://a, claims: {ref: main, repository: acme/s%d}}"} {
		var text strings.Builder
		text.WriteString("clients:\n")
		for i := range 10_000 {
			fmt.Fprintf(&text, "  - {client_id: c%d, federation: [%s]}\n", i, fmt.Sprintf(rule, i))
		}
		m := must.Get(manifest.Parse("clients.yaml", []byte(text.String())))
		must.Succeed(t, m.Check())
		fmt.Fprintf(&text, "  - {client_id: last, federation: [%s]}\n", fmt.Sprintf(rule, 7))
		m = must.Get(manifest.Parse("clients.yaml", []byte(text.String())))
		if err := m.Check(); err == nil || !strings.Contains(err.Error(), "clients.yaml:10002: client last: federation[0]: an identity may match the client c7 too") {
			t.Errorf("got %v", err)
		}
	}
}

// TestWithoutSecrets reads a manifest whose secrets are not here.
func TestWithoutSecrets(t *testing.T) {
	const text = "clients:\n  - client_id: a\n    client_secret_file: /nonexistent\n  - client_id: b\n    client_secret_env: MANIFEST_TEST_UNSET\n  - client_id: c\n    client_secret: x\n"
	m := must.Get(manifest.ParseWithoutSecrets("clients.yaml", []byte(text)))
	if len(m.Clients) != 3 || m.Clients[2].Secret != "" {
		t.Errorf("got %d clients, want three without secrets", len(m.Clients))
	}
}
