package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// emptyLists maps each list that may not be empty to what to write instead: an empty list would mean neither that everything
// is allowed nor that the stored list stays.
var emptyLists = map[string]string{
	"auth_methods":     "leave it out to allow all",
	"allowed_networks": "leave it out to keep what is stored, or list 0.0.0.0/0 and ::/0 to allow all",
}

func (m *File) readResource(item *yaml.Node) error {
	var r registry.Resource
	table := registry.ResourceFields()
	fields := make(map[string]*yaml.Node)
	err := m.doc.Fields(item, func(key string, node *yaml.Node) (err error) {
		fields[key] = node
		if field, ok := lookUp(table, key); ok {
			return readField(m.doc, node, field, &r)
		}
		if key != "resource" {
			return m.doc.Errorf(node, "a resource has no field %q", key)
		}
		r.ID, err = parse(m.doc, node, oauth.ParseResource)
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
	var c registry.ClientSpec
	table := registry.ClientFields()
	fields := make(map[string]*yaml.Node)
	err := m.doc.Fields(item, func(key string, node *yaml.Node) error {
		given := func(name string) bool { return fields[name] != nil }
		if slices.Contains(secretFields, key) && slices.ContainsFunc(secretFields, given) {
			return m.doc.Errorf(node, "give one of %s", strings.Join(secretFields, ", "))
		}
		fields[key] = node
		if key == "federation" {
			return m.readFederation(&c.Client, node, fields)
		}
		if field, ok := lookUp(table, key); ok {
			return readField(m.doc, node, field, &c.Client)
		}
		return m.readIdentity(&c, key, node)
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
	c.LeaveDisabled = fields["disabled"] == nil
	m.Clients = append(m.Clients, c)
	return m.remember("client "+c.ID.String(), item, fields)
}

// secretFields are the fields with a client's secret, or with the place of it.
var secretFields = []string{"client_secret", "client_secret_env", "client_secret_file", "client_secret_url"}

// readIdentity reads the ID of a client, or its secrets.
func (m *File) readIdentity(c *registry.ClientSpec, key string, node *yaml.Node) (err error) {
	if m.withoutSecrets && (slices.Contains(secretFields, key) || key == "client_secret_hashes") {
		return nil
	}
	switch key {
	case "client_id":
		c.ID, err = parse(m.doc, node, oauth.ParseClientID)
	case "client_secret":
		err = m.readSecret(c, node, secretInPlace)
	case "client_secret_env":
		err = m.readSecret(c, node, secretFromEnvironment)
	case "client_secret_file":
		err = m.readSecret(c, node, secretFromFile)
	case "client_secret_url":
		err = m.readSecretURL(node)
	case "client_secret_hashes":
		c.Hashes, err = hashes(m.doc, node)
	default:
		err = m.doc.Errorf(node, "a client has no field %q", key)
	}
	return err
}

// lookUp returns the field of a table with the given name.
func lookUp[T any](table []registry.Field[T], name string) (*registry.Field[T], bool) {
	i := slices.IndexFunc(table, func(f registry.Field[T]) bool { return f.Name == name })
	if i < 0 {
		return nil, false
	}
	return &table[i], true
}

// readField sets a field of t to the value of a node. The type of the field determines what the node must be.
func readField[T any](doc *yamldoc.Document, node *yaml.Node, field *registry.Field[T], t *T) error {
	add := func(item *yaml.Node) error {
		text, err := doc.Scalar(item)
		if err != nil {
			return err
		}
		if err := field.Add(t, text); err != nil {
			return invalid(doc, item, err)
		}
		return nil
	}
	switch field.Get(t).(type) {
	case []string:
		if instead := emptyLists[field.Name]; instead != "" && node.Kind == yaml.SequenceNode && len(node.Content) == 0 {
			return doc.Errorf(node, "%s is empty; %s", field.Name, instead)
		}
		return items(doc, node, add)
	case bool:
		var flag bool
		if node.Tag != "!!bool" || node.Decode(&flag) != nil {
			return doc.Errorf(node, "%s is true or false", field.Name)
		}
		return field.Set(t, flag)
	case map[string]string:
		return readMap(doc, node, field, t)
	case json.RawMessage:
		document, err := doc.JSON(node)
		if err != nil {
			return err
		}
		if err := field.Add(t, document); err != nil {
			return invalid(doc, node, err)
		}
		return nil
	default:
		return add(node)
	}
}

// maxItems bounds a list. No field of a client or resource may have nearly as many values, and each is compared with those
// before it.
const maxItems = 1000

// items calls fn for each item of a list of values.
func items(doc *yamldoc.Document, node *yaml.Node, fn func(*yaml.Node) error) error {
	if node.Kind == yaml.SequenceNode && len(node.Content) > maxItems {
		return doc.Errorf(node, "the list has more than %d entries", maxItems)
	}
	return doc.Items(node, fn)
}

// readSecret reads a secret of a client, or the place of one. load returns the secret and what to call its source. No error
// quotes the secret.
func (m *File) readSecret(c *registry.ClientSpec, node *yaml.Node, load func(value string) (secret, source string, err error)) error {
	value, err := m.doc.Scalar(node)
	if err != nil {
		return err
	}
	secret, source, err := load(value)
	if err == nil {
		err = checkSecret(secret, source)
	}
	if err != nil {
		return m.doc.Errorf(node, "%v", err)
	}
	c.Secret = secret
	return nil
}

// checkSecret validates a secret, without quoting it.
func checkSecret(secret, source string) error {
	switch {
	case secret == "":
		return fmt.Errorf("%s is empty", source)
	case len(secret) > oauth.MaxSecret:
		return fmt.Errorf("%s has more than %d bytes", source, oauth.MaxSecret)
	case strings.ContainsRune(secret, 0):
		return fmt.Errorf("%s contains a NUL byte", source)
	}
	return nil
}

func secretInPlace(value string) (secret, source string, err error) {
	return value, "client_secret", nil
}

func secretFromEnvironment(value string) (secret, source string, err error) {
	return os.Getenv(value), "the environment variable " + value, nil
}

func secretFromFile(value string) (secret, source string, err error) {
	content, err := cli.ReadFile(value, cli.MaxSmallFile)
	return strings.TrimRight(string(content), "\r\n"), "the file " + value, err
}

// hashes reads hashes of a client's secrets that another server stored. No error quotes one.
func hashes(doc *yamldoc.Document, node *yaml.Node) (list []clientsecret.Hash, err error) {
	err = items(doc, node, func(item *yaml.Node) error {
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

// parse parses a scalar with a parser of the domain.
func parse[T any](doc *yamldoc.Document, node *yaml.Node, parser func(string) (T, error)) (T, error) {
	var zero T
	text, err := doc.Scalar(node)
	if err != nil {
		return zero, err
	}
	value, err := parser(text)
	if err != nil {
		return zero, invalid(doc, node, err)
	}
	return value, nil
}

// invalid returns the error that a scalar is not valid. It quotes the scalar if err is of package oauth, whose errors do not.
func invalid(doc *yamldoc.Document, node *yaml.Node, err error) error {
	if refusal, ok := errors.AsType[*oauth.Error](err); ok {
		return doc.Errorf(node, "%.100q: %s", node.Value, refusal.Text)
	}
	return doc.Errorf(node, "%v", err)
}
