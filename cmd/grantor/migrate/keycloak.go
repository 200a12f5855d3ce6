package migrate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/oauth"
)

// The fields are those of RealmRepresentation, ClientRepresentation and ClientScopeRepresentation of Keycloak 20 to 26.

// keycloakImport converts the clients of a realm.
type keycloakImport struct {
	*importer

	realm  *record
	scopes map[string]*keycloakScope
	// scopeRoles maps a client scope to the roles of which a service account must have one to get it.
	scopeRoles map[string][]string
	accounts   map[string]*serviceAccount // keyed by client ID
	// lifespan is that of the tokens of clients without one of their own, or empty.
	lifespan *field
}

// keycloakScope is a client scope: a set of mappers, whose name is the scope in a token if inToken is set.
type keycloakScope struct {
	row
	inToken bool
	// audiences are those that its mappers add to a token.
	audiences []string
	// clients are the audiences of its clients; "" stands for a client without.
	clients map[string]bool
}

// keycloakClient is a client before the owners of its scopes are known.
type keycloakClient struct {
	*importedClient
	row
	scopes, defaults []string
	// audiences are those of each of its tokens.
	audiences []string
}

// importKeycloak converts the export of a realm of Keycloak.
func importKeycloak(i *importer, path string) error {
	whole, err := readExport(path)
	if _, large := errors.AsType[*cli.SizeError](err); large {
		err = fmt.Errorf("%w; export the realm without its users, and so without its service accounts: kc.sh export --realm NAME --users skip", err)
	}
	if err != nil {
		return err
	}
	return i.keycloak(whole)
}

// keycloakRealm returns the realm of an export. An export of several realms is a list of them; the same client ID is
// another client in each.
func keycloakRealm(whole value) (*record, error) {
	if whole.is('[') {
		realms, err := whole.records()
		if err != nil {
			return nil, err
		}
		if len(realms) != 1 || realms[0].byName["realm"] == nil {
			return nil, whole.errorf("expected one realm; export it alone: kc.sh export --realm NAME")
		}
		return realms[0], nil
	}
	realm, err := whole.record()
	if err == nil && (realm.byName["realm"] == nil || realm.byName["clients"] == nil) {
		err = whole.errorf("there are no clients: expected the export of a realm, with its clients")
	}
	return realm, err
}

// keycloak converts the clients of a realm.
func (i *importer) keycloak(whole value) error {
	realm, err := keycloakRealm(whole)
	if err != nil {
		return err
	}
	k := &keycloakImport{importer: i, realm: realm, scopes: make(map[string]*keycloakScope), scopeRoles: make(map[string][]string),
		accounts: make(map[string]*serviceAccount), lifespan: realm.take("accessTokenLifespan")}
	for _, read := range []func() error{k.readScopes, k.readScopeRoles, k.readAccounts} {
		if err := read(); err != nil {
			return err
		}
	}
	clients, err := k.readClients()
	if err != nil {
		return err
	}
	k.assignOwners(clients)
	for _, c := range clients {
		k.assignScopes(c)
		k.finish(c.importedClient, c.row)
	}
	if len(clients) > 0 {
		k.notef(rankFile, "all clients", "a request that names scopes gets these alone here; there it also gets the default scopes of the client")
		if !k.lifespan.empty() {
			k.notef(rankFile, "all clients", "accessTokenLifespan of the realm is the access_token_lifetime of each client without its own")
		}
	}
	return k.reportRealm()
}

// reportRealm reports what else the realm has: users, roles, flows and so on. Its settings, which are numbers and texts, are
// about these.
func (k *keycloakImport) reportRealm() error {
	name, err := k.realm.take("realm").text()
	if err != nil {
		return err
	}
	var unused []string
	for _, f := range k.realm.fields {
		if !f.used && (f.is('[') || f.is('{')) && !f.empty() {
			unused = append(unused, shown(f.name))
		}
	}
	slices.Sort(unused)
	if len(unused) > 0 {
		k.notef(rankFile, "realm "+name, "%s: no counterpart here", strings.Join(unused, ", "))
	}
	k.notef(rankFile, "realm "+name, "its settings of sessions, logins and tokens are not converted")
	return nil
}

// readClients converts the clients of the realm.
func (k *keycloakImport) readClients() ([]*keycloakClient, error) {
	records, err := k.realm.take("clients").records()
	if err != nil {
		return nil, err
	}
	list, err := rows(records, "clientId")
	if err != nil {
		return nil, err
	}
	// The audiences come first: a client whose ID is one is a resource server.
	audiences := make(map[string][]string)
	for _, r := range list {
		if audiences[r.id], err = k.audiences(rankClient, r.id, r.take("protocolMappers").value); err != nil {
			return nil, err
		}
	}
	var clients []*keycloakClient
	for _, r := range list {
		c, err := k.readClient(r)
		if err != nil {
			return nil, err
		}
		if c == nil {
			continue
		}
		clients = append(clients, c)
		if len(c.GrantTypes) > 0 {
			c.audiences = audiences[r.id]
			if err := k.readClientScopes(c); err != nil {
				return nil, err
			}
		}
	}
	return clients, nil
}

// keycloakFlags are the booleans of a client that decide whether it is converted. credentials is set if its service account
// is enabled.
type keycloakFlags struct{ enabled, public, credentials bool }

// readKeycloakFlags reads the booleans of a client, which is enabled without a value.
func readKeycloakFlags(r *record) (flags keycloakFlags, err error) {
	if flags.enabled, err = r.take("enabled").boolean(true); err != nil {
		return flags, err
	}
	if flags.public, err = r.take("publicClient").boolean(false); err != nil {
		return flags, err
	}
	flags.credentials, err = r.take("serviceAccountsEnabled").boolean(false)
	return flags, err
}

// readClient converts one client. It returns nil for a client that is left out.
func (k *keycloakImport) readClient(r row) (*keycloakClient, error) {
	protocol, err := r.take("protocol").text()
	if err != nil {
		return nil, err
	}
	flags, err := readKeycloakFlags(r.record)
	if err != nil {
		return nil, err
	}
	served, serves := k.known[r.id]
	switch {
	case protocol != "" && protocol != keycloakProtocol:
		k.leavef(r.id, "its protocol is %s", shown(protocol))
		return nil, nil
	case flags.public:
		k.leavef(r.id, "a public client has no secret to authenticate with")
		return nil, nil
	case !flags.credentials && !serves:
		k.leavef(r.id, "its service account is not enabled, and it is not an audience")
		return nil, nil
	}
	made, err := k.client(r.id, r.take("name").value)
	if made == nil || err != nil {
		return nil, err
	}
	c := &keycloakClient{importedClient: made, row: r}
	for _, name := range keycloakMeaningless {
		r.take(name)
	}
	account := k.accounts[r.id]
	c.Disabled = !flags.enabled || flags.credentials && account.disabled()
	if serves {
		c.Resources = []string{served}
	}
	if flags.credentials {
		c.GrantTypes = []string{oauth.GrantClientCredentials}
		if roles := account.names(); len(roles) > 0 {
			k.notef(rankClient, r.id, "the roles of its service account, %s: no counterpart here; give it scopes instead", strings.Join(roles, ", "))
		}
	}
	attributes, err := r.take("attributes").optional()
	if err != nil {
		return nil, err
	}
	if err := k.readSecret(c, attributes); err != nil {
		return nil, err
	}
	return c, k.readAttributes(c, attributes)
}

const keycloakProtocol = "openid-connect"

// keycloakMeaningless are fields that every client has and that mean nothing for a service: keys, URLs of pages, and what
// is about logins.
var keycloakMeaningless = []string{
	"id", "description", "rootUrl", "adminUrl", "baseUrl", "surrogateAuthRequired", "alwaysDisplayInConsole", "bearerOnly",
	"redirectUris", "webOrigins", "consentRequired", "frontchannelLogout", "fullScopeAllowed", "nodeReRegistrationTimeout",
	"registeredNodes", "access", "origin", "defaultClientScopes", "optionalClientScopes",
}

// readSecret converts the secret and the authentication method. The export has the secret itself.
func (k *keycloakImport) readSecret(c *keycloakClient, attributes *record) error {
	column := c.take("secret")
	authenticator, err := c.take("clientAuthenticatorType").text()
	if err != nil {
		return err
	}
	if authenticator != "" && authenticator != "client-secret" {
		// A secret that such a client may have was never sufficient to authenticate it.
		if authenticator == "client-jwt" {
			k.notef(rankClient, c.ID, "clientAuthenticatorType: %s: its keys are not in the client here; give it jwks or jwks_uri, or a secret", authenticator)
			return nil
		}
		k.notef(rankClient, c.ID, "clientAuthenticatorType: %s is not offered here; give the client a secret", shown(authenticator))
		return nil
	}
	allowed, err := attributes.take("client.secret.authentication.allowed.method").text()
	switch {
	case err != nil:
		return err
	case allowed == oauth.ClientSecretBasic || allowed == oauth.ClientSecretPost:
		c.AuthMethods = []string{allowed}
	case allowed != "": // without it, both methods are allowed there too
		k.notef(rankClient, c.ID, "client.secret.authentication.allowed.method: %s is not offered here; give the client a secret", shown(allowed))
		return nil
	}
	secret, err := column.text()
	if err != nil {
		return err
	}
	expires, err := keycloakTime(attributes.take("client.secret.expiration.time"))
	if err != nil {
		return err
	}
	if !attributes.take("client.secret.rotated").empty() {
		k.notef(rankClient, c.ID, "client.secret.rotated: the secret before the last one is not converted")
	}
	attributes.take("client.secret.rotated.expiration.time")
	switch problem := secretProblem(secret); {
	case problem != "":
		k.notef(rankClient, c.ID, "secret: %s", problem)
		return nil
	case !expires.IsZero() && !expires.After(time.Now()):
		k.notef(rankClient, c.ID, "secret: it has expired at %s; give the client a secret", expires.Format(time.RFC3339))
		return nil
	case !expires.IsZero():
		k.notef(rankClient, c.ID, "secret: it expires at %s there, and not here; see grantor client secret expire", expires.Format(time.RFC3339))
	}
	c.Secret = secret
	return nil
}

// secretProblem returns why a secret cannot be converted, and what to do. It does not quote the secret.
func secretProblem(secret string) string {
	switch {
	case secret == "":
		return "there is none in the export; give the client a secret"
	case strings.Trim(secret, "*") == "":
		return "the export has it masked; use kc.sh export, which does not, or give the client a new secret"
	case strings.HasPrefix(secret, "${vault."):
		return "it is in a vault of Keycloak; give the client the secret from there"
	case len(secret) > oauth.MaxSecret:
		return fmt.Sprintf("it has more than %d bytes; give the client a new one", oauth.MaxSecret)
	case strings.ContainsRune(secret, 0):
		return "it contains a NUL byte; give the client a new one"
	}
	return ""
}

// The reasons why no resource can be chosen as the owner of a scope.
var (
	errNoAudience       = errors.New("neither it nor its clients have an audience, so that nothing says which resource it belongs to; name its owner with --owner SCOPE=URI, or with --default-resource URI")
	errSeveralAudiences = errors.New("it has several audiences and can belong to one resource only; name its owner with --owner SCOPE=URI")
)
