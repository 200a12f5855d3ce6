// Package manifest reads the file of clients and resources that grantor apply makes the registry equal to. Each error names
// the file and the line.
package manifest

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// File is a file of clients and resources: what it wants, and where each thing stands in it.
type File struct {
	registry.Manifest
	doc *yamldoc.Document
	// places has "client ID field" or "resource ID field" → the node that says it; the field "" is the whole item.
	places map[string]*yaml.Node
}

// Parse reads what is in a file of clients and resources.
func Parse(name string, data []byte) (*File, error) {
	doc, err := yamldoc.Parse(name, data)
	if err != nil {
		return nil, err
	}
	return newFile(doc)
}

// Read reads a file of clients and resources. Every error names the file and the line.
func Read(path string) (*File, error) {
	doc, err := yamldoc.Read(path)
	if err != nil {
		return nil, err
	}
	return newFile(doc)
}

func newFile(doc *yamldoc.Document) (*File, error) {
	m := &File{doc: doc, places: make(map[string]*yaml.Node)}
	return m, doc.Fields(doc.Root, func(key string, node *yaml.Node) error {
		switch key {
		case "resources":
			return doc.Items(node, m.readResource)
		case "clients":
			return doc.Items(node, m.readClient)
		}
		return doc.Errorf(node, "there is no field %q here; there are resources and clients", key)
	})
}

// Check reports what an empty registry would refuse. Its errors name the file and the line.
func (m *File) Check() error {
	resources, err := registry.NewResources(0, m.Resources)
	if err != nil {
		return m.Locate(err)
	}
	for c := range m.Clients {
		if err := m.Clients[c].Check(resources); err != nil {
			return m.Locate(&registry.ManifestError{ID: m.Clients[c].ID, Err: err})
		}
	}
	return nil
}

// Locate puts file and line before an error about one client or resource.
func (m *File) Locate(err error) error {
	var item string
	var client *registry.ManifestError
	var resource *registry.ResourceError
	switch {
	case errors.As(err, &client):
		item = "client " + client.ID.String()
	case errors.As(err, &resource):
		item = "resource " + resource.ID.String()
	}
	var field *registry.FieldError
	if item == "" || !errors.As(err, &field) {
		return err
	}
	node := m.place(item, field.Field)
	if node == nil {
		return err
	}
	return cli.WithExit(cli.ExitInvalid, m.doc.Errorf(node, "%v", err))
}

// Apply applies the manifest, and calls report with each change that was made, even if a later one failed.
func (m *File) Apply(ctx context.Context, editor *registry.Editor, options registry.ApplyOptions, report func(registry.Change)) error {
	changes, err := editor.Apply(ctx, m.Manifest, options)
	for _, change := range changes {
		report(change)
	}
	return m.Locate(err)
}

// place gives the node of an item's field, else that of the whole item; nil where the file does not have it.
func (m *File) place(item, field string) *yaml.Node {
	return cmp.Or(m.places[item+" "+field], m.places[item+" "])
}

// Position gives file:line of an item's field, else of the whole item; empty where the file does not have it.
func (m *File) Position(item, field string) string {
	node := m.place(item, field)
	if node == nil {
		return ""
	}
	return m.doc.Place(node)
}

// remember keeps the places of an item's fields. The same item twice is an error.
func (m *File) remember(item string, whole *yaml.Node, fields map[string]*yaml.Node) error {
	if first, twice := m.places[item+" "]; twice {
		return m.doc.Errorf(whole, "%s is there twice, first at line %d", item, first.Line)
	}
	m.places[item+" "] = whole
	for field, node := range fields {
		m.places[item+" "+field] = node
	}
	return nil
}

func (m *File) readResource(item *yaml.Node) error {
	var r registry.Resource
	fields := make(map[string]*yaml.Node)
	err := m.doc.Fields(item, func(key string, node *yaml.Node) (err error) {
		fields[key] = node
		switch key {
		case "resource":
			r.ID, err = parsed(m.doc, node, oauth.ParseResource)
		case "name":
			r.Name, err = m.doc.Scalar(node)
		case "scopes":
			r.Scopes, err = m.scopes(node)
		case "access_token_lifetime":
			r.AccessTokenLifetime, err = m.lifetime(node)
		case "signing_alg":
			var name string
			name, err = m.doc.Scalar(node)
			r.SigningAlg = jwks.Algorithm(name)
		default:
			err = m.doc.Errorf(node, "a resource has no field %q", key)
		}
		return err
	})
	if err != nil {
		return err
	}
	if fields["resource"] == nil {
		return m.doc.Errorf(item, "a resource needs its identifier in the field resource")
	}
	m.Resources = append(m.Resources, r)
	return m.remember("resource "+r.ID.String(), item, fields)
}

func (m *File) readClient(item *yaml.Node) error {
	c := registry.ClientSpec{LeaveDisabled: true}
	fields := make(map[string]*yaml.Node)
	err := m.doc.Fields(item, func(key string, node *yaml.Node) (err error) {
		fields[key] = node
		switch key {
		case "client_id":
			c.ID, err = parsed(m.doc, node, oauth.ParseClientID)
		case "client_name":
			c.Name, err = m.doc.Scalar(node)
		case "client_secret", "client_secret_env", "client_secret_file":
			if c.Secret != "" {
				return m.doc.Errorf(node, "give one of client_secret, client_secret_env and client_secret_file")
			}
			c.Secret, err = m.secret(key, node)
		case "client_secret_hashes":
			c.Hashes, err = m.hashes(node)
		case "auth_methods":
			if c.AuthMethods, err = m.doc.List(node); err == nil && len(c.AuthMethods) == 0 {
				err = m.doc.Errorf(node, "auth_methods is empty; leave it out to allow all")
			}
		case "grant_types":
			c.GrantTypes, err = m.doc.List(node)
		case "scopes":
			c.Scopes, err = m.scopes(node)
		case "default_scopes":
			c.DefaultScopes, err = m.scopes(node)
		case "resources":
			err = m.doc.Items(node, func(one *yaml.Node) error {
				served, err := parsed(m.doc, one, oauth.ParseResource)
				c.Resources = append(c.Resources, served)
				return err
			})
		case "allowed_networks":
			if err = m.doc.Items(node, func(one *yaml.Node) error { return m.readNetwork(&c, one) }); err == nil && len(c.AllowedNetworks) == 0 {
				err = m.doc.Errorf(node, "allowed_networks is empty; leave it out to leave what is stored, or list 0.0.0.0/0 and ::/0 to allow all")
			}
		case "access_token_lifetime":
			c.AccessTokenLifetime, err = m.lifetime(node)
		case "disabled":
			if node.Tag != "!!bool" || node.Decode(&c.Disabled) != nil {
				return m.doc.Errorf(node, "disabled is true or false")
			}
			c.LeaveDisabled = false
		default:
			err = m.doc.Errorf(node, "a client has no field %q", key)
		}
		return err
	})
	if err != nil {
		return err
	}
	if fields["client_id"] == nil {
		return m.doc.Errorf(item, "a client needs its client_id")
	}
	if fields["grant_types"] == nil && len(c.Scopes) > 0 {
		c.GrantTypes = []string{oauth.GrantClientCredentials} // what else are its scopes for
	}
	m.Clients = append(m.Clients, c)
	return m.remember("client "+c.ID.String(), item, fields)
}

func (m *File) readNetwork(c *registry.ClientSpec, node *yaml.Node) error {
	text, err := m.doc.Scalar(node)
	if err != nil {
		return err
	}
	network, err := registry.ParseNetwork(text)
	if err != nil {
		return m.doc.Errorf(node, "%v", err)
	}
	c.AllowedNetworks = append(c.AllowedNetworks, network)
	return nil
}

// secret reads a client's secret from where the field says. No error quotes it.
func (m *File) secret(key string, node *yaml.Node) (string, error) {
	value, err := m.doc.Scalar(node)
	if err != nil {
		return "", err
	}
	secret, from := value, key
	switch key {
	case "client_secret_env":
		secret, from = os.Getenv(value), "the environment variable "+value
	case "client_secret_file":
		content, err := os.ReadFile(value)
		if err != nil {
			return "", m.doc.Errorf(node, "%v", err)
		}
		secret, from = strings.TrimRight(string(content), "\r\n"), "the file "+value
	}
	switch {
	case secret == "":
		return "", m.doc.Errorf(node, "%s is empty", from)
	case len(secret) > oauth.MaxSecret:
		return "", m.doc.Errorf(node, "%s has more than %d bytes", from, oauth.MaxSecret)
	case strings.ContainsRune(secret, 0):
		return "", m.doc.Errorf(node, "%s has a NUL", from)
	}
	return secret, nil
}

// hashes reads what another server stored of a client's secrets. No error quotes it.
func (m *File) hashes(node *yaml.Node) (hashes []clientsecret.Hash, err error) {
	err = m.doc.Items(node, func(one *yaml.Node) error {
		text, err := m.doc.Scalar(one)
		if err != nil {
			return err
		}
		hash, err := clientsecret.ParseImported(text)
		switch {
		case err != nil:
			return m.doc.Errorf(one, "%v", err)
		case slices.Contains(hashes, hash):
			return m.doc.Errorf(one, "the hash is there twice")
		}
		hashes = append(hashes, hash)
		return nil
	})
	return hashes, err
}

// scopes reads a list of scopes. A scope that is there twice is more likely a slip than meant.
func (m *File) scopes(node *yaml.Node) (scopes oauth.Scopes, err error) {
	err = m.doc.Items(node, func(one *yaml.Node) error {
		scope, err := parsed(m.doc, one, oauth.ParseScope)
		switch {
		case err != nil:
			return err
		case scopes.Has(scope):
			return m.doc.Errorf(one, "the scope %q is there twice", scope)
		case len(scopes) == oauth.MaxScopes:
			return m.doc.Errorf(one, "more than %d scopes", oauth.MaxScopes)
		}
		scopes = append(scopes, scope)
		return nil
	})
	return scopes, err
}

func (m *File) lifetime(node *yaml.Node) (time.Duration, error) {
	text, err := m.doc.Scalar(node)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, m.doc.Errorf(node, "%q is not a time such as 30s, 5m or 1h", text)
	}
	return d, nil
}

// parsed reads a value that has a parser.
func parsed[T any](doc *yamldoc.Document, node *yaml.Node, parse func(string) (T, error)) (T, error) {
	var zero T
	text, err := doc.Scalar(node)
	if err != nil {
		return zero, err
	}
	value, err := parse(text)
	if err != nil {
		return zero, doc.Errorf(node, "%.100q: %s", text, oauth.From(err).Text)
	}
	return value, nil
}
