package registry_test

import (
	"testing"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// TestCertificateFields checks what a client may register for its certificates (RFC 8705 §2.1.2, §2.2.2).
func TestCertificateFields(t *testing.T) {
	keys := must.Get(jwks.ParseDocument(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	for name, test := range map[string]struct {
		client registry.Client
		want   string
	}{
		"a DN":                    {registry.Client{Certificate: certificate.Subject{DN: "CN=orders,O=Example"}}, ""},
		"a DNS name":              {registry.Client{Certificate: certificate.Subject{DNS: "orders.internal"}}, ""},
		"a URI":                   {registry.Client{Certificate: certificate.Subject{URI: "spiffe://example.com/orders"}}, ""},
		"an IP address":           {registry.Client{Certificate: certificate.Subject{IP: "2001:db8::1"}}, ""},
		"an email address":        {registry.Client{Certificate: certificate.Subject{Email: "orders@example.com"}}, ""},
		"a malformed DN":          {registry.Client{Certificate: certificate.Subject{DN: "orders"}}, "tls_client_auth_subject_dn"},
		"a wildcard":              {registry.Client{Certificate: certificate.Subject{DNS: "*.internal"}}, "tls_client_auth_san_dns"},
		"a path":                  {registry.Client{Certificate: certificate.Subject{URI: "/orders"}}, "tls_client_auth_san_uri"},
		"a network":               {registry.Client{Certificate: certificate.Subject{IP: "10.0.0.0/8"}}, "tls_client_auth_san_ip"},
		"no email address":        {registry.Client{Certificate: certificate.Subject{Email: "orders"}}, "tls_client_auth_san_email"},
		"two names":               {registry.Client{Certificate: certificate.Subject{DNS: "orders.internal", URI: "urn:orders"}}, "tls_client_auth_san_dns"},
		"a method without a name": {registry.Client{AuthMethods: []string{oauth.TLSClientAuth}}, "auth_methods"},
		"a method without a key":  {registry.Client{AuthMethods: []string{oauth.SelfSignedTLSClientAuth}}, "auth_methods"},
		"a method with a name":    {registry.Client{AuthMethods: []string{oauth.TLSClientAuth}, Certificate: certificate.Subject{DNS: "orders.internal"}}, ""},
		"a method with a key":     {registry.Client{AuthMethods: []string{oauth.SelfSignedTLSClientAuth}, Keys: keys}, ""},
		"a method with a key URL": {registry.Client{AuthMethods: []string{oauth.SelfSignedTLSClientAuth}, KeysURI: "https://example.com/jwks"}, ""},
	} {
		if err := test.client.Check(must.Get(registry.NewResources(0, nil))); err != nil || test.want != "" {
			t.Run(name, func(t *testing.T) { expectField(t, err, test.want) })
		}
	}
	if _, err := registry.NewResources(0, []registry.Resource{{ID: resourceID("urn:a"), RequireBoundTokens: "x"}}); err == nil {
		t.Error("a resource may require tokens that are bound to x")
	}
	if a, b := (&registry.Resource{}).ETag(), (&registry.Resource{RequireBoundTokens: registry.BindAny}).ETag(); a == b {
		t.Error("the etag does not depend on require_bound_tokens")
	}
}
