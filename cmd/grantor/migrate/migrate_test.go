package migrate_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/migrate"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
)

// The exports in testdata have the rows as PostgreSQL's json_agg returns them. Their PBKDF2 hashes were computed by Python's
// hashlib, the bcrypt hashes as Hydra computes them.
const (
	openIddictExport = "testdata/openiddict.json"
	hydraExport      = "testdata/hydra.json"
	keycloakExport   = "testdata/keycloak.json" // of a realm, as kc.sh export of version 26 writes it
)

var hydraChoices = []string{"--default-resource=https://services.internal", "--owner=orders.read=https://orders.internal"}

// runImport runs grantor import and returns what it wrote to standard output and to standard error.
func runImport(t testing.TB, args ...string) (manifest, report string, err error) {
	t.Helper()
	cmd := migrate.NewCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var out, errOut bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errOut.String(), err
}

func content(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestImport compares the manifests and reports of the exports with files that a person has reviewed.
func TestImport(t *testing.T) {
	for name, args := range map[string][]string{
		"openiddict": {"openiddict", openIddictExport},
		"hydra":      append([]string{"hydra", hydraExport}, hydraChoices...),
		"keycloak":   {"keycloak", keycloakExport},
	} {
		t.Run(name, func(t *testing.T) {
			manifest, report, err := runImport(t, args...)
			if err != nil {
				t.Fatal(err)
			}
			for suffix, got := range map[string]string{".yaml": manifest, ".report": report} {
				if want := content(t, "testdata/"+name+suffix); got != want {
					t.Errorf("%s%s: got\n%s\nwant\n%s", name, suffix, got, want)
				}
			}
		})
	}
}

// TestImportReportsNoSecret expects nothing from the column of a secret in the report, however unusual its content.
func TestImportReportsNoSecret(t *testing.T) {
	expectNoSecret := func(t *testing.T, export, text string) {
		for _, secret := range regexp.MustCompile(`(?i)"(?:client_?secret|rotated_secrets)": "([^"\\]+|\[\\"[^"]+)`).FindAllStringSubmatch(export, -1) {
			if strings.Contains(text, secret[1]) {
				t.Errorf("the report quotes a secret's hash: %s", text)
			}
		}
	}
	_, report, err := runImport(t, "openiddict", openIddictExport)
	if err != nil {
		t.Fatal(err)
	}
	expectNoSecret(t, content(t, openIddictExport), report)
	_, report, err = runImport(t, append([]string{"hydra", hydraExport}, hydraChoices...)...)
	if err != nil {
		t.Fatal(err)
	}
	expectNoSecret(t, content(t, hydraExport), report)
	for _, secret := range []string{`"sup3rs3cret"`, `["sup3rs3cret"]`, `{"value": "sup3rs3cret"}`, `"[sup3rs3cret"`, `"sup3rs3cret`} {
		for server, row := range map[string]string{
			"openiddict": `[{"ClientId": "a", "Permissions": ["ept:token", "gt:client_credentials"], "ClientSecret": ` + secret + `}]`,
			"hydra":      `[{"client_id": "a", "grant_types": ["client_credentials"], "rotated_secrets": [` + secret + `], "client_secret": ` + secret + `}]`,
		} {
			manifest, report, err := runImport(t, server, servetest.WriteFile(t, "export.json", row))
			if err != nil {
				report += err.Error()
			}
			if strings.Contains(manifest+report, "sup3rs3cret") || report == "" {
				t.Errorf("%s with %s: got %s%s", server, secret, manifest, report)
			}
		}
	}
}

// TestImportForms expects the same manifest from the other forms in which the same rows are exported.
func TestImportForms(t *testing.T) {
	want := content(t, "testdata/openiddict.yaml")
	var rows struct {
		Applications []map[string]any `json:"applications"`
		Scopes       []map[string]any `json:"scopes"`
	}
	if err := json.Unmarshal([]byte(content(t, openIddictExport)), &rows); err != nil {
		t.Fatal(err)
	}
	renamed := func(list []map[string]any, name func(string) string) []map[string]any {
		var all []map[string]any
		for _, row := range list {
			one := make(map[string]any)
			for key, v := range row {
				var inside any
				if text, ok := v.(string); ok && strings.ContainsAny(text[:1], "[{") && json.Unmarshal([]byte(text), &inside) == nil {
					v = inside
				}
				one[name(key)] = v
			}
			all = append(all, one)
		}
		return all
	}
	write := func(name string, v any) string {
		text, err := json.MarshalIndent(v, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		return servetest.WriteFile(t, name, "\ufeff"+string(text))
	}
	camel := func(name string) string { return strings.ToLower(name[:1]) + name[1:] }
	snake := func(name string) string {
		return strings.ToLower(regexp.MustCompile(`(.)([A-Z])`).ReplaceAllString(name, "${1}_$2"))
	}
	for form, args := range map[string][]string{
		"camelCase, one file":     {write("both.json", map[string]any{"applications": renamed(rows.Applications, camel), "scopes": renamed(rows.Scopes, camel)})},
		"snake_case, two files":   {write("a.json", renamed(rows.Applications, snake)), "--scopes=" + write("s.json", renamed(rows.Scopes, snake))},
		"named as the tables are": {write("both.json", map[string]any{"OpenIddictApplications": rows.Applications, "OpenIddictScopes": rows.Scopes})},
		"a scopes file of its own": {write("a.json", map[string]any{"applications": rows.Applications}),
			"--scopes=" + write("s.json", map[string]any{"scopes": rows.Scopes})},
	} {
		if got, _, err := runImport(t, append([]string{"openiddict"}, args...)...); err != nil || got != want {
			t.Errorf("%s: got %v and\n%s\nwant\n%s", form, err, got, want)
		}
	}
	for _, deleted := range []string{"false", "0", "null"} {
		export := `[{"ClientId": "c", "IsDeleted": ` + deleted + `, "Permissions": ["ept:token", "gt:client_credentials"]}]`
		if got, _, err := runImport(t, "openiddict", servetest.WriteFile(t, "export.json", export)); err != nil || !strings.Contains(got, "client_id: c") {
			t.Errorf("IsDeleted %s: got %v and\n%s", deleted, err, got)
		}
	}
	page := `{"items": ` + content(t, hydraExport) + `, "next_page_token": "abc", "is_last_page": false}`
	got, report, err := runImport(t, append([]string{"hydra", servetest.WriteFile(t, "page.json", page)}, hydraChoices...)...)
	if err != nil || got != content(t, "testdata/hydra.yaml") || !strings.Contains(report, "next_page_token: there are more clients") {
		t.Errorf("a page of Hydra: got %v, %s and\n%s", err, report, got)
	}
}

// TestImportHydraVersions reads what versions of Hydra and its API format differently.
func TestImportHydraVersions(t *testing.T) {
	const want = `    grant_types: [client_credentials]
    scopes:
      - read
    access_token_lifetime: 10m
`
	for name, row := range map[string]string{
		"API":             `{"client_id": "a", "grant_types": ["client_credentials"], "audience": ["https://a"], "scope": "read", "client_credentials_grant_access_token_lifespan": "10m0s", "jwks": {}}`,
		"table":           `{"pk": "1", "id": "a", "grant_types": "[\"client_credentials\"]", "audience": "[\"https://a\"]", "scope": "read", "client_credentials_grant_access_token_lifespan": 600000000000, "jwks": "{\"keys\":null}"}`,
		"table, before 2": `{"pk": 1, "id": "a", "grant_types": "client_credentials|", "audience": "https://a", "scope": "read read", "client_credentials_grant_access_token_lifespan": "10m", "jwks": "", "skip_consent": false}`,
	} {
		got, report, err := runImport(t, "hydra", servetest.WriteFile(t, "hydra.json", "["+row+"]"))
		if err != nil || !strings.HasSuffix(got, want) || strings.Contains(report, "counterpart") {
			t.Errorf("%s: got %v, %s and\n%s", name, err, report, got)
		}
	}
}

// TestImportErrors expects each error to have its place, and nothing to be written.
func TestImportErrors(t *testing.T) {
	const application = `{"ClientId": "a", "Permissions": ["ept:token", "gt:client_credentials"], `
	const client = `{"client_id": "a", "grant_types": ["client_credentials"], `
	for _, c := range []struct {
		name, server, export string
		args                 []string
		want                 string
	}{
		{"no such file", "openiddict", "", nil, "no such file"},
		{"not JSON", "openiddict", "{\n  \"applications\": [}\n", nil, "export.json:2:20: invalid character '}'"},
		{"cut off", "hydra", `[{"client_id": "a"`, nil, "export.json:1:18: unexpected end of JSON input"},
		{"two documents", "hydra", "[]\n[]", nil, "export.json:2:1: invalid character '['"},
		{"not UTF-8", "hydra", "[\n \"\xff\"]", nil, "export.json:2:3: is not UTF-8"},
		{"neither table", "openiddict", `{"Tokens": []}`, nil, "export.json:1:1: there are neither applications nor scopes"},
		{"no clients", "hydra", `{"error": "unauthorized"}`, nil, "export.json:1:1: there are no clients"},
		{"a row that is none", "openiddict", `["a"]`, nil, "export.json:1:2: expected names and values"},
		{"a text where a table belongs", "openiddict", `{"applications": "a"}`, nil, "export.json:1:18: applications: expected a list"},
		{"no id", "openiddict", "[\n{\"DisplayName\": \"a\"}]", nil, "export.json:2:1: ClientId: is missing"},
		{"id of no text", "hydra", "[{\"client_id\": 7}]", nil, "export.json:1:16: client_id: expected text"},
		{"client twice", "openiddict", "[{\"ClientId\": \"a\"},\n{\"ClientId\": \"a\"}]", nil, `export.json:2:14: ClientId: duplicate "a", first at`},
		{"client of Hydra twice", "hydra", `[{"client_id": "a"}, {"id": "a"}]`, nil, `export.json:1:29: id: duplicate "a"`},
		{"scope twice", "openiddict", `{"scopes": [{"Name": "s"}, {"Name": "s"}]}`, nil, `export.json:1:37: Name: duplicate "s"`},
		{"column twice", "openiddict", `[{"ClientId": "a", "client_id": "b"}]`, nil, "export.json:1:33: client_id: duplicate name"},
		{"permissions of no list", "openiddict", `[{"ClientId": "a", "Permissions": "ept:token"}]`, nil, "export.json:1:35: Permissions: expected a list"},
		{"permissions cut off", "openiddict", `[{"ClientId": "a", "Permissions": "[\"ept:token\""}]`, nil, "export.json:1:35: Permissions: the text is malformed JSON: unexpected end"},
		{"settings of no object", "openiddict", "[" + application + `"Settings": [1]}]`, nil, "Settings: expected names and values"},
		{"a lifetime of no form", "openiddict", "[" + application + `"Settings": {"tkn_lft:act": "10 minutes"}}]`, nil, "tkn_lft:act: is not a duration such as 00:10:00"},
		{"a lifetime of zero", "openiddict", "[" + application + `"Settings": "{\"tkn_lft:act\": \"00:00:00\"}"}]`, nil, "tkn_lft:act: the lifetime is less than a second"},
		{"a deletion of no form", "openiddict", "[" + application + `"IsDeleted": "false"}]`, nil, "export.json:1:88: IsDeleted: expected true or false"},
		{"a lifetime of Hydra", "hydra", "[" + client + `"client_credentials_grant_access_token_lifespan": "soon"}]`, nil, "is not a duration such as 10m"},
		{"a negative one", "hydra", "[" + client + `"client_credentials_grant_access_token_lifespan": -1}]`, nil, "the lifetime is less than a second"},
		{"two resources of one identifier", "openiddict", `{"scopes": [{"Name": "s", "Resources": ["a", "urn:openiddict:a"]}]}`, nil, `"a" and "urn:openiddict:a" would both be the resource urn:openiddict:a`},
		{"a resource without a name", "hydra", "[" + client + `"audience": [" "]}, ` + client + `"client_id": ""}]`, nil, "duplicate name"},
		{"a scope without an owner", "hydra", "[" + client + `"scope": "b a"}]`, nil, "no client with the scopes a, b has an audience"},
		{"a scope with owners that differ", "hydra", "[" + client + `"scope": "a", "audience": ["https://a", "https://b"]}]`, nil, "the clients with the scopes a have different audiences"},
		{"scopes twice", "openiddict", `{"scopes": [{"Name": "s"}]}`, []string{"--scopes=" + openIddictExport}, "scopes: the other file already has scopes"},
		{"an owner for no scope", "openiddict", "[]", []string{"--owner=mispelt=https://a"}, `owner: the export has no scope "mispelt"`},
		{"a resource that is none", "hydra", "[]", []string{"--resource=mispelt=https://a"}, `resource: the export has no resource or audience "mispelt"`},
		{"a choice without a URI", "hydra", "[]", []string{"--resource=orders"}, `resource: "orders" is not NAME=URI`},
		{"a choice of no URI", "hydra", "[]", []string{"--owner=orders=api"}, `owner: "orders=api": resource must be an absolute URI`},
		{"a choice made twice", "hydra", "[]", []string{"--owner=a=https://a", "--owner=a=https://b"}, `owner: duplicate "a"`},
		{"a default of no URI", "hydra", "[]", []string{"--default-resource=api"}, "default-resource: resource must be an absolute URI"},
		{"too many scopes of a resource", "hydra", "[" + client + `"scope": "` + manyScopes() + `"}]`, []string{"--default-resource=https://a"}, "the resource https://a would have 65 scopes"},
		{"too many scopes of a client", "hydra", "[" + client + `"scope": "` + manyScopes() + `"}]`, []string{"--default-resource=https://a", "--owner=s=https://b"}, "the client a would have 65 scopes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "absent.json")
			if c.export != "" {
				path = servetest.WriteFile(t, "export.json", c.export)
			}
			manifest, report, err := runImport(t, append([]string{c.server, path}, c.args...)...)
			if err == nil || !strings.Contains(err.Error(), c.want) || manifest+report != "" {
				t.Errorf("got %q, %q and %v, want %q", manifest, report, err, c.want)
			}
		})
	}
	if _, _, err := runImport(t, "auth0"); err == nil || !strings.Contains(err.Error(), "openiddict, hydra and keycloak") {
		t.Errorf("an unknown server: got %v", err)
	}
}

// manyScopes returns one scope more than a resource or a client may have.
func manyScopes() string {
	var all []string
	for i := range 65 {
		all = append(all, "s"+strings.Repeat("x", i))
	}
	return strings.Join(all, " ")
}

// TestImportNeverWidens tries what could give a client more than it had.
func TestImportNeverWidens(t *testing.T) {
	const scopes = `"scopes": [{"Name": "api", "Resources": ["https://a"]}, {"Name": "grantor:clients.write", "Resources": ["https://a"]}]`
	for _, c := range []struct {
		name, server, export string
		args                 []string
		without              string
		reported             string
	}{
		{"a scope that is not permitted", "openiddict", `{"applications": [{"ClientId": "c", "Permissions": ["ept:token", "gt:client_credentials"]}], ` + scopes + `}`, nil, "- api\n", "client c: Permissions: it gets no token"},
		{"a grant that is not permitted", "openiddict", `{"applications": [{"ClientId": "c", "Permissions": ["ept:token", "scp:api"]}], ` + scopes + `}`, nil, "client_id", "client c: left out"},
		{"an endpoint that is not permitted", "openiddict", `{"applications": [{"ClientId": "c", "Permissions": ["gt:client_credentials", "scp:api"]}], ` + scopes + `}`, nil, "client_id", "client c: left out"},
		{"a resource that may not introspect", "openiddict", `{"applications": [{"ClientId": "https://a", "Permissions": ["ept:token", "gt:client_credentials"]}], ` + scopes + `}`, nil, "resources:", "client https://a: "},
		{"a deleted application", "openiddict", `{"applications": [{"ClientId": "c", "IsDeleted": true, "Permissions": ["ept:token", "gt:client_credentials"]}]}`, nil, "client_id", "client c: left out: it is deleted"},
		{"a scope of the issuer's own", "openiddict", `{"applications": [{"ClientId": "c", "Permissions": ["ept:token", "gt:client_credentials", "scp:grantor:clients.write"]}], ` + scopes + `}`, nil, "grantor:clients.write", "scope grantor:clients.write: left out"},
		{"the issuer's own in Hydra", "hydra", `[{"client_id": "c", "grant_types": ["client_credentials"], "scope": "grantor:clients.write"}]`, nil, "grantor:clients.write", "client c: scope: grantor:clients.write is left out"},
		{"an audience that it had not", "hydra", `[{"client_id": "c", "grant_types": ["client_credentials"], "audience": ["https://b"], "scope": "api"}]`, []string{"--owner=api=https://a"}, "- api\n", "api is left out: it belongs to https://a"},
		{"an audience that others had", "hydra", `[{"client_id": "c", "grant_types": ["client_credentials"], "scope": "api"}, {"client_id": "d", "grant_types": ["client_credentials"], "audience": ["https://a"]}]`, []string{"--default-resource=https://a"}, "- api\n", "client c: scope: api is left out"},
		{"a secret that was not enough", "hydra", `[{"client_id": "c", "grant_types": ["client_credentials"], "token_endpoint_auth_method": "private_key_jwt", "client_secret": "$pbkdf2-sha256$i=25000,l=32$j6FM3XVPkcxlVMnnGSnM5w$WUR3Yt5AYZwkcu8/ku3RGEkJ5XFUMgj7aTbvmP07Qyk"}]`, nil, "pbkdf2", "private_key_jwt, but it has no keys that can be used"},
		{"a private key", "hydra", `[{"client_id": "c", "grant_types": ["client_credentials"], "token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "d": "hush"}]}}]`, nil, "hush", `client c: jwks is left out: key 1 has the member "d" of a private key`},
		{"keys in plaintext", "hydra", `[{"client_id": "c", "grant_types": ["client_credentials"], "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://c.example/jwks"}]`, nil, "jwks_uri", "client c: token_endpoint_auth_method: private_key_jwt, but it has no keys"},
		{"keys at a URL", "hydra", `[{"client_id": "c", "grant_types": ["client_credentials"], "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://c.example/jwks"}]`, nil, "jwks: ", "client c: jwks_uri: its assertions must be those of RFC 10070"},
		{"another way of sending the secret", "hydra", `[{"client_id": "c", "grant_types": ["client_credentials"], "token_endpoint_auth_method": ""}]`, nil, "client_secret_post", "client c: client_secret: there is none"},
		{"no grant types", "hydra", `[{"client_id": "c"}]`, nil, "client_id", "client c: left out"},
		{"an id that none can have", "hydra", `[{"client_id": "c d", "grant_types": ["client_credentials"]}]`, nil, "client_id", "client c d: left out"},
		{"a name that would move a terminal", "hydra", `[{"client_id": "c", "client_name": "a\u001b[2J", "grant_types": ["client_credentials"]}]`, nil, "client_name", "client c: client_name: it cannot be a name here"},
		{"a resource of the issuer's own", "hydra", `[{"client_id": "c", "grant_types": ["client_credentials"], "audience": ["urn:grantor:admin"]}]`, nil, "  - resource: urn:grantor:admin", "resource urn:grantor:admin: it is urn:hydra:urn:grantor:admin here"},
	} {
		manifest, report, err := runImport(t, append([]string{c.server, servetest.WriteFile(t, "export.json", c.export)}, c.args...)...)
		resources, clients, _ := strings.Cut(manifest, "\nclients:")
		if strings.HasPrefix(c.without, "  - resource:") {
			clients = resources
		}
		if err != nil || strings.Contains(clients, c.without) || !strings.Contains(report, c.reported) {
			t.Errorf("%s: got %v, %s and\n%s", c.name, err, report, manifest)
		}
	}
}

// TestImportOutput writes to a file that only its owner may read, and never overwrites one.
func TestImportOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clients.yaml")
	out, report, err := runImport(t, "openiddict", openIddictExport, "--output="+path)
	if err != nil || out != "" || report != content(t, "testdata/openiddict.report") || content(t, path) != content(t, "testdata/openiddict.yaml") {
		t.Errorf("got %v, %q and %q", err, out, report)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Errorf("got %v, %v, want a file for the owner alone", info.Mode(), err)
	}
	if _, _, err := runImport(t, "openiddict", openIddictExport, "--output="+path); err == nil || !strings.HasPrefix(err.Error(), "output: ") {
		t.Errorf("over a file that is there: got %v, want a refusal", err)
	}
}

// TestTimeSpan parses durations of .NET.
func TestTimeSpan(t *testing.T) {
	for text, want := range map[string]string{
		"00:10:00": "10m0s", "1:00:00": "1h0m0s", "0.01:00:00": "1h0m0s", "14.00:00:00": "336h0m0s", "00:00:01.5": "1.5s", "00:05": "5m0s",
		"00:00:00.0000001": "100ns", "24:00:00": "", "00:60:00": "", "00:00:60": "", "": "", "600": "", "-00:10:00": "", "10m": "", "999999.00:00:00": "",
	} {
		got, err := migrate.ParseTimeSpan(text)
		if (err != nil) != (want == "") || (err == nil && got.String() != want) {
			t.Errorf("%q: got %s, %v, want %q", text, got, err, want)
		}
	}
}
