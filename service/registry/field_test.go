package registry_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// observe returns an editor like e, and the changes of its last attempt to write.
func observe(e *registry.Editor) (*registry.Editor, *[]registry.FieldChange) {
	var last []registry.FieldChange
	return e.Observe(func(changes []registry.FieldChange) { last = changes }), &last
}

func expectObserved(t *testing.T, got *[]registry.FieldChange, want ...registry.FieldChange) {
	t.Helper()
	if len(*got)+len(want) > 0 && !reflect.DeepEqual(*got, want) {
		t.Errorf("got %q, want %q", *got, want)
	}
	*got = nil
}

// TestObserve checks the field changes that each change of a client reports.
func TestObserve(t *testing.T) {
	_, e := newRegistry()
	e, got := observe(e)
	id := clientID("svc")
	_, err := e.CreateClient(t.Context(), registry.Client{ID: id, Scopes: scopes("a b")}, "", true)
	must.Succeed(t, err)
	expectObserved(t, got, registry.FieldChange{Field: "scopes", To: "a b"})
	_, err = e.UpdateClient(t.Context(), registry.Target{ID: id}, func(c *registry.Client) error {
		c.Name, c.AuthMethods, c.GrantTypes = "A name", []string{oauth.ClientSecretBasic}, []string{oauth.GrantClientCredentials}
		c.Scopes, c.DefaultScopes, c.Resources = scopes("a c"), scopes("a"), []oauth.Resource{resourceID("urn:a"), resourceID("urn:c")}
		c.AccessTokenLifetime, c.Disabled = time.Minute, true
		return nil
	})
	must.Succeed(t, err)
	expectObserved(t, got,
		registry.FieldChange{Field: "client_name", To: "A name"}, registry.FieldChange{Field: "auth_methods", To: "client_secret_basic"},
		registry.FieldChange{Field: "grant_types", To: "client_credentials"}, registry.FieldChange{Field: "scopes", From: "a b", To: "a c"},
		registry.FieldChange{Field: "default_scopes", To: "a"}, registry.FieldChange{Field: "resources", To: "urn:a urn:c"},
		registry.FieldChange{Field: "access_token_lifetime", To: "1m0s"}, registry.FieldChange{Field: "disabled", To: "true"})
	_, err = e.UpdateClient(t.Context(), registry.Target{ID: id}, func(*registry.Client) error { return nil })
	must.Succeed(t, err)
	expectObserved(t, got)
	issued, err := e.AddSecret(t.Context(), registry.Target{ID: id}, "", time.Time{})
	must.Succeed(t, err)
	expectObserved(t, got, registry.FieldChange{Field: "client_secret", To: issued.SecretID})
	_, err = e.ExpireSecret(t.Context(), registry.Target{ID: id}, issued.SecretID, start.Add(time.Hour))
	must.Succeed(t, err)
	ending := issued.SecretID + " (until " + start.Add(time.Hour).UTC().Format(time.RFC3339) + ")"
	expectObserved(t, got, registry.FieldChange{Field: "client_secret", From: issued.SecretID, To: ending})
	must.Succeed(t, e.DeleteClient(t.Context(), registry.Target{ID: id}))
	if last := (*got)[len(*got)-1]; len(*got) != 9 || last != (registry.FieldChange{Field: "client_secret", From: ending}) {
		t.Errorf("got %q, want everything that it had", *got)
	}
}

// TestObserveResource checks the field changes that each change of a resource reports.
func TestObserveResource(t *testing.T) {
	_, e := newRegistry()
	e, got := observe(e)
	id := resourceID("urn:new")
	must.Succeed(t, e.CreateResource(t.Context(), registry.Resource{ID: id, Name: "N", Scopes: scopes("n"), SigningAlg: jwks.ES256}))
	expectObserved(t, got, registry.FieldChange{Field: "name", To: "N"}, registry.FieldChange{Field: "scopes", To: "n"}, registry.FieldChange{Field: "signing_alg", To: "ES256"})
	_, err := e.UpdateResource(t.Context(), id, "", func(one *registry.Resource) error {
		one.AccessTokenLifetime, one.SigningAlg = time.Minute, ""
		return nil
	})
	must.Succeed(t, err)
	expectObserved(t, got, registry.FieldChange{Field: "access_token_lifetime", To: "1m0s"}, registry.FieldChange{Field: "signing_alg", From: "ES256"})
	must.Succeed(t, e.DeleteResource(t.Context(), id, ""))
	expectObserved(t, got, registry.FieldChange{Field: "name", From: "N"}, registry.FieldChange{Field: "scopes", From: "n"}, registry.FieldChange{Field: "access_token_lifetime", From: "1m0s"})
}

// TestFieldsComplete checks that every field of a client and of a resource is in its table, or is known not to be one that
// an administrator sets. A field outside the table would be missing from the audit log.
func TestFieldsComplete(t *testing.T) {
	checkComplete(t, registry.ClientFields(), "ID", "Secrets", "CreatedAt", "ChangedAt", "Version", "Err")
	checkComplete(t, registry.ResourceFields(), "ID")
}

func checkComplete[T any](t *testing.T, table []registry.Field[T], others ...string) {
	t.Helper()
	var zero T
	settable := 0
	for _, field := range leaves(reflect.TypeFor[T]()) {
		if slices.Contains(others, field.Name) {
			continue
		}
		settable++
		// The table has the field if setting one of its entries changes it, and no other field.
		found := 0
		for i := range table {
			var changed T
			must.Succeed(t, table[i].Set(&changed, sample(table[i].Get(&zero), table[i].Name)))
			if !reflect.ValueOf(&changed).Elem().FieldByIndex(field.Index).IsZero() {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%d fields of the table set %s, want 1", found, field.Name)
		}
	}
	if settable != len(table) {
		t.Errorf("the table has %d fields, want %d", len(table), settable)
	}
}

// leaves returns the fields of a struct, and in place of a [certificate.Subject] its fields.
func leaves(of reflect.Type) (all []reflect.StructField) {
	for field := range of.Fields() {
		if field.Type != reflect.TypeFor[certificate.Subject]() {
			all = append(all, field)
			continue
		}
		for inner := range field.Type.Fields() {
			inner.Index = append(slices.Clone(field.Index), inner.Index...)
			all = append(all, inner)
		}
	}
	return all
}

// sample returns a valid value of the type of zero.
func sample(zero any, name string) any {
	switch zero.(type) {
	case string:
		return "x"
	case bool:
		return true
	case time.Duration:
		return time.Minute
	case time.Time:
		return time.Unix(1, 0)
	case json.RawMessage:
		return json.RawMessage(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`)
	}
	if name == "allowed_networks" {
		return []string{"10.0.0.0/8"}
	}
	return []string{"urn:x"}
}

// TestFields checks the values of each type of field.
func TestFields(t *testing.T) {
	for _, test := range []struct {
		field string
		add   []string
		value any
		text  string
	}{
		{"client_name", []string{"A name"}, "A name", "A name"},
		{"auth_methods", []string{"client_secret_basic", "client_secret_post"}, []string{"client_secret_basic", "client_secret_post"}, "client_secret_basic client_secret_post"},
		{"grant_types", []string{"client_credentials"}, []string{"client_credentials"}, "client_credentials"},
		{"scopes", []string{"b", "a"}, []string{"b", "a"}, "b a"},
		{"default_scopes", []string{"a"}, []string{"a"}, "a"},
		{"resources", []string{"urn:a", "urn:b"}, []string{"urn:a", "urn:b"}, "urn:a urn:b"},
		{"access_token_lifetime", []string{"1h30m"}, 90 * time.Minute, "1h30m0s"},
		{"allowed_networks", []string{"10.0.0.0/8", "2001:db8::/32"}, []string{"10.0.0.0/8", "2001:db8::/32"}, "10.0.0.0/8 2001:db8::/32"},
		{"disabled", []string{"true"}, true, "true"},
	} {
		field := clientField(t, test.field)
		var added, set, copied registry.Client
		if text := field.Text(&added); text != "" {
			t.Errorf("%s: got the text %q of a client without it", test.field, text)
		}
		for _, text := range test.add {
			must.Succeed(t, field.Add(&added, text))
		}
		must.Succeed(t, field.Set(&set, test.value))
		copied.CopyFields(&set, []string{test.field})
		for how, c := range map[string]*registry.Client{"added": &added, "set": &set, "copied": &copied} {
			if !reflect.DeepEqual(c, &added) || !reflect.DeepEqual(field.Get(c), test.value) || field.Text(c) != test.text {
				t.Errorf("%s, %s: got %v and %q, want %v and %q", test.field, how, field.Get(c), field.Text(c), test.value, test.text)
			}
		}
		if _, ok := test.value.([]string); !ok {
			continue
		}
		if err := field.Add(&added, test.add[0]); err == nil || err.Error() != fmt.Sprintf("duplicate %q", test.add[0]) {
			t.Errorf("%s: a duplicate: got %v", test.field, err)
		}
	}
}

func TestFieldsInvalid(t *testing.T) {
	for _, test := range []struct {
		field, add string
		set        any
	}{
		{"scopes", "a b", []string{"a", ""}},
		{"scopes", "", 64},
		{"resources", "nothing", []string{"nothing"}},
		{"access_token_lifetime", "-1s", "1s"},
		{"access_token_lifetime", "5", 5},
		{"allowed_networks", "10.0.0.1/8", []string{"10.0.0.1/8"}},
		{"disabled", "1", "true"},
		{"client_name", "fine", []string{"x"}},
	} {
		field := clientField(t, test.field)
		var c registry.Client
		if err := field.Add(&c, test.add); (err == nil) != (test.add == "fine") {
			t.Errorf("%s: adding %q: got %v", test.field, test.add, err)
		}
		err := field.Set(&c, test.set)
		expectField(t, err, test.field)
	}
	lifetime := clientField(t, "access_token_lifetime")
	for text, want := range map[string]string{
		"-1s": `"-1s" is not a positive duration`, "0s": `"0s" is not a positive duration`, "5": `"5" is not a duration such as 30s, 5m or 1h`,
	} {
		if err := lifetime.Add(&registry.Client{}, text); err == nil || err.Error() != want {
			t.Errorf("access_token_lifetime: adding %q: got %v, want %s", text, err, want)
		}
	}
	// A set of scopes may be sent with duplicates, and is stored without.
	var c registry.Client
	field := clientField(t, "scopes")
	must.Succeed(t, field.Set(&c, []string{"a", "b", "a"}))
	if got := c.Scopes.String(); got != "a b" {
		t.Errorf("got %q, want %q", got, "a b")
	}
	expectField(t, field.Set(&c, slices.Repeat([]string{"a"}, oauth.MaxScopes+1)), "scopes")
	for i := range oauth.MaxScopes - len(c.Scopes) {
		must.Succeed(t, field.Add(&c, fmt.Sprintf("s%d", i)))
	}
	if err := field.Add(&c, "more"); err == nil || len(c.Scopes) != oauth.MaxScopes {
		t.Errorf("added more than %d scopes: got %v", oauth.MaxScopes, err)
	}
}

func clientField(t *testing.T, name string) registry.Field[registry.Client] {
	t.Helper()
	for _, field := range registry.ClientFields() {
		if field.Name == name {
			return field
		}
	}
	t.Fatalf("there is no field %q", name)
	return registry.Field[registry.Client]{}
}
