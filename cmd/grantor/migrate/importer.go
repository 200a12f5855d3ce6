package migrate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// importer converts the clients and resources of an export, and collects what has no counterpart here.
type importer struct {
	server string
	// names maps the name of a resource there to its identifier here, and owners a scope to the resource that owns it
	// here. Both are choices of the operator, as is fallback, the owner of the scopes without one.
	names, owners map[string]string
	fallback      string

	// known maps the name of a resource there to its identifier here, and sources that identifier to the first name.
	known     map[string]string
	sources   map[string]string
	resources map[string]*importedResource
	owned     map[string]string // maps a scope to its owner
	clients   []*importedClient
	leftOut   int
	notes     []note
}

func newImporter(server string) *importer {
	return &importer{
		server: server, known: make(map[string]string), sources: make(map[string]string),
		resources: make(map[string]*importedResource), owned: make(map[string]string),
	}
}

// importedResource is a resource of the manifest.
type importedResource struct {
	ID     string   `yaml:"resource"`
	Scopes []string `yaml:"scopes,omitempty"`
}

// importedClient is a client of the manifest.
type importedClient struct {
	ID            string   `yaml:"client_id"`
	Name          string   `yaml:"client_name,omitempty"`
	Disabled      bool     `yaml:"disabled,omitempty"`
	Secret        string   `yaml:"client_secret,omitempty"`
	Hashes        []string `yaml:"client_secret_hashes,omitempty"`
	Keys          string   `yaml:"jwks,omitempty"`
	KeysURI       string   `yaml:"jwks_uri,omitempty"`
	AuthMethods   []string `yaml:"auth_methods,omitempty,flow"`
	GrantTypes    []string `yaml:"grant_types,omitempty,flow"`
	Scopes        []string `yaml:"scopes,omitempty"`
	DefaultScopes []string `yaml:"default_scopes,omitempty"`
	Resources     []string `yaml:"resources,omitempty"`
	Lifetime      string   `yaml:"access_token_lifetime,omitempty"`
}

// row is a record and the name by which others refer to it.
type row struct {
	*record
	id string
}

// rows returns the records with their names, sorted by name. A duplicate name is an error: either row could be the
// effective one.
func rows(records []*record, columns ...string) ([]row, error) {
	list := make([]row, 0, len(records))
	first := make(map[string]*record)
	for _, r := range records {
		column := r.take(columns...)
		id, err := column.text()
		if err == nil && id == "" {
			err = column.errorf("is missing")
		}
		if other := first[id]; err == nil && other != nil {
			err = column.errorf("duplicate %.100q, first at %s", id, other.place())
		}
		if err != nil {
			return nil, err
		}
		first[id] = r
		list = append(list, row{r, id})
	}
	slices.SortFunc(list, func(a, b row) int { return cmp.Compare(a.id, b.id) })
	return list, nil
}

// checkResource returns why a resource with these scopes cannot exist here.
func checkResource(id oauth.Resource, scopes oauth.Scopes) error {
	_, err := registry.NewResources(0, []registry.Resource{{ID: id, Scopes: scopes}})
	if field, ok := errors.AsType[*registry.FieldError](err); ok {
		return errors.New(field.Problem)
	}
	return err
}

// checkScope returns why a scope cannot exist here.
func checkScope(name string) error {
	scope, err := oauth.ParseScope(name)
	if err != nil {
		return errors.New(string(oauth.From(err).Text))
	}
	someone, err := oauth.ParseResource("urn:someone")
	if err != nil {
		return err
	}
	return checkResource(someone, oauth.Scopes{scope})
}

// resource returns the identifier here of a resource that has a name there: the operator's choice, the name itself if
// it is a valid identifier, or else one derived from it.
func (i *importer) resource(v value, name string) (string, error) {
	if uri, ok := i.known[name]; ok {
		return uri, nil
	}
	uri, chosen := i.names[name]
	if !chosen {
		uri = name
		if _, err := usableResource(name); err != nil {
			uri = "urn:" + i.server + ":" + url.PathEscape(name) // escaping keeps different names distinct
			i.notef(rankResource, name, "it is %s here, which is the aud of its tokens; choose another with --resource NAME=URI", uri)
		}
	}
	return uri, i.claim(v, uri, name)
}

// claim creates the resource for a name there. That two names accidentally become one resource is an error: a token for
// one would be valid for the other.
func (i *importer) claim(v value, uri, name string) error {
	if _, err := usableResource(uri); err != nil || name == "" {
		return v.errorf("%.100q cannot be a resource here; choose one for it with --resource NAME=URI", name)
	}
	other, taken := i.sources[uri]
	switch {
	case !taken:
		i.sources[uri] = name
	case i.names[name] == "" && i.names[other] == "":
		return v.errorf("%.100q and %.100q would both be the resource %s; choose with --resource NAME=URI", other, name, uri)
	default:
		i.notef(rankResource, name, "it is %s here, as is %s", uri, shown(other))
	}
	i.known[name] = uri
	i.add(uri)
	return nil
}

func (i *importer) add(uri string) *importedResource {
	if i.resources[uri] == nil {
		i.resources[uri] = &importedResource{ID: uri}
	}
	return i.resources[uri]
}

// own assigns a scope to a resource, unless it has an owner.
func (i *importer) own(scope, uri string) {
	if _, done := i.owned[scope]; !done {
		i.owned[scope] = uri
		owner := i.add(uri)
		owner.Scopes = append(owner.Scopes, scope)
	}
}

// leavef leaves a client out.
func (i *importer) leavef(id, format string, args ...any) {
	i.leftOut++
	i.notef(rankClient, id, "left out: "+format, args...)
}

// client starts a client with an ID and a name. It returns nil if the ID is not valid here.
func (i *importer) client(id string, name value) (*importedClient, error) {
	if _, err := oauth.ParseClientID(id); err != nil {
		i.leavef(id, "%s", oauth.From(err).Text)
		return nil, nil
	}
	text, err := name.text()
	if err != nil {
		return nil, err
	}
	nameless, err := registry.NewResources(0, nil)
	if err != nil {
		return nil, err
	}
	c := &importedClient{ID: id, Name: text}
	if (&registry.Client{Name: text}).Check(nameless) != nil {
		i.notef(rankClient, id, "%s: it cannot be a name here and is left out", name.name)
		c.Name = ""
	}
	return c, nil
}

// secret adds the hash of a secret to the client. It reports whether there was one. No message quotes it.
func (i *importer) secret(c *importedClient, v value) (bool, error) {
	hash, err := v.text()
	if err != nil || hash == "" {
		return false, err
	}
	if _, err := clientsecret.ParseImported(hash); err != nil {
		i.notef(rankClient, c.ID, "%s: %v; give the client a new secret", v.name, err)
		return true, nil
	}
	if !slices.Contains(c.Hashes, hash) {
		c.Hashes = append(c.Hashes, hash)
	}
	if len(c.Hashes) > registry.MaxSecrets {
		return true, v.errorf("the client has more than %d secrets", registry.MaxSecrets)
	}
	return true, nil
}

// keys adds the public keys of a JWK Set to the client. It reports whether there were any. No message quotes them: one may be
// a private key.
func (i *importer) keys(c *importedClient, v value) (bool, error) {
	if v.empty() {
		return false, nil
	}
	inside, err := v.unwrapped()
	if err != nil {
		return false, err
	}
	document, err := jwks.ParseDocument(string(inside.raw))
	if err != nil {
		i.notef(rankClient, c.ID, "%s is left out: %v", v.name, err)
		return false, nil
	}
	c.Keys = document.String()
	i.noteAssertions(c, v.name)
	return true, nil
}

// noteAssertions reports that a client may have to change what it sends.
func (i *importer) noteAssertions(c *importedClient, name string) {
	i.notef(rankClient, c.ID, "%s: its assertions must be those of RFC 10070; for older ones set untyped_assertions_until and older_audiences_until", name)
}

// lifetime sets the lifetime of the client's tokens, which never grows.
func (i *importer) lifetime(c *importedClient, v value, d time.Duration) error {
	const maximum = registry.MaxLifetime
	switch whole := d.Truncate(time.Second); {
	case whole <= 0:
		return v.errorf("the lifetime is less than a second")
	case whole > maximum:
		i.notef(rankClient, c.ID, "%s: %s is more than the maximum here; it is %s now", v.name, d, maximum)
		d = maximum
	case whole != d:
		i.notef(rankClient, c.ID, "%s: %s is %s here, in whole seconds", v.name, d, whole)
		d = whole
	}
	c.Lifetime = d.String()
	if hours, ok := strings.CutSuffix(c.Lifetime, "h0m0s"); ok {
		c.Lifetime = hours + "h"
	} else if minutes, ok := strings.CutSuffix(c.Lifetime, "m0s"); ok {
		c.Lifetime = minutes + "m"
	}
	return nil
}

// finish adds the client, and reports the columns of its row without a counterpart here.
func (i *importer) finish(c *importedClient, r row) {
	if unused := r.rest(); len(unused) > 0 {
		i.notef(rankClient, c.ID, "%s: no counterpart here", strings.Join(unused, ", "))
	}
	slices.Sort(c.Scopes)
	slices.Sort(c.DefaultScopes)
	slices.Sort(c.Resources)
	i.clients = append(i.clients, c)
}

const manifestHead = `# Written by grantor import %s. Review it, then: grantor apply -f FILE
# Keep it private: %s.
`

// manifest returns the file for grantor apply, after reading it as apply would.
func (i *importer) manifest() ([]byte, error) {
	if err := i.unusedChoices(); err != nil {
		return nil, err
	}
	whole := struct {
		Resources []*importedResource `yaml:"resources"`
		Clients   []*importedClient   `yaml:"clients"`
	}{make([]*importedResource, 0, len(i.resources)), i.clients}
	for _, uri := range slices.Sorted(maps.Keys(i.resources)) {
		r := i.resources[uri]
		if len(r.Scopes) > oauth.MaxScopes {
			return nil, fmt.Errorf("the resource %s would have %d scopes, and %d is the most; give some to another with --owner SCOPE=URI",
				uri, len(r.Scopes), oauth.MaxScopes)
		}
		slices.Sort(r.Scopes)
		whole.Resources = append(whole.Resources, r)
	}
	for _, c := range i.clients {
		if len(c.Scopes) > oauth.MaxScopes {
			return nil, fmt.Errorf("the client %s would have %d scopes, and %d is the most; make several clients of it there first",
				c.ID, len(c.Scopes), oauth.MaxScopes)
		}
	}
	var text bytes.Buffer
	danger := "with the hashes of the secrets, secrets can be guessed offline"
	if slices.ContainsFunc(i.clients, func(c *importedClient) bool { return c.Secret != "" }) {
		danger = "it has the secrets of the clients"
	}
	_, _ = fmt.Fprintf(&text, manifestHead, i.server, danger)
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := cmp.Or(encoder.Encode(whole), encoder.Close()); err != nil {
		return nil, err
	}
	return text.Bytes(), checkManifest(text.Bytes())
}

// unusedChoices refuses a choice without effect: it is misspelled, and the default was applied instead.
func (i *importer) unusedChoices() error {
	for _, name := range slices.Sorted(maps.Keys(i.names)) {
		if _, ok := i.known[name]; !ok {
			return cli.SettingError("resource", fmt.Errorf("the export has no resource or audience %.100q", name))
		}
	}
	for _, scope := range slices.Sorted(maps.Keys(i.owners)) {
		if _, ok := i.owned[scope]; !ok {
			return cli.SettingError("owner", fmt.Errorf("the export has no scope %.100q that could exist here", scope))
		}
	}
	return nil
}

// checkManifest reads the file as grantor apply does.
func checkManifest(text []byte) error {
	m, err := manifest.Parse("the converted file", text)
	if err != nil {
		return err
	}
	return m.Check()
}
