package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// The exports that the tests of package migrate read.
const (
	openIddictFile = "migrate/testdata/openiddict.json"
	hydraFile      = "migrate/testdata/hydra.json"
	keycloakFile   = "migrate/testdata/keycloak.json"
)

// importFrom runs `grantor import` and returns what it wrote to standard output and to standard error.
func importFrom(t *testing.T, args ...string) (manifest, report string, err error) {
	t.Helper()
	r := run(t, append([]string{"import"}, args...)...)
	return r.Out, r.ErrOut, r.Err
}

// TestImportApplies moves both exports to a server and requests tokens with the old secrets.
func TestImportApplies(t *testing.T) {
	redis := redistest.New(t)
	kek := servetest.KEKFile(t)
	openIddict, _, err := importFrom(t, "openiddict", openIddictFile, "--resource=resource_server=https://api.internal")
	if err != nil {
		t.Fatal(err)
	}
	path := servetest.WriteFile(t, "clients.yaml", openIddict)
	if _, err := applyTo(t, redis, kek, "-f", path, "--dry-run"); err != nil {
		t.Fatal(err)
	}
	r, err := servetest.Try(t, append(servetest.Production(redis, kek, path), "--issuer=http://localhost:1")...)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(basic bool, client, secret, scope string) (int, string) {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}
		if !basic {
			form.Set("client_id", client)
			form.Set("client_secret", secret)
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL("/connect/token"), strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if basic {
			request.SetBasicAuth(url.QueryEscape(client), url.QueryEscape(secret))
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, servetest.ReadBody(t, answer)
	}
	_, token := ask(false, "background-service", "service-secret-here", "api1 orders.read")
	var issued remote.IssuedToken
	if err := json.Unmarshal([]byte(token), &issued); err != nil || issued.Lifetime != "600" {
		t.Fatalf("a token with a secret of OpenIddict: got %s, want one of ten minutes", token)
	}
	answer, err := http.PostForm(r.URL("/connect/introspect"), url.Values{
		"client_id": {"resource_server"}, "client_secret": {"resource-server-secret"}, "token": {issued.Token},
	})
	if err != nil {
		t.Fatal(err)
	}
	if body := servetest.ReadBody(t, answer); !strings.Contains(body, `"active":true`) || !strings.Contains(body, "https://api.internal") {
		t.Errorf("the resource server asks about it: got %s", body)
	}
	// The first use replaced the hash of the secret by one of Grantor; the manifest still matches.
	if out, err := applyTo(t, redis, kek, "-f", path); err != nil || strings.Count(out, "\n") != strings.Count(out, "unchanged ") {
		t.Errorf("applied again: got %v and\n%s", err, out)
	}
	hydra, _, err := importFrom(t, "hydra", hydraFile, "--default-resource=https://services.internal", "--owner=orders.read=https://orders.internal")
	if err != nil {
		t.Fatal(err)
	}
	// The two exports share the resource of the orders and the IDs of some clients, so the second replaces the first.
	path = servetest.WriteFile(t, "clients.yaml", hydra)
	if out, err := applyTo(t, redis, kek, "-f", path, "--prune"); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	if err := r.Service().CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		basic                 bool
		client, secret, scope string
		want                  int
	}{
		{true, "background-service", "service-secret-here", "orders.write", http.StatusOK},
		{true, "background-service", "service-secret-her", "orders.write", http.StatusUnauthorized},
		{false, "background-service", "service-secret-here", "orders.write", http.StatusUnauthorized},
		{false, "reports", "reports-secret-of-hydra", "orders.read", http.StatusOK},
		{false, "reports", "older-reports-secret", "orders.read", http.StatusOK},
		{false, "reports", "reports-secret-of-hydra", "orders.write", http.StatusBadRequest},
		{true, "billing", "billing-secret-of-hydra", "billing.run", http.StatusOK},
		{true, "mailer", "service-secret-here", "mail.send", http.StatusUnauthorized},
		{true, "web", "some-other-secret-of-hydra", "orders.read", http.StatusUnauthorized},
	} {
		if got, body := ask(c.basic, c.client, c.secret, c.scope); got != c.want {
			t.Errorf("%+v: got %d %s", c, got, body)
		}
	}
}

// TestImportKeycloakApplies moves the clients of a realm of Keycloak and requests tokens with the old secrets.
func TestImportKeycloakApplies(t *testing.T) {
	redis := redistest.New(t)
	kek := servetest.KEKFile(t)
	converted, _, err := importFrom(t, "keycloak", keycloakFile, "--resource=orders-api=https://orders.internal")
	if err != nil {
		t.Fatal(err)
	}
	path := servetest.WriteFile(t, "clients.yaml", converted)
	if out, err := applyTo(t, redis, kek, "-f", path); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	r := servetest.Start(t, append(servetest.Production(redis, kek, path), "--issuer=http://localhost:1")...)
	issue := func(client, secret, scope string, basic bool) (remote.IssuedToken, int) {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}
		method := attach.ClientSecretBasic
		if !basic {
			method = attach.ClientSecretPost
		}
		credentials := remote.Credentials{ID: client, Secret: secret}
		request := must.Get(credentials.NewRequest(t.Context(), method, r.URL("/connect/token"), form.Encode()))
		answer := must.Get(http.DefaultClient.Do(request))
		var issued remote.IssuedToken
		body := servetest.ReadBody(t, answer)
		must.Succeed(t, json.Unmarshal([]byte(body), &issued))
		return issued, answer.StatusCode
	}
	for _, c := range []struct {
		client, secret, scope string
		basic                 bool
		status                int
		granted, lifetime     string
	}{
		{"background-service", "Xq3vT0mZk9LwB7nYp2RsHc5JdF8gUaE1", "", true, http.StatusOK, "orders.read", "600"},
		{"background-service", "Xq3vT0mZk9LwB7nYp2RsHc5JdF8gUaE1", "orders.write orders.audit", false, http.StatusOK, "orders.write orders.audit", "600"},
		{"background-service", "Xq3vT0mZk9LwB7nYp2RsHc5JdF8gUaE2", "", true, http.StatusUnauthorized, "", ""},
		{"reports", "reports: 'secret' #of {Keycloak}", "", false, http.StatusOK, "reports.read", "300"},
		{"reports", "reports: 'secret' #of {Keycloak}", "", true, http.StatusUnauthorized, "", ""},
		{"mixed", "kM4pWz8cQe2vXr6tYb1nUj5hGf9dSa3L", "orders.audit", true, http.StatusBadRequest, "", ""},
		{"paused", "pAuSeDsEcReT0123456789abcdefghij", "", true, http.StatusUnauthorized, "", ""},
		{"retired", "r3T1r3dS3cr3tOfAClient0123456789", "", true, http.StatusUnauthorized, "", ""},
		{"jwt-client", "NotEnoughForThisClient0123456789", "", true, http.StatusUnauthorized, "", ""},
		{"masked", "**********", "", true, http.StatusUnauthorized, "", ""},
		{"stale", "sT4l3S3cr3tThatExpired0123456789", "", true, http.StatusUnauthorized, "", ""},
	} {
		issued, status := issue(c.client, c.secret, c.scope, c.basic)
		if status != c.status || issued.Scope != c.granted || issued.Lifetime.String() != c.lifetime {
			t.Errorf("%s, scope %q: got %d, the scope %q and the lifetime %q", c.client, c.scope, status, issued.Scope, issued.Lifetime)
		}
	}
	issued, _ := issue("background-service", "Xq3vT0mZk9LwB7nYp2RsHc5JdF8gUaE1", "orders.read", true)
	answer := must.Get(http.PostForm(r.URL("/connect/introspect"), url.Values{
		"client_id": {"orders-api"}, "client_secret": {"Orders0Api1Secret2Of3Keycloak456"}, "token": {issued.Token},
	}))
	if body := servetest.ReadBody(t, answer); !strings.Contains(body, `"active":true`) || !strings.Contains(body, "https://orders.internal") {
		t.Errorf("the resource server asks about it: got %s", body)
	}
	again, _, err := importFrom(t, "keycloak", keycloakFile, "--resource=orders-api=https://orders.internal")
	if out, applied := applyTo(t, redis, kek, "-f", servetest.WriteFile(t, "again.yaml", again)); err != nil || applied != nil || strings.Count(out, "\n") != strings.Count(out, "unchanged ") {
		t.Errorf("imported and applied again: got %v, %v and\n%s", err, applied, out)
	}
}
