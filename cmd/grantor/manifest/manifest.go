// Package manifest reads the file of resources, trusted issuers, workloads and clients that grantor apply makes the registry
// equal to. Each error names the file and the line.
package manifest

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

// File is a manifest and the place of each of its fields.
type File struct {
	registry.Manifest
	doc *yamldoc.Document
	// places maps "kind ID field" to the value of the field, where kind is client, resource, trusted_issuer or workload. The
	// field "" is the whole item. A rule of a client is the field federation[i].
	places map[string]*yaml.Node
	// urls are the secrets that are yet to be read.
	urls []secretURL
	// withoutSecrets means that the secrets are not read.
	withoutSecrets bool
}

// Parse parses a manifest. Its errors call it name. It leaves clients whose secret is named by a URL without a secret.
func Parse(name string, data []byte) (*File, error) { return new(File).parse(name, data) }

// ParseWithoutSecrets is Parse for a reader that has no use for secrets: it leaves all clients without, and reads neither
// files nor variables that the manifest names.
func ParseWithoutSecrets(name string, data []byte) (*File, error) {
	return (&File{withoutSecrets: true}).parse(name, data)
}

func (m *File) parse(name string, data []byte) (*File, error) {
	doc, err := yamldoc.Parse(name, data)
	if err != nil {
		return nil, err
	}
	m.doc, m.places = doc, make(map[string]*yaml.Node)
	return m, doc.Fields(doc.Root, func(key string, node *yaml.Node) error {
		switch key {
		case "resources":
			return doc.Items(node, m.readResource)
		case "trusted_issuers":
			return items(doc, node, m.readIssuer)
		case "workloads":
			return items(doc, node, m.readWorkload)
		case "clients":
			return doc.Items(node, m.readClient)
		}
		return doc.Errorf(node, "there is no field %q here; the fields are resources, trusted_issuers, workloads and clients", key)
	})
}

// Read reads a manifest from a file, and then, by fetch, the secrets that it names by URL.
func Read(ctx context.Context, path string, fetch Fetch) (*File, error) {
	data, err := cli.ReadFile(path, yamldoc.MaxSize)
	if err != nil {
		return nil, err
	}
	m, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	return m, m.fetch(ctx, fetch)
}

// Check returns the error with which an empty registry would refuse the manifest.
func (m *File) Check() error {
	resources, err := registry.NewResources(0, m.Resources)
	if err != nil {
		return m.locate(err)
	}
	if _, err := trust.NewTable(0, m.Issuers, m.Workloads); err != nil {
		return m.locate(err)
	}
	if err := m.Manifest.Check(); err != nil {
		return m.locate(err)
	}
	for i := range m.Clients {
		if err := m.Clients[i].Check(resources); err != nil {
			return m.locate(&registry.ManifestError{ID: m.Clients[i].ID, Err: err})
		}
	}
	return nil
}

// Apply applies the manifest and calls report for each change, also for those before an error.
func (m *File) Apply(ctx context.Context, editor *registry.Editor, options registry.ApplyOptions, report func(registry.Change)) error {
	changes, err := editor.Apply(ctx, m.Manifest, options)
	for _, change := range changes {
		report(change)
	}
	return m.locate(err)
}

// Position returns file:line of a field of an item, or of the whole item if the field is absent. An item is "kind ID", such as
// "client ID". The position of an unknown item is empty.
func (m *File) Position(item, field string) string {
	node := m.place(item, field)
	if node == nil {
		return ""
	}
	return m.doc.Place(node)
}

func (m *File) place(item, field string) *yaml.Node {
	list, _, _ := strings.Cut(field, "[")
	return cmp.Or(m.places[item+" "+field], m.places[item+" "+list], m.places[item+" "])
}

// locate adds file and line to an error about an item.
func (m *File) locate(err error) error {
	item, field := about(err)
	node := m.place(item, field)
	if item == "" || field == "" || node == nil {
		return err
	}
	return cli.WithExit(cli.ExitInvalid, m.doc.Errorf(node, "%v", err))
}

// about returns the item and the field that an error is about; "" if it is about none.
func about(err error) (item, field string) {
	if client, ok := errors.AsType[*registry.ManifestError](err); ok {
		item = "client " + client.ID.String()
	} else if resource, ok := errors.AsType[*registry.ResourceError](err); ok {
		item = "resource " + resource.ID.String()
	} else if entry, ok := errors.AsType[*trust.EntryError](err); ok {
		item = entry.Kind + " " + entry.ID
	}
	if invalid, ok := errors.AsType[*registry.FieldError](err); ok {
		field = invalid.Field
	}
	return item, field
}

// remember records the places of the fields of an item. A duplicate item is an error.
func (m *File) remember(item string, whole *yaml.Node, fields map[string]*yaml.Node) error {
	if first, ok := m.places[item+" "]; ok {
		return m.doc.Errorf(whole, "duplicate %s, first at line %d", item, first.Line)
	}
	m.places[item+" "] = whole
	for field, node := range fields {
		m.places[item+" "+field] = node
	}
	return nil
}
