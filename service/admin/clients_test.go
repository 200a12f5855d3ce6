package admin_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
)

// newClient registers a client with the scope api1 and returns its secret.
func (f *fixture) newClient(t *testing.T, id string) string {
	t.Helper()
	made, err := f.clients.CreateClient(f.as(t, all...), &grantorv1.CreateClientRequest{Client: &grantorv1.Client{
		ClientId: id, GrantTypes: []string{"client_credentials"}, Scopes: []string{"api1"},
	}})
	must.Succeed(t, err)
	return made.GetClientSecret()
}

// newResource registers the resource that owns api1 and api2.
func (f *fixture) newResource(t *testing.T) {
	t.Helper()
	_, err := f.resources.CreateResource(f.as(t, all...), &grantorv1.CreateResourceRequest{Resource: &grantorv1.Resource{
		Resource: "https://orders.internal", Scopes: []string{"api1", "api2"},
	}})
	must.Succeed(t, err)
}

// TestClientLife takes a client from its creation to its deletion.
func TestClientLife(t *testing.T) {
	f := newFixture(t)
	f.newResource(t)
	ctx := f.as(t, all...)
	secret := f.newClient(t, "svc")
	if !clientsecret.Generated(secret) {
		t.Error("got a secret that the issuer did not generate")
	}
	if got := f.token(t, "svc", secret); got != http.StatusOK {
		t.Errorf("a new client: got %d, want a token", got)
	}
	got, err := f.clients.GetClient(ctx, &grantorv1.GetClientRequest{ClientId: "svc"})
	must.Succeed(t, err)
	if c := got.GetClient(); len(c.GetSecrets()) != 1 || c.GetEtag() == "" || c.GetCreateTime() == nil || strings.Contains(c.String(), secret) {
		t.Errorf("got %v, want one secret without its value, an etag and a time", c)
	}
	disabled, err := f.clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{Client: &grantorv1.Client{ClientId: "svc", Disabled: new(true)}})
	must.Succeed(t, err)
	if got := f.token(t, "svc", secret); got != http.StatusUnauthorized || !disabled.GetClient().GetDisabled() {
		t.Errorf("a disabled client: got %d, want 401 at once", got)
	}
	_, err = f.clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{
		Client: &grantorv1.Client{ClientId: "svc"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
	})
	must.Succeed(t, err)
	if got := f.token(t, "svc", secret); got != http.StatusOK {
		t.Errorf("enabled again: got %d, want a token", got)
	}
	_, err = f.clients.DeleteClient(ctx, &grantorv1.DeleteClientRequest{ClientId: "svc"})
	must.Succeed(t, err)
	if got := f.token(t, "svc", secret); got != http.StatusUnauthorized {
		t.Errorf("a deleted client: got %d, want 401 at once", got)
	}
	_, err = f.clients.GetClient(ctx, &grantorv1.GetClientRequest{ClientId: "svc"})
	refused(t, err, codes.NotFound, "not_found")
}

// TestClientRefusals has one case for each defect of a request about clients.
func TestClientRefusals(t *testing.T) {
	f := newFixture(t)
	f.newResource(t)
	f.newClient(t, "svc")
	ctx := f.as(t, all...)
	update := func(c *grantorv1.Client, paths ...string) func() error {
		return func() error {
			_, err := f.clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{Client: c, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
			return err
		}
	}
	create := func(m *grantorv1.CreateClientRequest) func() error {
		return func() error { _, err := f.clients.CreateClient(ctx, m); return err }
	}
	for name, test := range map[string]struct {
		call   func() error
		code   codes.Code
		reason string
	}{
		"no id":           {create(&grantorv1.CreateClientRequest{}), codes.InvalidArgument, "invalid_request"},
		"an id in UTF-8":  {create(&grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "ü"}}), codes.InvalidArgument, "invalid_request"},
		"a long id":       {create(&grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: strings.Repeat("i", 256)}}), codes.InvalidArgument, "invalid_request"},
		"a taken id":      {create(&grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "svc"}}), codes.AlreadyExists, "already_exists"},
		"unknown scope":   {create(&grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "a", Scopes: []string{"nobodys"}}}), codes.InvalidArgument, "invalid_request"},
		"malformed scope": {create(&grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "a", Scopes: []string{"a b"}}}), codes.InvalidArgument, "invalid_request"},
		"too many scopes": {create(&grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "a", Scopes: slices.Repeat([]string{"api1"}, 65)}}), codes.InvalidArgument, "invalid_request"},
		"short secret":    {create(&grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "a"}, ClientSecret: "short"}), codes.InvalidArgument, "invalid_request"},
		"secret and none": {create(&grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "a"}, ClientSecret: "long enough indeed", WithoutSecret: true}), codes.InvalidArgument, "invalid_request"},
		"fraction of a second": {
			create(&grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "a", AccessTokenLifetime: &durationpb.Duration{Nanos: 1}}}),
			codes.InvalidArgument, "invalid_request",
		},
		"a day and more": {
			create(&grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "a", AccessTokenLifetime: durationpb.New(25 * time.Hour)}}),
			codes.InvalidArgument, "invalid_request",
		},
		"unknown client":      {update(&grantorv1.Client{ClientId: "other", ClientName: "x"}), codes.NotFound, "not_found"},
		"unknown field":       {update(&grantorv1.Client{ClientId: "svc"}, "secret"), codes.InvalidArgument, "invalid_request"},
		"field of a field":    {update(&grantorv1.Client{ClientId: "svc"}, "access_token_lifetime.seconds"), codes.InvalidArgument, "invalid_request"},
		"star and another":    {update(&grantorv1.Client{ClientId: "svc"}, "*", "client_name"), codes.InvalidArgument, "invalid_request"},
		"an old etag":         {update(&grantorv1.Client{ClientId: "svc", ClientName: "x", Etag: "1"}), codes.Aborted, "conflict"},
		"a malformed etag":    {update(&grantorv1.Client{ClientId: "svc", ClientName: "x", Etag: "~"}), codes.Aborted, "conflict"},
		"default not a scope": {update(&grantorv1.Client{ClientId: "svc", DefaultScopes: []string{"api2"}}), codes.InvalidArgument, "invalid_request"},
		"delete unknown": {func() error {
			_, err := f.clients.DeleteClient(ctx, &grantorv1.DeleteClientRequest{ClientId: "other"})
			return err
		}, codes.NotFound, "not_found"},
		"delete an old state": {func() error {
			_, err := f.clients.DeleteClient(ctx, &grantorv1.DeleteClientRequest{ClientId: "svc", Etag: "1"})
			return err
		}, codes.Aborted, "conflict"},
		"revoke unknown": {func() error {
			_, err := f.clients.RevokeTokens(ctx, &grantorv1.RevokeTokensRequest{ClientId: "other"})
			return err
		}, codes.NotFound, "not_found"},
		"unknown secret": {func() error {
			_, err := f.clients.DeleteClientSecret(ctx, &grantorv1.DeleteClientSecretRequest{ClientId: "svc", SecretId: "other"})
			return err
		}, codes.NotFound, "not_found"},
		"a secret that has ended": {func() error {
			_, err := f.clients.CreateClientSecret(ctx, &grantorv1.CreateClientSecretRequest{ClientId: "svc", ExpireTime: timestamppb.New(time.Unix(1, 0))})
			return err
		}, codes.InvalidArgument, "invalid_request"},
		"negative grace": {func() error {
			_, err := f.clients.RotateClientSecret(ctx, &grantorv1.RotateClientSecretRequest{ClientId: "svc", GracePeriod: durationpb.New(-time.Second)})
			return err
		}, codes.InvalidArgument, "invalid_request"},
		"secret without a mask": {func() error {
			_, err := f.clients.UpdateClientSecret(ctx, &grantorv1.UpdateClientSecretRequest{ClientId: "svc", Secret: &grantorv1.ClientSecret{SecretId: "a"}})
			return err
		}, codes.InvalidArgument, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, test.call(), test.code, test.reason) })
	}
	got, err := f.clients.GetClient(ctx, &grantorv1.GetClientRequest{ClientId: "svc"})
	must.Succeed(t, err)
	if got.GetClient().GetClientName() != "" {
		t.Error("a refused change was made")
	}
}

// TestEtag changes a client twice by the state that was read before both. The second change is refused.
func TestEtag(t *testing.T) {
	f := newFixture(t)
	f.newResource(t)
	f.newClient(t, "svc")
	ctx := f.as(t, all...)
	read, err := f.clients.GetClient(ctx, &grantorv1.GetClientRequest{ClientId: "svc"})
	must.Succeed(t, err)
	first, second := read.GetClient(), read.GetClient()
	first.ClientName = "first"
	written, err := f.clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{Client: first})
	must.Succeed(t, err)
	if written.GetClient().GetEtag() == second.GetEtag() {
		t.Error("got the same etag after a change")
	}
	_, err = f.clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{Client: &grantorv1.Client{ClientId: "svc", ClientName: "second", Etag: read.GetClient().GetEtag()}})
	refused(t, err, codes.Aborted, "conflict")
	_, err = f.clients.RotateClientSecret(ctx, &grantorv1.RotateClientSecretRequest{ClientId: "svc", Etag: read.GetClient().GetEtag()})
	refused(t, err, codes.Aborted, "conflict")
	// Without an etag the last change wins.
	_, err = f.clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{Client: &grantorv1.Client{ClientId: "svc", ClientName: "third"}})
	must.Succeed(t, err)
}

// TestPages lists clients whose ids contain characters with a meaning in paths and tokens.
func TestPages(t *testing.T) {
	f := newFixture(t)
	f.newResource(t)
	ids := []string{"%2F", "../../keys", "/", "a", "a/b", "a:revoke", "b?c#d", "boss", strings.Repeat("i", 255), "~"}
	for _, id := range ids {
		if id != "boss" { // which exists already
			f.newClient(t, id)
		}
	}
	ctx := f.as(t, all...)
	var got, tokens []string
	for token := ""; ; {
		page, err := f.clients.ListClients(ctx, &grantorv1.ListClientsRequest{PageSize: 2, PageToken: token})
		must.Succeed(t, err)
		for _, c := range page.GetClients() {
			got = append(got, c.GetClientId())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
		tokens = append(tokens, token)
	}
	if !slices.Equal(got, ids) {
		t.Errorf("got %q, want %q", got, ids)
	}
	forged := []byte(tokens[0])
	forged[len(forged)-1] ^= 1
	for name, token := range map[string]string{
		"altered": string(forged), "cut": tokens[0][:20], "made up": "YWJj", "no base64": "***", "long": strings.Repeat("a", 4096),
	} {
		_, err := f.clients.ListClients(ctx, &grantorv1.ListClientsRequest{PageToken: token})
		refused(t, err, codes.InvalidArgument, "invalid_request")
		_, err = f.resources.ListResources(ctx, &grantorv1.ListResourcesRequest{PageToken: tokens[1]})
		refused(t, err, codes.InvalidArgument, "invalid_request")
		if t.Failed() {
			t.Fatalf("the token was %s", name)
		}
	}
	_, err := f.clients.ListClients(ctx, &grantorv1.ListClientsRequest{PageSize: -1})
	refused(t, err, codes.InvalidArgument, "invalid_request")
}

// TestSecrets rotates a secret. Both secrets are valid until the old one expires.
func TestSecrets(t *testing.T) {
	f := newFixture(t)
	f.newResource(t)
	old := f.newClient(t, "svc")
	ctx := f.as(t, all...)
	rotated, err := f.clients.RotateClientSecret(ctx, &grantorv1.RotateClientSecretRequest{ClientId: "svc", GracePeriod: durationpb.New(time.Hour)})
	must.Succeed(t, err)
	next := rotated.GetClientSecret()
	for _, secret := range []string{old, next} {
		if got := f.token(t, "svc", secret); got != http.StatusOK {
			t.Errorf("within the grace period: got %d, want a token by both", got)
		}
	}
	f.Advance(time.Hour + time.Second)
	ctx = f.as(t, all...)
	if got, with := f.token(t, "svc", old), f.token(t, "svc", next); got != http.StatusUnauthorized || with != http.StatusOK {
		t.Errorf("after the grace period: got %d by the old and %d by the new secret, want 401 and 200", got, with)
	}
	added, err := f.clients.CreateClientSecret(ctx, &grantorv1.CreateClientSecretRequest{ClientId: "svc", ClientSecret: "one of my own choice"})
	must.Succeed(t, err)
	if added.GetClientSecret() != "" {
		t.Error("got a chosen secret back")
	}
	if got := f.token(t, "svc", "one of my own choice"); got != http.StatusOK {
		t.Errorf("by a chosen secret: got %d, want a token", got)
	}
	_, err = f.clients.UpdateClientSecret(ctx, &grantorv1.UpdateClientSecretRequest{ClientId: "svc", Secret: &grantorv1.ClientSecret{
		SecretId: added.GetSecretId(), ExpireTime: timestamppb.New(f.Now().Add(time.Minute)),
	}})
	must.Succeed(t, err)
	left, err := f.clients.DeleteClientSecret(ctx, &grantorv1.DeleteClientSecretRequest{ClientId: "svc", SecretId: rotated.GetSecretId()})
	must.Succeed(t, err)
	if n := len(left.GetClient().GetSecrets()); n != 2 {
		t.Errorf("got %d secrets, want 2", n)
	}
	if got := f.token(t, "svc", next); got != http.StatusUnauthorized {
		t.Errorf("by a secret that was taken away: got %d, want 401", got)
	}
	f.Advance(2 * time.Minute)
	if got := f.token(t, "svc", "one of my own choice"); got != http.StatusUnauthorized {
		t.Errorf("by a secret that has ended: got %d, want 401", got)
	}
}

// TestEscalation tries to gain a right over keys as an administrator of clients alone.
func TestEscalation(t *testing.T) {
	f := newFixture(t)
	f.newResource(t)
	f.newClient(t, "svc")
	boss := f.as(t, all...)
	_, err := f.clients.CreateClient(boss, &grantorv1.CreateClientRequest{Client: &grantorv1.Client{
		ClientId: "keys-admin", GrantTypes: []string{"client_credentials"}, Scopes: []string{registry.ScopeKeysWrite},
	}})
	must.Succeed(t, err)
	stored, err := f.clients.GetClient(boss, &grantorv1.GetClientRequest{ClientId: "keys-admin"})
	must.Succeed(t, err)
	ctx := f.as(t, registry.ScopeClientsRead, registry.ScopeClientsWrite, registry.ScopeResourcesWrite)
	update := func(c *grantorv1.Client) error {
		_, err := f.clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{Client: c})
		return err
	}
	for name, err := range map[string]error{
		"a client with the scope": func() error {
			_, err := f.clients.CreateClient(ctx, &grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "mine", Scopes: []string{registry.ScopeKeysWrite}}})
			return err
		}(),
		"the scope for a client":    update(&grantorv1.Client{ClientId: "svc", Scopes: []string{"api1", registry.ScopeKeysWrite}}),
		"renaming its holder":       update(&grantorv1.Client{ClientId: "keys-admin", ClientName: "x"}),
		"disabling its holder":      update(&grantorv1.Client{ClientId: "keys-admin", Disabled: new(true)}),
		"taking it from its holder": update(&grantorv1.Client{ClientId: "keys-admin", Scopes: []string{"api1"}}),
		"a secret of its holder": func() error {
			_, err := f.clients.CreateClientSecret(ctx, &grantorv1.CreateClientSecretRequest{ClientId: "keys-admin"})
			return err
		}(),
		"rotating the secret of its holder": func() error {
			_, err := f.clients.RotateClientSecret(ctx, &grantorv1.RotateClientSecretRequest{ClientId: "keys-admin"})
			return err
		}(),
		"deleting the secret of its holder": func() error {
			_, err := f.clients.DeleteClientSecret(ctx, &grantorv1.DeleteClientSecretRequest{ClientId: "keys-admin", SecretId: stored.GetClient().GetSecrets()[0].GetSecretId()})
			return err
		}(),
		"deleting its holder": func() error {
			_, err := f.clients.DeleteClient(ctx, &grantorv1.DeleteClientRequest{ClientId: "keys-admin"})
			return err
		}(),
		"revoking the tokens of its holder": func() error {
			_, err := f.clients.RevokeTokens(ctx, &grantorv1.RevokeTokensRequest{ClientId: "keys-admin"})
			return err
		}(),
		"a manifest with the scope": func() error {
			_, err := f.resources.ApplyManifest(ctx, &grantorv1.ApplyManifestRequest{Clients: []*grantorv1.WantedClient{{
				Client: &grantorv1.Client{ClientId: "mine", Scopes: []string{registry.ScopeKeysWrite}},
			}}})
			return err
		}(),
		"a manifest with its holder": func() error {
			_, err := f.resources.ApplyManifest(ctx, &grantorv1.ApplyManifestRequest{Clients: []*grantorv1.WantedClient{{
				Client: &grantorv1.Client{ClientId: "keys-admin"}, ClientSecret: "known to the attacker",
			}}})
			return err
		}(),
	} {
		t.Run(name, func(t *testing.T) { refused(t, err, codes.PermissionDenied, "insufficient_scope") })
	}
	for name, r := range map[string]*grantorv1.Resource{
		"the scope for a resource":   {Resource: "https://mine.internal", Scopes: []string{"grantor:keys.write"}},
		"a new scope of that family": {Resource: "https://mine.internal", Scopes: []string{"grantor:everything"}},
		"the resource itself":        {Resource: registry.AdminResource},
	} {
		_, err := f.resources.CreateResource(boss, &grantorv1.CreateResourceRequest{Resource: r})
		if reasonOf(err) != "invalid_request" && reasonOf(err) != "already_exists" {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	unchanged, err := f.clients.GetClient(boss, &grantorv1.GetClientRequest{ClientId: "keys-admin"})
	must.Succeed(t, err)
	if unchanged.GetClient().GetEtag() != stored.GetClient().GetEtag() {
		t.Error("a refused change was made")
	}
	all, err := f.clients.ListClients(boss, &grantorv1.ListClientsRequest{})
	must.Succeed(t, err)
	if got := fmt.Sprint(len(all.GetClients())); got != "3" {
		t.Errorf("got %s clients, want the three of before", got)
	}
}

// TestAdministratorElsewhere restricts an administrator to networks that its calls do not come from.
func TestAdministratorElsewhere(t *testing.T) {
	f := newFixture(t)
	ctx := f.as(t, all...)
	bind := &grantorv1.UpdateClientRequest{Client: &grantorv1.Client{ClientId: "boss", AllowedNetworks: []string{"127.0.0.0/8"}}}
	_, err := f.clients.UpdateClient(ctx, bind)
	must.Succeed(t, err)
	bind.Client.AllowedNetworks = []string{"203.0.113.0/24", "2001:db8::/32"}
	changed, err := f.clients.UpdateClient(ctx, bind)
	must.Succeed(t, err)
	if got := changed.GetClient().GetAllowedNetworks(); len(got) != 2 {
		t.Errorf("got the networks %q", got)
	}
	for name, call := range map[string]func() error{
		"clients": func() error { _, err := f.clients.ListClients(ctx, &grantorv1.ListClientsRequest{}); return err },
		"keys":    func() error { _, err := f.keys.ListKeys(ctx, &grantorv1.ListKeysRequest{}); return err },
		"back": func() error {
			bind.Client.AllowedNetworks = []string{"127.0.0.0/8"}
			_, err := f.clients.UpdateClient(ctx, bind)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { refused(t, call(), codes.PermissionDenied, "insufficient_scope") })
	}
}

// TestDemoted takes rights from an administrator that still has a valid token with them. The token is refused from then
// on, so that it cannot be used to restore the rights.
func TestDemoted(t *testing.T) {
	f := newFixture(t)
	ctx := f.as(t, all...)
	made, err := f.clients.CreateClient(ctx, &grantorv1.CreateClientRequest{Client: &grantorv1.Client{
		ClientId: "adm", GrantTypes: []string{"client_credentials"}, Scopes: all,
	}})
	must.Succeed(t, err)
	issued, err := grantorv1.NewTokenServiceClient(f.conn).IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
		GrantType: "client_credentials", ClientId: "adm", ClientSecret: made.GetClientSecret(),
	})
	must.Succeed(t, err)
	old := bearer(t, issued.GetAccessToken())
	promote := &grantorv1.UpdateClientRequest{Client: &grantorv1.Client{ClientId: "adm", Scopes: all}}
	_, err = f.clients.UpdateClient(old, promote)
	must.Succeed(t, err)
	_, err = f.clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{
		Client: &grantorv1.Client{ClientId: "adm", Scopes: []string{registry.ScopeKeysRead}},
	})
	must.Succeed(t, err)
	_, err = f.clients.UpdateClient(old, promote)
	refused(t, err, codes.PermissionDenied, "insufficient_scope")
	_, err = f.keys.ListKeys(old, &grantorv1.ListKeysRequest{})
	refused(t, err, codes.PermissionDenied, "insufficient_scope")
	_, err = f.clients.DeleteClient(ctx, &grantorv1.DeleteClientRequest{ClientId: "adm"})
	must.Succeed(t, err)
	_, err = f.keys.ListKeys(old, &grantorv1.ListKeysRequest{})
	refused(t, err, codes.Unauthenticated, "invalid_token")
}
