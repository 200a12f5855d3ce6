package migrate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
)

// The fields are those of Hydra's API, versions 1 and 2. Its table hydra_client has the same except for the ID, and separates
// lists by | in versions before 2.

// hydraClient is a client before the owners of its scopes are known.
type hydraClient struct {
	*importedClient
	row
	scopes []string
	// audiences are the possible audiences of its tokens. Without any, its tokens were for no particular audience.
	audiences []string
}

// importHydra converts an export of Hydra.
func importHydra(i *importer, path string) error {
	whole, err := readExport(path)
	if err != nil {
		return err
	}
	records, err := i.hydraRecords(whole)
	if err != nil {
		return err
	}
	return i.hydra(records)
}

// hydraRecords returns the clients of a list, or of a page as the command line prints it.
func (i *importer) hydraRecords(whole value) ([]*record, error) {
	if whole.is('[') {
		return whole.records()
	}
	page, err := whole.record()
	if err != nil {
		return nil, err
	}
	items := page.take("items", "clients")
	if items.empty() {
		return nil, whole.errorf("there are no clients: expected a list, or an object with items")
	}
	if more := page.take("next_page_token"); !more.empty() {
		i.notef(rankFile, more.name, "there are more clients than the file has; export them too")
	}
	page.take("is_last_page")
	for _, name := range page.rest() {
		i.notef(rankFile, name, "ignored; only items are read")
	}
	return items.records()
}

// hydra converts the records to clients and resources.
func (i *importer) hydra(records []*record) error {
	list, err := rows(records, "client_id", "id")
	if err != nil {
		return err
	}
	var clients []*hydraClient
	for _, r := range list {
		c, err := i.hydraClient(r)
		if err != nil {
			return err
		}
		if c != nil {
			clients = append(clients, c)
		}
	}
	if err := i.hydraOwners(clients); err != nil {
		return err
	}
	for _, c := range clients {
		i.hydraScopes(c)
		i.finish(c.importedClient, c.row)
	}
	if len(clients) > 0 {
		i.notef(rankFile, "all clients", "a request without a scope gets every scope of the client here; add default_scopes if that is too much")
	}
	return nil
}

// hydraClient converts one client. It returns nil for a client that is left out.
func (i *importer) hydraClient(r row) (*hydraClient, error) {
	grants, err := r.take("grant_types").list("|")
	if err != nil {
		return nil, err
	}
	method, err := r.take("token_endpoint_auth_method").text()
	if err != nil {
		return nil, err
	}
	switch {
	case !slices.Contains(grants, oauth.GrantClientCredentials):
		i.leavef(r.id, "it does not have the grant type %s", oauth.GrantClientCredentials)
		return nil, nil
	case method == "none":
		i.leavef(r.id, "a public client has no secret to authenticate with")
		return nil, nil
	}
	made, err := i.client(r.id, r.take("client_name").value)
	if made == nil || err != nil {
		return nil, err
	}
	c := &hydraClient{importedClient: made, row: r}
	c.GrantTypes = []string{oauth.GrantClientCredentials}
	if others := slices.DeleteFunc(grants, func(g string) bool { return g == oauth.GrantClientCredentials }); len(others) > 0 {
		i.notef(rankClient, r.id, "grant_types: %s: no counterpart here", shown(strings.Join(others, ", ")))
	}
	for _, name := range hydraMeaningless {
		r.take(name)
	}
	if err := i.hydraSecret(c, method); err != nil {
		return nil, err
	}
	if err := i.hydraLifetime(c); err != nil {
		return nil, err
	}
	return c, i.hydraReach(c)
}

// hydraReach reads the scopes and the audiences.
func (i *importer) hydraReach(c *hydraClient) error {
	scope, err := c.take("scope").text()
	if err != nil {
		return err
	}
	scopes := strings.Fields(scope)
	if len(scopes) > maxNames {
		return c.errorf("there are more than %d scopes", maxNames)
	}
	c.scopes = i.hydraUsable(c.ID, scopes)
	column := c.take("audience")
	names, err := column.list("|")
	if err != nil {
		return err
	}
	for _, name := range names {
		uri, err := i.resource(column.value, name)
		if err != nil {
			return err
		}
		c.audiences = append(c.audiences, uri)
	}
	return nil
}

// hydraMeaningless are fields that every client has and that mean nothing for a service: keys of the row, times, and
// what is about users.
var hydraMeaningless = []string{
	"id", "pk", "nid", "created_at", "updated_at", "response_types", "subject_type", "userinfo_signed_response_alg",
	"request_object_signing_alg", "skip_consent", "skip_logout_consent",
	"registration_access_token", "registration_access_token_signature", "registration_client_uri",
}

// hydraKeys converts the keys of a client that authenticated by them alone, or their place.
func (i *importer) hydraKeys(c *hydraClient) error {
	keyed, err := i.keys(c.importedClient, c.take("jwks").value)
	if err != nil {
		return err
	}
	place := c.take("jwks_uri")
	uri, err := place.text()
	if err != nil {
		return err
	}
	if !keyed && uri != "" {
		if keyed = oauth.SecureURL(uri) == nil; keyed {
			c.KeysURI = uri
			i.noteAssertions(c.importedClient, place.name)
		}
	}
	c.AuthMethods = []string{oauth.PrivateKeyJWT}
	if !keyed {
		i.notef(rankClient, c.ID, "token_endpoint_auth_method: %s, but it has no keys that can be used; give it jwks or jwks_uri", oauth.PrivateKeyJWT)
	}
	return nil
}

// hydraSecret converts the secrets, and the one authentication method that the client had.
func (i *importer) hydraSecret(c *hydraClient, method string) error {
	secret, rotated := c.take("client_secret"), c.take("rotated_secrets")
	switch method {
	case "":
		method = oauth.ClientSecretBasic
	case oauth.ClientSecretBasic, oauth.ClientSecretPost:
	case oauth.PrivateKeyJWT:
		return i.hydraKeys(c)
	default:
		// A secret that such a client may have was never sufficient to authenticate it.
		i.notef(rankClient, c.ID, "token_endpoint_auth_method: %s is not offered here; give the client a secret", shown(method))
		return nil
	}
	c.AuthMethods = []string{method}
	found, err := i.secret(c.importedClient, secret.value)
	if err != nil {
		return err
	}
	if !found {
		i.notef(rankClient, c.ID, "client_secret: there is none in the export; give the client a secret, or export the table hydra_client")
	}
	if rotated.empty() {
		return nil
	}
	older, err := rotated.unwrapped()
	if err != nil {
		return err
	}
	if !older.is('[') {
		return older.errorf("expected a list")
	}
	return older.parts(func(one value) error {
		_, err := i.secret(c.importedClient, one)
		return err
	})
}

// hydraLifetime parses "1h" as the API returns it, or nanoseconds as the table has them.
func (i *importer) hydraLifetime(c *hydraClient) error {
	column := c.take("client_credentials_grant_access_token_lifespan")
	if column.blank() || string(column.raw) == "null" {
		return nil
	}
	var nanoseconds int64
	if json.Unmarshal(column.raw, &nanoseconds) == nil {
		return i.lifetime(c.importedClient, column.value, time.Duration(nanoseconds))
	}
	text, err := column.text()
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return column.errorf("is not a duration such as 10m")
	}
	return i.lifetime(c.importedClient, column.value, d)
}

// hydraUsable returns the distinct scopes that can exist here.
func (i *importer) hydraUsable(id string, scopes []string) (usable []string) {
	seen := make(map[string]bool)
	for _, scope := range scopes {
		err := checkScope(scope)
		switch {
		case seen[scope]:
		case err == nil && scope == "offline":
			err = errors.New("it requests refresh tokens, which do not exist here")
		case err == nil && strings.Contains(scope, "*"):
			err = errors.New("it is a pattern there and would be a literal scope here; list the scopes that the client needs")
		case err == nil:
			usable = append(usable, scope)
			seen[scope] = true
		}
		if err != nil {
			i.notef(rankClient, id, "scope: %s is left out: %v", shown(scope), err)
		}
	}
	return usable
}

// hydraOwners finds the resource that owns each scope. It determines the audience of tokens, so the operator must
// decide if the clients do not agree.
func (i *importer) hydraOwners(clients []*hydraClient) error {
	audiences := make(map[string]string) // maps a scope to the audience of its clients; "" stands for none
	differ := make(map[string]bool)      // has the scopes whose clients have different ones
	for _, c := range clients {
		own := ""
		if len(c.audiences) > 0 {
			own = c.audiences[0]
		}
		several := slices.ContainsFunc(c.audiences, func(uri string) bool { return uri != own })
		for _, scope := range c.scopes {
			if uri, ok := audiences[scope]; several || ok && uri != own {
				differ[scope] = true
			}
			audiences[scope] = own
		}
	}
	var without, disputed []string
	for _, scope := range slices.Sorted(maps.Keys(audiences)) {
		switch uri, chosen := i.owners[scope]; {
		case chosen:
			i.own(scope, uri)
		case differ[scope]:
			disputed = append(disputed, scope)
		case audiences[scope] != "":
			i.own(scope, audiences[scope])
		case i.fallback != "":
			i.own(scope, i.fallback)
		default:
			without = append(without, scope)
		}
	}
	var err error
	if len(without) > 0 {
		err = fmt.Errorf("no client with the scopes %s has an audience; name their owner by --default-resource URI, or by --owner SCOPE=URI for each",
			strings.Join(without, ", "))
	}
	if len(disputed) > 0 {
		err = errors.Join(err, fmt.Errorf("the clients with the scopes %s have different audiences; name the owner of each by --owner SCOPE=URI",
			strings.Join(disputed, ", ")))
	}
	return err
}

// hydraScopes assigns the scopes whose owner could be the audience of the client's tokens. The tokens of a client
// without audiences were for no particular audience, but not for what other clients name as one.
func (i *importer) hydraScopes(c *hydraClient) {
	audiences, owners := make(map[string]bool), make(map[string]bool)
	for _, uri := range c.audiences {
		audiences[uri] = true
	}
	for _, scope := range c.scopes {
		owner := i.owned[scope]
		_, named := i.sources[owner]
		if (named || len(c.audiences) > 0) && !audiences[owner] {
			i.notef(rankClient, c.ID, "scope: %s is left out: it belongs to %s, which is not among the audiences of the client; add it to the file if the client needs it", scope, owner)
			continue
		}
		owners[owner] = true
		c.Scopes = append(c.Scopes, scope)
	}
	for _, audience := range slices.Sorted(slices.Values(c.audiences)) {
		if !owners[audience] {
			i.notef(rankClient, c.ID, "audience: %s: it gets no tokens for it here, because none of its scopes belongs to it", audience)
		}
	}
	if len(c.Scopes) == 0 {
		i.notef(rankClient, c.ID, "scope: it gets no token here, because it has no scope; give it one")
	}
}
