package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/spiffetest"
	"github.com/grantorhq/grantor/service/tokentest"
	"github.com/grantorhq/grantor/service/trust"
	"github.com/grantorhq/grantor/service/trusttest"
)

// TestIdentities runs the service with an identity instead of a secret, and replaces the identity and the keys that vouch for it
// while the service requests a token every eight seconds. No call fails.
func TestIdentities(t *testing.T) {
	cluster, domain := trusttest.New(t), spiffetest.NewDomain("prod.example.com")
	dir := t.TempDir()
	bundle, file := filepath.Join(dir, "bundle.json"), filepath.Join(dir, "token")
	must.Succeed(t, os.WriteFile(bundle, domain.Document(), 0o600))
	pattern := func(text string) trust.Pattern { return must.Get(trust.ParsePattern(text)) }
	issuer := tokentest.New(t, tokentest.TrustDirectories(dir))
	scopes := must.Get(oauth.ParseScopes("api1"))
	issuer.Apply(t, registry.Manifest{
		Resources: []registry.Resource{{ID: must.Get(oauth.ParseResource(resource)), Scopes: scopes}},
		Clients: []registry.ClientSpec{{Client: registry.Client{
			ID: must.Get(oauth.ParseClientID("background-service")), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes,
			AccessTokenLifetime: 10 * time.Second,
			Federation: []trust.Rule{
				{Issuer: cluster.Name, Subject: pattern("system:serviceaccount:shop:sync")}, {SPIFFEID: pattern("spiffe://prod.example.com/shop/sync")},
			},
		}}},
		Issuers: []trust.Issuer{{Issuer: cluster.Name}, {TrustDomain: "prod.example.com", BundleFile: bundle}},
	})
	project := func() { // as the kubelet does
		claims := cluster.ServiceAccount("shop", "sync", issuer.URL, time.Now()).With(jwstest.Object{"exp": time.Now().Add(10 * time.Minute).Unix()})
		must.Succeed(t, os.WriteFile(file+".new", []byte(cluster.SignKubernetes(claims)), 0o600))
		must.Succeed(t, os.Rename(file+".new", file))
	}
	project()
	agent := spiffetest.NewWorkloadAPI(t, domain, "spiffe://prod.example.com/shop/sync")
	api := startAPI(t, issuer.URL)
	for name, test := range map[string]struct {
		args   []string
		rotate func()
	}{
		"Kubernetes": {[]string{"-token-file", file}, func() { project() }},
		"SPIFFE": {[]string{"-spiffe-socket", agent.Address}, func() {
			// Each JWT-SVID is a new one anyway. A real domain publishes a key long before it signs; here the issuer has to look for
			// it, which it does once in 5 s.
			<-time.After(6 * time.Second)
			domain.RotateJWTKey()
			must.Succeed(t, os.WriteFile(bundle, domain.Document(), 0o600))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			service := start(t, slices.Concat(api.args, []string{"-part", "sync", "-issuer", issuer.URL}, test.args)...)
			service.log.await(t, synced...)
			test.rotate()
			api.log.skip()
			first := api.log.await(t, record{"msg": "listed", "over": "http"})
			for next := first; next["token"] == first["token"]; { // a token that was requested after the rotation
				next = api.log.await(t, record{"msg": "listed", "over": "http"})
			}
			for range len(service.log) {
				if r := <-service.log; r["msg"] == "sync failed" {
					t.Errorf("a call failed: %v", r)
				}
			}
			service.stop(t)
		})
	}
}
