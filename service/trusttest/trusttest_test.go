package trusttest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
	"github.com/grantorhq/grantor/service/trust"
	"github.com/grantorhq/grantor/service/trusttest"
)

func pattern(text string) trust.Pattern   { return must.Get(trust.ParsePattern(text)) }
func scopes(text string) oauth.Scopes     { return must.Get(oauth.ParseScopes(text)) }
func clientID(text string) oauth.ClientID { return must.Get(oauth.ParseClientID(text)) }
func resource(text string) oauth.Resource { return must.Get(oauth.ParseResource(text)) }

// fixture is an issuer that trusts a cluster, GitHub Actions and GitLab.
type fixture struct {
	*tokentest.Issuer

	cluster        *trusttest.Kubernetes
	github, gitlab *trusttest.Issuer
	tokens         grantorv1.TokenServiceClient
	admin          grantorv1.ClientServiceClient
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	k := trusttest.NewKubernetes(t)
	f := &fixture{cluster: k, github: trusttest.New(t), gitlab: trusttest.New(t), Issuer: tokentest.New(t, tokentest.TrustDirectories(k.Directory))}
	f.Apply(t, registry.Manifest{
		Resources: []registry.Resource{{ID: resource("https://invoices.internal"), Scopes: scopes("invoices.read invoices.write")}},
		Issuers: []trust.Issuer{
			{Issuer: k.Name, KeysURI: k.KeysURL(), CAFile: k.CAFile(), BearerTokenFile: k.TokenFile()},
			{Issuer: f.github.Name}, {Issuer: f.gitlab.Name},
		},
		Workloads: []trust.Workload{{
			ClientID: pattern("k8s:{namespace}:{name}"), Where: trust.Captures{"namespace": "shop"}, Scopes: scopes("invoices.read"),
			Rule: trust.Rule{Issuer: k.Name, Subject: pattern("system:serviceaccount:{namespace}:{name}")},
		}},
		Clients: []registry.ClientSpec{
			{Client: registry.Client{
				ID: clientID("deploy"), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes("invoices.read invoices.write"),
				Federation: []trust.Rule{
					{Issuer: f.github.Name, Claims: map[string]trust.Pattern{"repository": pattern("acme/orders"), "ref": pattern("refs/heads/main")}},
					{Issuer: f.gitlab.Name, Subject: pattern("project_path:shop/orders:ref_type:branch:ref:main")},
				},
			}},
			{Client: registry.Client{ID: clientID("boss"), Scopes: scopes(registry.ScopeClientsRead + " " + registry.ScopeClientsWrite)}},
		},
	})
	conn := f.Conn(t)
	f.tokens, f.admin = grantorv1.NewTokenServiceClient(conn), grantorv1.NewClientServiceClient(conn)
	return f
}

// wires are the ways to ask for a token. Each returns the token, or the error code of RFC 6749 §5.2.
func (f *fixture) wires(t *testing.T) map[string]func(assertion, id string) (token, code string) {
	t.Helper()
	return map[string]func(assertion, id string) (token, code string){
		"REST": func(assertion, id string) (string, string) {
			form := url.Values{
				"grant_type": {"client_credentials"}, "client_assertion_type": {clientauth.AssertionType}, "client_assertion": {assertion},
			}
			if id != "" {
				form.Set("client_id", id)
			}
			request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodPost, f.URL+"/connect/token", strings.NewReader(form.Encode())))
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			response := must.Get(http.DefaultClient.Do(request))
			defer func() { _ = response.Body.Close() }()
			var answer struct {
				Token string `json:"access_token"`
				Error string `json:"error"`
			}
			must.Succeed(t, json.Unmarshal(must.Get(io.ReadAll(response.Body)), &answer))
			return answer.Token, answer.Error
		},
		"gRPC": func(assertion, id string) (string, string) {
			answer, err := f.tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
				GrantType: "client_credentials", ClientId: id, ClientAssertionType: clientauth.AssertionType, ClientAssertion: assertion,
			})
			switch {
			case status.Code(err) == codes.Unauthenticated:
				return "", "invalid_client"
			case err != nil:
				return "", err.Error()
			}
			return answer.GetAccessToken(), ""
		},
	}
}

// introspect returns what the issuer says of a token; nil if it is not active. It is asked by the client itself.
func (f *fixture) introspect(t *testing.T, token, assertion, id string) *grantorv1.IntrospectTokenResponse {
	t.Helper()
	answer, err := f.tokens.IntrospectToken(t.Context(), &grantorv1.IntrospectTokenRequest{
		Token: token, ClientId: id, ClientAssertionType: clientauth.AssertionType, ClientAssertion: assertion,
	})
	must.Succeed(t, err)
	return answer
}

// TestTokens gets tokens with those of a service account and of jobs of GitHub Actions and GitLab, over both wires.
func TestTokens(t *testing.T) {
	f := newFixture(t)
	orders := f.cluster.SignKubernetes(f.cluster.ServiceAccount("shop", "orders", f.URL, f.Now()))
	github := f.github.Sign(f.github.GitHub("acme/orders", "refs/heads/main", f.URL, f.Now()))
	gitlab := f.gitlab.Sign(f.gitlab.GitLab("shop/orders", "main", f.URL, f.Now()))
	for wire, request := range f.wires(t) {
		for name, test := range map[string]struct{ assertion, id, want, scope string }{
			"Kubernetes":             {orders, "", "k8s:shop:orders", "invoices.read"},
			"Kubernetes with the id": {orders, "k8s:shop:orders", "k8s:shop:orders", "invoices.read"},
			"GitHub Actions":         {github, "deploy", "deploy", "invoices.read invoices.write"},
			"GitLab":                 {gitlab, "deploy", "deploy", "invoices.read invoices.write"},
		} {
			token, code := request(test.assertion, test.id)
			if code != "" {
				t.Errorf("%s, %s: got %s", wire, name, code)
				continue
			}
			got := f.introspect(t, token, test.assertion, test.id)
			if !got.GetActive() || got.GetClientId() != test.want || got.GetSub() != test.want || got.GetScope() != test.scope {
				t.Errorf("%s, %s: got %v", wire, name, got)
			}
		}
		for name, test := range map[string]struct{ assertion, id string }{
			"another namespace":              {f.cluster.SignKubernetes(f.cluster.ServiceAccount("other", "orders", f.URL, f.Now())), ""},
			"another audience":               {f.cluster.SignKubernetes(f.cluster.ServiceAccount("shop", "orders", "https://kubernetes.default.svc", f.Now())), ""},
			"expired":                        {f.cluster.SignKubernetes(f.cluster.ServiceAccount("shop", "orders", f.URL, f.Now().Add(-2*time.Hour))), ""},
			"from the future":                {f.cluster.SignKubernetes(f.cluster.ServiceAccount("shop", "orders", f.URL, f.Now().Add(time.Hour))), ""},
			"the same kid of another issuer": {f.github.Sign(f.cluster.ServiceAccount("shop", "orders", f.URL, f.Now())), ""},
			"another branch":                 {f.github.Sign(f.github.GitHub("acme/orders", "refs/heads/fix", f.URL, f.Now())), "deploy"},
			"without the id":                 {github, ""},
			"another id":                     {orders, "deploy"},
			"an id that is unknown":          {github, "unknown"},
		} {
			if _, code := request(test.assertion, test.id); code != "invalid_client" {
				t.Errorf("%s, %s: got %q", wire, name, code)
			}
		}
	}
}

// as returns the context of an administrator's call.
func (f *fixture) as(t *testing.T, scopes ...string) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+f.Token(t, "boss", registry.AdminResource, scopes...))
}

// TestAdministration disables, revokes and shows a client that only a workload makes, as any other.
func TestAdministration(t *testing.T) {
	f := newFixture(t)
	const id = "k8s:shop:orders"
	assertion := f.cluster.SignKubernetes(f.cluster.ServiceAccount("shop", "orders", f.URL, f.Now()))
	request := f.wires(t)["gRPC"]
	token, code := request(assertion, "")
	if code != "" {
		t.Fatal(code)
	}
	reader, writer := f.as(t, registry.ScopeClientsRead), f.as(t, registry.ScopeClientsRead, registry.ScopeClientsWrite)
	shown, err := f.admin.GetClient(reader, &grantorv1.GetClientRequest{ClientId: id})
	must.Succeed(t, err)
	if got := shown.GetClient(); !got.GetWorkload() || !slices.Equal(got.GetScopes(), []string{"invoices.read"}) || got.GetEtag() != "" || got.GetDisabled() {
		t.Errorf("got %v", got)
	}
	if _, err := f.admin.GetClient(reader, &grantorv1.GetClientRequest{ClientId: "k8s:other:orders"}); status.Code(err) != codes.NotFound {
		t.Errorf("a client that no workload makes: got %v", err)
	}
	_, err = f.admin.RevokeTokens(writer, &grantorv1.RevokeTokensRequest{ClientId: id})
	must.Succeed(t, err)
	if got := f.introspect(t, token, assertion, ""); got.GetActive() {
		t.Errorf("revoked: got %v", got)
	}
	update := func(disabled bool, paths ...string) (*grantorv1.UpdateClientResponse, error) {
		return f.admin.UpdateClient(writer, &grantorv1.UpdateClientRequest{
			Client: &grantorv1.Client{ClientId: id, Disabled: &disabled, Scopes: []string{"invoices.write"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		})
	}
	disabled, err := update(true, "disabled")
	must.Succeed(t, err)
	if got := disabled.GetClient(); !got.GetWorkload() || !got.GetDisabled() || got.GetEtag() == "" || !slices.Equal(got.GetScopes(), []string{"invoices.read"}) {
		t.Errorf("disabled: got %v", got)
	}
	for wire, request := range f.wires(t) {
		if _, code := request(assertion, ""); code != "invalid_client" {
			t.Errorf("disabled, %s: got %q", wire, code)
		}
	}
	if _, err := update(true, "scopes"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("scopes: got %v", err)
	}
	if _, err := f.admin.CreateClientSecret(writer, &grantorv1.CreateClientSecretRequest{ClientId: id}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a secret: got %v", err)
	}
	// Neither the manifest of another replica nor one that removes what it does not list enables the client.
	f.Apply(t, registry.Manifest{})
	if _, code := request(assertion, ""); code != "invalid_client" {
		t.Errorf("after a manifest: got %q", code)
	}
	_, err = update(false, "disabled")
	must.Succeed(t, err)
	if _, code := request(assertion, ""); code != "" {
		t.Errorf("enabled: got %q", code)
	}
	_, err = f.admin.DeleteClient(writer, &grantorv1.DeleteClientRequest{ClientId: id})
	must.Succeed(t, err)
	if _, err = f.admin.DeleteClient(writer, &grantorv1.DeleteClientRequest{ClientId: id}); status.Code(err) != codes.NotFound {
		t.Errorf("nothing is stored any more: got %v", err)
	}
}
