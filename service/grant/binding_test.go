package grant_test

import (
	"testing"

	"github.com/grantorhq/grantor/service/grant"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/token"
)

// TestBinding grants tokens to clients and for resources that ask for bound ones, given what the request proves.
func TestBinding(t *testing.T) {
	resource := func(name string, binding registry.Binding) registry.Resource {
		return registry.Resource{
			ID: must.Get(oauth.ParseResource("urn:" + name)), Scopes: must.Get(oauth.ParseScopes(name)), RequireBoundTokens: binding,
		}
	}
	resources := must.Get(registry.NewResources(1, []registry.Resource{
		resource("plain", ""), resource("certificate", registry.BindCertificate), resource("dpop", registry.BindDPoP), resource("any", registry.BindAny),
	}))
	nothing, certificate, key := token.Confirmation{}, token.Confirmation{CertificateThumbprint: "c"}, token.Confirmation{KeyThumbprint: "k"}
	both := token.Confirmation{CertificateThumbprint: "c", KeyThumbprint: "k"}
	refused := token.Confirmation{Unknown: true}
	for _, test := range []struct {
		scope        string
		asks         bool // the client asks for tokens that are bound to its certificate
		proven, want token.Confirmation
	}{
		{"plain", false, nothing, nothing},
		{"plain", false, certificate, nothing},
		{"plain", false, key, key},
		{"plain", false, both, key},
		{"plain", true, nothing, refused},
		{"plain", true, certificate, certificate},
		{"plain", true, key, refused},
		{"plain", true, both, both},
		{"certificate", false, nothing, refused},
		{"certificate", false, certificate, certificate},
		{"certificate", false, key, refused},
		{"certificate plain", false, both, both},
		{"dpop", false, nothing, refused},
		{"dpop", false, certificate, refused},
		{"dpop", false, key, key},
		{"dpop", true, both, both},
		{"any", false, nothing, refused},
		{"any", false, certificate, certificate},
		{"any", false, key, key},
		{"any", false, both, key},
		{"any certificate", false, both, both},
		{"dpop certificate", false, certificate, refused},
		{"dpop certificate", false, both, both},
	} {
		client := &registry.Client{
			GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: must.Get(oauth.ParseScopes("plain certificate dpop any")),
			CertificateBoundTokens: test.asks,
		}
		decision, err := (&grant.ClientCredentials{Algorithm: jwks.ES256}).Decide(client, resources, grant.Request{Scope: test.scope, Proven: test.proven})
		switch {
		case test.want == refused && (err == nil || oauth.From(err).Code != oauth.InvalidRequest):
			t.Errorf("%+v: got %v", test, err)
		case test.want != refused && (err != nil || decision.Confirmation != test.want):
			t.Errorf("%+v: got %+v, %v", test, decision, err)
		}
	}
}
