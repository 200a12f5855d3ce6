package registry_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/must"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// planned has the registrar tell what it makes different.
func planned(r *registry.Registrar) *[]registry.FieldChange {
	var last []registry.FieldChange
	r.Planned = func(d []registry.FieldChange) { last = d }
	return &last
}

func expectPlanned(t *testing.T, got *[]registry.FieldChange, want ...registry.FieldChange) {
	t.Helper()
	if len(*got)+len(want) > 0 && !reflect.DeepEqual(*got, want) {
		t.Errorf("got %q, want %q", *got, want)
	}
	*got = nil
}

// TestPlanned holds what each change of a client says that it makes different, from what to what.
func TestPlanned(t *testing.T) {
	_, r := newRegistry()
	got, id := planned(r), clientID("svc")
	_, err := r.CreateClient(t.Context(), registry.Client{ID: id, Scopes: scopes("a b")}, "", true)
	must.Succeed(t, err)
	expectPlanned(t, got, registry.FieldChange{Field: "scopes", To: "a b"})
	_, err = r.UpdateClient(t.Context(), registry.Target{ID: id}, func(c *registry.Client) error {
		c.Name, c.AuthMethods, c.GrantTypes = "A name", []string{oauth.ClientSecretBasic}, []string{oauth.GrantClientCredentials}
		c.Scopes, c.DefaultScopes, c.Resources = scopes("a c"), scopes("a"), []oauth.Resource{resourceID("urn:a"), resourceID("urn:c")}
		c.AccessTokenLifetime, c.Disabled = time.Minute, true
		return nil
	})
	must.Succeed(t, err)
	expectPlanned(t, got,
		registry.FieldChange{Field: "client_name", To: "A name"}, registry.FieldChange{Field: "auth_methods", To: "client_secret_basic"},
		registry.FieldChange{Field: "grant_types", To: "client_credentials"}, registry.FieldChange{Field: "scopes", From: "a b", To: "a c"},
		registry.FieldChange{Field: "default_scopes", To: "a"}, registry.FieldChange{Field: "resources", To: "urn:a urn:c"},
		registry.FieldChange{Field: "access_token_lifetime", To: "1m0s"}, registry.FieldChange{Field: "disabled", To: "true"})
	_, err = r.UpdateClient(t.Context(), registry.Target{ID: id}, func(*registry.Client) error { return nil })
	must.Succeed(t, err)
	expectPlanned(t, got)
	issued, err := r.AddSecret(t.Context(), registry.Target{ID: id}, "", time.Time{})
	must.Succeed(t, err)
	expectPlanned(t, got, registry.FieldChange{Field: "client_secret", To: issued.SecretID})
	_, err = r.ExpireSecret(t.Context(), registry.Target{ID: id}, issued.SecretID, start.Add(time.Hour))
	must.Succeed(t, err)
	ending := issued.SecretID + " (until " + start.Add(time.Hour).UTC().Format(time.RFC3339) + ")"
	expectPlanned(t, got, registry.FieldChange{Field: "client_secret", From: issued.SecretID, To: ending})
	must.Succeed(t, r.DeleteClient(t.Context(), registry.Target{ID: id}))
	if last := (*got)[len(*got)-1]; len(*got) != 9 || last != (registry.FieldChange{Field: "client_secret", From: ending}) {
		t.Errorf("got %q, want everything that it had", *got)
	}
}

// TestPlannedResource does so for a resource.
func TestPlannedResource(t *testing.T) {
	_, r := newRegistry()
	got, id := planned(r), resourceID("urn:new")
	must.Succeed(t, r.CreateResource(t.Context(), registry.Resource{ID: id, Name: "N", Scopes: scopes("n"), SigningAlg: jwks.ES256}))
	expectPlanned(t, got, registry.FieldChange{Field: "name", To: "N"}, registry.FieldChange{Field: "scopes", To: "n"}, registry.FieldChange{Field: "signing_alg", To: "ES256"})
	_, err := r.UpdateResource(t.Context(), id, "", func(one *registry.Resource) error {
		one.AccessTokenLifetime, one.SigningAlg = time.Minute, ""
		return nil
	})
	must.Succeed(t, err)
	expectPlanned(t, got, registry.FieldChange{Field: "access_token_lifetime", To: "1m0s"}, registry.FieldChange{Field: "signing_alg", From: "ES256"})
	must.Succeed(t, r.DeleteResource(t.Context(), id, ""))
	expectPlanned(t, got, registry.FieldChange{Field: "name", From: "N"}, registry.FieldChange{Field: "scopes", From: "n"}, registry.FieldChange{Field: "access_token_lifetime", From: "1m0s"})
}

// TestDifferencesComplete finds a field of a client that its differences pass over, which no audit would tell of then.
func TestDifferencesComplete(t *testing.T) {
	told := map[string]string{
		"Name": "client_name", "Secrets": "client_secret", "AuthMethods": "auth_methods", "GrantTypes": "grant_types", "Scopes": "scopes",
		"DefaultScopes": "default_scopes", "Resources": "resources", "AccessTokenLifetime": "access_token_lifetime", "Disabled": "disabled", "AllowedNetworks": "allowed_networks",
	}
	for _, untold := range []string{"ID", "CreatedAt", "ChangedAt", "Version", "Newer"} {
		told[untold] = "-"
	}
	for field := range reflect.TypeFor[registry.Client]().Fields() {
		if told[field.Name] == "" {
			t.Errorf("no difference is of the field %s", field.Name)
		}
	}
	for field := range reflect.TypeFor[registry.Resource]().Fields() {
		if !strings.Contains(" ID Name Scopes AccessTokenLifetime SigningAlg ", " "+field.Name+" ") {
			t.Errorf("no difference is of the field %s of a resource", field.Name)
		}
	}
}
