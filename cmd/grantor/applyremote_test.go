package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// TestApplyRemotely applies several files in turn through the issuer, and expects the reports that applying them to
// Redis returns.
func TestApplyRemotely(t *testing.T) {
	asAdministrator(t)
	const mine = "\n  - client_id: sync\n    client_name: Data Sync\n    client_secret: a-secret-of-sync\n    scopes: [api1]\n    access_token_lifetime: 5m\n"
	apply := func(content string, args ...string) clitest.Result {
		t.Helper()
		return run(t, append([]string{"apply", "-f", servetest.WriteFile(t, "clients.yaml", content)}, args...)...)
	}
	same := "unchanged resource https://orders.internal\nunchanged client administrator\nunchanged client reader\nunchanged client clerk\n"
	dry := apply(administration+mine, "--dry-run")
	if want := same + "created   client sync\n"; dry.Works(t) != want || dry.ErrOut != "dry run: nothing was done\n" {
		t.Errorf("got %q and %q, want %q", dry.Out, dry.ErrOut, want)
	}
	run(t, "client", "get", "sync").Exits(t, cli.ExitNotFound, "not_found")
	if got := apply(administration + mine).Works(t); got != same+"created   client sync\n" {
		t.Errorf("got\n%s", got)
	}
	if !authenticates(t, "sync", "a-secret-of-sync") {
		t.Error("the file's secret does not prove the client")
	}
	changed := strings.Replace(mine, "5m", "6m", 1)
	if got := apply(administration + changed).Works(t); got != same+"changed   client sync (access_token_lifetime)\n" {
		t.Errorf("got\n%s", got)
	}
	if got := apply(administration + changed).Works(t); got != same+"unchanged client sync\n" {
		t.Errorf("applied again: got\n%s", got)
	}
	grantor(t, "resource create https://old.internal --scope old")
	want := "unchanged resource https://orders.internal\nremoved   resource https://old.internal\n" +
		"unchanged client administrator\nunchanged client reader\nunchanged client clerk\nremoved   client background-service\nremoved   client sync\n"
	if got := apply(administration, "--prune", "--dry-run").Works(t); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := apply(administration, "--prune").Works(t); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := grantor(t, "client list"); strings.Contains(got, "sync") || strings.Contains(got, "background") {
		t.Errorf("what was pruned is still there:\n%s", got)
	}
	run(t, "resource", "get", "https://old.internal").Exits(t, cli.ExitNotFound, "not_found")

	as(t, "clerk", "clerk-secret")
	apply(administration).Exits(t, cli.ExitDenied, "insufficient_scope: ", "clerk-secret")
	apply("clients: [{client_id: a, client_secret: hush-hush-hush}]", "--prune").Exits(t, cli.ExitUsage, "prune: the file does not list clerk", "hush-hush-hush")
}

// TestApplyRemotelyErrors applies files with errors: the issuer's error is reported with its line, and nothing is
// applied.
func TestApplyRemotelyErrors(t *testing.T) {
	asAdministrator(t)
	for _, c := range []struct{ name, content, want string }{
		{"a scope of no resource", "clients:\n  - client_id: first\n  - client_id: second\n    scopes: [nope]\n", `clients.yaml:4: client second: scopes: "nope" belongs to no resource`},
		{"a resource that there is not", "clients:\n  - client_id: a:b\n    resources: [https://a.example]\n", `clients.yaml:3: client a:b: resources: there is no resource "https://a.example"`},
		{"an algorithm", "resources:\n  - resource: https://a.example\n    signing_alg: PS256\n", "clients.yaml:3: resource https://a.example: signing_alg: "},
		{"a scope of another", "resources:\n  - resource: https://a.example\n    scopes: [api1]\n", "clients.yaml:"},
		{"no YAML", "clients: [", "clients.yaml:"},
		{"an unknown field", "clients:\n  - client_id: a\n    secret: hush-hush-hush\n", "clients.yaml:3: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := servetest.WriteFile(t, "clients.yaml", c.content)
			run(t, "apply", "-f", path).Exits(t, cli.ExitInvalid, c.want, "hush-hush-hush")
		})
	}
	if got := grantor(t, "client list"); strings.Contains(got, "first") {
		t.Errorf("something was applied:\n%s", got)
	}
	run(t, "apply", "-f", "/nonexistent").Exits(t, cli.ExitUsage, "/nonexistent")
}

// TestApplyRemotelyMany applies more clients than one call accepts.
func TestApplyRemotelyMany(t *testing.T) {
	asAdministrator(t)
	const more = 1100
	var content bytes.Buffer
	content.WriteString(administration)
	for i := range more {
		fmt.Fprintf(&content, "  - {client_id: many-%04d, scopes: [api1]}\n", i)
	}
	path := servetest.WriteFile(t, "many.yaml", content.String())
	if got := grantor(t, "apply -f "+path); strings.Count(got, "created   client many-") != more || strings.Count(got, "resource") != 1 {
		t.Errorf("got %d lines", strings.Count(got, "\n"))
	}
	if got := grantor(t, "apply -f "+path); strings.Count(got, "unchanged") != more+4 {
		t.Errorf("applied again: got\n%s", got)
	}
	// An error at the end keeps the beginning from being applied.
	bad := servetest.WriteFile(t, "bad.yaml", strings.ReplaceAll(content.String(), "many-", "bad-")+"  - {client_id: last, scopes: [nope]}\n")
	run(t, "apply", "-f", bad).Exits(t, cli.ExitInvalid, fmt.Sprintf("bad.yaml:%d: client last: scopes: ", strings.Count(content.String(), "\n")+1))
	if got := grantor(t, "client list"); strings.Contains(got, "bad-") || strings.Count(got, "many-") != more {
		t.Error("something of the file was applied")
	}
	alone := servetest.WriteFile(t, "alone.yaml", administration)
	if got := grantor(t, "apply --prune -f "+alone); strings.Count(got, "removed   client many-") != more {
		t.Errorf("got %d lines", strings.Count(got, "\n"))
	}
}

// TestApplyBatches checks how a file is divided into requests.
func TestApplyBatches(t *testing.T) {
	var sent []*grantorv1.ApplyManifestRequest
	p := newFakeIssuer(t, func(request any) (proto.Message, error) {
		batch, _ := proto.Clone(request.(proto.Message)).(*grantorv1.ApplyManifestRequest)
		sent = append(sent, batch)
		return &grantorv1.ApplyManifestResponse{Changes: []*grantorv1.AppliedChange{{Action: "created", Kind: "client", Id: "\x1b[2J"}}}, nil
	})
	var content strings.Builder
	content.WriteString("resources: [{resource: https://a.example, scopes: [a]}]\nclients:\n")
	for i := range 501 {
		fmt.Fprintf(&content, "  - {client_id: c%d, client_secret: hush-hush-hush}\n", i)
	}
	safe(t, grantor(t, "apply -f "+servetest.WriteFile(t, "clients.yaml", content.String())))
	var got []string
	for _, batch := range sent {
		got = append(got, fmt.Sprint(len(batch.GetResources()), len(batch.GetClients()), batch.GetValidateOnly()))
	}
	if want := []string{"1 500 true", "1 1 true", "1 500 false", "1 1 false"}; !slices.Equal(got, want) {
		t.Errorf("got resources, clients and validate_only %q, want %q", got, want)
	}
	sent, content = nil, strings.Builder{}
	content.WriteString("clients:\n")
	for i := range 400 {
		fmt.Fprintf(&content, "  - {client_id: c%d, client_name: %s}\n", i, strings.Repeat("x", 10_000))
	}
	grantor(t, "apply --dry-run -f "+servetest.WriteFile(t, "clients.yaml", content.String()))
	clients := 0
	for _, batch := range sent {
		clients += len(batch.GetClients())
		if size := proto.Size(batch); size > 1<<20 {
			t.Errorf("a batch has %d bytes, more than the issuer takes", size)
		}
	}
	if clients != 400 || len(sent) != 5 {
		t.Errorf("got %d clients in %d batches, want 400 in 5", clients, len(sent))
	}
	p.answer = func(any) (proto.Message, error) {
		return nil, status.Error(codes.Internal, "hush-hush-hush "+clitest.Secret)
	}
	run(t, "apply", "-f", servetest.WriteFile(t, "clients.yaml", "clients: [{client_id: a, client_secret: hush-hush-hush}]")).Exits(t, cli.ExitOther, "*** ***", "hush-hush-hush")
}

// TestApplyWay checks how the settings select a Redis or an issuer.
func TestApplyWay(t *testing.T) {
	clitest.Isolate(t)
	for _, c := range []struct {
		name, args string
		env        map[string]string
		remote     bool
	}{
		{"a Redis", "--redis redis://localhost:1", nil, false},
		{"an issuer", "--issuer http://localhost:1", nil, true},
		{"the environment of serve", "", map[string]string{"GRANTOR_REDIS": "redis://localhost:1", "GRANTOR_ISSUER": "http://localhost:1"}, false},
		{"an issuer over the environment", "--issuer http://localhost:1", map[string]string{"GRANTOR_REDIS": "redis://localhost:1"}, true},
		{"a Redis over the environment", "--redis redis://localhost:1", map[string]string{"GRANTOR_ISSUER": "http://localhost:1", "GRANTOR_PROFILE": "x"}, false},
		{"an issuer in the environment", "", map[string]string{"GRANTOR_ISSUER": "http://localhost:1"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			path := servetest.WriteFile(t, "clients.yaml", "clients: [{client_id: a}]")
			args := append([]string{"apply", "-f", path, "--key-encryption-key-file", servetest.KEKFile(t)}, strings.Fields(c.args)...)
			want := "redis: "
			if c.remote {
				want = "client-id: is required"
			}
			got := run(t, args...)
			got.Fails(t, want)
		})
	}
	_ = os.Unsetenv("GRANTOR_REDIS")
	run(t, "apply", "-f", "x").Exits(t, cli.ExitUsage, "redis, issuer: one is required")
}
