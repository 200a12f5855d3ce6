package manifest

import (
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// resourceFields maps each field of a resource to its parser.
var resourceFields = map[string]func(r *registry.Resource, doc *yamldoc.Document, node *yaml.Node) error{
	"resource": func(r *registry.Resource, doc *yamldoc.Document, node *yaml.Node) (err error) {
		r.ID, err = parse(doc, node, oauth.ParseResource)
		return err
	},
	"name": func(r *registry.Resource, doc *yamldoc.Document, node *yaml.Node) (err error) {
		r.Name, err = doc.Scalar(node)
		return err
	},
	"scopes": func(r *registry.Resource, doc *yamldoc.Document, node *yaml.Node) (err error) {
		r.Scopes, err = scopes(doc, node)
		return err
	},
	"access_token_lifetime": func(r *registry.Resource, doc *yamldoc.Document, node *yaml.Node) (err error) {
		r.AccessTokenLifetime, err = lifetime(doc, node)
		return err
	},
	"signing_alg": func(r *registry.Resource, doc *yamldoc.Document, node *yaml.Node) error {
		name, err := doc.Scalar(node)
		r.SigningAlg = jwks.Algorithm(name)
		return err
	},
}

// clientFields maps each field of a client to its parser.
var clientFields = map[string]func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) error{
	"client_id": func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) (err error) {
		c.ID, err = parse(doc, node, oauth.ParseClientID)
		return err
	},
	"client_name": func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) (err error) {
		c.Name, err = doc.Scalar(node)
		return err
	},
	"client_secret":      secretField(secretInPlace),
	"client_secret_env":  secretField(secretFromEnvironment),
	"client_secret_file": secretField(secretFromFile),
	"client_secret_hashes": func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) (err error) {
		c.Hashes, err = hashes(doc, node)
		return err
	},
	"auth_methods": func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) (err error) {
		if c.AuthMethods, err = doc.List(node); err == nil && len(c.AuthMethods) == 0 {
			err = doc.Errorf(node, "auth_methods is empty; leave it out to allow all")
		}
		return err
	},
	"grant_types": func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) (err error) {
		c.GrantTypes, err = doc.List(node)
		return err
	},
	"scopes": func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) (err error) {
		c.Scopes, err = scopes(doc, node)
		return err
	},
	"default_scopes": func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) (err error) {
		c.DefaultScopes, err = scopes(doc, node)
		return err
	},
	"resources": func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) error {
		return doc.Items(node, func(item *yaml.Node) error {
			resource, err := parse(doc, item, oauth.ParseResource)
			c.Resources = append(c.Resources, resource)
			return err
		})
	},
	"allowed_networks": networks,
	"access_token_lifetime": func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) (err error) {
		c.AccessTokenLifetime, err = lifetime(doc, node)
		return err
	},
	"disabled": func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) error {
		if node.Tag != "!!bool" || node.Decode(&c.Disabled) != nil {
			return doc.Errorf(node, "disabled is true or false")
		}
		c.LeaveDisabled = false
		return nil
	},
}

func (m *File) readResource(item *yaml.Node) error {
	var r registry.Resource
	fields := make(map[string]*yaml.Node)
	err := m.doc.Fields(item, func(key string, node *yaml.Node) error {
		read, ok := resourceFields[key]
		if !ok {
			return m.doc.Errorf(node, "a resource has no field %q", key)
		}
		fields[key] = node
		return read(&r, m.doc, node)
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
	err := m.doc.Fields(item, func(key string, node *yaml.Node) error {
		read, ok := clientFields[key]
		if !ok {
			return m.doc.Errorf(node, "a client has no field %q", key)
		}
		fields[key] = node
		return read(&c, m.doc, node)
	})
	if err != nil {
		return err
	}
	if fields["client_id"] == nil {
		return m.doc.Errorf(item, "a client needs its client_id")
	}
	if fields["grant_types"] == nil && len(c.Scopes) > 0 {
		c.GrantTypes = []string{oauth.GrantClientCredentials} // the only grant that uses scopes
	}
	m.Clients = append(m.Clients, c)
	return m.remember("client "+c.ID.String(), item, fields)
}

// networks reads the networks of a client. An empty list is an error: it would mean neither that all are allowed nor that
// the stored ones stay.
func networks(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) error {
	err := doc.Items(node, func(item *yaml.Node) error {
		text, err := doc.Scalar(item)
		if err != nil {
			return err
		}
		network, err := registry.ParseNetwork(text)
		if err != nil {
			return doc.Errorf(item, "%v", err)
		}
		c.AllowedNetworks = append(c.AllowedNetworks, network)
		return nil
	})
	if err == nil && len(c.AllowedNetworks) == 0 {
		err = doc.Errorf(node, "allowed_networks is empty; leave it out to keep what is stored, or list 0.0.0.0/0 and ::/0 to allow all")
	}
	return err
}

// secretField returns the parser of a field with a client's secret, or with the place of one. load returns the secret and
// what to call its source. No error quotes the secret.
func secretField(load func(value string) (secret, source string, err error)) func(*registry.ClientSpec, *yamldoc.Document, *yaml.Node) error {
	return func(c *registry.ClientSpec, doc *yamldoc.Document, node *yaml.Node) error {
		if c.Secret != "" {
			return doc.Errorf(node, "give one of client_secret, client_secret_env and client_secret_file")
		}
		value, err := doc.Scalar(node)
		if err != nil {
			return err
		}
		secret, source, err := load(value)
		switch {
		case err != nil:
			return doc.Errorf(node, "%v", err)
		case secret == "":
			return doc.Errorf(node, "%s is empty", source)
		case len(secret) > oauth.MaxSecret:
			return doc.Errorf(node, "%s has more than %d bytes", source, oauth.MaxSecret)
		case strings.ContainsRune(secret, 0):
			return doc.Errorf(node, "%s contains a NUL byte", source)
		}
		c.Secret = secret
		return nil
	}
}

func secretInPlace(value string) (secret, source string, err error) {
	return value, "client_secret", nil
}

func secretFromEnvironment(value string) (secret, source string, err error) {
	return os.Getenv(value), "the environment variable " + value, nil
}

func secretFromFile(value string) (secret, source string, err error) {
	content, err := os.ReadFile(value)
	return strings.TrimRight(string(content), "\r\n"), "the file " + value, err
}

// hashes reads hashes of a client's secrets that another server stored. No error quotes one.
func hashes(doc *yamldoc.Document, node *yaml.Node) (list []clientsecret.Hash, err error) {
	err = doc.Items(node, func(item *yaml.Node) error {
		text, err := doc.Scalar(item)
		if err != nil {
			return err
		}
		hash, err := clientsecret.ParseImported(text)
		switch {
		case err != nil:
			return doc.Errorf(item, "%v", err)
		case slices.Contains(list, hash):
			return doc.Errorf(item, "duplicate hash")
		}
		list = append(list, hash)
		return nil
	})
	return list, err
}

// scopes reads a list of scopes. A duplicate scope is an error, because it is more likely a slip than intended.
func scopes(doc *yamldoc.Document, node *yaml.Node) (list oauth.Scopes, err error) {
	err = doc.Items(node, func(item *yaml.Node) error {
		scope, err := parse(doc, item, oauth.ParseScope)
		switch {
		case err != nil:
			return err
		case list.Has(scope):
			return doc.Errorf(item, "duplicate scope %q", scope)
		case len(list) == oauth.MaxScopes:
			return doc.Errorf(item, "more than %d scopes", oauth.MaxScopes)
		}
		list = append(list, scope)
		return nil
	})
	return list, err
}

func lifetime(doc *yamldoc.Document, node *yaml.Node) (time.Duration, error) {
	text, err := doc.Scalar(node)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, doc.Errorf(node, "%q is not a duration such as 30s, 5m or 1h", text)
	}
	return d, nil
}

// parse parses a scalar with a parser of the domain.
func parse[T any](doc *yamldoc.Document, node *yaml.Node, parser func(string) (T, error)) (T, error) {
	var zero T
	text, err := doc.Scalar(node)
	if err != nil {
		return zero, err
	}
	value, err := parser(text)
	if err != nil {
		return zero, doc.Errorf(node, "%.100q: %s", text, oauth.From(err).Text)
	}
	return value, nil
}
