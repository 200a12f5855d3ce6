package rest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/token"
)

// TestTokenSize asks for tokens of more and more scopes of the maximum length. Every token that is issued is accepted.
func TestTokenSize(t *testing.T) {
	issuer := newIssuer(t)
	names := make([]string, 64)
	for i := range names {
		names[i] = fmt.Sprintf("%0128d", i)
	}
	all := must.Get(oauth.ParseScopes(strings.Join(names, " ")))
	issuer.Apply(t, registry.Manifest{
		Resources: []registry.Resource{{ID: must.Get(oauth.ParseResource("urn:wide")), Scopes: all}},
		Clients: []registry.ClientSpec{{
			Client: registry.Client{
				ID: must.Get(oauth.ParseClientID("wide")), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: all,
				DefaultScopes: all[:1],
			},
			Secret: secret,
		}},
	})
	issued, refused := 0, 0
	for n := 1; n <= len(names); n += 9 {
		a := post(t, issuer, good("client_id", "wide", "scope", strings.Join(names[:n], " ")))
		if a.status != http.StatusOK {
			wantRefusal(t, a, http.StatusBadRequest, "invalid_scope", names[0])
			refused++
			continue
		}
		issued++
		raw := wantToken(t, a).AccessToken
		if len(raw) > token.MaxSize {
			t.Errorf("%d scopes: the token has %d bytes", n, len(raw))
		}
		a = send(t, issuer, request{target: "/connect/introspect", body: about("wide", secret, raw).Encode()})
		if a.status != http.StatusOK || a.body == inactive {
			t.Errorf("%d scopes: got %d %s", n, a.status, a.body)
		}
	}
	if issued < 3 || refused < 2 {
		t.Errorf("%d were issued and %d refused", issued, refused)
	}
}
