package migrate

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/oauth"
)

// The columns are those of OpenIddict's entities, versions 3 to 7; Type became ClientType in version 5.

// importOpenIddict converts an export of OpenIddict.
func importOpenIddict(i *importer, path, scopesPath string) error {
	applications, scopes, err := readOpenIddict(i, path, scopesPath)
	if err != nil {
		return err
	}
	return i.openIddict(applications, scopes)
}

// readOpenIddict returns the rows of both tables, from one file or two.
func readOpenIddict(i *importer, path, scopesPath string) (applications, scopes []*record, err error) {
	whole, err := readExport(path)
	if err != nil {
		return nil, nil, err
	}
	applications, scopes, err = i.openIddictRecords(whole)
	if err != nil || scopesPath == "" {
		return applications, scopes, err
	}
	if scopes != nil {
		return nil, nil, cli.SettingError("scopes", errors.New("the other file already has scopes"))
	}
	if whole, err = readExport(scopesPath); err != nil {
		return nil, nil, err
	}
	if whole.is('[') {
		scopes, err = whole.records()
	} else {
		_, scopes, err = i.openIddictRecords(whole)
	}
	return applications, scopes, err
}

// openIddictRecords returns the rows of a table of applications, or those of both tables in an object.
func (i *importer) openIddictRecords(whole value) (applications, scopes []*record, err error) {
	if whole.is('[') {
		applications, err = whole.records()
		return applications, nil, err
	}
	tables, err := whole.record()
	if err != nil {
		return nil, nil, err
	}
	if f := tables.take("applications", "OpenIddictApplications"); !f.empty() {
		if applications, err = f.records(); err != nil {
			return nil, nil, err
		}
	}
	if f := tables.take("scopes", "OpenIddictScopes"); !f.empty() {
		if scopes, err = f.records(); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range tables.rest() {
		i.notef(rankFile, name, "ignored; only applications and scopes are read")
	}
	if applications == nil && scopes == nil {
		return nil, nil, whole.errorf("there are neither applications nor scopes")
	}
	return applications, scopes, nil
}

// openIddict converts the rows to clients and resources.
func (i *importer) openIddict(applications, scopes []*record) error {
	list, err := rows(scopes, "Name")
	if err != nil {
		return err
	}
	for _, r := range list {
		if err := i.openIddictScope(r); err != nil {
			return err
		}
	}
	if list, err = rows(applications, "ClientId"); err != nil {
		return err
	}
	for _, r := range list {
		if err := i.openIddictApplication(r); err != nil {
			return err
		}
	}
	if len(i.clients) > 0 {
		i.notef(rankFile, "all clients", "a request without a scope gets every scope of the client here; add default_scopes if that is too much")
		i.notef(rankFile, "all clients", "each may introspect and revoke its own tokens here, even without ept:introspection and ept:revocation")
	}
	return nil
}

// openIddictScope finds the one resource that owns the scope here. There, the tokens of a scope are for each of its
// resources.
func (i *importer) openIddictScope(r row) error {
	r.take("Id")
	r.take("ConcurrencyToken")
	column := r.take("Resources")
	names, err := column.list("")
	if err != nil {
		return err
	}
	slices.Sort(names)
	uris := make([]string, len(names))
	for n, name := range names {
		if uris[n], err = i.resource(column.value, name); err != nil {
			return err
		}
	}
	if err := checkScope(r.id); err != nil {
		i.notef(rankScope, r.id, "left out: %v", err)
		return nil
	}
	switch uri, chosen := i.owners[r.id]; {
	case chosen:
		i.own(r.id, uri)
	case len(uris) > 0:
		i.own(r.id, uris[0])
	case i.fallback != "":
		i.own(r.id, i.fallback)
	default:
		uri = "urn:openiddict-scope:" + url.PathEscape(r.id)
		if err := i.claim(column.value, uri, "scope "+r.id); err != nil {
			return err
		}
		i.own(r.id, uri)
		i.notef(rankScope, r.id, "it has no resource; it belongs to %s here, the aud of its tokens; choose another with --owner SCOPE=URI", uri)
	}
	others := slices.DeleteFunc(uris, func(uri string) bool { return uri == i.owned[r.id] })
	if len(others) > 0 {
		i.notef(rankScope, r.id, "it belongs only to %s here, and its tokens are not for %s; choose with --owner SCOPE=URI, or give each resource its own scope",
			i.owned[r.id], strings.Join(others, ", "))
	}
	if unused := r.rest(); len(unused) > 0 {
		i.notef(rankScope, r.id, "%s: no counterpart here", strings.Join(unused, ", "))
	}
	return nil
}

// The prefixes of an application's permissions.
const (
	permitScope       = "scp:"
	permitCredentials = "gt:" + oauth.GrantClientCredentials
)

// isDeleted reports whether a row is deleted: ABP keeps such rows. Databases without booleans export 0 and 1.
func isDeleted(column *field) (bool, error) {
	switch string(column.raw) {
	case "0":
		return false, nil
	case "1":
		return true, nil
	}
	return column.boolean(false)
}

// openIddictApplication converts an application to a client, or reports why not.
func (i *importer) openIddictApplication(r row) error {
	permissions, err := r.take("Permissions").list("")
	if err != nil {
		return err
	}
	kind, err := r.take("ClientType", "Type").text()
	if err != nil {
		return err
	}
	// An application that introspects tokens for a resource has the name of the resource as its ID.
	served, serves := i.known[r.id]
	serves = serves && slices.Contains(permissions, "ept:introspection")
	credentials := slices.Contains(permissions, permitCredentials) && slices.Contains(permissions, "ept:token")
	deleted, err := isDeleted(r.take("IsDeleted"))
	switch {
	case err != nil:
		return err
	case deleted:
		i.leavef(r.id, "it is deleted")
		return nil
	case oauth.EqualFold(kind, "public"):
		i.leavef(r.id, "a public client has no secret to authenticate with")
		return nil
	case !credentials && !serves:
		i.leavef(r.id, "it does not have both permissions ept:token and %s, and serves no resource", permitCredentials)
		return nil
	}
	c, err := i.client(r.id, r.take("DisplayName").value)
	if c == nil || err != nil {
		return err
	}
	for _, name := range []string{"Id", "ConcurrencyToken", "ApplicationType", "ConsentType", "Authorizations", "Tokens"} {
		r.take(name) // has no meaning for a service
	}
	if serves {
		c.Resources = []string{served}
	}
	if credentials {
		c.GrantTypes = []string{oauth.GrantClientCredentials}
	}
	i.openIddictPermissions(c, permissions, credentials)
	if err := i.openIddictSecret(c, r); err != nil {
		return err
	}
	if err := i.openIddictSettings(c, r.take("Settings").value); err != nil {
		return err
	}
	i.finish(c, r)
	return nil
}

// openIddictPermissions assigns the client its scopes. It assigns only explicit permissions, although OpenIddict can be
// configured to ignore permissions.
func (i *importer) openIddictPermissions(c *importedClient, permissions []string, credentials bool) {
	var unused []string
	for _, permission := range slices.Sorted(slices.Values(permissions)) {
		scope, ok := strings.CutPrefix(permission, permitScope)
		switch {
		case ok && credentials:
			i.openIddictScopePermission(c, scope)
		case permission == "ept:token", permission == permitCredentials,
			permission == "ept:introspection", permission == "ept:revocation":
		default:
			unused = append(unused, shown(permission))
		}
	}
	if !credentials && slices.Contains(permissions, permitCredentials) {
		unused = append(unused, permitCredentials+" without ept:token")
	}
	if len(unused) > 0 {
		i.notef(rankClient, c.ID, "Permissions: %s: no counterpart here", strings.Join(unused, ", "))
	}
	if credentials && len(c.Scopes) == 0 {
		i.notef(rankClient, c.ID, "Permissions: it gets no token here, because it has no scope; give it one")
	}
}

func (i *importer) openIddictScopePermission(c *importedClient, scope string) {
	if _, ok := i.owned[scope]; !ok {
		if err := checkScope(scope); err != nil {
			i.notef(rankClient, c.ID, "Permissions: scp:%s is left out: %v", shown(scope), err)
			return
		}
		uri, chosen := i.owners[scope]
		if !chosen {
			i.notef(rankClient, c.ID, "Permissions: scp:%s is left out: the export has no such scope; if it is needed, name its owner with --owner SCOPE=URI", scope)
			return
		}
		i.own(scope, uri)
	}
	c.Scopes = append(c.Scopes, scope)
}

// openIddictSecret converts the client's secret, if it has one.
func (i *importer) openIddictSecret(c *importedClient, r row) error {
	found, err := i.secret(c, r.take("ClientSecret").value)
	if err != nil {
		return err
	}
	keyed, err := i.keys(c, r.take("JsonWebKeySet").value)
	if err != nil {
		return err
	}
	if !found && !keyed {
		i.notef(rankClient, c.ID, "ClientSecret: there is none; give the client a secret")
	}
	return nil
}

// openIddictSettings reads the lifetime of access tokens, the one setting with a counterpart.
func (i *importer) openIddictSettings(c *importedClient, v value) error {
	if v.empty() {
		return nil
	}
	inside, err := v.unwrapped()
	if err != nil {
		return err
	}
	settings, err := inside.record()
	if err != nil {
		return err
	}
	if f := settings.take("tkn_lft:act"); !f.empty() {
		text, err := f.text()
		if err != nil {
			return err
		}
		d, err := parseTimeSpan(text)
		if err != nil {
			return f.errorf("%v", err)
		}
		if err := i.lifetime(c, f.value, d); err != nil {
			return err
		}
	}
	if unused := settings.rest(); len(unused) > 0 {
		i.notef(rankClient, c.ID, "Settings: %s: no counterpart here", strings.Join(unused, ", "))
	}
	return nil
}

// timeSpan matches a duration as .NET formats it: [days.]hours:minutes[:seconds[.fraction]].
var timeSpan = regexp.MustCompile(`^(?:(\d{1,5})\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,7}))?)?$`)

func parseTimeSpan(text string) (time.Duration, error) {
	parts := timeSpan.FindStringSubmatch(strings.TrimSpace(text))
	if parts == nil {
		return 0, errTimeSpan
	}
	var d time.Duration
	for n, unit := range []struct {
		size  time.Duration
		count int // per next larger unit
	}{{24 * time.Hour, 100_000}, {time.Hour, 24}, {time.Minute, 60}, {time.Second, 60}} {
		count, err := strconv.Atoi("0" + parts[n+1])
		if err != nil || count >= unit.count {
			return 0, errTimeSpan
		}
		d += time.Duration(count) * unit.size
	}
	ticks, err := strconv.Atoi((parts[5] + "0000000")[:7]) // of 100 ns
	return d + time.Duration(ticks)*100, err
}

var errTimeSpan = errors.New("is not a duration such as 00:10:00")
