// Package conformance runs third-party OAuth clients and resource servers against an issuer: golang.org/x/oauth2 and
// coreos/go-oidc in every run; those from npm, PyPI and Maven, curl, and that of kube-apiserver, with the build tag
// conformance. It is a separate module so that the libraries it compares with are not requirements of Grantor.
package conformance_test

import (
	"testing"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// The resources of the tests' issuer.
const (
	res1 = "https://res1.internal"
	res2 = "https://res2.internal"
)

// newIssuer starts an issuer with two resources and the client svc, which may have the scope api1.
func newIssuer(t *testing.T, options ...tokentest.Option) *tokentest.Issuer {
	t.Helper()
	issuer := tokentest.New(t, options...)
	issuer.Apply(t, registry.Manifest{
		Resources: []registry.Resource{
			{ID: must.Get(oauth.ParseResource(res1)), Scopes: must.Get(oauth.ParseScopes("api1 api2"))},
			{ID: must.Get(oauth.ParseResource(res2)), Scopes: must.Get(oauth.ParseScopes("other.read"))},
		},
		Clients: []registry.ClientSpec{client("svc", tokentest.Secret, "api1")},
	})
	return issuer
}

// client returns a client that may use the client credentials grant for the scopes.
func client(id, secret, scopes string) registry.ClientSpec {
	return registry.ClientSpec{Secret: secret, Client: registry.Client{
		ID: must.Get(oauth.ParseClientID(id)), Scopes: must.Get(oauth.ParseScopes(scopes)),
		GrantTypes: []string{oauth.GrantClientCredentials},
	}}
}

// config returns the configuration with which golang.org/x/oauth2 requests tokens of the issuer.
func config(issuer *tokentest.Issuer, id, secret, scope string, style oauth2.AuthStyle) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID: id, ClientSecret: secret, TokenURL: issuer.URL + "/connect/token", Scopes: []string{scope}, AuthStyle: style,
	}
}
