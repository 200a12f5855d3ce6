package registrypb_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/registrypb"
	"github.com/grantorhq/grantor/service/trust"
)

// TestFields checks that the tables and the messages have the same fields, apart from the identifier and those that are
// output only, and that each field of a message is of the type of its row.
func TestFields(t *testing.T) {
	checkFields(t, registry.ClientFields(), &grantorv1.Client{}, "client_id", "secrets", "create_time", "update_time", "etag")
	checkFields(t, registry.ResourceFields(), &grantorv1.Resource{}, "resource", "etag")
	checkFields(t, registry.IssuerFields(), &grantorv1.TrustedIssuer{}, "id", "issuer", "trust_domain", "etag")
	checkFields(t, registry.WorkloadFields(), &grantorv1.Workload{}, "client_id", "etag")
}

func checkFields[T any](t *testing.T, table []registry.Field[T], message proto.Message, others ...string) {
	t.Helper()
	var zero T
	names := slices.Clone(others)
	fields := message.ProtoReflect().Descriptor().Fields()
	for i := range table {
		name := table[i].Name
		names = append(names, name)
		field := fields.ByName(protoreflect.Name(name))
		if field == nil {
			t.Errorf("%s has no field %s", message.ProtoReflect().Descriptor().Name(), name)
			continue
		}
		var ok bool
		switch table[i].Get(&zero).(type) {
		case string:
			ok = field.Kind() == protoreflect.StringKind && !field.IsList()
		case bool:
			ok = field.Kind() == protoreflect.BoolKind && !field.IsList()
		case time.Duration:
			ok = field.Message() != nil && field.Message().FullName() == "google.protobuf.Duration" && !field.IsList()
		case time.Time:
			ok = field.Message() != nil && field.Message().FullName() == "google.protobuf.Timestamp" && !field.IsList()
		case json.RawMessage:
			ok = field.Message() != nil && (field.Message().FullName() == "google.protobuf.Struct" || field.IsList())
		case map[string]string:
			ok = field.IsMap()
		case []string:
			ok = field.Kind() == protoreflect.StringKind && field.IsList()
		}
		if !ok {
			t.Errorf("%s is a %T in the table and %s in the message", name, table[i].Get(&zero), field.Kind())
		}
	}
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); !slices.Contains(names, name) {
			t.Errorf("the field %s of the message is in no table", name)
		}
	}
}

func client() registry.Client {
	return registry.Client{
		ID: must.Get(oauth.ParseClientID("a")), Name: "A", AuthMethods: []string{"client_secret_basic"},
		GrantTypes: []string{"client_credentials"}, Scopes: must.Get(oauth.ParseScopes("a b")),
		DefaultScopes: must.Get(oauth.ParseScopes("b")), Resources: []oauth.Resource{must.Get(oauth.ParseResource("urn:a"))},
		AccessTokenLifetime: time.Minute, AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Disabled: true,
	}
}

func TestClient(t *testing.T) {
	want := client()
	m := registrypb.FromClient(&want, nil)
	if got := must.Get(registrypb.ToClient(m)); !reflect.DeepEqual(got, &want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	wantMessage := &grantorv1.Client{
		ClientId: "a", ClientName: "A", AuthMethods: []string{"client_secret_basic"}, GrantTypes: []string{"client_credentials"},
		Scopes: []string{"a", "b"}, DefaultScopes: []string{"b"}, Resources: []string{"urn:a"},
		AccessTokenLifetime: durationpb.New(time.Minute), AllowedNetworks: []string{"10.0.0.0/8"}, Disabled: new(true),
	}
	if !proto.Equal(m, wantMessage) {
		t.Errorf("got %v, want %v", m, wantMessage)
	}
	bare := registry.Client{ID: want.ID}
	if m, want := registrypb.FromClient(&bare, nil), (&grantorv1.Client{ClientId: "a", Disabled: new(false)}); !proto.Equal(m, want) {
		t.Errorf("got %v, want %v", m, want)
	}
	if got := must.Get(registrypb.ToClient(&grantorv1.Client{ClientId: "a"})); !reflect.DeepEqual(got, &bare) {
		t.Errorf("got %+v, want %+v", got, bare)
	}
	for _, field := range registry.ClientFields() {
		if got, want := registrypb.FieldText(m, field.Name), field.Text(&want); got != want {
			t.Errorf("%s: got the text %q, want %q", field.Name, got, want)
		}
		registrypb.SetField(m, field.Name, field.Get(&bare))
	}
	if want := registrypb.FromClient(&bare, nil); !proto.Equal(m, want) {
		t.Errorf("with no field set: got %v, want %v", m, want)
	}
	if _, err := registrypb.ToClient(nil); err == nil {
		t.Error("no message is a client")
	}
}

func TestResource(t *testing.T) {
	want := registry.Resource{
		ID: must.Get(oauth.ParseResource("urn:a")), Name: "A", Scopes: must.Get(oauth.ParseScopes("a b")),
		AccessTokenLifetime: time.Hour, SigningAlg: jwks.ES256,
	}
	if got := must.Get(registrypb.ToResource(registrypb.FromResource(&want))); !reflect.DeepEqual(got, &want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSpec(t *testing.T) {
	hash := clientsecret.Hash("$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG")
	disabled := client()
	silent := client()
	silent.Disabled = false
	for name, want := range map[string]registry.ClientSpec{
		"complete":                  {Client: disabled, Secret: "service-secret-here", Hashes: []clientsecret.Hash{hash}},
		"does not specify disabled": {Client: silent, LeaveDisabled: true},
		"specifies enabled":         {Client: silent},
	} {
		manifest := must.Get(registrypb.ToManifest(&grantorv1.ApplyManifestRequest{
			Clients: []*grantorv1.WantedClient{registrypb.FromSpec(&want)},
		}))
		if !reflect.DeepEqual(manifest.Clients, []registry.ClientSpec{want}) {
			t.Errorf("%s: got %+v, want %+v", name, manifest.Clients, want)
		}
	}
}

func TestInvalid(t *testing.T) {
	for want, m := range map[string]*grantorv1.Client{
		"scopes":                {ClientId: "a", Scopes: []string{"a b"}},
		"default_scopes":        {ClientId: "a", DefaultScopes: make([]string, oauth.MaxScopes+1)},
		"resources":             {ClientId: "a", Resources: []string{"x"}},
		"allowed_networks":      {ClientId: "a", AllowedNetworks: []string{"10.0.0.1/8"}},
		"access_token_lifetime": {ClientId: "a", AccessTokenLifetime: &durationpb.Duration{Seconds: 1, Nanos: 1}},
	} {
		_, err := registrypb.ToClient(m)
		if field, ok := errors.AsType[*registry.FieldError](err); !ok || field.Field != want {
			t.Errorf("got %v, want an error about %s", err, want)
		}
	}
	_, err := registrypb.ToSpec(&grantorv1.WantedClient{Client: &grantorv1.Client{ClientId: "a"}, ClientSecretHashes: []string{"x"}})
	if spec, ok := errors.AsType[*registry.ManifestError](err); !ok || spec.ID.String() != "a" {
		t.Errorf("got %v, want an error about the client", err)
	}
}

// TestTrust converts trusted issuers, workloads and rules to messages and back.
func TestTrust(t *testing.T) {
	pattern := func(text string) trust.Pattern { return must.Get(trust.ParsePattern(text)) }
	for _, want := range []trust.Issuer{
		{
			Issuer: "https://a.example", KeysURI: "https://a.example/keys", CAFile: "/ca", BearerTokenFile: "/token",
			Audience: []string{"a", "b"}, SingleUse: true,
		},
		{Issuer: "https://b.example"},
		{TrustDomain: "c.example", BundleEndpoint: "https://c.example/bundle", BundleFile: "/bundle", WorkloadAPI: "unix:///api"},
	} {
		m := registrypb.FromIssuer(&want)
		if got := must.Get(registrypb.ToIssuer(m)); !reflect.DeepEqual(got, &want) || m.GetId() != want.ID() || m.GetEtag() == "" {
			t.Errorf("got %+v of %v, want %+v", got, m, want)
		}
	}
	for _, want := range []trust.Workload{
		{
			ClientID: pattern("k8s:{ns}:{n}"), Rule: trust.Rule{
				Issuer: "https://a.example", Subject: pattern("s:{ns}:{n}"), Claims: map[string]trust.Pattern{"a=b": pattern("*"), "c": pattern("d")},
			},
			Where: trust.Captures{"ns": "shop"}, Scopes: must.Get(oauth.ParseScopes("a b")), DefaultScopes: must.Get(oauth.ParseScopes("b")),
			AccessTokenLifetime: time.Minute,
		},
		{ClientID: pattern("x"), Rule: trust.Rule{SPIFFEID: pattern("spiffe://a.example/{n}")}},
	} {
		m := registrypb.FromWorkload(&want)
		got := must.Get(registrypb.ToWorkload(m))
		if again := registrypb.FromWorkload(got); !proto.Equal(m, again) || got.ETag() != want.ETag() || m.GetEtag() != want.ETag() {
			t.Errorf("got %v, want %v", again, m)
		}
		c := registry.Client{ID: must.Get(oauth.ParseClientID("a")), Federation: []trust.Rule{want.Rule}}
		if got := must.Get(registrypb.ToClient(registrypb.FromClient(&c, nil))); !reflect.DeepEqual(got.Federation, c.Federation) {
			t.Errorf("got the rules %v, want %v", got.Federation, c.Federation)
		}
	}
	for _, m := range []*grantorv1.Workload{{}, {ClientId: "a*"}, {ClientId: "a", Subject: "{"}, {ClientId: "a", Claims: map[string]string{"a": ""}}} {
		if got, err := registrypb.ToWorkload(m); err == nil {
			t.Errorf("got %v of %v, want an error", got, m)
		}
	}
}
