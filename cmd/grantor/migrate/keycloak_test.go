package migrate_test

import (
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/migrate"
)

// realm returns the export of a realm with one client, whose service account is enabled and whose fields are client, and
// with other fields of the realm.
func realm(client, others string) string {
	if others != "" {
		others += ", "
	}
	return `{"realm": "r", ` + others + `"clients": [{"clientId": "c", "serviceAccountsEnabled": true, ` + client + `"publicClient": false}]}`
}

// audience returns a client scope with a mapper of an audience.
func audience(scope, uri string) string {
	return `{"name": "` + scope + `", "protocolMappers": [{"name": "m", "protocolMapper": "oidc-audience-mapper", "config": {"included.custom.audience": "` + uri + `", "access.token.claim": "true"}}]}`
}

// TestImportKeycloakRealms expects one realm, with the place of what is wrong.
func TestImportKeycloakRealms(t *testing.T) {
	whole := realm("", "")
	if _, _, err := migrate.Convert("keycloak", []byte("["+whole+"]"), ""); err != nil {
		t.Errorf("a list of one realm: got %v", err)
	}
	for name, c := range map[string]struct{ export, want string }{
		"several realms":        {"[" + whole + "," + whole + "]", "export.json:1:1: expected one realm; export it alone: kc.sh export --realm NAME"},
		"no realm":              {`{"clients": []}`, "export.json:1:1: there are no clients: expected the export of a realm"},
		"a realm alone":         {`{"realm": "r"}`, "there are no clients"},
		"a list of clients":     {`[{"clientId": "a", "secret": "s"}]`, "expected one realm"},
		"users alone":           {`{"realm": "r", "users": [{"username": "a"}]}`, "there are no clients"},
		"a client twice":        {`{"realm": "r", "clients": [{"clientId": "a"}, {"clientId": "a"}]}`, `clientId: duplicate "a"`},
		"a scope twice":         {realm("", `"clientScopes": [{"name": "a"}, {"name": "a"}]`), `name: duplicate "a"`},
		"a lifetime of no form": {realm("", `"accessTokenLifespan": "10m"`), "accessTokenLifespan: is not a number of seconds"},
		"a lifetime of zero":    {realm("", `"accessTokenLifespan": 0`), "accessTokenLifespan: the lifetime is less than a second"},
		"an attribute twice":    {realm(`"attributes": {"a": "b", "a": "c"}, `, ""), "a: duplicate name"},
		"an expiry of no form":  {realm(`"attributes": {"client.secret.expiration.time": "soon"}, `, ""), "client.secret.expiration.time: is not a number of seconds"},
		"a text for enabled":    {realm(`"enabled": "false", `, ""), "export.json:1:89: enabled: expected true or false"},
		"a number for enabled":  {realm(`"enabled": 0, `, ""), "enabled: expected true or false"},
		"a list for enabled":    {realm(`"enabled": [], `, ""), "enabled: expected true or false"},
		"a text for its grant":  {strings.Replace(realm("", ""), `Enabled": true`, `Enabled": "false"`, 1), "serviceAccountsEnabled: expected true or false"},
		"a text for public":     {strings.Replace(realm("", ""), `"publicClient": false`, `"publicClient": "false"`, 1), "publicClient: expected true or false"},
		"a text for an account": {realm("", `"users": [{"serviceAccountClientId": "c", "enabled": "false"}]`), "enabled: expected true or false"},
		"a number for a scope":  {realm("", `"clientScopes": [{"name": "a", "attributes": {"include.in.token.scope": "0"}}]`), `include.in.token.scope: expected "true" or "false"`},
		"a mapper of no object": {realm(`"protocolMappers": [{"config": 1}], `, ""), "config: expected names and values"},
	} {
		if _, _, err := migrate.Convert("keycloak", []byte(c.export), ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// TestImportKeycloakNeverWidens checks that no client gets more than it had, and that the report has what it lost.
func TestImportKeycloakNeverWidens(t *testing.T) {
	const api = `"defaultClientScopes": ["api"], `
	scopes := `"clientScopes": [` + audience("api", "https://a") + `]`
	restricted := scopes + `, "scopeMappings": [{"clientScope": "api", "roles": ["reader"]}]`
	for name, c := range map[string]struct{ export, without, report string }{
		"a public client":                     {strings.Replace(realm(api, scopes), `"publicClient": false`, `"publicClient": true`, 1), "client_id", "client c: left out: a public client"},
		"no service account":                  {strings.Replace(realm(api, scopes), `"serviceAccountsEnabled": true`, `"serviceAccountsEnabled": false`, 1), "client_id", "client c: left out: its service account"},
		"another protocol":                    {realm(`"protocol": "docker-v2", `+api, scopes), "client_id", "client c: left out: its protocol is docker-v2"},
		"a scope that is not assigned":        {realm("", scopes), "- api\n    ", "client c: it gets no token here"},
		"a scope without an audience":         {realm(api, `"clientScopes": [{"name": "api"}]`), "- api", "scope api: left out: neither it nor its clients have an audience"},
		"a scope of two audiences":            {realm(api+`"protocolMappers": [], `, `"clientScopes": [`+strings.Replace(audience("api", "https://a"), `[{"name": "m"`, `[{"name": "n", "protocolMapper": "oidc-audience-mapper", "config": {"included.custom.audience": "https://b", "access.token.claim": "true"}}, {"name": "m"`, 1)+`]`), "- api", "scope api: left out: it has several audiences"},
		"an audience of ID tokens":            {realm(api, strings.Replace(scopes, `"true"`, `"false"`, 1)), "https://a", "scope api: left out: neither"},
		"a mapper of the API before 10":       {realm(api, strings.Replace(scopes, `, "access.token.claim": "true"`, "", 1)), "https://a", "scope api: left out: neither"},
		"a scope that no token names":         {realm(api, strings.Replace(scopes, `"name": "api",`, `"name": "api", "attributes": {"include.in.token.scope": "false"},`, 1)), "- api", "scope api: left out: it is never the scope of a token"},
		"a scope for a role":                  {realm(api, restricted), "default_scopes", "client c: api is left out: there it is only for accounts with one of the roles reader"},
		"a scope for a role of others":        {realm(api, restricted+`, "users": [{"serviceAccountClientId": "d", "realmRoles": ["reader"]}]`), "grant_types: [client_credentials]\n    scopes", "api is left out"},
		"a scope of the issuer's own":         {realm(`"defaultClientScopes": ["grantor:clients.write"], `, `"clientScopes": [`+audience("grantor:clients.write", "https://a")+`]`), "- grantor", "scope grantor:clients.write: left out"},
		"a scope of users":                    {realm(`"defaultClientScopes": ["email"], `, `"clientScopes": [`+audience("email", "https://a")+`]`), "- email", "scope email: left out: it is about users"},
		"a method that is not offered":        {realm(`"clientAuthenticatorType": "client-secret-jwt", "secret": "hush", `+api, scopes), "hush", "clientAuthenticatorType: client-secret-jwt is not offered"},
		"a masked secret":                     {realm(`"secret": "**********", `+api, scopes), "client_secret", "client c: secret: the export has it masked"},
		"an expired secret":                   {realm(`"secret": "hush", "attributes": {"client.secret.expiration.time": "1719302400"}, `+api, scopes), "hush", "secret: it has expired at 2024-06-25"},
		"a long secret":                       {realm(`"secret": "`+strings.Repeat("h", 513)+`", `+api, scopes), "hhh", "secret: it has more than 512 bytes"},
		"no secret":                           {realm(api, scopes), "client_secret", "secret: there is none in the export"},
		"a lifetime without an end":           {realm(`"attributes": {"access.token.lifespan": "-1"}, `+api, scopes), "access_token_lifetime", "access.token.lifespan: -1 has no counterpart"},
		"a flow of users":                     {realm(`"directAccessGrantsEnabled": true, `+api, scopes), "password", "client c: directAccessGrantsEnabled: no counterpart"},
		"tokens that are bound to a key":      {realm(`"attributes": {"dpop.bound.access.tokens": "true"}, `+api, scopes), "dpop", "client c: attributes: dpop.bound.access.tokens: no counterpart"},
		"an audience that cannot be resource": {realm(`"protocolMappers": [{"name": "m", "protocolMapper": "oidc-audience-mapper", "config": {"included.client.audience": "api", "access.token.claim": "true"}}], `, ""), "  - resource: api", "resource api: it is urn:keycloak:api here"},
	} {
		manifest, report, err := migrate.Convert("keycloak", []byte(c.export), "")
		if err != nil || strings.Contains(manifest, c.without) || !strings.Contains(report, c.report) {
			t.Errorf("%s: got %v,\n%s\n%s", name, err, report, manifest)
		}
	}
}

// TestImportKeycloakOdd converts a realm with an odd client, which must not end the import.
func TestImportKeycloakOdd(t *testing.T) {
	const left = "client c: access.token.lifespan: left out"
	for name, c := range map[string]struct{ attributes, want, report string }{
		"names that only look alike": {`"my_attr": "a", "myAttr": "b"`, "access_token_lifetime: 5m\n", "attributes: myAttr, my_attr: no counterpart here"},
		"another spelling":           {`"access_token_lifespan": "1", "Access.Token.Lifespan": "2"`, "access_token_lifetime: 5m\n", "no counterpart here"},
		"a lifetime of no form":      {`"access.token.lifespan": "10m"`, "access_token_lifetime: 5m\n", left},
		"a lifetime of a fraction":   {`"access.token.lifespan": "1.5"`, "access_token_lifetime: 5m\n", left},
		"a lifetime of an object":    {`"access.token.lifespan": {"a": "b"}`, "access_token_lifetime: 5m\n", left},
		"a lifetime of zero":         {`"access.token.lifespan": "0"`, "access_token_lifetime: 5m\n", left},
		"no lifetime":                {`"access.token.lifespan": ""`, "access_token_lifetime: 5m\n", ""},
		"a long lifetime":            {`"access.token.lifespan": "99999999999"`, "access_token_lifetime: 24h\n", "is more than the maximum here"},
		"a longer lifetime":          {`"access.token.lifespan": "99999999999999999999999"`, "access_token_lifetime: 24h\n", "is more than the maximum here"},
	} {
		manifest, report, err := migrate.Convert("keycloak", []byte(realm(`"attributes": {`+c.attributes+`}, `, `"accessTokenLifespan": 300`)), "")
		if err != nil || !strings.Contains(manifest, c.want) || !strings.Contains(report, c.report) {
			t.Errorf("%s: got %v,\n%s\n%s", name, err, report, manifest)
		}
	}
	if _, _, err := runImport(t, "keycloak", "/dev/zero"); err == nil || !strings.Contains(err.Error(), "/dev/zero has more than 67108864 bytes; export the realm without its users") {
		t.Errorf("a large export: got %v", err)
	}
}

// TestImportKeycloakHidesSecrets expects no secret in the report or in an error, whatever its form.
func TestImportKeycloakHidesSecrets(t *testing.T) {
	for _, secret := range []string{`"sup3rs3cret"`, `["sup3rs3cret"]`, `{"value": "sup3rs3cret"}`, `"${vault.sup3rs3cret}"`, `"sup3rs3cret\u0000"`, `"sup3rs3cret` + strings.Repeat("x", 512) + `"`} {
		for _, export := range []string{
			realm(`"secret": `+secret+`, `, ""), realm(`"attributes": {"client.secret.rotated": `+secret+`}, `, ""),
			realm(`"clientAuthenticatorType": "client-x509", "secret": `+secret+`, `, ""),
		} {
			manifest, report, err := migrate.Convert("keycloak", []byte(export), "")
			if err != nil {
				report += err.Error()
			}
			if strings.Contains(report, "sup3rs3cret") || strings.Count(manifest, "sup3rs3cret") > strings.Count(manifest, "client_secret: sup3rs3cret\n") {
				t.Errorf("%s: got %s\n%s", export, report, manifest)
			}
		}
	}
}

// TestImportKeycloakGrants converts what a client had.
func TestImportKeycloakGrants(t *testing.T) {
	scopes := `"clientScopes": [` + audience("api", "https://a") + `, {"name": "plain"}]`
	restricted := scopes + `, "clientScopeMappings": {"web": [{"clientScope": "api", "roles": ["reader"]}]}, "users": [{"serviceAccountClientId": "c", "enabled": true, "clientRoles": {"web": ["reader"]}}]`
	own := `"protocolMappers": [{"name": "m", "protocolMapper": "oidc-audience-mapper", "config": {"included.client.audience": "", "included.custom.audience": "https://b", "access.token.claim": "true"}}], `
	for name, c := range map[string]struct{ export, want string }{
		"a default scope":            {realm(`"defaultClientScopes": ["api"], `, scopes), "    scopes:\n      - api\n"},
		"an optional scope":          {realm(`"optionalClientScopes": ["api"], `, scopes), "    scopes:\n      - api\n"},
		"both":                       {realm(strings.Replace(own, "https://b", "https://a", 1)+`"defaultClientScopes": ["api"], "optionalClientScopes": ["plain"], `, scopes), "    scopes:\n      - api\n      - plain\n    default_scopes:\n      - api\n"},
		"the client's own audience":  {realm(own+`"defaultClientScopes": ["plain"], `, scopes), "  - resource: https://b\n    scopes:\n      - plain\n"},
		"a scope for a role it has":  {realm(`"defaultClientScopes": ["api"], `, restricted), "    scopes:\n      - api\n"},
		"a default resource":         {realm(`"defaultClientScopes": ["plain"], `, scopes), "  - resource: https://fallback\n    scopes:\n      - plain\n"},
		"a scope without clients":    {realm("", scopes), "  - resource: https://a\n    scopes:\n      - api\n"},
		"a lifetime":                 {realm(`"attributes": {"access.token.lifespan": "90"}, `, ""), "    access_token_lifetime: 1m30s\n"},
		"the lifetime of the realm":  {realm("", `"accessTokenLifespan": 60`), "    access_token_lifetime: 1m\n"},
		"a long lifetime":            {realm(`"attributes": {"access.token.lifespan": "172800"}, `, ""), "    access_token_lifetime: 24h\n"},
		"a disabled client":          {realm(`"enabled": false, `, ""), "    disabled: true\n"},
		"a disabled service account": {realm("", `"users": [{"serviceAccountClientId": "c", "enabled": false}]`), "    disabled: true\n"},
		"a method":                   {realm(`"attributes": {"client.secret.authentication.allowed.method": "client_secret_basic"}, `, ""), "    auth_methods: [client_secret_basic]\n"},
		"a secret that YAML changes": {realm(`"secret": "0x1F", `, ""), "    client_secret: \"0x1F\"\n"},
	} {
		manifest, report, err := migrate.Convert("keycloak", []byte(c.export), "https://fallback")
		if err != nil || !strings.Contains(manifest, c.want) {
			t.Errorf("%s: got %v,\n%s\n%s", name, err, report, manifest)
		}
	}
}
