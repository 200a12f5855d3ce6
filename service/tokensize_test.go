package service_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/token"
)

// wide returns a manifest in which the last of the scopes of svc has the given length. Every seventh character of the others is
// escaped in JSON.
func wide(last int) registry.Manifest {
	const number, escaped = 33, 14
	names := make([]string, number, number+1)
	for i := range names {
		names[i] = fmt.Sprintf("%04d", i) + strings.Repeat("aaaaaa&", escaped)
	}
	scopes := must.Get(oauth.ParseScopes(strings.Join(append(names, strings.Repeat("z", last)), " ")))
	m := manifest(func(c *registry.Client) { c.Scopes = scopes })
	m.Resources[0].Scopes = scopes
	return m
}

// TestTokenSize registers clients with more and more scopes: every client that is registered gets a token without requesting
// scopes, the last one before the border included, and the first one behind it would get none.
func TestTokenSize(t *testing.T) {
	r := newCluster(t).start(t)
	apply := func(m registry.Manifest, dry bool) error {
		_, err := r.Editor().Apply(t.Context(), m, registry.ApplyOptions{DryRun: dry})
		return err
	}
	last := 1
	for last < 128 && apply(wide(last+1), true) == nil {
		last++
	}
	if last == 1 || last == 128 {
		t.Fatalf("the border is not among these manifests: %d", last)
	}
	r.apply(t, wide(last))
	raw := r.token(t)
	if len(raw) > token.MaxSize || len(raw) < token.MaxSize-2 {
		t.Errorf("the largest token has %d bytes, want about %d", len(raw), token.MaxSize)
	}
	r.expectActive(t, raw, true)
	expectTooLarge := func(err error) {
		t.Helper()
		field, ok := errors.AsType[*registry.FieldError](err)
		if !ok || field.Field != "scopes" || !strings.Contains(field.Problem, "more than the 8192 that verifiers accept; give default_scopes") {
			t.Errorf("got %v, want the scopes refused", err)
		}
	}
	beyond := wide(last + 1)
	expectTooLarge(apply(beyond, false))
	svc := beyond.Clients[0].Client
	withDefault := beyond
	withDefault.Clients[0].DefaultScopes = svc.Scopes[:1]
	r.apply(t, withDefault)
	r.token(t)
	_, err := r.tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: "svc", ClientSecret: secret, Scope: svc.Scopes.String(),
	})
	if err == nil || !strings.Contains(err.Error(), "more than 8192 bytes") {
		t.Errorf("requested by name: got %v", err)
	}
	target := registry.Target{ID: svc.ID}
	_, err = r.Editor().UpdateClient(t.Context(), target, func(c *registry.Client) error { c.DefaultScopes = nil; return nil })
	expectTooLarge(err)
	svc.ID = must.Get(oauth.ParseClientID("svd"))
	_, err = r.Editor().CreateClient(t.Context(), svc, "", false)
	expectTooLarge(err)
	svc.GrantTypes = nil
	if _, err = r.Editor().CreateClient(t.Context(), svc, "", false); err != nil {
		t.Errorf("a client without a grant type: %v", err)
	}
}

// TestTokenSizeLater checks that a client whose token became too large because its resource changed can still be disabled.
func TestTokenSizeLater(t *testing.T) {
	r := newCluster(t).start(t)
	m := wide(1)
	all := m.Resources[0].Scopes
	m.Resources[0].Scopes = all[:1]
	for i, scope := range all[1:] {
		id := must.Get(oauth.ParseResource(fmt.Sprintf("urn:r:%d", i)))
		m.Resources = append(m.Resources, registry.Resource{ID: id, Scopes: oauth.Scopes{scope}})
	}
	m.Clients[0].DefaultScopes = all[:1]
	r.apply(t, m)
	stored := must.Get(r.store.Client(t.Context(), m.Clients[0].ID))
	large := *stored
	large.DefaultScopes = nil
	must.Succeed(t, r.store.SaveClient(t.Context(), &large))
	if _, err := r.Editor().UpdateClient(t.Context(), registry.Target{ID: large.ID}, func(c *registry.Client) error {
		c.Disabled = true
		return nil
	}); err != nil {
		t.Errorf("got %v", err)
	}
}
