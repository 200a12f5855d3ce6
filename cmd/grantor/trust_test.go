package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// TestTrustLife takes a trusted issuer, a trust domain, a workload and a client's rules from their creation to their deletion,
// and checks a token against them.
func TestTrustLife(t *testing.T) {
	r := asAdministrator(t)
	const issuer, domain, pods = "https://kubernetes.default.svc.cluster.local", "spiffe://prod.example.com", "k8s:{namespace}:{name}"
	signer := jwstest.NewSigner(jwks.ES256)
	keys := servetest.WriteFile(t, "keys.json", string(must.Get(json.Marshal(map[string]any{"keys": []jwks.JWK{signer.JWK()}}))))
	made := run(t, "trust", "issuer", "create", issuer, "--jwks-file", keys, "--audience", "grantor other")
	if got := made.Works(t); got != "Trusted issuer "+issuer+" is added.\n" {
		t.Errorf("got %q", got)
	}
	run(t, "trust", "issuer", "create", issuer).Exits(t, cli.ExitConflict, "trusted issuer "+issuer+": already_exists: ")
	grantor(t, "trust issuer create "+domain+" --bundle-endpoint https://spire.example.com/bundle")
	shows(t, grantor(t, "trust issuer list"), `^ISSUER +KEYS +AUDIENCE$`, `^https://kubernetes\S+ +stored +grantor other$`, `^spiffe://prod.example.com +https://spire.example.com/bundle +-$`)
	shows(t, grantor(t, "trust issuer get "+issuer), `^issuer +https://kube`, `^jwks +\{"keys"`, `^single_use +false$`, `^audience +grantor other$`, `^etag +\S+$`)
	grantor(t, "trust issuer update "+issuer+" --single-use --audience=")
	shows(t, grantor(t, "trust issuer get "+issuer), `^single_use +true$`, `^audience +this issuer$`)

	got := run(t, "trust", "workload", "create", pods, "--trusted-issuer", issuer, "--subject", "system:serviceaccount:{namespace}:{name}",
		"--where", "namespace=shop", "--claim", "kubernetes.io/x=y=z", "--scope", "api1").Works(t)
	if got != "Workload "+pods+" is added.\n" {
		t.Errorf("got %q", got)
	}
	shows(t, grantor(t, "trust workload list"), `^CLIENTS +IDENTITY +SCOPES$`, `^k8s:\{namespace\}:\{name\} +https://kube\S+ system:serviceaccount:\S+ kubernetes.io/x=y=z where namespace=shop +api1$`)
	shows(t, grantor(t, "trust workload get "+pods), `^client_id +k8s:`, `^claims +kubernetes.io/x=y=z$`, `^where +namespace=shop$`, `^scopes +api1$`)
	etag, _ := fields(t, grantor(t, "trust workload get "+pods+" -o json"))["etag"].(string)
	grantor(t, "trust workload update "+pods+" --claim= --add-scope orders.read --access-token-lifetime 5m --etag "+etag)
	shows(t, grantor(t, "trust workload get "+pods), `^claims +any$`, `^scopes +api1 orders.read$`, `^access_token_lifetime +5m0s$`)
	run(t, "trust", "workload", "update", pods, "--scope=api1", "--etag="+etag).Exits(t, cli.ExitConflict, "conflict: ")
	run(t, "trust", "issuer", "delete", issuer, "--yes").Exits(t, cli.ExitInvalid, "the workload "+pods+" names it; remove that first")

	grantor(t, "client create orders --without-secret --scope api1 --federation issuer="+issuer+",subject=system:serviceaccount:billing:orders,claims.a/b=c --federation spiffe_id="+domain+"/orders")
	shows(t, grantor(t, "client get orders"), `^federation +\[\{"issuer":"https://kube\S+","subject":"system:serviceaccount:billing:orders","claims":\{"a/b":"c"\}\},\{"spiffe_id":"spiffe://prod.example.com/orders"\}\]$`, `^workload +false$`)
	run(t, "client", "update", "orders", "--federation", "issuer="+issuer).Exits(t, cli.ExitInvalid, "federation")
	run(t, "client", "update", "orders", "--federation", "iss=x").Exits(t, cli.ExitUsage, `a rule has no "iss"`)

	token := func(subject string) string {
		return signer.Sign(jwstest.Object{"alg": "ES256", "kid": signer.Key().ID()}, jwstest.Object{
			"iss": issuer, "sub": subject, "aud": must.Get(r.Issuer()).String(), "exp": time.Now().Unix() + 60, "a/b": "c",
		})
	}
	check := func(subject string) string {
		t.Helper()
		return runOn(t, strings.NewReader(token(subject)), "trust", "check").Works(t)
	}
	shows(t, check("system:serviceaccount:billing:orders"), `^signature +right`, `^audience +right`, `^client orders, rule 1 +yes +- +orders$`, `^It is the client orders\.$`)
	shows(t, check("system:serviceaccount:shop:api"), `^client orders, rule 1 +no +- +the subject does not match`, `^workload \S+ +yes +- +k8s:shop:api$`)

	grantor(t, "client update orders --federation=")
	shows(t, grantor(t, "client get orders"), `^federation +none$`)
	if got := grantor(t, "trust workload delete "+pods+" --yes"); got != "Workload "+pods+" is removed.\n" {
		t.Errorf("got %q", got)
	}
	if got := grantor(t, "trust issuer delete "+issuer+" --yes"); got != "Trusted issuer "+issuer+" is removed.\n" {
		t.Errorf("got %q", got)
	}
	run(t, "trust", "issuer", "get", issuer).Exits(t, cli.ExitNotFound, "not_found: ")
	run(t, "trust", "workload", "get", pods).Exits(t, cli.ExitNotFound, "not_found: ")

	as(t, "clerk", "clerk-secret")
	run(t, "trust", "issuer", "list").Exits(t, cli.ExitDenied, "clerk may not do this, which needs the scope grantor:trust.read")
	runOn(t, strings.NewReader(token("x")), "trust", "check").Exits(t, cli.ExitDenied, "which needs the scopes grantor:trust.read and grantor:clients.read")
	runOn(t, strings.NewReader(token("x")), "trust", "check", "--client-id=").Exits(t, cli.ExitUsage, "client-id: is required: the client to authenticate as; or give the rules in the file of --file")
}

// trustManifest has what remains beside the clients that administer.
const trustManifest = `trusted_issuers:
  - issuer: https://kubernetes.default.svc.cluster.local
    jwks_uri: https://kubernetes.default.svc/openid/v1/jwks
  - trust_domain: prod.example.com
    bundle_endpoint: https://spire.example.com/bundle
workloads:
  - issuer: https://kubernetes.default.svc.cluster.local
    subject: "system:serviceaccount:{namespace}:{name}"
    client_id: "k8s:{namespace}:{name}"
    where: {namespace: shop}
    scopes: [api1]
`

// TestApplyTrustDirectly applies a file with trusted issuers and workloads to Redis, and removes them with another.
func TestApplyTrustDirectly(t *testing.T) {
	clitest.Isolate(t)
	redis, kek := redistest.New(t), servetest.KEKFile(t)
	direct := func(command ...string) string {
		t.Helper()
		return run(t, append(command, "--redis", redis.URL())...).Works(t)
	}
	apply := func(content string, args ...string) string {
		t.Helper()
		return direct(append([]string{"apply", "--key-encryption-key-file", kek, "-f", servetest.WriteFile(t, "clients.yaml", content)}, args...)...)
	}
	const resource = "resources:\n  - {resource: \"https://orders.internal\", scopes: [api1]}\n"
	for _, want := range []string{"created  ", "unchanged"} {
		if got := apply(resource + trustManifest); strings.Count(got, want) != 4 || strings.Count(got, "\n") != 4 {
			t.Errorf("got\n%s\nwant four lines %s", got, want)
		}
	}
	if got := apply(resource, "--dry-run", "--prune"); strings.Count(got, "removed ") != 3 {
		t.Errorf("a dry run: got\n%s", got)
	}
	if got := apply(resource, "--prune"); strings.Count(got, "removed ") != 3 {
		t.Errorf("pruned: got\n%s", got)
	}
	shows(t, direct("audit", "--event", "trust.*"), `trust\.issuer_created .* id=https://kube`, `trust\.workload_created .* id=k8s:\{namespace\}:\{name\}`,
		`trust\.issuer_deleted .* id=spiffe://prod`, `trust\.workload_deleted `)
}

// TestApplyTrustRemotely applies files with trusted issuers, workloads and rules through the issuer.
func TestApplyTrustRemotely(t *testing.T) {
	asAdministrator(t)
	const federated = "  - client_id: orders\n    scopes: [api1]\n    federation:\n      - spiffe_id: spiffe://prod.example.com/shop/orders\n"
	apply := func(content string, args ...string) string {
		t.Helper()
		return run(t, append([]string{"apply", "-f", servetest.WriteFile(t, "clients.yaml", content)}, args...)...).Works(t)
	}
	all := trustManifest + administration + federated
	const clients = "unchanged client administrator\nunchanged client reader\nunchanged client clerk\n"
	want := "unchanged resource https://orders.internal\ncreated   trusted_issuer https://kubernetes.default.svc.cluster.local\n" +
		"created   trusted_issuer spiffe://prod.example.com\ncreated   workload k8s:{namespace}:{name}\n" + clients + "created   client orders\n"
	for _, args := range [][]string{{"--dry-run"}, nil} {
		if got := apply(all, args...); got != want {
			t.Errorf("%q: got\n%s\nwant\n%s", args, got, want)
		}
	}
	if got := apply(all); strings.Count(got, "unchanged") != 8 || strings.Count(got, "\n") != 8 {
		t.Errorf("applied again: got\n%s", got)
	}
	changed := strings.Replace(strings.Replace(all, "namespace: shop", "namespace: billing", 1), "shop/orders", "shop/*", 1)
	if got := apply(changed); !strings.Contains(got, "changed   workload k8s:{namespace}:{name} (where)\n") || !strings.Contains(got, "changed   client orders (federation)\n") {
		t.Errorf("got\n%s", got)
	}
	if got := apply(administration + federated); strings.Contains(got, "trusted_issuer") || strings.Contains(got, "workload") {
		t.Errorf("a file without the sections: got\n%s", got)
	}
	if got := apply(administration+"  - client_id: orders\n", "--prune"); strings.Count(got, "removed ") != 4 {
		t.Errorf("pruned: got\n%s", got)
	}
	run(t, "trust", "workload", "get", "k8s:{namespace}:{name}").Exits(t, cli.ExitNotFound, "not_found")
	for _, c := range []struct{ name, content, want string }{
		{"a scope of no resource", strings.Replace(trustManifest, "[api1]", "[nope]", 1), `clients.yaml:11: workload k8s:{namespace}:{name}: scopes: "nope" belongs to no resource`},
		{"an issuer that is not trusted", "workloads:\n  - client_id: a\n    issuer: https://b.example\n    subject: a\n", "clients.yaml:4: workload a: subject: https://b.example is not a trusted issuer"},
		{"two clients of one identity", "clients:\n  - client_id: a\n    federation: [{spiffe_id: spiffe://a/b}]\n  - client_id: b\n    federation:\n    - {spiffe_id: 'spiffe://a/{n}'}\n", "clients.yaml:6: client b: federation[0]: an identity may match the client a too"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, "apply", "-f", servetest.WriteFile(t, "clients.yaml", c.content)).Exits(t, cli.ExitInvalid, c.want)
		})
	}
}
