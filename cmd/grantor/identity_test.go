package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/spiffetest"
	"github.com/grantorhq/grantor/service/tokentest"
	"github.com/grantorhq/grantor/service/trust"
	"github.com/grantorhq/grantor/service/trusttest"

	"time"
)

// asWorkload starts an issuer that trusts a cluster and a SPIFFE domain, and sets up the commands to be a client without an ID.
func asWorkload(t *testing.T) (tokenFile, socket string) {
	t.Helper()
	cluster, domain := trusttest.New(t), spiffetest.NewDomain("prod.example.com")
	dir := t.TempDir()
	bundle := filepath.Join(dir, "bundle.json")
	must.Succeed(t, os.WriteFile(bundle, domain.Document(), 0o600))
	issuer := tokentest.New(t, tokentest.TrustDirectories(dir))
	pattern := func(text string) trust.Pattern { return must.Get(trust.ParsePattern(text)) }
	scopes := must.Get(oauth.ParseScopes("api1"))
	issuer.Apply(t, registry.Manifest{
		Resources: []registry.Resource{{ID: must.Get(oauth.ParseResource("https://orders.internal")), Scopes: scopes}},
		Issuers:   []trust.Issuer{{Issuer: cluster.Name}, {TrustDomain: "prod.example.com", BundleFile: bundle}},
		Workloads: []trust.Workload{
			{ClientID: pattern("k8s:{name}"), Scopes: scopes, Rule: trust.Rule{Issuer: cluster.Name, Subject: pattern("system:serviceaccount:shop:{name}")}},
			{ClientID: pattern("spiffe:{name}"), Scopes: scopes, Rule: trust.Rule{SPIFFEID: pattern("spiffe://prod.example.com/shop/{name}")}},
		},
	})
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("GRANTOR_ISSUER", issuer.URL)
	t.Setenv("GRANTOR_CLIENT_SECRET", "")
	tokenFile = servetest.WriteFile(t, "token", cluster.SignKubernetes(cluster.ServiceAccount("shop", "orders", issuer.URL, time.Now())))
	return tokenFile, spiffetest.NewWorkloadAPI(t, domain, "spiffe://prod.example.com/shop/orders").Address
}

// TestIdentities issues tokens by identities from elsewhere, and refuses settings that exclude each other.
func TestIdentities(t *testing.T) {
	tokenFile, socket := asWorkload(t)
	for args, want := range map[string]string{
		"--token-file " + tokenFile: "k8s:orders", "--token-file " + tokenFile + " --client-id k8s:orders": "k8s:orders", "--spiffe-socket " + socket: "spiffe:orders",
	} {
		raw := runToken(t, "", append([]string{"issue"}, strings.Fields(args)...)...).Works(t)
		got := fields(t, runToken(t, raw, append([]string{"introspect", "-o", "json"}, strings.Fields(args)...)...).Works(t))
		if got["client_id"] != want || got["active"] != true {
			t.Errorf("%s: got %v, want an active token of %s", args, got, want)
		}
	}
	secret := servetest.WriteFile(t, "secret", "a-secret-of-nobody")
	for _, c := range []struct {
		name, args, want string
		code             int
	}{
		{"another client's ID", "--client-id other --token-file " + tokenFile, "invalid_client: ", cli.ExitDenied},
		{"no such file", "--token-file /nonexistent", "token-file: open /nonexistent", cli.ExitUsage},
		{"no token in it", "--token-file " + secret, "has no JWT", cli.ExitUsage},
		{"a secret too", "--client-id a --client-secret-file " + secret + " --token-file " + tokenFile, "client-secret-file, token-file: both are set", cli.ExitUsage},
		{"two identities", "--client-id a --spiffe-socket " + socket + " --token-file " + tokenFile, "token-file, spiffe-socket: both are set", cli.ExitUsage},
		{"a method of secrets", "--client-auth-method client_secret_post --token-file " + tokenFile, "client-auth-method: is for a client with a secret", cli.ExitUsage},
		{"not an address", "--spiffe-socket /run/agent.sock", "spiffe-socket: ", cli.ExitUsage},
		{"no agent", "--spiffe-socket unix:///nonexistent/agent.sock", "spiffe-socket: ", cli.ExitUsage},
		{"another kind", "--spiffe-svid wit --spiffe-socket " + socket, "spiffe-svid: ", cli.ExitUsage},
		{"a certificate without its key", "--client-id a --client-certificate-file " + secret, "one is set without the other", cli.ExitUsage},
		{"no certificate in it", "--client-id a --client-certificate-file " + secret + " --client-certificate-key-file " + secret, "client-certificate-file, client-certificate-key-file: ", cli.ExitUsage},
		{"a certificate without a client", "--client-certificate-file " + secret + " --client-certificate-key-file " + secret, "client-id: is required", cli.ExitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			runToken(t, "", append([]string{"issue"}, strings.Fields(c.args)...)...).Exits(t, c.code, c.want, "a-secret-of-nobody")
		})
	}
}
