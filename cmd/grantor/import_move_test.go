package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"github.com/grantorhq/grantor/service/redistest"
)

// TestImportApplies moves both exports to a server and asks it for tokens with the secrets of old.
func TestImportApplies(t *testing.T) {
	redis := redistest.New(t)
	kek := kekFile(t)
	openIddict, _, err := runImport(t, "openiddict", openIddictExport, "--resource=resource_server=https://api.internal")
	if err != nil {
		t.Fatal(err)
	}
	path := file(t, "clients.yaml", openIddict)
	if _, err := apply(t, redis, kek, "-f", path, "--dry-run"); err != nil {
		t.Fatal(err)
	}
	r, err := tryServe(t, append(production(redis, kek, path), "--issuer=http://localhost:1")...)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(basic bool, client, secret, scope string) (int, string) {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}
		if !basic {
			form.Set("client_id", client)
			form.Set("client_secret", secret)
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url("/connect/token"), strings.NewReader(form.Encode()))
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
		return answer.StatusCode, read(t, answer)
	}
	_, token := ask(false, "background-service", "service-secret-here", "api1 orders.read")
	var issued issuedToken
	if err := json.Unmarshal([]byte(token), &issued); err != nil || issued.Lifetime != "600" {
		t.Fatalf("a token with a secret of OpenIddict: got %s, want one of ten minutes", token)
	}
	answer, err := http.PostForm(r.url("/connect/introspect"), url.Values{
		"client_id": {"resource_server"}, "client_secret": {"resource-server-secret"}, "token": {issued.Token},
	})
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, answer); !strings.Contains(body, `"active":true`) || !strings.Contains(body, "https://api.internal") {
		t.Errorf("the resource server asks about it: got %s", body)
	}
	// The first use gave the secret a hash of ours; the manifest is still the same.
	if out, err := apply(t, redis, kek, "-f", path); err != nil || strings.Count(out, "\n") != strings.Count(out, "unchanged ") {
		t.Errorf("applied again: got %v and\n%s", err, out)
	}
	hydra, _, err := runImport(t, append([]string{"hydra", hydraExport}, hydraChoices...)...)
	if err != nil {
		t.Fatal(err)
	}
	// The two exports share the resource of the orders, and some ids of clients; here they are two servers.
	path = file(t, "clients.yaml", hydra)
	if out, err := apply(t, redis, kek, "-f", path, "--prune"); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	if err := r.service.CatchUp(t.Context()); err != nil {
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

// FuzzImport holds that no export makes the readers panic, that the same one gives the same manifest, and that nothing
// in it can move the terminal of who reads the report.
func FuzzImport(f *testing.F) {
	// Short ones: shortening an input of the size of the exports would take the whole time of a run.
	for _, seed := range []string{
		`{"scopes":[{"Name":"a","Resources":"[\"b\",\"https://c\"]"}]}`,
		`[{"ClientId":"b","Permissions":["ept:token","gt:client_credentials","scp:a"]}]`,
		`[{"ClientId":"b","Permissions":["ept:token","gt:client_credentials"],"Settings":{"tkn_lft:act":"1:00"}}]`,
		`{"items":[{"id":"a","grant_types":"client_credentials|x","audience":"b","scope":"c d"}]}`,
		`[{"client_id":"a","grant_types":["client_credentials"],"rotated_secrets":"[\"$2a$\"]","jwks":{"keys":[]}}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, server := range []string{"openiddict", "hydra"} {
			var first string
			for range 2 {
				whole, err := parseExport("export.json", data)
				if err != nil {
					return
				}
				i := newImporter(server)
				i.fallback = "https://services.internal"
				if err := readRecords(i, whole); err != nil {
					break
				}
				text, err := i.manifest()
				if err != nil {
					break
				}
				var report bytes.Buffer
				i.report(&report)
				if strings.ContainsFunc(report.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
					t.Errorf("the report has what is not printable: %q", &report)
				}
				if again := string(text) + report.String(); first == "" {
					first = again
				} else if first != again {
					t.Errorf("the same export gave two manifests:\n%s\n%s", first, again)
				}
			}
		}
	})
}

// readRecords reads an export as that of the importer's server.
func readRecords(i *importer, whole value) error {
	if i.server == "hydra" {
		records, err := i.hydraRecords(whole)
		if err != nil {
			return err
		}
		return i.hydra(records)
	}
	applications, scopes, err := i.openIddictRecords(whole)
	if err != nil {
		return err
	}
	return i.openIddict(applications, scopes)
}
