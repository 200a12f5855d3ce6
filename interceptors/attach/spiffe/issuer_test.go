package spiffe_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/attach/spiffe"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/spiffetest"
	"github.com/grantorhq/grantor/service/tokentest"
	"github.com/grantorhq/grantor/service/trust"
)

// grantor is an issuer that trusts a domain, with a workload for it and a client with a SPIFFE ID.
type grantor struct {
	*tokentest.Issuer

	client *http.Client
	roots  *tls.Config
}

func newGrantor(t *testing.T, domain *spiffetest.Domain) *grantor {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler()) // has a certificate for 127.0.0.1, and a client that trusts it
	t.Cleanup(server.Close)
	dir := t.TempDir()
	bundle := filepath.Join(dir, "bundle.json")
	must.Succeed(t, os.WriteFile(bundle, domain.Document(), 0o600))
	i := tokentest.New(t, tokentest.TLS(server.TLS.Certificates[0]), tokentest.TrustDirectories(dir))
	scopes := must.Get(oauth.ParseScopes("orders.read"))
	i.Apply(t, registry.Manifest{
		Resources: []registry.Resource{{ID: must.Get(oauth.ParseResource("https://orders.internal")), Scopes: scopes}},
		Clients: []registry.ClientSpec{{Client: registry.Client{
			ID: must.Get(oauth.ParseClientID("orders")), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes,
			SPIFFEID: "spiffe://prod.example.com/shop/*", CertificateBoundTokens: true,
		}}},
		Issuers: []trust.Issuer{{TrustDomain: domain.Name.Name(), BundleFile: bundle}},
		Workloads: []trust.Workload{{
			ClientID: must.Get(trust.ParsePattern("spiffe:{name}")), Scopes: scopes,
			Rule: trust.Rule{SPIFFEID: must.Get(trust.ParsePattern("spiffe://prod.example.com/shop/{name}"))},
		}},
	})
	transport := server.Client().Transport.(*http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &grantor{i, server.Client(), transport.TLSClientConfig}
}

// claims returns the client and the thumbprint of the certificate in a token.
func claims(t *testing.T, token string) (client, bound string) {
	t.Helper()
	var c struct {
		Client string            `json:"client_id"`
		Bound  map[string]string `json:"cnf"`
	}
	must.Succeed(t, json.Unmarshal(must.Get(base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])), &c))
	return c.Client, c.Bound["x5t#S256"]
}

// Both kinds of SVIDs authenticate a client at an issuer, on both wires. With an X509-SVID the tokens can be bound to it, and follow
// it when it changes.
func TestIssuer(t *testing.T) {
	domain := spiffetest.NewDomain("prod.example.com")
	api := spiffetest.NewWorkloadAPI(t, domain, ordersID)
	g := newGrantor(t, domain)
	socket := spiffe.Socket(api.Address)
	if got := must.Get(oauth.Discover(t.Context(), g.client, g.URL)).TokenEndpointAuthMethods; !slices.Contains(got, "spiffe_jwt") {
		t.Errorf("the metadata has the methods %q, want spiffe_jwt among them", got)
	}
	svid := api.Rotate()
	config := g.roots.Clone()
	config.Certificates = []tls.Certificate{{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}}
	conn := must.Get(grpc.NewClient(g.GRPCTarget, grpc.WithTransportCredentials(credentials.NewTLS(config))))
	t.Cleanup(func() { _ = conn.Close() })
	for name, wire := range map[string]attach.Option{"HTTP": nil, "gRPC": attach.OverGRPC(conn)} {
		source := func(id string, option attach.Option) *attach.Source {
			return attach.ClientCredentials(g.URL, id, "", option, attach.HTTPClient(g.client), wire)
		}
		t.Run(name, func(t *testing.T) {
			if client, _ := claims(t, must.Get(source("", spiffe.JWT(t.Context(), socket)).Token()).AccessToken); client != "spiffe:orders" {
				t.Errorf("JWT-SVID: got the client %s", client)
			}
			if client, _ := claims(t, must.Get(source("", spiffe.X509(t.Context(), socket)).Token()).AccessToken); client != "spiffe:orders" {
				t.Errorf("X509-SVID: got the client %s", client)
			}
			if client, bound := claims(t, must.Get(source("orders", spiffe.X509(t.Context(), socket)).Token()).AccessToken); client != "orders" || bound == "" {
				t.Errorf("X509-SVID of a registered client: got the client %s, bound to %q", client, bound)
			}
		})
	}
	source := attach.ClientCredentials(g.URL, "orders", "", spiffe.X509(t.Context(), socket), attach.HTTPClient(g.client))
	_, first := claims(t, must.Get(source.Token()).AccessToken)
	api.Rotate()
	must.Eventually(t, "a token that is bound to the new X509-SVID", func() bool {
		_, bound := claims(t, must.Get(source.Token()).AccessToken)
		return bound != "" && bound != first
	})
	foreign := spiffetest.NewWorkloadAPI(t, spiffetest.NewDomain("prod.example.com"), ordersID)
	for name, option := range map[string]attach.Option{
		"JWT": spiffe.JWT(t.Context(), spiffe.Socket(foreign.Address)), "X.509": spiffe.X509(t.Context(), spiffe.Socket(foreign.Address)),
	} {
		_, err := attach.ClientCredentials(g.URL, "orders", "", option, attach.HTTPClient(g.client)).Token()
		if err == nil || !strings.Contains(err.Error(), "invalid_client") {
			t.Errorf("an SVID of another authority, %s: got %v", name, err)
		}
	}
}
