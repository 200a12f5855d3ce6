package doctor_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

// trusting is a deployment with a trusted issuer, which answers requests for its keys with a status and a text.
func trusting(status int, text string, change func(issuer *trust.Issuer)) func(t *testing.T) (*brokenDeployment, []string) {
	return func(t *testing.T) (*brokenDeployment, []string) {
		p := newDeployment(t)
		p.ring(0)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
		}))
		t.Cleanup(server.Close)
		issuer := trust.Issuer{Issuer: "https://elsewhere.example", KeysURI: server.URL}
		change(&issuer)
		p.check(p.store.SaveTrust(t.Context(), must.Get(trust.NewTable(0, []trust.Issuer{issuer}, nil))))
		return p, []string{p.kekFlag()}
	}
}

var trustCauses = []cause{
	{"record.altered", "the trusted issuers and workloads", func(t *testing.T) (*brokenDeployment, []string) {
		p, args := registered(0, nil)(t)
		p.do("hset grantor:{grantor}:trust d {} v 1 m x")
		return p, args
	}},
	{"trust.reach", "https://elsewhere.example: ", trusting(200, "", func(i *trust.Issuer) { i.KeysURI = "http://127.0.0.1:1/keys" })},
	{"trust.reach", "redirects", trusting(302, "", func(*trust.Issuer) {})},
	{"trust.keys", "https://elsewhere.example: ", trusting(200, `{"keys":[]}`, func(*trust.Issuer) {})},
	{"trust.keys", "404", trusting(404, `{}`, func(*trust.Issuer) {})},
	{"trust.keys", "spiffe://prod.example.com: the bundle has no authority", trusting(200, `{"keys":[]}`, func(i *trust.Issuer) {
		*i = trust.Issuer{TrustDomain: "prod.example.com", BundleEndpoint: i.KeysURI}
	})},
	{"trust.keys", "answered 500 Internal Server Error", trusting(500, "", func(i *trust.Issuer) {
		*i = trust.Issuer{TrustDomain: "prod.example.com", BundleEndpoint: i.KeysURI}
	})},
	{"trust.files", "https://elsewhere.example names /etc/token", func(t *testing.T) (*brokenDeployment, []string) {
		t.Setenv("GRANTOR_TRUST_DIRECTORIES", "/var/run/a,/var/run/b")
		return trusting(200, "", func(i *trust.Issuer) { i.CAFile, i.BearerTokenFile = "/var/run/b/ca.crt", "/etc/token" })(t)
	}},
}

// TestDoctorTrusts expects no finding about an issuer whose keys can be had, or can be had by the replicas alone, and none about
// a client that needs no secret.
func TestDoctorTrusts(t *testing.T) {
	set := string(must.Get(json.Marshal(map[string]any{"keys": []jwks.JWK{jwstest.NewSigner(jwks.ES256).JWK()}})))
	for name, change := range map[string]func(*trust.Issuer){
		"keys":           func(*trust.Issuer) {},
		"inline":         func(i *trust.Issuer) { i.KeysURI, i.Keys = "", must.Get(jwks.ParseDocument(set)) },
		"with a token":   func(i *trust.Issuer) { i.KeysURI, i.BearerTokenFile = "http://127.0.0.1:1", "/var/run/token" },
		"with a file":    func(i *trust.Issuer) { i.KeysURI, i.CAFile = "http://127.0.0.1:1", "/nonexistent" },
		"a bundle":       func(i *trust.Issuer) { *i = trust.Issuer{TrustDomain: "a.example", BundleFile: "/nonexistent"} },
		"a Workload API": func(i *trust.Issuer) { *i = trust.Issuer{TrustDomain: "a.example", WorkloadAPI: "unix:///nonexistent"} },
	} {
		t.Run(name, func(t *testing.T) {
			p, args := trusting(200, set, change)(t)
			p.client("worker", 0, func(c *registry.Client) {
				c.Secrets = nil
				c.Federation = []trust.Rule{{Issuer: "https://elsewhere.example", Subject: must.Get(trust.ParsePattern("a"))}}
			})
			got := p.diagnose(args...)
			for _, id := range []string{"trust.reach", "trust.keys", "trust.files", "client.secretless"} {
				if made, ok := got.checks[id]; !ok || made.Found != "" {
					t.Errorf("%s: got %+v, want it made without a finding", id, made)
				}
			}
		})
	}
}
